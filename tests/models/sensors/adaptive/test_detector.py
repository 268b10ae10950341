"""The adaptive detector: causal, the same however a stream is cut, one alarm for an event, none for usual readings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.errors import ModelSourceError
from models.sensors.adaptive.design import DESIGNS, NEWEST, Design, design_of
from models.sensors.adaptive.detector import EVENT_SCORE, AdaptiveDetector, fit_adaptive
from models.sensors.adaptive.features import StreamFeatures
from models.sensors.adaptive.running_p_values import RunningPValues
from models.sensors.adaptive.seasons import StreamClock
from models.sensors.adaptive.state import new_state
from models.sensors.adaptive.tails import BLOCK, MAX_RARITY, BlockTails
from models.sensors.model import Readings, State
from models.sensors.seasonality import calendar, find_season
from models.sensors.serialization import SETTINGS, load_sensor, save_sensor
from models.training.run import run

HOUR_S = 3600.0
FIRST_RELEASE = (0.0, 1.5889670848846436, 0.550000011920929, 0.0)


def daily(rows: int, seed: int = 0, columns: int = 1) -> Readings:
    """Hourly readings with a day in them, and noise."""
    wave = 10 * np.sin(2 * np.pi * np.arange(rows) / 24)[:, None]
    readings: Readings = 50 + wave + np.random.default_rng(seed).normal(size=(rows, columns))
    return readings


@pytest.fixture(scope="module")
def sensor() -> AdaptiveDetector:
    return fit_adaptive([daily(1000)], ("load",), HOUR_S)


@pytest.fixture(scope="module")
def pair() -> AdaptiveDetector:
    return fit_adaptive([daily(1000, columns=2)], ("load", "heat"), HOUR_S)


def live(rows: int = 2000, columns: int = 1) -> Readings:
    """What follows the thousand rows of `daily`."""
    return daily(1000 + rows, columns=columns)[1000:]


def events(scores: np.ndarray[tuple[int], np.dtype[np.float32]], least: float = EVENT_SCORE) -> list[int]:
    return [int(row) for row in np.flatnonzero(scores >= least)]


def test_changing_the_future_changes_nothing_before_it(sensor: AdaptiveDetector) -> None:
    readings = live()
    # A score that is not 0, right before what changes.
    readings[1199] += 40
    other = readings.copy()
    other[1200:] = -5.0
    one, two = sensor.score(readings), sensor.score(other)
    np.testing.assert_array_equal(one.scores[:1200], two.scores[:1200])
    np.testing.assert_array_equal(one.p_values[:1200], two.p_values[:1200])
    assert one.scores[1199] > EVENT_SCORE
    assert not np.array_equal(one.scores[1200:], two.scores[1200:])


@pytest.mark.parametrize("cuts", [[1], [7, 16, 17, 400], [999, 1000, 1001], list(range(1, 60))])
def test_pieces_score_as_the_whole_does(pair: AdaptiveDetector, cuts: list[int]) -> None:
    readings = live(1100, columns=2)
    whole = pair.score(readings, contributions=True)
    state: State | None = None
    scores, p_values, shares = [], [], []
    for part in np.split(readings, cuts):
        scored = pair.score(part, state, contributions=True)
        state = scored.state
        assert scored.contributions is not None
        scores.append(scored.scores)
        p_values.append(scored.p_values)
        shares.append(scored.contributions)
    assert whole.contributions is not None
    np.testing.assert_array_equal(np.concatenate(scores), whole.scores)
    np.testing.assert_array_equal(np.concatenate(p_values), whole.p_values)
    np.testing.assert_array_equal(np.concatenate(shares), whole.contributions)
    assert state is not None
    # With AVX-512 products of few rows and of many round differently in the last bit.
    for name, part in whole.state.items():
        np.testing.assert_allclose(state[name], part, rtol=1e-12, err_msg=name)


def test_scoring_leaves_the_given_state_as_it_was(sensor: AdaptiveDetector) -> None:
    state = sensor.score(live(100)).state
    before = {name: part.copy() for name, part in state.items()}
    sensor.score(live(300), state)
    for name, part in before.items():
        np.testing.assert_array_equal(state[name], part, err_msg=name)


def test_a_spike_is_found_at_its_row(sensor: AdaptiveDetector) -> None:
    readings = live()
    readings[1000] += 40
    scored = sensor.score(readings)
    assert 1000 in events(scored.scores)
    assert scored.p_values[1000] <= 0.01


def test_a_new_level_is_found_soon_and_told_once(sensor: AdaptiveDetector) -> None:
    readings = live()
    readings[1000:] += 25
    found = [row for row in events(sensor.score(readings).scores) if row >= 1000]
    assert 1000 <= found[0] < 1010
    assert not [row for row in found if found[0] < row <= found[0] + NEWEST.quiet_rows(1000)]


def test_a_day_that_is_missing_is_found_by_its_rhythm(sensor: AdaptiveDetector) -> None:
    readings = live()
    readings[1208:1232] = 40 + np.random.default_rng(1).normal(size=(24, 1))
    assert [row for row in events(sensor.score(readings).scores) if 1208 <= row < 1240]


def test_a_stream_that_falls_silent_is_found(sensor: AdaptiveDetector) -> None:
    readings = live()
    readings[1000:] = readings[999]
    assert [row for row in events(sensor.score(readings).scores) if 1000 <= row < 1100]


def test_a_new_normal_is_learnt(sensor: AdaptiveDetector) -> None:
    readings = live(6000)
    readings[1000:] += 25
    p_values = sensor.score(readings).p_values
    assert p_values[1000:1010].min() <= 0.01
    # The season is learnt again in four weeks, whose large errors stay in the tails for 128 blocks: until later
    # readings replace them, normal ones seem rarer than those before.
    assert 0.02 <= (p_values[3000:] <= 0.05).mean() <= 0.13


def test_normal_streams_are_left_alone() -> None:
    p_values = []
    for seed in (1, 2, 3):
        readings = daily(6000, seed)
        scored = fit_adaptive([readings[:1500]], ("load",), HOUR_S).score(readings[1500:])
        assert len(events(scored.scores)) <= 5
        p_values.append(scored.p_values)
    together = np.concatenate(p_values)
    assert (together <= 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert (together <= 0.01).mean() == pytest.approx(0.01, abs=0.006)


def test_contributions_name_the_column_at_fault(pair: AdaptiveDetector) -> None:
    readings = live(1500, columns=2)
    readings[1000, 1] += 40
    shares = pair.score(readings, contributions=True).contributions
    assert shares is not None
    assert shares[1000, 1] > 0.6
    assert np.isin(shares.sum(axis=1).round(5), [0.0, 1.0]).all()
    assert pair.score(readings).contributions is None


def test_a_flat_stream_scores_nothing() -> None:
    scored = fit_adaptive([np.full((400, 1), 45.0)], ("x",)).score(np.full((1000, 1), 45.0))
    assert scored.scores.max() == 0
    assert scored.p_values.min() == 1


def test_its_state_stays_within_bounds() -> None:
    five_minutes = fit_adaptive([daily(1000, columns=2)], ("a", "b"), 300.0)
    assert five_minutes.seasons == (2016, 288)
    state = five_minutes.score(live(3000, columns=2)).state
    assert sum(part.nbytes for part in state.values()) <= 65_536


def test_rhythms_that_do_not_fit_are_left_out_longest_first() -> None:
    assert fit_adaptive([daily(1000, columns=4)], tuple("abcd"), 300.0).seasons == (288,)
    assert fit_adaptive([daily(1000)], ("a",), 1.0).seasons == ()
    with pytest.raises(ValueError, match="takes at most 9 columns, got 12"):
        fit_adaptive([daily(1000, columns=12)], tuple("abcdefghijkl"))


def test_without_a_period_the_rhythm_is_looked_for() -> None:
    assert fit_adaptive([daily(1000)], ("a",)).seasons == (24,)
    assert find_season(np.random.default_rng(0).normal(size=(1000, 1)), 300) is None
    assert calendar(1800.0) == (336, 48)


def test_too_few_readings_resolve_no_small_alpha(sensor: AdaptiveDetector) -> None:
    assert fit_adaptive([daily(200)], ("a",), HOUR_S).threshold(0.01) is None
    threshold = sensor.threshold(0.05)
    assert threshold is not None
    assert 0 < threshold < MAX_RARITY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rest": None}, "expected busy, .*, rest, .*, got busy, .*, recent, rhythm, "),
        ({"rest": np.zeros(2)}, r"rest: expected finite numbers of the shape \[1\], got \[2\]"),
        ({"last": np.array([np.nan])}, "last: expected finite numbers"),
        ({"open": np.zeros((BLOCK, len(NEWEST.features)))}, f"open: expected at most {BLOCK - 1} rows, got {BLOCK}"),
    ],
)
def test_a_state_of_another_sensor_is_refused(
    sensor: AdaptiveDetector, change: dict[str, Readings | None], message: str
) -> None:
    state = {name: part for name, part in (sensor.score(live(50)).state | change).items() if part is not None}
    with pytest.raises(ValueError, match=message):
        sensor.score(live(10), state)


def of_design(design: Design, readings: Readings, seasons: tuple[int, ...] = (168, 24)) -> AdaptiveDetector:
    """A detector of one column and of a design of our choice."""
    features = StreamFeatures(1, seasons, readings.std(axis=0), design, StreamClock(HOUR_S))
    untrained = AdaptiveDetector(("load",), features, new_state(features))
    return replace(untrained, start=untrained.score(readings).state)


def test_an_artifact_of_the_first_release_scores_as_it_did() -> None:
    first = of_design(DESIGNS[1], daily(1000))
    described = first.describe()
    del described["settings"]["version"]  # the first release wrote none
    old = AdaptiveDetector.restored(described, first.tensors())
    readings = live(700)
    readings[300] += 12
    scored = old.score(readings)
    assert old.design == DESIGNS[1]
    assert events(scored.scores, DESIGNS[1].event_score) == [300]
    # Computed by release 0.1.0.
    np.testing.assert_allclose(scored.scores[[299, 300, 301, 451]], FIRST_RELEASE, rtol=1e-6)
    state = {name: part for name, part in scored.state.items() if name != "rest"}
    with pytest.raises(ValueError, match="state: expected counts, errors, last"):
        old.score(readings, state)
    with pytest.raises(ValueError, match="state: expected busy, busyness"):
        of_design(NEWEST, daily(1000)).score(readings, scored.state)


def test_a_detector_of_a_later_release_is_refused(sensor: AdaptiveDetector, tmp_path: Path) -> None:
    assert sensor.describe()["settings"]["version"] == 4
    with pytest.raises(ValueError, match="expected one of 1, 2, 3, 4, got 5; upgrade Sonde"):
        design_of(5)
    save_sensor(sensor, tmp_path)
    text = (tmp_path / SETTINGS).read_text(encoding="utf-8")
    (tmp_path / SETTINGS).write_text(text.replace('"version": 4', '"version": 5'), encoding="utf-8")
    with pytest.raises(ModelSourceError, match="upgrade Sonde"):
        load_sensor(tmp_path)


@pytest.mark.parametrize(("columns", "version"), [(4, 4), (5, 1), (9, 1)])
def test_wide_groups_have_the_design_that_fits_their_state(columns: int, version: int) -> None:
    found = fit_adaptive([daily(400, columns=columns)], tuple("abcdefghi"[:columns]), 300.0)
    assert found.design.version == version
    assert sum(part.nbytes for part in found.score(live(600, columns)).state.values()) <= 65_536


def test_after_a_shift_fewer_normal_readings_look_strange_than_in_version_3() -> None:
    """The scores are low while the shift is among the highest of the last 2,048 readings, and then as before."""
    readings = np.concatenate([daily(3000), live(5500) + 10])
    now, before = (of_design(DESIGNS[version], readings[:1000]).score(readings[1000:]) for version in (4, 3))
    np.testing.assert_array_equal(now.scores, before.scores)
    after = slice(4000, 7000)
    assert (now.p_values[after] <= 0.05).mean() < 0.9 * (before.p_values[after] <= 0.05).mean()


def test_a_day_off_is_an_event_of_its_rhythm() -> None:
    """Each reading of a missed day is usual by itself: only their mean against the season is not."""
    random = np.random.default_rng(4)
    at = np.arange(3000)
    readings = (10.0 * (at % 48 < 24) + random.normal(0, 3, len(at)))[:, None]
    readings[2400:2424, 0] -= 10
    now, before = (of_design(design, readings[:1000], (48,)).score(readings[1000:]) for design in (NEWEST, DESIGNS[1]))
    assert any(1400 <= row < 1430 for row in events(now.scores))
    assert not any(1400 <= row < 1430 for row in events(before.scores, DESIGNS[1].event_score))


def test_scores_allow_for_the_length_of_the_stream() -> None:
    np.testing.assert_allclose(NEWEST.allowances(0, 200), 0)
    np.testing.assert_allclose(NEWEST.allowances(1999, 1), 0.4)
    assert NEWEST.allowances(29_999, 1) == NEWEST.allowances(19_999, 1) > NEWEST.allowances(19_998, 1)
    assert not DESIGNS[1].allowances(0, 9000).any()


def test_the_rest_after_an_event_grows_with_the_stream() -> None:
    assert [NEWEST.quiet_rows(seen) for seen in (0, 4000, 8000, 12_000, 10**6)] == [100, 100, 200, 300, 300]
    assert {DESIGNS[2].quiet_rows(seen) for seen in (0, 10**6)} == {150}


def test_a_reading_beyond_all_before_it_scores_more() -> None:
    features = StreamFeatures(1, (), np.ones(1), NEWEST, StreamClock(None))
    memory = features.new_memory()
    usual = np.linspace(-1, 1, 200)[:, None]
    assert features.extremes(usual, memory)[:100].max() == 0, "the first readings are all new"
    memory["rows"] = np.array([200.0])
    beyond = features.extremes(np.array([[1.0], [1.1], [1.1], [-3.0], [0.0]]), memory)[:, 0]
    np.testing.assert_allclose(beyond, [0, 0.5, 0, 1, 0])
    assert (memory["highest"][0], memory["lowest"][0]) == (1.1, -3.0)


def test_readings_of_another_shape_are_refused(sensor: AdaptiveDetector) -> None:
    with pytest.raises(ValueError, match=r"expected shape \[n, 1\], got \[3, 2\]"):
        sensor.score(np.zeros((3, 2)))


def test_a_saved_sensor_goes_on_as_it_was(pair: AdaptiveDetector, tmp_path: Path) -> None:
    save_sensor(pair, tmp_path)
    again = load_sensor(tmp_path)
    assert isinstance(again, AdaptiveDetector)
    assert (again.columns, again.seasons, again.period_s) == (pair.columns, pair.seasons, HOUR_S)
    np.testing.assert_array_equal(again.score(live(500, columns=2)).scores, pair.score(live(500, columns=2)).scores)
    assert again.threshold(0.05) == pair.threshold(0.05)
    assert again.memory_bytes() == pair.memory_bytes() > 0


def test_a_sensor_whose_parts_do_not_fit_is_refused(pair: AdaptiveDetector, tmp_path: Path) -> None:
    save_sensor(pair, tmp_path)
    text = (tmp_path / SETTINGS).read_text(encoding="utf-8")
    (tmp_path / SETTINGS).write_text(text.replace('"heat"', '"heat", "third"'), encoding="utf-8")
    with pytest.raises(ModelSourceError, match="not a sensor model that can be read"):
        load_sensor(tmp_path)


def test_rarity_is_told_from_the_tail_of_block_maxima() -> None:
    tails = BlockTails(1)
    memory = tails.new_memory()
    maxima = np.random.default_rng(0).exponential(size=128)
    rows = np.full((128 * BLOCK, 1), -9.0)
    rows[::BLOCK, 0] = maxima
    tails.rarity(rows, memory)
    ordered = np.sort(maxima)[::-1]
    start, excess = ordered[13], (ordered[:13] - ordered[13]).mean() + 0.1
    expected = 0.5 / excess / np.log(10) - np.log10(13 / 129)
    assert tails.rarity(np.array([[start + 0.5]]), memory)[0, 0] == pytest.approx(expected)
    assert tails.rarity(np.array([[start - 0.1], [1e9]]), memory).tolist() == [[0.0], [MAX_RARITY]]


def test_running_p_values_count_blocks() -> None:
    share = RunningPValues(MAX_RARITY, 8)
    memory = share.new_memory()
    first = share.p_values(np.arange(80) / 20, memory)
    assert first[:8].tolist() == [1.0] * 8
    assert share.calibrated_on(memory) == 10
    # Of eighty scores two are at least 3.85, a fortieth of ten blocks, a little more for those that have begun to be
    # forgotten.
    assert share.p_values(np.array([3.85]), memory)[0] == pytest.approx((1 + 0.375) / 11, rel=0.02)


def test_a_job_trains_it_where_it_is_asked_for(tmp_path: Path) -> None:
    times = np.datetime64("2026-01-01") + np.arange(1500) * np.timedelta64(1, "h")
    lines = [f"{time},{value!r}" for time, value in zip(times, daily(1500)[:, 0].tolist(), strict=True)]
    (tmp_path / "readings.csv").write_text("\n".join(["at,load", *lines]) + "\n", encoding="utf-8")
    content = {
        "job": "job-1",
        "base_spec": "sensors",
        "base": "sensors",
        "task": "anomaly",
        "training_file": str(tmp_path / "readings.csv"),
        "hyperparameters": {"kind": "series", "timestamp": "at", "detector": "adaptive"},
    }
    (tmp_path / "job.json").write_text(json.dumps(content), encoding="utf-8")
    assert run(tmp_path, lambda event: None) == 0
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    published = load_sensor(tmp_path / "result")
    assert isinstance(published, AdaptiveDetector)
    assert published.seasons == (168, 24)
    assert (result["mode"], result["sensor"]["detector"]) == ("adaptive", "adaptive")
    golden = result["golden"]
    np.testing.assert_allclose(
        published.score(np.array(golden["readings"])).scores, np.ravel(golden["rows"]), atol=golden["tolerance"]
    )
    assert result["metrics"]["primary"] >= 0.97
