"""The rows of a classification job: texts with class numbers, and texts that are out of scope."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from models.training.data.dataset import DataSplit
from models.training.embeddings import Embed
from models.training.errors import TrainingDataError
from models.training.heads.linear_head import Examples, Ints

# With this number of rows a label or fewer, its name is worth an example: Banking77 gained 1.1 points at 5 a label, 0.4
# at 10.
_FEW_ROWS = 20


@dataclass(frozen=True, slots=True)
class TextDataset:
    """Texts to train on and held-out texts, with their class numbers into `labels`; out-of-scope texts.

    `label_names` says whether the labels' names are examples, too; "auto" decides by the rows a label.
    """

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    y: Ints
    held_texts: tuple[str, ...]
    held_y: Ints
    out_of_scope: tuple[str, ...]
    label_names: bool | Literal["auto"]

    @classmethod
    def of(cls, parts: DataSplit, label_names: bool | Literal["auto"]) -> TextDataset:
        """Number the labels of the training rows in alphabetical order."""
        train, held = parts.train, parts.held_out
        if train.labels is None or held.labels is None:
            message = "training_file: classification takes rows of text and label"
            raise TrainingDataError("wrong_row_kind", message, "training_file")
        labels = tuple(sorted(set(train.labels)))
        number = {label: index for index, label in enumerate(labels)}
        y, held_y = (np.array([number[label] for label in rows], np.int64) for rows in (train.labels, held.labels))
        return cls(labels, tuple(train.texts[0]), y, tuple(held.texts[0]), held_y, parts.out_of_scope, label_names)

    @property
    def whole(self) -> TextDataset:
        """The same with all rows to train on: first the training rows, then the held-out ones."""
        return replace(self, texts=self.texts + self.held_texts, y=np.concatenate([self.y, self.held_y]))

    @property
    def one_of_each_label(self) -> list[str]:
        """The first held-out text of each label that has one."""
        first = {int(number): text for number, text in zip(self.held_y[::-1], self.held_texts[::-1], strict=True)}
        return [first[number] for number in sorted(first)]

    @property
    def label_texts(self) -> tuple[str, ...]:
        """The labels' names as texts, where each is worth an example; else none."""
        few = float(np.median(np.bincount(self.y))) <= _FEW_ROWS
        if self.label_names is True or (self.label_names == "auto" and few):
            return tuple(label.replace("_", " ") for label in self.labels)
        return ()

    @property
    def tuning_rows(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Texts and labels to tune an encoder on, the labels' names among them."""
        names = self.label_texts
        labels = tuple(self.labels[number] for number in self.y.tolist())
        return self.texts + names, labels + (self.labels if names else ())

    def without(self, rows: Ints) -> TextDataset:
        """The same without these training rows."""
        kept = np.setdiff1d(np.arange(len(self.texts)), rows)
        return replace(self, texts=self.texts_at(kept), y=self.y[kept])

    def texts_at(self, rows: Ints) -> tuple[str, ...]:
        """The texts of these training rows."""
        return tuple(self.texts[row] for row in rows.tolist())

    def examples(self, embed: Embed, views: Embed | None = None) -> Examples:
        """The embedded rows that a head is fitted to, with those of the labels' names, or with the rows' views."""
        x, names = embed(self.texts), self.label_texts
        if views is not None:
            return Examples.with_views(x, self.y, views(self.texts))
        return Examples.of(x, self.y, embed(names), np.arange(len(names))) if names else Examples.of(x, self.y)
