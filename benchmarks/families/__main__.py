"""Detectors on families of plants that nobody tuned them for.

python -m benchmarks.families [--plants 6] [--networks] [--data ../shared/data] [--write]

Each family has `--plants` simulated machines; the given data are two families more. Every detector is trained on each
plant as a job trains it, and judges later readings at alpha 0.05: normal ones, then some with faults of many kinds
and sizes. Prints F1 over the rows of a family, mean VUS-PR, and false-alarm rates. PyOD's detectors are compared
where PyOD is installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks import results
from benchmarks.families import detectors
from benchmarks.families.generators import FAMILIES
from benchmarks.families.given import given
from benchmarks.families.outcome import Outcome, summary
from benchmarks.families.plant import Plant, simulate


def plants(count: int, data: Path, families: Iterable[str] = tuple(FAMILIES)) -> list[Plant]:
    """`count` plants of each family, and the given ones."""
    return [*(simulate(family, number) for family in families for number in range(count)), *given(data)]


def judge_all(names: Sequence[str], plant: Plant) -> dict[str, Outcome]:
    """Each detector's outcome on one plant."""
    return {name: Outcome.of(detectors.fit(name, plant), plant) for name in names}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, default=6, help="of each family")
    parser.add_argument("--networks", action="store_true", help="the networks too, which take a minute a plant")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    results.add_flags(parser)
    asked = parser.parse_args()
    names = detectors.names(networks=asked.networks)
    rounds = results.Rounds("families", {"plants a family": asked.plants}, append=asked.append)
    rounds.begin()
    made = plants(asked.plants, asked.data)
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        found = list(zip(made, pool.map(partial(judge_all, names), made), strict=True))
    for family in dict.fromkeys(plant.family for plant in made):
        rows = [row for plant, row in found if plant.family == family]
        rounds.add(family, {name: summary([row[name] for row in rows]) for name in names})
    rounds.finish(write=asked.write)


if __name__ == "__main__":
    main()
