"""The gain of the embedding and rerank recipes on XQuAD in English, through real jobs.

python -m benchmarks.retrieval [--data ../shared/data] [--steps 40] [--only lora|full|negatives|rerank]

A third of the paragraphs, with their questions, is the validation file: no question and no paragraph of it is
trained on, and its questions search among its paragraphs. Rerank rows are a question with its paragraph (1) and the
base encoder's nearest others (0).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training import MODEL
from models.loader import load
from models.runtime.placement import place
from models.source import locate
from models.training.embeddings import Embedder, EmbeddingCache

Questions = dict[str, list[str]]
_NEGATIVES = {"train": 3, "held_out": 9}


def questions(data: Path) -> tuple[Questions, Questions]:
    """Paragraphs with questions: to train on, and a third held out, the same on every run."""
    articles = json.loads((data / "xquad/xquad.en.json").read_text(encoding="utf-8"))["data"]
    found = [
        (part["context"], [one["question"] for one in part["qas"]])
        for article in articles
        for part in article["paragraphs"]
    ]
    random.Random(0).shuffle(found)
    cut = len(found) // 3
    return dict(found[cut:]), dict(found[:cut])


def pairs(asked: Questions) -> list[dict[str, object]]:
    """Rows of the embedding recipe."""
    return [{"anchor": question, "positive": paragraph} for paragraph, each in asked.items() for question in each]


def graded(asked: Questions, embed: Embedder, negatives: int) -> list[dict[str, object]]:
    """Rows of the rerank recipe."""
    paragraphs, texts = list(asked), [question for each in asked.values() for question in each]
    near = np.argsort(-(embed(texts) @ embed(paragraphs).T), axis=1)
    of = {question: paragraph for paragraph, each in asked.items() for question in each}
    rows: list[dict[str, object]] = []
    for text, order in zip(texts, near, strict=True):
        others = [paragraphs[index] for index in order if paragraphs[index] != of[text]][:negatives]
        rows += [
            {"query": text, "document": document, "label": int(document == of[text])}
            for document in (of[text], *others)
        ]
    return rows


def run(
    task: str,
    train: Iterable[Mapping[str, object]],
    held: Iterable[Mapping[str, object]],
    settings: Mapping[str, object],
) -> None:
    """A job as the worker would run it; print what its result says."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for file, rows in (("train", train), ("held", held)):
            (directory / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        job: dict[str, Any] = {
            "job": "ftjob-benchmark",
            "base_spec": MODEL,
            "base": MODEL,
            "task": task,
            "hyperparameters": settings,
        }
        job |= {
            "training_file": str(directory / "train.jsonl"),
            "validation_file": str(directory / "held.jsonl"),
            "seed": 7,
        }
        (directory / "job.json").write_text(json.dumps(job), encoding="utf-8")
        began = time.monotonic()
        with (directory / "events.jsonl").open("w") as events:
            ended = subprocess.run(
                [sys.executable, "-m", "models.training.run", name], stdout=events, check=False
            ).returncode
        spent = time.monotonic() - began
        if ended:
            print(task, settings, f"ended with {ended}: {(directory / 'events.jsonl').read_text()[-500:]}")
            return
        metrics = json.loads((directory / "result.json").read_text())["metrics"]
    print(
        f"{task} {json.dumps(settings)}: {spent:.0f} s, "
        + ", ".join(f"{key} {value:.4f}" for key, value in metrics.items()),
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--only", choices=("lora", "full", "negatives", "rerank"))
    chosen = parser.parse_args()
    train, held = questions(chosen.data)
    print(
        f"{len(train)} paragraphs to train on, {len(held)} held out, with {len(pairs(train))} and {len(pairs(held))} "
        f"questions"
    )
    few: dict[str, object] = {"max_steps": chosen.steps, "batch_size": 16}
    kinds: dict[str, dict[str, object]] = {
        "lora": {},
        "full": {"mode": "full"},
        "negatives": {"mode": "full", "hard_negatives": 1},
    }
    for name, more in kinds.items():
        if chosen.only in (None, name):
            run("embedding", pairs(train), pairs(held), {**few, **more})
    if chosen.only in (None, "rerank"):
        with tempfile.TemporaryDirectory() as cache:
            embed = Embedder(load(locate(MODEL), place()), EmbeddingCache(Path(cache)))
            rows = [graded(asked, embed, _NEGATIVES[part]) for part, asked in (("train", train), ("held_out", held))]
        run("rerank", rows[0], rows[1], few)


if __name__ == "__main__":
    main()
