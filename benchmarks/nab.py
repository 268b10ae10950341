"""The Numenta Anomaly Benchmark on the adaptive detector: one configuration, row by row.

python -m benchmarks.nab [--data ../shared/data] [--folders realKnownCause …]

Each file's detector is trained on the rows of its probation (the first 15 %, at most 750) and then goes on by
itself. Prints the standard profile's score, normalized on the files of each folder and of all, with the threshold
that is best for all files at once, as the benchmark's optimiser has it. Of the whole corpus are known: HTM 70.5,
KNN-CAD 58.0, windowed Gaussian 39.6.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from benchmarks.nab_scorer import FileScore, Floats, Labels, best_threshold, score_at
from models.sensors.adaptive.detector import fit_adaptive
from models.sensors.model import Scored

FOLDERS = ("realKnownCause", "artificialWithAnomaly", "artificialNoAnomaly")


@dataclass(frozen=True, slots=True)
class Stream:
    """One file: readings [n], the median seconds between them, its labelled windows, and the readings' times [n]."""

    name: str
    readings: Floats
    period_s: float
    labels: Labels
    times: Floats

    def scored(self) -> Scored:
        """Train on the probation; the scores of the rows after it."""
        rows, learnt = self.readings[:, None], self.labels.probation
        sensor = fit_adaptive([rows[:learnt]], ("value",), self.period_s, times=[self.times[:learnt]])
        return sensor.score(rows[learnt:], times=self.times[learnt:])


def read(data: Path, folders: tuple[str, ...]) -> list[Stream]:
    """The files of the folders, in order."""
    windows = json.loads((data / "nab/labels/combined_windows.json").read_text(encoding="utf-8"))
    paths = [path for folder in folders for path in sorted((data / "nab/data" / folder).glob("*.csv"))]
    return [_stream(path, windows[f"{path.parent.name}/{path.name}"]) for path in paths]


def _stream(path: Path, windows: list[list[str]]) -> Stream:
    with path.open(encoding="utf-8") as file:
        rows = [(row["timestamp"], float(row["value"])) for row in csv.DictReader(file)]
    times = np.array([_seconds(stamp) for stamp, _ in rows])
    # The rows of a window by their times: a clock that was put back has some twice.
    inside = [np.flatnonzero((times >= _seconds(first)) & (times <= _seconds(last))) for first, last in windows]
    labels = Labels(len(rows), tuple((int(found[0]), int(found[-1])) for found in inside))
    return Stream(
        f"{path.parent.name}/{path.stem}",
        np.array([value for _, value in rows]),
        float(np.median(np.diff(times))),
        labels,
        times,
    )


def _seconds(stamp: str) -> float:
    return (datetime.fromisoformat(stamp) - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001  # the files name no zone


def detect(stream: Stream) -> Floats:
    """Scores [n] of all rows; 0 in the probation, which the detector is trained on."""
    return np.concatenate([np.zeros(stream.labels.probation), stream.scored().scores.astype(np.float64)])


def main() -> None:
    """Detect, score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--folders", nargs="+", default=FOLDERS)
    chosen = parser.parse_args()
    streams = read(chosen.data, tuple(chosen.folders))
    began = time.perf_counter()
    files = [(detect(stream), stream.labels) for stream in streams]
    took_s = time.perf_counter() - began
    threshold = best_threshold(files)
    print(
        f"{sum(len(scores) for scores, _ in files) / took_s:,.0f} rows a second; threshold {threshold:.3f} for all "
        f"files"
    )
    result = score_at(files, threshold)
    for stream, score in zip(streams, result.files, strict=True):
        print(f"  {stream.name:60} {_told(score)}")
    for folder in dict.fromkeys(stream.name.split("/")[0] for stream in streams):
        part = [file for stream, file in zip(streams, files, strict=True) if stream.name.startswith(f"{folder}/")]
        if any(labels.scorable for _, labels in part):
            alone = score_at(part, best_threshold(part)).normalized
            print(
                f"{folder}: {score_at(part, threshold).normalized:.1f} at the threshold of all, {alone:.1f} at its own"
            )
    print(f"all files: {result.normalized:.1f}")


def _told(score: FileScore) -> str:
    windows = " ".join("missed" if worth < 0 else f"{worth:.2f}" for worth in score.windows)
    return f"windows: {windows or 'none'}; false detections: {score.false_detections}"


if __name__ == "__main__":
    main()
