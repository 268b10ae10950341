"""The accuracy of int8: cosines to float32, and agreement with human similarity grades.

python -m benchmarks.int8 [--data ../shared/data] [--texts 600]

Texts are CLINC150's validation utterances; a pair is graded 2 with one intent, 1 with one domain, 0 otherwise.
Banking77's questions, the English and the Vietnamese paragraphs of XQuAD are for cosines alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from models.linalg import normalize
from models.loader import load
from models.runtime.placement import place
from models.source import DEFAULT_MODEL, locate
from models.text.model import TextModel

Rows = NDArray[np.float32]
_BATCH = 32


def main() -> None:
    """Print a line for each set of texts, then the similarity set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--texts", type=int, default=600)
    chosen = parser.parse_args()
    source = locate(DEFAULT_MODEL)
    exact, rounded = load(source, place("cpu", "float32")), load(source, place("cpu", "int8"))
    for name, texts in _texts(chosen.data, chosen.texts).items():
        cosines = (vectors(exact, texts) * vectors(rounded, texts)).sum(axis=1)
        print(
            f"{name:24} {len(texts):5} texts  cosine to float32: mean {cosines.mean():.4f}  least {cosines.min():.4f}",
            flush=True,
        )
    asked, grades = similarity_set(chosen.data, chosen.texts)
    before, after = (agreement(vectors(model, asked), grades) for model in (exact, rounded))
    print(f"Spearman with the grades, in points: float32 {before:.2f}, int8 {after:.2f}, lost {before - after:.2f}")


def vectors(model: TextModel, texts: list[str]) -> Rows:
    """Embed texts in batches, normalized."""
    tokens = model.text.encode(texts)
    return normalize(np.concatenate([model.forward(tokens[at : at + _BATCH]) for at in range(0, len(tokens), _BATCH)]))


def agreement(rows: Rows, grades: NDArray[np.int64]) -> float:
    """Spearman's correlation of the pairs' cosines with `grades` [n, n], times 100."""
    pairs = np.triu_indices(len(rows), 1)
    return 100 * float(spearmanr((rows @ rows.T)[pairs], grades[pairs])[0])


def similarity_set(data: Path, count: int) -> tuple[list[str], NDArray[np.int64]]:
    """Texts, and for each pair of them its grade, int64 [n, n]."""
    rows = json.loads((data / "clinc150" / "data_full_train_val.json").read_text(encoding="utf-8"))["val"]
    domains = json.loads((data / "clinc150" / "domains.json").read_text(encoding="utf-8"))
    of = {intent: domain for domain, intents in domains.items() for intent in intents}
    chosen = random.Random(0).sample(rows, min(count, len(rows)))
    intents, groups = np.array([intent for _, intent in chosen]), np.array([of[intent] for _, intent in chosen])
    return [text for text, _ in chosen], (groups[:, None] == groups).astype(np.int64) + (intents[:, None] == intents)


def _texts(data: Path, count: int) -> dict[str, list[str]]:
    with (data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        questions = [row["text"] for row in csv.DictReader(file)]
    found = {"Banking77": random.Random(0).sample(questions, count), "CLINC150": similarity_set(data, count)[0]}
    for language in ("en", "vi"):
        pages = json.loads((data / "xquad" / f"xquad.{language}.json").read_text(encoding="utf-8"))["data"]
        paragraphs = [paragraph["context"] for page in pages for paragraph in page["paragraphs"]]
        found[f"XQuAD, {language}"] = paragraphs[: count // 8]
    return found


if __name__ == "__main__":
    main()
