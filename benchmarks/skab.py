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

    def __str__(self) -> str:
        f1 = 2 * self.hits / max(2 * self.hits + self.false_alarms + self.misses, 1)
        false, missing = (
            self.false_alarms / max(self.false_alarms + self.passes, 1),
            self.misses / max(self.misses + self.hits, 1),
        )
        return f"F1 {f1:.3f}  false-alarm rate {false:.1%}  missing-alarm rate {missing:.1%}"


def evaluate(path: Path, detector: str, alpha: float) -> Counts:
    """Train on the first 400 rows of a file, and judge the rest by its labels."""
    table = read_table(path, ColumnRoles(COLUMNS, "datetime", label="anomaly"))
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
    folders = [
        folder
        for folder in sorted((asked.data / "skab" / "data").iterdir())
        if folder.is_dir() and folder.name != "anomaly-free"
    ]
    total = Counts(0, 0, 0, 0)
    for path in (path for folder in folders for path in sorted(folder.glob("*.csv"), key=lambda path: int(path.stem))):
        counts = evaluate(path, asked.detector, asked.alpha)
        total += counts
        print(f"{path.parent.name}/{path.name:8} {counts}")
    print(f"all files        {total}")


if __name__ == "__main__":
    main()
