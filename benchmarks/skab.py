"""The level detector on SKAB's pump, by the benchmark's protocol.

python -m benchmarks.skab [--data ../shared/data] [--detector level] [--alpha 0.05]

Per file the first 400 rows train and calibrate a detector, as a job on `kind: "series"` does; the rest is scored in
the order of time, and a row is an anomaly where its p-value is at most alpha. Nothing is tuned per file. Prints, for
each file and over the rows of all files, F1, the false-alarm rate (share of normal rows flagged) and the
missing-alarm rate.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.sensors.fitting import fit_sensor
from models.training.data.segments import to_segments
from models.training.data.table import ColumnRoles, Table, read_table

COLUMNS = (
    "Accelerometer1RMS",
    "Accelerometer2RMS",
    "Current",
    "Pressure",
    "Temperature",
    "Thermocouple",
    "Voltage",
    "Volume Flow RateRMS",
)
TRAIN_ROWS = 400


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows by verdict and label."""

    hits: int
    false_alarms: int
    misses: int
    passes: int

    @classmethod
    def of(cls, said: NDArray[np.bool_], so: NDArray[np.bool_]) -> Counts:
        """Count rows [n]."""
        return cls(*(int(part.sum()) for part in (said & so, said & ~so, ~said & so, ~said & ~so)))

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
            self.misses + other.misses,
            self.passes + other.passes,
        )

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.hits / max(2 * self.hits + self.false_alarms + self.misses, 1)

    @property
    def false_alarm_rate(self) -> float:
        """The share of normal rows that are flagged."""
        return self.false_alarms / max(self.false_alarms + self.passes, 1)

    @property
    def missing_alarm_rate(self) -> float:
        """The share of anomalous rows that are not flagged."""
        return self.misses / max(self.misses + self.hits, 1)

    def __str__(self) -> str:
        return (
            f"F1 {self.f1:.3f}  false-alarm rate {self.false_alarm_rate:.1%}  "
            f"missing-alarm rate {self.missing_alarm_rate:.1%}"
        )


def read(path: Path) -> Table:
    """Readings and labels of a file."""
    return read_table(path, ColumnRoles(COLUMNS, "datetime", label="anomaly"))


def files(data: Path) -> list[Path]:
    """The files with faults, by folder and number."""
    return sorted(
        (path for path in (data / "skab/data").glob("*/*.csv") if path.parent.name != "anomaly-free"),
        key=lambda path: (path.parent.name, int(path.stem)),
    )


def evaluate(path: Path, detector: str, alpha: float) -> Counts:
    """Train on the first 400 rows of a file, and judge the rest by its labels."""
    table = read(path)
    first = Table(table.columns, table.readings[:TRAIN_ROWS], table.lines[:TRAIN_ROWS])
    runs, _ = to_segments(first, "series")
    sensor = fit_sensor("series", detector, runs.columns, runs.normal())
    state = sensor.score(table.readings[:TRAIN_ROWS]).state
    scored = sensor.score(table.readings[TRAIN_ROWS:], state)
    if table.labels is None:
        raise ValueError(f"{path.name} has no labels")
    return Counts.of(scored.p_values <= alpha, table.labels[TRAIN_ROWS:])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--detector", default="level")
    parser.add_argument("--alpha", type=float, default=0.05)
    asked = parser.parse_args()
    total = Counts(0, 0, 0, 0)
    for path in files(asked.data):
        counts = evaluate(path, asked.detector, asked.alpha)
        total += counts
        print(f"{path.parent.name}/{path.name:8} {counts}")
    print(f"all files        {total}")


if __name__ == "__main__":
    main()
