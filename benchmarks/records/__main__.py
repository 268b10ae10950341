"""Detectors of records on kinds of tables for which they were not tuned.

python -m benchmarks.records [--tables 3] [--networks] [--write]

Each kind has `--tables` generated tables. Every detector is trained as a job trains it, and judges later rows at
alpha 0.05: 1,000 normal ones, and 30 with each of four faults. `auto` is the detector that a job takes. PyOD's
detectors are compared where PyOD is installed.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch

from benchmarks import results
from benchmarks.records.detectors import AUTO, others, ours
from benchmarks.records.generators import KINDS
from benchmarks.records.outcome import judge_all, summary
from benchmarks.records.tables import generate


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=3, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="the number of each kind's first table")
    parser.add_argument("--networks", action="store_true", help="the network too, which takes a minute a table")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    results.add_flags(parser)
    asked = parser.parse_args()
    names = [*ours(networks=asked.networks), *others()]
    about: dict[str, object] = {"tables a kind": asked.tables, "from number": asked.first}
    rounds = results.Rounds("records", about, append=asked.append)
    rounds.begin()
    made = [generate(kind, number) for kind in KINDS for number in range(asked.first, asked.first + asked.tables)]
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        found = list(zip(made, pool.map(partial(judge_all, names, networks=asked.networks), made), strict=True))
    for kind in KINDS:
        rows = [row for one, row in found if one.kind == kind]
        rounds.add(kind, {name: summary([row[name] for row in rows]) for name in (AUTO, *names)})
    rounds.finish(write=asked.write)


if __name__ == "__main__":
    main()
