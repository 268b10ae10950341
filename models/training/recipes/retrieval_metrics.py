"""Metrics of search and similarity, on held-out rows and on everyday sentences."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from models.training import metrics as measures
from models.training.data.rows import TextRows, normalized
from models.training.embeddings import Embed, Floats

_AT = 10
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class RetrievalMetrics:
    """Metrics on held-out rows; `each` is the reciprocal rank of every query [q], empty for rows without a search."""

    metrics: dict[str, float]
    each: NDArray[np.float64]


def evaluate(embed: Embed, rows: TextRows) -> RetrievalMetrics:
    """Evaluate an encoder on rows of a kind.

    pairs: `ndcg_at_10`, `mrr`, `accuracy_at_1` of finding an anchor's positives among all held-out positives.
    triplets: the same with the negatives among the documents, and `triplet_accuracy`, the share of positives nearer
    than their negative.
    scored: `spearman`.
    """
    columns = [embed(column) for column in rows.texts]
    if rows.kind == "scored":
        cosines = (columns[0] * columns[1]).sum(axis=1).astype(np.float64)
        truth = np.asarray(rows.scores, dtype=np.float64)
        return RetrievalMetrics({"spearman": measures.spearman(truth, cosines)}, np.empty(0))
    if rows.kind not in ("pairs", "triplets"):
        raise ValueError(f"expected pairs, triplets or scored rows, got {rows.kind}")
    result = search(rows, columns)
    if rows.kind == "triplets":
        anchors, positives, negatives = columns
        nearer = (anchors * (positives - negatives)).sum(axis=1) > 0
        result.metrics["triplet_accuracy"] = float(nearer.mean())
    return result


def search(rows: TextRows, columns: Sequence[Floats]) -> RetrievalMetrics:
    """nDCG@10 (Järvelin and Kekäläinen, 2002), mean reciprocal rank and accuracy of the first hit, one query an anchor.

    `columns` are the embeddings [n, d] of the rows' texts. Equal texts are one document and one query. Among equal
    scores a positive comes last, so an encoder that gives every text the same vector gains nothing.
    """
    pool, number_of = _distinct(rows.texts[1:])
    documents = np.concatenate(columns[1:])[pool]
    queries: dict[str, tuple[int, set[int]]] = {}
    for row, (anchor, positive) in enumerate(zip(rows.texts[0], rows.texts[1], strict=True)):
        queries.setdefault(normalized(anchor), (row, set()))[1].add(number_of[normalized(positive)])
    ranks = _ranks(columns[0], documents, list(queries.values()))
    first = np.array([rank.min() for rank in ranks])
    metrics = {
        f"ndcg_at_{_AT}": float(np.mean([_ndcg(rank) for rank in ranks])),
        "mrr": float((1.0 / first).mean()),
        "accuracy_at_1": float((first == 1).mean()),
    }
    return RetrievalMetrics(metrics, 1.0 / first)


def sanity(embed: Embed) -> dict[str, float]:
    """Metrics on everyday sentences; where they fall, the encoder has forgotten.

    `sanity_accuracy` is the share of paraphrases nearer than an unrelated sentence, `sanity_margin` by how much cosine.
    """
    sentence, paraphrase, other = (embed(column) for column in sanity_texts())
    near, far = (sentence * paraphrase).sum(axis=1), (sentence * other).sum(axis=1)
    return {"sanity_accuracy": float((near > far).mean()), "sanity_margin": float((near - far).mean())}


def sanity_texts() -> list[list[str]]:
    """Columns: sentences, a paraphrase of each, and an unrelated sentence that shares words with it."""
    rows: list[list[str]] = json.loads((files("models.training.recipes") / "sanity.json").read_text(encoding="utf-8"))
    return [list(column) for column in zip(*rows, strict=True)]


def relevance_metrics(queries: Sequence[str], grades: Sequence[float], scores: Floats) -> dict[str, float]:
    """A reranker's `ndcg_at_10`, mean over queries, and `auroc` over all rows; without those that rows cannot tell."""
    by_query: dict[str, list[int]] = defaultdict(list)
    for row, query in enumerate(queries):
        by_query[normalized(query)].append(row)
    metrics: dict[str, float] = {}
    relevant = np.asarray(grades) > 0
    if relevant.any():
        groups = by_query.values()
        query_grades = [[grades[row] for row in group] for group in groups]
        query_scores = [[float(scores[row]) for row in group] for group in groups]
        metrics[f"ndcg_at_{_AT}"] = measures.ndcg(query_grades, query_scores, k=_AT)
        if not relevant.all():
            metrics["auroc"] = measures.auroc(scores[~relevant], scores[relevant])
    return metrics


def _distinct(columns: Sequence[Sequence[str]]) -> tuple[list[int], dict[str, int]]:
    """The rows of the joined columns where each distinct text stands first, and its number among them."""
    rows: list[int] = []
    number_of: dict[str, int] = {}
    for row, text in enumerate(text for column in columns for text in column):
        if number_of.setdefault(normalized(text), len(rows)) == len(rows):
            rows.append(row)
    return rows, number_of


def _ranks(anchors: Floats, documents: Floats, queries: Sequence[tuple[int, set[int]]]) -> list[NDArray[np.int64]]:
    """For each query (its row, its relevant documents) the ranks from 1 of its relevant documents, best first."""
    ranks: list[NDArray[np.int64]] = []
    for start in range(0, len(queries), _ROWS_AT_ONCE):
        part = queries[start : start + _ROWS_AT_ONCE]
        similarity = anchors[[row for row, _ in part]] @ documents.T
        for scores, (_, relevant) in zip(similarity, part, strict=True):
            own = np.sort(scores[sorted(relevant)])[::-1]
            # Its own place among the relevant, and behind every other document that scores as much.
            others = np.delete(scores, sorted(relevant))
            ranks.append(np.array([1 + place + int((others >= score).sum()) for place, score in enumerate(own)]))
    return ranks


def _ndcg(ranks: NDArray[np.int64]) -> float:
    best = (1.0 / np.log2(np.arange(2, min(len(ranks), _AT) + 2))).sum()
    return float((1.0 / np.log2(ranks[ranks <= _AT] + 1)).sum() / best)
