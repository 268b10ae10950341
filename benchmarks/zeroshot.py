"""The zero-shot temperatures, fitted on label names alone on two public intent sets.

python -m benchmarks.zeroshot [--data ../shared/data] [--texts 2000]

Prints accuracy, the temperature of least negative log-likelihood for subsets of 2 labels up to all, the expected
calibration error at the shipped temperature, and the logistic fit behind the multi-label constants.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from models.loader import load
from models.runtime.placement import place
from models.source import locate
from models.text.model import TextModel
from models.text.zero_shot import TEMPERATURE
from models.training.metrics import calibration_error

_TEMPERATURES = [0.02 + 0.005 * step for step in range(21)]
_SUBSETS = (2, 5, 10, 20)


def read(data: Path, count: int) -> dict[str, list[tuple[str, str]]]:
    """Pairs of text and label from Banking77 and CLINC150, `count` of each by a fixed seed."""
    with (data / "banking77/train.csv").open(encoding="utf-8") as stream:
        banking = [(row["text"], row["category"]) for row in csv.DictReader(stream)]
    clinc = [
        (text, label)
        for text, label in json.loads((data / "clinc150/data_full_train_val.json").read_text(encoding="utf-8"))["val"]
    ]
    chance = random.Random(0)
    return {
        "banking77": chance.sample(banking, min(count, len(banking))),
        "clinc150": chance.sample(clinc, min(count, len(clinc))),
    }


def embed(model: TextModel, texts: list[str]) -> Tensor:
    """Vectors of length 1, [n, d]."""
    tokens = model.text.encode(texts)
    rows = [model.forward(tokens[at : at + 32]) for at in range(0, len(tokens), 32)]
    return torch.nn.functional.normalize(torch.from_numpy(np.concatenate(rows)), dim=-1)


def subset(cosine: Tensor, truth: Tensor, labels: int, chance: random.Random) -> tuple[Tensor, Tensor]:
    """The texts of labels drawn at random, and their cosines to those labels alone."""
    chosen = sorted(chance.sample(range(cosine.shape[1]), labels))
    rows = torch.isin(truth, torch.tensor(chosen))
    return cosine[rows][:, chosen], torch.searchsorted(torch.tensor(chosen), truth[rows])


def report(name: str, cosine: Tensor, truth: Tensor) -> None:
    """Best temperature and the shipped one's calibration for several numbers of labels."""
    chance = random.Random(1)
    for labels in (*_SUBSETS, cosine.shape[1]):
        draws = [subset(cosine, truth, labels, chance) for _ in range(20 if labels < cosine.shape[1] else 1)]
        loss = {
            t: float(np.mean([torch.nn.functional.cross_entropy(c / t, y).item() for c, y in draws]))
            for t in _TEMPERATURES
        }
        probabilities = [(c / TEMPERATURE).softmax(-1).max(-1) for c, _ in draws]
        right = torch.cat([p.indices == y for p, (_, y) in zip(probabilities, draws, strict=True)])
        error = calibration_error(torch.cat([p.values for p in probabilities]).numpy(), right.numpy(), bins=10)
        best = min(loss, key=lambda t: loss[t])
        accuracy = float(right.float().mean())
        print(
            f"{name:10} {labels:4} labels: accuracy {accuracy:.3f}, best temperature {best:.3f}, ECE at "
            f"{TEMPERATURE} {error:.3f}"
        )


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--texts", type=int, default=2000)
    chosen = parser.parse_args()
    model = load(locate("all-MiniLM-L6-v2"), place("auto", "float32"))
    pairs: list[tuple[Tensor, Tensor]] = []
    for name, rows in read(chosen.data, chosen.texts).items():
        labels = sorted({label for _, label in rows})
        cosine = (
            embed(model, [text for text, _ in rows]) @ embed(model, [label.replace("_", " ") for label in labels]).T
        )
        truth = torch.tensor([labels.index(label) for _, label in rows])
        report(name, cosine, truth)
        pairs.append((cosine, torch.nn.functional.one_hot(truth, len(labels))))
    # Ten labels a request is the case the multi-label constants are for: nine wrong pairs to each right one.
    right = torch.cat([c[hit.bool()] for c, hit in pairs])
    wrong = torch.cat([c[~hit.bool()] for c, hit in pairs])
    wrong = wrong[torch.randperm(len(wrong), generator=torch.Generator().manual_seed(0))[: 9 * len(right)]]
    fit = LogisticRegression(C=1e6).fit(torch.cat([right, wrong])[:, None].numpy(), [1] * len(right) + [0] * len(wrong))
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    print(f"multi-label: temperature {1 / slope:.3f}, bias {-intercept / slope:.3f}")


if __name__ == "__main__":
    main()
