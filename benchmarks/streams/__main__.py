"""Generated streams in the form of the Numenta Anomaly Benchmark: families of normal behaviour with labelled faults.

python -m benchmarks.streams [--seed 0] [--files 10] [--families servers …]

No detector can be tuned to one machine here: each family has many streams, and each stream has parameters of its own.
A stream begins with normal readings (the probation of 15 %), has one to three faults, and a window of rows around
each: together a tenth of the stream, as in the benchmark. Prints, family by family, the benchmark's standard profile
at one threshold for all families, at the best threshold of the other families, and at the product's own (an event),
and the share of readings outside the windows with p <= alpha.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.nab import Stream
from benchmarks.nab_scorer import Floats, Labels, best_threshold, score_at
from benchmarks.streams.families import FAMILIES, generate
from models.sensors.adaptive.detector import EVENT_SCORE

File = tuple[Floats, Labels]
ALPHAS = (0.05, 0.01)


@dataclass(frozen=True, slots=True)
class Judged:
    """A family's scored streams, and the share of readings outside the windows with p <= each alpha."""

    files: list[File]
    false_alarms: tuple[float, ...]


def judge(streams: Sequence[Stream]) -> Judged:
    """Train on each probation and score what follows."""
    files, usual = [], []
    for stream in streams:
        probation, scored = stream.labels.probation, stream.scored()
        files.append((np.concatenate([np.zeros(probation), scored.scores]), stream.labels))
        outside = np.ones(len(stream.readings), dtype=bool)
        for first, last in stream.labels.windows:
            outside[first : last + 1] = False
        usual.append(scored.p_values[outside[probation:]])
    p_values = np.concatenate(usual)
    return Judged(files, tuple(float((p_values <= alpha).mean()) for alpha in ALPHAS))


def main() -> None:
    """Generate, detect, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, default=10, help="streams of each family")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    chosen = parser.parse_args()
    judged = {name: judge(generate(name, chosen.files, chosen.seed)) for name in chosen.families}
    everything = [file for family in judged.values() for file in family.files]
    threshold = best_threshold(everything)
    print(f"threshold of all: {threshold:.3f}, an event: {EVENT_SCORE}")
    print(f"{'':14} at one  by others  event  found  false a file  p <= {ALPHAS[0]} and {ALPHAS[1]}")
    for name, family in judged.items():
        others = [file for other in judged if other != name for file in judged[other].files]
        print(
            f"{name:14} {_scores(family.files, (threshold, best_threshold(others or family.files), EVENT_SCORE))}  "
            + "  ".join(f"{share:.3f}" for share in family.false_alarms)
        )
    print(f"{'all':14} {_scores(everything, (threshold, threshold, EVENT_SCORE))}")


def _scores(files: Sequence[File], thresholds: Sequence[float]) -> str:
    results = [score_at(files, threshold) for threshold in thresholds]
    windows = [worth > 0 for file in results[0].files for worth in file.windows]
    false = sum(file.false_detections for file in results[0].files) / len(files)
    return "  ".join(f"{result.normalized:6.1f}" for result in results) + f"  {np.mean(windows):.2f}  {false:5.1f}"


if __name__ == "__main__":
    main()
