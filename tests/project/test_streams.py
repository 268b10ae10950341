"""The generated streams: the same for a seed, normal in their probation, with a fault in each window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import streams
from benchmarks.nab import Stream
from benchmarks.nab_scorer import Floats, Labels
from models.sensors.adaptive.detector import EVENT_SCORE


@pytest.mark.parametrize("family", streams.FAMILIES)
def test_a_family_is_the_same_for_a_seed(family: str) -> None:
    one, again, other = (streams.generate(family, 2, seed) for seed in (0, 0, 1))
    for stream, same in zip(one, again, strict=True):
        np.testing.assert_array_equal(stream.readings, same.readings)
        assert stream.labels == same.labels
        assert np.isfinite(stream.readings).all()
        assert 1 <= len(stream.labels.windows) <= 3
        assert stream.labels.windows[0][0] >= stream.labels.probation
        assert sum(last - first for first, last in stream.labels.windows) <= 0.1 * len(stream.readings)
    assert not np.array_equal(one[0].readings[:500], other[0].readings[:500])
    assert not np.array_equal(one[0].readings[:500], one[1].readings[:500])


@pytest.mark.parametrize("family", streams.FAMILIES)
def test_faults_lie_in_their_windows(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault begins in the middle of its window and changes what is expected from there on."""
    began: list[int] = []
    known = streams.FAMILIES[family]

    def watched(fault: streams.Fault) -> streams.Fault:
        def run(x: Floats, at: int, size: float, chance: streams.Random) -> None:
            before = x.copy()
            fault(x, at, size, chance)
            changed = np.flatnonzero(x != before)
            assert size > 0
            assert len(changed) == 0 or changed[0] >= at  # a jam at night may change nothing
            began.append(at)

        return run

    def normal(chance: streams.Random, day: Floats) -> streams.Normal:
        made = known.normal(chance, day)
        return replace(made, faults=tuple(map(watched, made.faults)))

    monkeypatch.setitem(streams.FAMILIES, family, replace(known, normal=normal))
    made = streams.generate(family, 3)
    middles = [(first + last) // 2 for stream in made for first, last in stream.labels.windows]
    np.testing.assert_allclose(began, middles, atol=1)


def test_false_alarms_are_counted_outside_the_windows() -> None:
    random = np.random.default_rng(0)
    readings = random.normal(size=3000)
    readings[2000:2100] += 40
    stream = Stream("made/0", readings, 3600.0, Labels(3000, ((1950, 2300),)))
    judged = streams.judge([stream])
    ((scores, labels),) = judged.files
    assert scores[: labels.probation].max() == 0
    assert scores[2000:2010].max() >= EVENT_SCORE
    assert judged.false_alarms[0] == pytest.approx(0.05, abs=0.03)
    assert judged.false_alarms[1] == pytest.approx(0.01, abs=0.008)
