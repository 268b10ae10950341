"""The given data as families of their own: SKAB's pump, and NAB's files as jobs on one column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import nab, skab
from benchmarks.families.plant import Plant

_NAB_FOLDERS = ("realKnownCause", "artificialWithAnomaly")


def given(data: Path) -> Iterator[Plant]:
    """All plants of what is there; none where the folder is missing."""
    for path in skab.files(data):
        table = skab.read(path)
        if table.labels is None:
            raise ValueError(f"{path.name} has no labels")
        first, last = np.split(table.readings, [skab.TRAIN_ROWS])
        yield Plant("SKAB", f"SKAB {path.stem}", first, first[:0], last, table.labels[skab.TRAIN_ROWS :])
    if (data / "nab").is_dir():
        yield from filter(_can_be_learnt, map(_of_stream, nab.read(data, _NAB_FOLDERS)))


def _of_stream(stream: nab.Stream) -> Plant:
    """A job on the probation of a NAB file."""
    labels = np.zeros(len(stream.readings), np.bool_)
    for first, last in stream.labels.windows:
        labels[first : last + 1] = True
    learnt, live = np.split(stream.readings[:, None], [stream.labels.probation])
    return Plant("NAB", stream.name, learnt, learnt[:0], live, labels[stream.labels.probation :])


def _can_be_learnt(plant: Plant) -> bool:
    """Whether the training rows vary; a job refuses others."""
    return bool(plant.train.std() > 0)
