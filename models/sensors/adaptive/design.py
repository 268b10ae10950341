"""Generations of the adaptive detector: artifacts and states keep the one that they were made with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_FEATURES = ("jump", "deviation", "shift", "season", "volatility")
_WITH_RHYTHM = ("jump", "deviation", "shift", "season", "rhythm", "busyness", "volatility")
# Allowances grow from this number of readings on.
_FEW_ROWS = 200
_QUIET_SHARE = 40


@dataclass(frozen=True, slots=True)
class Design:
    """The features of a generation, and the score from which on a reading is an event.

    The more readings a stream has had, the more of them are rare by chance. So each factor of ten from 200 to
    `long_rows` readings takes `allowance` off the scores. Seasons are `by_time`, or count readings. A reading that lies
    beyond all before it by a tenth of their range scores up to `extremes` more. After an event a fortieth of the
    stream's readings are quiet, at least and at most as many as `quiet` says. P-values compare scores with past ones,
    whose weight halves in `half_life_rows` readings, and of which `rows_a_score` neighbours count as one.
    """

    version: int
    features: tuple[str, ...]
    event_score: float
    allowance: float
    long_rows: int = 5000
    by_time: bool = False
    extremes: float = 0.0
    quiet: tuple[int, int] = (150, 150)
    half_life_rows: int = 5000
    rows_a_score: int = 8

    @property
    def rhythm(self) -> bool:
        """Whether recent means are compared with the season too."""
        return "rhythm" in self.features

    def allowances(self, seen: int, rows: int) -> Doubles:
        """What is taken off the scores of `rows` readings after `seen` ones [rows]."""
        count = np.clip(seen + 1 + np.arange(rows), _FEW_ROWS, self.long_rows)
        return np.asarray(self.allowance * np.log10(count / _FEW_ROWS))

    def quiet_rows(self, seen: int) -> int:
        """The readings that belong to an event after `seen` ones."""
        least, most = self.quiet
        return min(max(seen // _QUIET_SHARE, least), most)


_THIRD = Design(3, _WITH_RHYTHM, 0.85, 0.4, 20_000, by_time=True, extremes=1.0, quiet=(100, 300))
DESIGNS = {
    1: Design(1, _FEATURES, 1.1, 0.0),
    2: Design(2, _WITH_RHYTHM, 0.8, 0.4),
    3: _THIRD,
    4: replace(_THIRD, version=4, half_life_rows=1000, rows_a_score=2),
}
NEWEST = DESIGNS[max(DESIGNS)]


def design_of(version: int) -> Design:
    """The design of a stored detector. ValueError for one of a later release."""
    if version not in DESIGNS:
        raise ValueError(f"version: expected one of {', '.join(map(str, DESIGNS))}, got {version}; upgrade Sonde")
    return DESIGNS[version]
