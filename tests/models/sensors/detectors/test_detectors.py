"""Sensor detectors: scores, contributions, calibration, streaming, drift, and what is written to disk."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import norm

from models.errors import ModelSourceError
from models.sensors.block_calibration import BlockedCalibration, correlation_time
from models.sensors.calibrated_detector import CalibratedDetector
from models.sensors.detectors import network
from models.sensors.detectors.combined import EnsembleSeries
from models.sensors.detectors.factory import build
from models.sensors.detectors.level import steady_share
from models.sensors.detectors.records import PcaDetector
from models.sensors.drift import DriftMonitor
from models.sensors.fitting import fit_calibrated, fit_sensor, split_for_calibration
from models.sensors.model import SensorKind
from models.sensors.scaling import RobustScale
from models.sensors.serialization import load_sensor, save_sensor

pytestmark = pytest.mark.slow

Doubles = NDArray[np.float64]
Key = tuple[SensorKind, str]
Sensors = dict[Key, CalibratedDetector]
COLUMNS = ("a", "b", "c")
CHEAP: tuple[Key, ...] = (
    ("records", "pca"),
    ("records", "mahalanobis"),
    ("records", "knn"),
    ("records", "combined"),
    ("series", "level"),
    ("series", "residual"),
    ("series", "statistics"),
    ("series", "combined"),
    ("series", "ensemble"),
)
NETWORKS: tuple[Key, ...] = (("records", "autoencoder"), ("series", "conv"), ("series", "foresight"))


def normal(rows: int, seed: int = 0) -> Doubles:
    """Three columns that hang together, in units of their own."""
    random = np.random.default_rng(seed)
    common = random.standard_normal((rows, 2)) @ np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]])
    return np.asarray((common + 0.3 * random.standard_normal((rows, 3))) * [1.0, 50.0, 0.01] + [0.0, 300.0, 5.0])


@pytest.fixture(scope="module")
def sensors() -> Sensors:
    """Every detector; networks learn for a sixth of their epochs, which is enough for what is tested."""
    x = normal(800)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "_MOST_EPOCHS", 10)
        return {key: fit_sensor(*key, COLUMNS, [x], seed=3) for key in (*CHEAP, *NETWORKS)}


@pytest.mark.parametrize("key", [*CHEAP, *NETWORKS], ids="-".join)
def test_a_shifted_column_scores_higher_and_is_named(sensors: Sensors, key: Key) -> None:
    x, strange = normal(200, 1), normal(200, 1)
    # The forecaster follows a level, and is alarmed by noise.
    strange[:, 1] += 50 * (
        10.0 * np.random.default_rng(5).standard_normal(200) if key[1] in ("residual", "foresight") else 8.0
    )
    usual, found = sensors[key].score(x), sensors[key].score(strange, contributions=True)
    first = sensors[key].window - 1
    assert found.scores[first:].min() > np.median(usual.scores[first:])
    assert found.scores[first:].mean() > 2 * usual.scores[first:].mean()
    assert found.contributions is not None
    assert found.contributions[first:].mean(axis=0).argmax() == 1
    np.testing.assert_allclose(found.contributions[first:].sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("key", [*CHEAP, *NETWORKS], ids="-".join)
def test_new_normal_readings_are_alarms_about_as_often_as_alpha(sensors: Sensors, key: Key) -> None:
    scored = sensors[key].score(normal(4000, 2))
    rate = float((scored.p_values[sensors[key].window :] <= 0.1).mean())
    assert 0.03 < rate < 0.2


@pytest.mark.parametrize("key", [key for key in (*CHEAP, *NETWORKS) if key[0] == "series"], ids="-".join)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 120), max_size=6))
def test_pieces_with_their_state_score_as_the_whole(sensors: Sensors, key: Key, cuts: list[int]) -> None:
    sensor, x = sensors[key], normal(120, 4)
    whole = sensor.score(x, contributions=True)
    state, scores, p_values, shares = None, [], [], []
    for part in np.split(x, sorted(cuts)):
        scored = sensor.score(part, state, contributions=True)
        state = scored.state
        scores.append(scored.scores)
        p_values.append(scored.p_values)
        shares.append(scored.contributions)
        assert sum(one.nbytes for one in scored.state.values()) < 65536
    np.testing.assert_array_equal(np.concatenate(scores), whole.scores)
    np.testing.assert_array_equal(np.concatenate(p_values), whole.p_values)
    assert whole.contributions is not None
    joined = np.concatenate([one for one in shares if one is not None])
    np.testing.assert_allclose(joined, whole.contributions, atol=1e-6)
    assert state is not None
    np.testing.assert_array_equal(state["readings"], whole.state["readings"])
    np.testing.assert_array_equal(state["drift"], whole.state["drift"])


@pytest.mark.parametrize("key", [*CHEAP, *NETWORKS], ids="-".join)
def test_row_by_row_scores_equal_those_of_one_call(sensors: Sensors, key: Key) -> None:
    sensor, x = sensors[key], normal(300, 5)
    state, scores = None, []
    for row in x:
        scored = sensor.score(row[None], state)
        state = scored.state or None
        scores.append(scored.scores)
    np.testing.assert_array_equal(np.concatenate(scores), sensor.score(x).scores)


# As on a GPU, tensors of the device "meta" mix with none of the CPU's. It can say no number, though, as fitting pca and
# networks takes.
@pytest.mark.parametrize(
    "key",
    [
        ("records", "mahalanobis"),
        ("records", "knn"),
        ("series", "level"),
        ("series", "residual"),
        ("series", "combined"),
    ],
)
def test_it_is_fitted_on_another_device(key: Key) -> None:
    readings = torch.empty(400, 4, dtype=torch.float64, device="meta")
    assert build(*key, 4).to("meta").fit([readings]).score_run(readings).is_meta


@pytest.mark.parametrize(
    "key", [("records", "pca"), ("records", "autoencoder"), ("series", "conv"), ("series", "foresight")]
)
def test_it_scores_on_another_device(key: Key) -> None:
    readings = torch.empty(400, 4, dtype=torch.float64, device="meta")
    detector = build(*key, 4).to("meta")
    if isinstance(detector, PcaDetector):
        detector.root = detector.root_of_limits()
    assert detector.score_run(readings).is_meta
    assert detector.contributions(readings).is_meta


def test_before_its_window_is_full_a_series_scores_zero(sensors: Sensors) -> None:
    sensor = sensors["series", "level"]
    scored = sensor.score(normal(20), contributions=True)
    assert (scored.scores[:14] == 0).all()
    assert (scored.p_values[:14] == 1).all()
    assert (scored.scores[14:] > 0).all()
    assert sensor.score(normal(3)).scores.tolist() == [0.0, 0.0, 0.0]


def test_no_score_depends_on_what_comes_later(sensors: Sensors) -> None:
    x, other = normal(100, 6), normal(100, 6)
    other[60:] += 1000
    for key in CHEAP[4:]:
        np.testing.assert_array_equal(sensors[key].score(x).scores[:60], sensors[key].score(other).scores[:60])


def test_a_state_of_another_shape_is_refused(sensors: Sensors) -> None:
    sensor = sensors["series", "level"]
    state = sensor.score(normal(30)).state
    for broken in (
        {},
        state | {"readings": np.zeros((14, 2))},
        state | {"readings": np.zeros((15, 3))},
        state | {"drift": np.full(4, np.nan)},
    ):
        with pytest.raises(ValueError, match=r"state|drift"):
            sensor.score(normal(3), broken)
    with pytest.raises(ValueError, match=r"expected shape \[n, 3\], got \[5, 2\]"):
        sensor.score(np.zeros((5, 2)))


@pytest.mark.parametrize("key", [*CHEAP, *NETWORKS], ids="-".join)
def test_a_saved_sensor_scores_as_before_and_equal_ones_have_equal_bytes(
    sensors: Sensors, key: Key, tmp_path: Path
) -> None:
    sensor, x = sensors[key], normal(100, 7)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_sensor(sensor, tmp_path / name)
    for file in ("sensor.json", "sensor.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    loaded = load_sensor(tmp_path / "one")
    assert isinstance(loaded, CalibratedDetector)
    np.testing.assert_array_equal(loaded.score(x).scores, sensor.score(x).scores)
    assert (loaded.window, loaded.calibrated_on, loaded.threshold(0.1)) == (
        sensor.window,
        sensor.calibrated_on,
        sensor.threshold(0.1),
    )
    assert loaded.memory_bytes() == sensor.memory_bytes()


def test_an_ensemble_stored_without_settings_is_restored_as_the_first(tmp_path: Path) -> None:
    x, live = normal(400), normal(100, 7)
    runs = [torch.from_numpy(x)]
    first = fit_calibrated("series", COLUMNS, partial(EnsembleSeries, 3, windows=(16,), norm=2.0), runs)
    newest = fit_calibrated("series", COLUMNS, partial(EnsembleSeries, 3), runs)
    assert not np.array_equal(first.score(live).scores, newest.score(live).scores)
    save_sensor(first, tmp_path)
    described = json.loads((tmp_path / "sensor.json").read_text())
    assert described["settings"] == {"windows": [16], "norm": 2.0}
    (tmp_path / "sensor.json").write_text(json.dumps(described | {"settings": {}}))
    loaded = load_sensor(tmp_path)
    assert isinstance(loaded, CalibratedDetector)
    np.testing.assert_array_equal(loaded.score(live).scores, first.score(live).scores)
    (tmp_path / "sensor.json").write_text(json.dumps(described | {"settings": {"windows": [16, 8], "norm": 2.0}}))
    with pytest.raises(ModelSourceError, match="not a sensor model"):
        load_sensor(tmp_path)


def test_a_directory_that_is_no_sensor_is_refused(sensors: Sensors, tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="not a sensor model"):
        load_sensor(tmp_path)
    save_sensor(sensors["series", "level"], tmp_path)
    saved = json.loads((tmp_path / "sensor.json").read_text())
    for wrong in ({"kind": "texts"}, {"detector": "pca"}, {"columns": ["a"]}, {"blocks": 0}, {"window": 3}):
        (tmp_path / "sensor.json").write_text(json.dumps(saved | wrong))
        with pytest.raises(ModelSourceError, match="not a sensor model"):
            load_sensor(tmp_path)


def test_the_threshold_is_the_least_score_that_is_an_anomaly() -> None:
    calibration = BlockedCalibration(np.arange(100, dtype=np.float32), 50)
    for alpha in (0.02, 0.05, 0.1, 0.5, 1.0):
        least = calibration.threshold(alpha)
        assert least is not None
        at, below = np.array([least], np.float32), np.nextafter(np.array([least], np.float32), np.float32(-np.inf))
        assert calibration.p_values(at)[0] <= alpha + 1e-12
        assert np.isneginf(least) or calibration.p_values(below)[0] > alpha
    assert calibration.threshold(0.01) is None


def test_neighbours_that_resemble_each_other_do_not_count_as_many() -> None:
    noise = np.random.default_rng(0).standard_normal(4000)
    smooth = np.convolve(noise, np.ones(20) / 20, "valid")
    assert correlation_time([noise]) < 2
    assert 10 < correlation_time([smooth]) < 40
    assert (
        BlockedCalibration.of([smooth.astype(np.float32)]).blocks
        < 400
        < BlockedCalibration.of([noise.astype(np.float32)]).blocks
    )


@pytest.mark.parametrize(("rows", "memory"), [(2000, 0.9), (600, 0.667), (2000, 0.0)])
def test_alpha_is_kept_on_scores_that_remember(rows: int, memory: float) -> None:
    """Of autoregressive scores it is known how many exceed a threshold: on average over many calibrations neither
    too many nor half.
    """
    random = np.random.default_rng(4)
    steps = np.sqrt(1 - memory**2) * random.standard_normal((200, rows + 100))
    made = lfilter([1.0], [1.0, -memory], steps, axis=1)[:, 100:].astype(np.float32)
    for alpha in (0.05, 0.01):
        known = [BlockedCalibration.of([scores]).threshold(alpha) for scores in made]
        rates = [norm.sf(threshold) for threshold in known if threshold is not None]
        assert len(rates) > 180
        assert 0.55 * alpha < np.mean(rates) < 1.05 * alpha


def test_later_stretches_may_differ_as_the_known_ones_do() -> None:
    """Scores of a stretch are higher or lower as a whole: it is known how many of a later stretch's exceed a
    threshold, on average over many calibrations.
    """
    random = np.random.default_rng(4)

    def rates(spread: float) -> tuple[float, float]:
        found = []
        for _ in range(60):
            levels = spread * random.standard_normal((8, 1))
            runs = list(np.exp(levels + 0.2 * random.standard_normal((8, 200))).astype(np.float32))
            plain, by_stretch = BlockedCalibration.of(runs), BlockedCalibration.of_stretches(runs)
            assert by_stretch.blocks == plain.blocks
            thresholds = plain.threshold(0.05), by_stretch.threshold(0.05)
            found.append([norm.sf(np.log(one or np.inf) / np.hypot(spread, 0.2)) for one in thresholds])
        plain_rate, rate = np.mean(found, axis=0)
        return float(plain_rate), float(rate)

    plain_rate, rate = rates(0.3)
    assert 0.04 < rate < 0.9 * plain_rate
    _, rate = rates(0.0)
    assert 0.045 < rate < 0.055, "stretches that differ by chance alone widen nothing"


def test_the_least_p_value_of_stretches_is_that_of_a_block() -> None:
    run = np.random.default_rng(5).gamma(2.0, size=400).astype(np.float32)
    calibration = BlockedCalibration.of_stretches(np.split(run, 8))
    least = calibration.p_values(np.array([1e6, 0.0], np.float32))
    assert least.tolist() == pytest.approx([1 / (1 + calibration.blocks), 1.0])
    assert calibration.threshold(0.9 / (1 + calibration.blocks)) is None


def test_drift_is_seen_and_uniform_p_values_are_none() -> None:
    random = np.random.default_rng(1)
    monitor = DriftMonitor()
    assert not monitor.update(random.random(5000)).detected
    assert monitor.update(random.random(200) ** 3).detected
    again = DriftMonitor.from_array(monitor.to_array(), 1)
    assert again.verdict() == monitor.verdict()
    assert not again.update(random.random(5000)).detected, "a drift that is over is forgotten"


def test_p_values_larger_than_uniform_ones_are_no_drift() -> None:
    """A calibration that allows for stretches that differ gives them where stretches do not."""
    random = np.random.default_rng(1)
    monitor = DriftMonitor()
    assert not any(monitor.update(random.random(10) ** 0.5).detected for _ in range(500))


def test_a_state_that_had_bet_on_large_p_values_is_read() -> None:
    earlier = np.array([0.2, 0.8, 1e5, 3.0])
    again = DriftMonitor.from_array(earlier, 7)
    assert (again.verdict().detected, again.until_next) == (False, 3)


def test_drift_counts_every_strideth_p_value_however_they_come() -> None:
    p_values = np.random.default_rng(2).random(100)
    whole, pieces = DriftMonitor(7), DriftMonitor(7)
    whole.update(p_values)
    for part in np.split(p_values, [1, 3, 20, 21, 22, 90]):
        pieces.update(part)
    np.testing.assert_allclose(whole.to_array(), pieces.to_array())


def test_a_wild_reading_does_not_move_the_scale_and_a_constant_column_says_nothing() -> None:
    x = torch.from_numpy(np.column_stack([normal(500)[:, 0], np.full(500, 7.0)]))
    wild = x.clone()
    wild[:5, 0] = 1e9
    one, two = RobustScale(2).fit(x), RobustScale(2).fit(wild)
    assert abs(float(one.rate[0] / two.rate[0]) - 1) < 0.1
    assert float(one(torch.tensor([[0.0, 1e9]], dtype=torch.float64))[0, 1]) == 0.0


def test_a_column_that_wanders_is_trusted_less() -> None:
    random = np.random.default_rng(3)
    x = torch.from_numpy(np.column_stack([random.standard_normal(1000), np.cumsum(random.standard_normal(1000))]))
    still, wandering = steady_share([x]).tolist()
    assert still > 0.9
    assert wandering < 0.1


def test_t2_and_spe_make_up_the_score_of_pca() -> None:
    x = torch.from_numpy(normal(300))
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    detector = PcaDetector(3).fit([x])
    told = (detector.t2(x) / detector.limits[0] + detector.spe(x) / detector.limits[1]).sqrt()
    torch.testing.assert_close(detector(x), told)


def test_folds_are_stretches_of_time_or_whole_runs() -> None:
    x = torch.arange(100.0)[:, None]
    folds = split_for_calibration([x], 4, least=20)
    assert [float(fold[0][0]) for fold in folds] == [0.0, 25.0, 50.0, 75.0]
    assert len(split_for_calibration([x], 4, least=40)) == 2
    assert [len(fold) for fold in split_for_calibration([x] * 8, 4, least=20)] == [2, 2, 2, 2]
    with pytest.raises(ValueError, match="expected a run of at least 120 readings, the longest has 100"):
        split_for_calibration([x], 4, least=60)
