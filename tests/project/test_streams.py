"""The generated streams: the same for a seed, normal in their probation, with a fault in each window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.nab import Stream
from benchmarks.nab_scorer import Floats, Labels
from benchmarks.streams.__main__ import ALPHAS, judge
from benchmarks.streams.families import FAMILIES, generate
from benchmarks.streams.faults import Fault
from benchmarks.streams.normal import Normal, Random
from models.sensors.adaptive.detector import EVENT_SCORE, fit_adaptive


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_the_same_for_a_seed(family: str) -> None:
    one, again, other = (generate(family, 2, seed) for seed in (0, 0, 1))
    for stream, same in zip(one, again, strict=True):
        np.testing.assert_array_equal(stream.readings, same.readings)
        assert stream.labels == same.labels
        assert np.isfinite(stream.readings).all()
        assert 1 <= len(stream.labels.windows) <= 3
        assert stream.labels.windows[0][0] >= stream.labels.probation
        assert sum(last - first for first, last in stream.labels.windows) <= 0.1 * len(stream.readings)
    assert not np.array_equal(one[0].readings[:500], other[0].readings[:500])
    assert not np.array_equal(one[0].readings[:500], one[1].readings[:500])


@pytest.mark.parametrize("family", FAMILIES)
def test_faults_lie_in_their_windows(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault begins in the middle of its window and changes what is expected from there on."""
    began: list[int] = []
    known = FAMILIES[family]

    def watched(fault: Fault) -> Fault:
        def run(x: Floats, at: int, size: float, chance: Random) -> None:
            before = x.copy()
            fault(x, at, size, chance)
            changed = np.flatnonzero(x != before)
            assert size > 0
            assert len(changed) == 0 or changed[0] >= at  # a jam at night may change nothing
            began.append(at)

        return run

    def normal(chance: Random, day: Floats) -> Normal:
        made = known.normal(chance, day)
        return replace(made, faults=tuple(map(watched, made.faults)))

    monkeypatch.setitem(FAMILIES, family, replace(known, normal=normal))
    made = generate(family, 3)
    middles = [(first + last) // 2 for stream in made for first, last in stream.labels.windows]
    np.testing.assert_allclose(began, middles, atol=1)


def test_false_alarms_are_counted_outside_the_windows() -> None:
    random = np.random.default_rng(0)
    readings = random.normal(size=3000)
    readings[2000:2100] += 40
    stream = Stream("made/0", readings, 3600.0, Labels(3000, ((1950, 2300),)), np.arange(0, 3000 * 3600.0, 3600.0))
    judged = judge([stream])
    ((scores, labels),) = judged.files
    assert scores[: labels.probation].max() == 0
    assert scores[2000:2010].max() >= EVENT_SCORE
    p_values = fit_adaptive([readings[:450, None]], ("value",), 3600.0).score(readings[450:, None]).p_values
    outside = np.r_[p_values[:1500], p_values[1851:]]
    assert judged.false_alarms == tuple((outside <= alpha).mean() for alpha in ALPHAS)
    assert (p_values[1500:1851] <= 0.01).any()
