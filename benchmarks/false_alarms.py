"""Whether alpha is the false-alarm rate of sensor detectors on later normal readings.

python -m benchmarks.false_alarms [--data ../shared/data]

SKAB's anomaly-free file (all 8 columns) and NAB's artificialNoAnomaly files (one column) are cut at `--train` of
their time; each detector is fitted and calibrated on the first part, as a job does, and scores the rest. Prints the
share of normal rows with p ≤ alpha ("-" where there are too few independent rows to tell), and whether the drift
check spoke.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import skab
from models.sensors.detectors.factory import DETECTORS
from models.sensors.detectors.network import NetworkDetector
from models.sensors.fitting import fit_sensor
from models.sensors.model import SensorKind
from models.training.checks.sensor_data import check_table
from models.training.data.segments import Segments, divide_segments, to_segments
from models.training.data.table import ColumnRoles, Table, read_table
from models.training.errors import TrainingDataError
from models.training.sensors.detector_selection import DetectorResult, choose, evaluate_detector

ALPHAS = (0.05, 0.01)
Rule = Callable[[Sequence[DetectorResult]], tuple[DetectorResult, str]]


def tables(data: Path) -> Iterator[tuple[str, Table]]:
    """Normal readings and the name of their file."""
    yield (
        "skab anomaly-free",
        read_table(data / "skab/data/anomaly-free/anomaly-free.csv", ColumnRoles(skab.COLUMNS, "datetime")),
    )
    for path in sorted((data / "nab/data/artificialNoAnomaly").glob("*.csv")):
        yield f"nab {path.stem}", read_table(path, ColumnRoles(("value",), "timestamp"))


def rates(table: Table, kind: SensorKind, detector: str, train: float, *, networks: bool) -> str:
    """One line of results; `networks` is whether `auto` may choose them."""
    runs, repairs = to_segments(table, kind)
    first, later = divide_segments(runs, 1, 1 - train)
    failed = [finding for finding in check_table(first, later, repairs) if finding.status == "fail"]
    if failed:
        raise TrainingDataError(failed[0].check, failed[0].message)
    began = time.perf_counter()
    chosen = choose_detector(first, kind, networks=networks) if detector == "auto" else detector
    sensor = fit_sensor(kind, chosen, first.columns, first.normal())
    seconds = time.perf_counter() - began
    p_values, drift = [], "-"
    for run in later.each():
        scored = sensor.score(later.readings[run])
        p_values.append(scored.p_values[sensor.window - 1 :])
        drift = (
            str(scored.drift.detected)
            if scored.drift is not None
            else str(sensor.monitor().update(scored.p_values).detected)
        )
    found = np.concatenate(p_values)
    told = [
        f"{(found <= alpha).mean():8.4f}" if sensor.threshold(alpha) is not None else "       -" for alpha in ALPHAS
    ]
    name = f"{kind:8} {detector if chosen == detector else f'auto ({chosen})':18}"
    return (
        f"{name} {' '.join(told)}  of {len(found)}, calibrated on {sensor.calibrated_on}, drift {drift}, "
        f"{seconds:.1f} s"
    )


def choose_detector(first: Segments, kind: SensorKind, *, networks: bool, rule: Rule = choose) -> str:
    """The choice of a job with `detector: "auto"` on these rows, or another rule's, with or without `networks`."""
    train, held = divide_segments(first, 1, 0.2)
    names = [name for name, one in DETECTORS[kind].items() if networks or not issubclass(one, NetworkDetector)]
    judged = [evaluate_detector(name, fit_sensor(kind, name, train.columns, train.normal()), held, 0) for name in names]
    return rule(judged)[0].name


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--train", type=float, default=0.7)
    parser.add_argument("--networks", action="store_true", help="the networks too, also for auto to choose")
    asked = parser.parse_args()
    for name, table in tables(asked.data):
        print(f"{name}: {len(table)} rows; false-alarm rates at {ALPHAS}")
        for kind, known in DETECTORS.items():
            for detector in (
                "auto",
                *(name for name, one in known.items() if asked.networks or not issubclass(one, NetworkDetector)),
            ):
                try:
                    print("  " + rates(table, kind, detector, asked.train, networks=asked.networks), flush=True)
                except TrainingDataError as error:
                    print(f"  {kind:8} {detector:18} refused: {error.message}")


if __name__ == "__main__":
    main()
