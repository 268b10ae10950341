"""The speed of sensor detectors: training and scoring, in one process.

python -m benchmarks.sensors [--rows 10000] [--columns 8] [--threads 2]

Trains each detector on made-up readings (fit and calibration), then scores 100,000 rows without contributions; and
times a whole job with `detector: "auto"` of each kind, from reading the CSV to the published files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from models.sensors.detectors.factory import DETECTORS
from models.sensors.fitting import fit_sensor
from models.sensors.model import Readings
from models.training.run import run

SCORED = 100_000


def readings(rows: int, columns: int, seed: int = 0) -> Readings:
    """Columns that share three causes, and a slow wave."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, 3)) @ random.standard_normal((3, columns)) + 0.3 * random.standard_normal(
        (rows, columns)
    )
    x[:, 0] += np.sin(np.arange(rows) / 50)
    return x


def job(kind: str, x: Readings) -> float:
    """Seconds of a whole job."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        header = ",".join(f"c{column}" for column in range(x.shape[1]))
        np.savetxt(directory / "train.csv", x, "%.6f", delimiter=",", header=header, comments="")
        wanted = {
            "job": "j",
            "base_spec": "sensors",
            "base": "sensors",
            "task": "anomaly",
            "training_file": str(directory / "train.csv"),
        }
        (directory / "job.json").write_text(json.dumps(wanted | {"hyperparameters": {"kind": kind}}))
        began = time.perf_counter()
        if run(directory, lambda event: None):
            raise RuntimeError((directory / "error.json").read_text())
        return time.perf_counter() - began


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    x, many = readings(asked.rows, asked.columns), readings(SCORED, asked.columns, 1)
    names = tuple(f"c{column}" for column in range(asked.columns))
    for kind, known in DETECTORS.items():
        for detector in known:
            began = time.perf_counter()
            sensor = fit_sensor(kind, detector, names, [x])
            trained = time.perf_counter()
            sensor.score(many)
            rate = SCORED / (time.perf_counter() - trained)
            print(
                f"{kind:8} {detector:12} trained in {trained - began:6.1f} s, scores {rate:10,.0f} rows/s", flush=True
            )
    for kind in DETECTORS:
        print(f"{kind:8} a job with detector auto: {job(kind, x):6.1f} s", flush=True)


if __name__ == "__main__":
    main()
