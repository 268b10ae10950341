"""Detectors on families of plants for which they were not tuned.

python -m benchmarks.families [--plants 4] [--networks] [--choice] [--data ../shared/data] [--write]

Each family has `--plants` simulated machines; the given data are two families more. Every detector is trained on each
plant as a job trains it, and judges later readings at alpha 0.05: normal ones, then some with faults of many kinds
and sizes. Prints F1 over the rows of a family, mean VUS-PR, and false-alarm rates. PyOD's detectors are compared
where PyOD is installed.

`--choice` compares windows, blocks, members and norms instead. What has the best F1 on all families but one, of those
that keep their false-alarm rate there, is judged on the one left out.
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
from benchmarks.families.choice import configurations, fit_configuration
from benchmarks.families.generators import FAMILIES
from benchmarks.families.given import given
from benchmarks.families.outcome import judge_all, summary
from benchmarks.families.plant import Plant, simulate


def plants(numbers: Sequence[int], data: Path, families: Iterable[str]) -> list[Plant]:
    """The plants of these numbers in each family, and the given ones."""
    return [*(simulate(family, number) for family in families for number in numbers), *given(data)]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plants", type=int, default=4, help="of each family")
    parser.add_argument("--first", type=int, default=0, help="the number of each family's first plant")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--networks", action="store_true", help="the networks too, which take a minute a plant")
    parser.add_argument("--choice", action="store_true", help="choose a configuration without each family")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    results.add_flags(parser)
    asked = parser.parse_args()
    names = list(configurations()) if asked.choice else detectors.names(networks=asked.networks)
    judge = partial(judge_all, fit_configuration if asked.choice else detectors.fit, names)
    about: dict[str, object] = {"plants a family": asked.plants, "from number": asked.first}
    rounds = results.Rounds("choice" if asked.choice else "families", about, append=asked.append)
    rounds.begin()
    made = plants(range(asked.first, asked.first + asked.plants), asked.data, asked.families)
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        found = list(zip(made, pool.map(judge, made), strict=True))
    for family in dict.fromkeys(plant.family for plant in made):
        rows = [row for plant, row in found if plant.family == family]
        rounds.add(family, {name: summary([row[name] for row in rows]) for name in names})
    rounds.finish(write=asked.write)


if __name__ == "__main__":
    main()
