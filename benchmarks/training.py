"""The worth of the classification recipe on two public intent sets, through real jobs.

python -m benchmarks.training [--data ../shared/data] [--seeds 3] [--cache DIR] [--only banking77|few|clinc150]
[--mode frozen|auto|…]

The texts that are reported on (a fifth of Banking77's training file by a fixed seed; CLINC150's validation part) are
never in a job's files: each job holds out rows of its own for its choices. Prints accuracy, macro-F1, calibration
error, false-alarm rates on unseen in-scope texts, out-of-scope AUROC and recall, and the seconds (wall and
processor) from start to result.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from models.loader import load
from models.runtime.placement import place
from models.source import locate
from models.text.detectors.serialization import load_detector
from models.text.lexical_head import load_head
from models.training import metrics as evaluation
from models.training import metrics as measures
from models.training.embeddings import Embedder, EmbeddingCache
from models.training.heads import detector_selection

MODEL = "all-MiniLM-L6-v2"
Pairs = list[tuple[str, str]]


def banking(data: Path) -> tuple[Pairs, Pairs]:
    """Rows to train on, and a fifth to report on, the same on every run."""
    with (data / "banking77/train.csv").open(encoding="utf-8") as stream:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(stream)]
    random.Random(0).shuffle(rows)
    return rows[len(rows) // 5 :], rows[: len(rows) // 5]


def clinc(data: Path) -> tuple[Pairs, Pairs, list[str]]:
    """The training part, the validation part to report on, and texts that are out of scope."""
    parts = json.loads((data / "clinc150/data_full_train_val.json").read_text(encoding="utf-8"))
    train, val = ([(text, label) for text, label in parts[name]] for name in ("train", "val"))
    return train, val, [text for text, _ in (*parts["oos_val"], *parts["oos_train"])]


def few(rows: Pairs, each: int, seed: int) -> Pairs:
    """A number of rows of each label."""
    by_label: dict[str, Pairs] = defaultdict(list)
    for row in rows:
        by_label[row[1]].append(row)
    chance = random.Random(seed)
    return [row for label in sorted(by_label) for row in chance.sample(by_label[label], each)]


def train(
    rows: Pairs, directory: Path, cache: Path, seed: int, hyperparameters: Mapping[str, object]
) -> dict[str, float]:
    """Run a job as a worker does; return its metrics, with the process's `wall_s` and `cpu_s`."""
    (directory / "train.jsonl").write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    )
    job = {
        "job": "ftjob-benchmark",
        "base_spec": MODEL,
        "base": MODEL,
        "task": "classification",
        "seed": seed,
        "cache": str(cache),
    }
    job |= {"training_file": str(directory / "train.jsonl"), "hyperparameters": dict(hyperparameters)}
    (directory / "job.json").write_text(json.dumps(job))
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (directory / "events.jsonl").open("w") as events:
        subprocess.run([sys.executable, "-m", "models.training.run", str(directory)], stdout=events, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = json.loads((directory / "result.json").read_text())
    metrics: dict[str, float] = result["metrics"]
    return metrics | {"tuned": float(result["encoder"] == "own"), "wall_s": time.monotonic() - start, "cpu_s": spent}


def judge(result: Path, base: Embedder, rows: Pairs, out_of_scope: Sequence[str] = ()) -> dict[str, float]:
    """Metrics of the published files on rows that no job has seen."""
    head, detector = load_head(result), load_detector(result)
    embed = Embedder(load(locate(f"tuned={result / 'encoder'}"), place())) if (result / "encoder").is_dir() else base
    x = embed([text for text, _ in rows])
    truth = np.array([head.labels.index(label) for _, label in rows])
    probabilities = head.probabilities(torch.from_numpy(x), embed.read([text for text, _ in rows])).numpy()
    told = {
        "accuracy": evaluation.accuracy(truth, probabilities.argmax(axis=1)),
        "macro_f1": measures.macro_f1(truth, probabilities.argmax(axis=1), probabilities.shape[1]),
        "ece": evaluation.calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth),
        **detector_selection.false_alarms(detector, x),
    }
    if out_of_scope:
        normal, strange = (detector(torch.from_numpy(part)).numpy() for part in (x, embed(out_of_scope)))
        told |= {
            "oos_auroc": evaluation.auroc(normal, strange),
            "oos_recall_at_95": evaluation.recall_at_in_scope(normal, strange),
        }
    return told


def report(name: str, measured: Sequence[Mapping[str, float]]) -> None:
    """Means over seeds."""
    means = {key: float(np.mean([run[key] for run in measured])) for key in measured[0]}
    print(
        f"{name:18} ({len(measured)} seeds) " + ", ".join(f"{key} {value:.4f}" for key, value in means.items()),
        flush=True,
    )


def measure(
    name: str,
    parts: Sequence[Pairs],
    unseen: Pairs,
    out_of_scope: Sequence[str],
    cache: Path,
    settings: Mapping[str, object],
) -> None:
    """A job for each part, judged on the unseen rows."""
    embed = Embedder(load(locate(MODEL), place()), EmbeddingCache(cache))
    measured = []
    for seed, rows in enumerate(parts):
        with tempfile.TemporaryDirectory() as directory:
            spent = train(rows, Path(directory), cache, seed, settings)
            judged = judge(Path(directory) / "result", embed, unseen, out_of_scope)
        # A tuned encoder's head has no word pieces.
        measured.append(judged | {key: spent.get(key, 0.0) for key in ("C", "lexical", "tuned", "wall_s", "cpu_s")})
    report(name, measured)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3, help="draws of the few-shot parts")
    parser.add_argument("--cache", type=Path, help="keep embeddings here; the first run's seconds include making them")
    parser.add_argument("--mode", default="frozen", help="the jobs' mode; auto also tunes an encoder, which has to win")
    parser.add_argument("--only", choices=("banking77", "few", "clinc150"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        cache = chosen.cache or Path(temporary)
        rows, unseen = banking(chosen.data)
        if chosen.only in (None, "banking77"):
            measure("banking77", [rows], unseen, (), cache, {"held_out": 0.1, "mode": chosen.mode})
        for each in (10, 5) if chosen.only in (None, "few") else ():
            draws = [few(rows, each, seed) for seed in range(chosen.seeds)]
            measure(f"banking77, {each} each", draws, unseen, (), cache, {"held_out": 0.1, "mode": chosen.mode})
        if chosen.only in (None, "clinc150"):
            train_rows, val, out_of_scope = clinc(chosen.data)
            measure("clinc150", [train_rows], val, out_of_scope, cache, {"held_out": 0.1, "mode": chosen.mode})


if __name__ == "__main__":
    main()
