"""Tuning the real MiniLM: on a few intents of Banking77 it must not cost accuracy, nor what the encoder knew before."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.loader import load
from models.runtime.placement import place
from models.source import DEFAULT_MODEL, locate
from models.training.embeddings import Embedder
from models.training.recipes.retrieval_metrics import sanity
from models.training.report import Report
from models.training.tuning.labelled_tuning import LabelledTuning, default_settings

BANKING = Path(__file__).parents[5] / "shared" / "data" / "banking77" / "train.csv"
CLASSES, EACH, HELD_OUT = 4, 8, 8


@pytest.mark.slow
@pytest.mark.real
def test_contrastive_tuning_of_the_real_encoder_does_not_lose_accuracy(tmp_path: Path) -> None:
    if not BANKING.is_file():
        pytest.skip(f"no {BANKING.name} of Banking77 beside the project")
    by_label: dict[str, list[str]] = defaultdict(list)
    with BANKING.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            by_label[row["category"]].append(row["text"])
    chosen = sorted(by_label)[:CLASSES]
    train = [(text, label) for label in chosen for text in by_label[label][:EACH]]
    held_out = [(text, label) for label in chosen for text in by_label[label][EACH : EACH + HELD_OUT]]
    texts, labels = [text for text, _ in train], [label for _, label in train]
    torch.set_num_threads(1)
    source, cpu, report = locate(DEFAULT_MODEL), place("cpu", "float32"), Report()
    settings = replace(default_settings("contrastive", len(texts)), epochs=2.0)
    tuning = LabelledTuning(source, cpu, texts, labels, settings, lambda event: None, tmp_path, report=report)
    path = tuning.contrastive()
    before, after = (Embedder(load(place_of, cpu)) for place_of in (source, locate(f"tuned={path}")))
    assert right(after, train, held_out) >= right(before, train, held_out)
    assert sanity(after)["sanity_accuracy"] >= 0.95
    assert [finding for finding in report.findings if finding.status == "fail"] == []


def right(embed: Embedder, train: list[tuple[str, str]], held_out: list[tuple[str, str]]) -> float:
    """Accuracy of the nearest class mean."""
    labels = sorted({label for _, label in train})
    rows = embed([text for text, _ in train])
    means = np.stack([rows[[own == label for _, own in train]].mean(axis=0) for label in labels])
    predicted = (embed([text for text, _ in held_out]) @ means.T).argmax(axis=1)
    return float(np.mean([labels[number] == label for number, (_, label) in zip(predicted, held_out, strict=True)]))
