"""The embedding and rerank recipes: judged before and after, saved as they are served, nothing that is asked for
ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.errors import ModelSourceError
from models.linalg import normalize
from models.loader import load
from models.runtime.placement import place
from models.source import locate
from models.text.sequence_classifier import SequenceClassifier
from models.training.context import TextContext
from models.training.data.dataset import DataSplit
from models.training.data.rows import RowKind, TextRows
from models.training.embeddings import Embedder
from models.training.errors import HyperparameterError, TrainingDataError
from models.training.hyperparameters import EmbeddingHyperparameters, RerankHyperparameters
from models.training.job import TrainingJob
from models.training.recipes import embedding, rerank
from models.training.recipes.retrieval_metrics import (
    RetrievalMetrics,
    evaluate,
    relevance_metrics,
    sanity,
    sanity_texts,
)
from models.training.report import Report
from models.training.tuning.hard_negatives import mine_hard_negatives
from models.training.tuning.settings import TunerSettings, augmenter, merge_settings
from models.training.tuning.trainable_cross_encoder import TrainableCrossEncoder, score_pairs
from tests.support import tiny_models

pytestmark = pytest.mark.slow

CPU = place("cpu", "float32")
Floats = NDArray[np.float32]


def rows(kind: RowKind, number: int = 24, start: int = 0) -> TextRows:
    """Questions and the answers that belong to them; scores of how much they do."""
    names = ["card", "bank", "cash", "loan", "rate", "fees", "visa", "code", "mail", "user", "safe", "sale"]
    picked = [(names[i % 12], i) for i in range(start, start + number)]
    texts = [[f"{name} question {i}" for name, i in picked], [f"{i} answer about {name}" for name, i in picked]]
    other = [f"{i} answer about {names[(i + 5) % 12]}" for _, i in picked]
    if kind == "triplets":
        texts.append(other)
    if kind in ("scored", "relevance"):
        texts[0] = [f"{name} question" for name, _ in picked]
        texts[1] = [text if i % 2 else wrong for text, wrong, (_, i) in zip(texts[1], other, picked, strict=True)]
    marks = [float(i % 2) for _, i in picked] if kind in ("scored", "relevance") else None
    return TextRows(kind, texts, None, marks, list(range(1, number + 1)))


def context(
    tmp_path: Path, model: Path, *, checkpoint: Path | None = None, incumbent: Path | None = None
) -> TextContext:
    source = locate(f"base={model}")
    job = TrainingJob(
        "ftjob-1",
        str(model),
        "base",
        "embedding",
        tmp_path / "f.jsonl",
        seed=3,
        checkpoint=checkpoint,
        incumbent=incumbent,
    )
    loaded = load(source, CPU)
    directory = tmp_path / "attempt"
    (directory / "result").mkdir(parents=True)
    told: list[Mapping[str, object]] = []
    return TextContext(job, directory, told.append, Report(), source, CPU, None, Embedder(loaded), loaded)


@pytest.mark.parametrize(
    ("kind", "asked", "metric"),
    [
        ("pairs", {}, "ndcg_at_10"),
        ("pairs", {"mode": "full", "hard_negatives": 2}, "mrr"),
        ("triplets", {"matryoshka": [8, 32]}, "mrr"),
        ("scored", {"loss": "angle", "mode": "full", "augmentation": {"typos": 0.1}}, "spearman"),
    ],
)
def test_an_encoder_is_tuned_judged_and_saved(
    tmp_path: Path, kind: RowKind, asked: dict[str, Any], metric: str
) -> None:
    work = context(tmp_path, tiny_models.encoder(tmp_path / "tiny"))
    wanted = EmbeddingHyperparameters.model_validate(
        {"n_epochs": 3, "batch_size": 8, "learning_rate": 4e-3, "warmup": 0.0, **asked}
    )
    outcome = embedding.train(work, wanted, DataSplit(rows(kind, 48), rows(kind, 12, 48), (), same_file=True))
    assert (outcome.encoder, outcome.mode, outcome.labels) == ("own", asked.get("mode", "lora"), ())
    assert outcome.metrics[metric] > outcome.metrics[f"base_{metric}"]
    assert 0 <= outcome.metrics["base_sanity_accuracy"] <= 1
    assert ("mrr_d8" in outcome.metrics) == ("matryoshka" in asked)
    assert outcome.trained_tokens > 0
    assert {finding.stage for finding in work.report.findings} == {"loss", "gradient", "outcome"}
    served = Embedder(load(locate(str(work.result / "encoder")), CPU))
    texts: Any = outcome.golden["texts"]
    assert np.allclose(served(texts), np.array(outcome.golden["rows"]), atol=1e-4)


def test_scored_pairs_are_compared_with_the_base_and_what_was_lost_is_told(tmp_path: Path) -> None:
    work = context(tmp_path, tiny_models.encoder(tmp_path / "tiny"))
    better, worse = RetrievalMetrics({"spearman": 0.4}, np.empty(0)), RetrievalMetrics({"spearman": 0.1}, np.empty(0))
    for before, after, status in ((worse, better, "ok"), (better, worse, "warn")):
        work.report.findings.clear()
        embedding._add_findings(
            work, rows("scored", 12), work.embedder, (before, after), (sanity(work.embedder), sanity(work.embedder))
        )
        told = next(finding for finding in work.report.findings if finding.check == "spearman_against_base")
        assert (told.stage, told.status, bool(told.remedy)) == ("outcome", status, status == "warn")
        assert f"on 12 held-out rows is {after.metrics['spearman']:.3f}" in told.message


def test_the_version_in_service_is_judged_on_the_same_rows(tmp_path: Path) -> None:
    tiny_models.encoder(tmp_path / "now" / "encoder")
    work = context(tmp_path, tiny_models.encoder(tmp_path / "tiny"), incumbent=tmp_path / "now")
    outcome = embedding.train(
        work, EmbeddingHyperparameters(max_steps=2), DataSplit(rows("pairs"), rows("pairs", 6, 24), (), same_file=True)
    )
    assert outcome.incumbent_metrics is not None
    assert outcome.incumbent_metrics["mrr"] == pytest.approx(outcome.metrics["base_mrr"])


@pytest.mark.parametrize(
    ("kind", "asked", "message"),
    [
        ("scored", {"hard_negatives": 1}, "only pairs"),
        ("pairs", {"matryoshka": [64]}, "32 dimensions"),
        ("pairs", {"loss": "cosent"}, "does not fit rows of kind 'pairs'"),
    ],
)
def test_what_rows_or_encoder_cannot_do_is_refused(
    tmp_path: Path, kind: RowKind, asked: dict[str, Any], message: str
) -> None:
    work = context(tmp_path, tiny_models.encoder(tmp_path / "tiny"))
    with pytest.raises(HyperparameterError, match=message):
        embedding.train(
            work,
            EmbeddingHyperparameters.model_validate(asked),
            DataSplit(rows(kind), rows(kind, 6), (), same_file=True),
        )


def test_pairs_that_all_share_a_text_have_no_negatives(tmp_path: Path) -> None:
    work = context(tmp_path, tiny_models.encoder(tmp_path / "tiny"))
    pairs = TextRows("pairs", [["a", "b", "c"], ["same", "same", "same"]], None, None, [1, 2, 3])
    with pytest.raises(TrainingDataError, match="in-batch negatives"):
        embedding.train(work, EmbeddingHyperparameters(), DataSplit(pairs, rows("pairs", 6), (), same_file=True))
    with pytest.raises(HyperparameterError, match="no anchor has a text"):
        embedding.train(
            work, EmbeddingHyperparameters(hard_negatives=1), DataSplit(pairs, rows("pairs", 6), (), same_file=True)
        )


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize(
    "make", [tiny_models.encoder, partial(tiny_models.cross_encoder, spread=0.02)], ids=["encoder", "cross_encoder"]
)
def test_a_reranker_is_tuned_judged_and_served(tmp_path: Path, make: Any, mode: Any) -> None:
    work = context(tmp_path, make(tmp_path / "tiny"))
    more: dict[str, Any] = {"lora_rank": 8} if mode == "lora" else {}
    asked = RerankHyperparameters(
        mode=mode, n_epochs=10, batch_size=16, learning_rate=3e-3, schedule="constant", **more
    )
    train, held_out = copied("card", 64), copied("bank", 24)
    outcome = rerank.train(work, asked, DataSplit(train, held_out, (), same_file=True))
    assert outcome.encoder == "own"
    assert set(outcome.metrics) == {"ndcg_at_10", "auroc", "base_ndcg_at_10", "base_auroc", "held_out_rows"}
    judged = [finding.check for finding in work.report.findings if finding.stage == "outcome"]
    assert judged == ["ndcg_at_10_against_base", "auroc_against_base"]
    served = load(locate(str(work.result / "encoder")), CPU)
    assert isinstance(served, SequenceClassifier)
    assert (served.metadata.task, served.metadata.width) == ("rerank", 1)
    trained = score_pairs(served, list(zip(*train.texts, strict=True)))
    assert relevance_metrics(train.texts[0], train.scores or [], trained)["auroc"] > 0.85
    assert served.text.max_tokens == work.model.text.max_tokens
    golden: Any = outcome.golden
    query, document = golden["texts"][0]
    assert torch.tensor(score_pairs(served, [(query, document)])).sigmoid().item() == pytest.approx(
        golden["rows"][0][0], abs=1e-4
    )


def copied(word: str, number: int) -> TextRows:
    """Documents that say yes are relevant."""
    documents = [f"{'yes' if i % 2 else 'no'} {i % 7}" for i in range(number)]
    return TextRows(
        "relevance",
        [[f"{word} {i // 4}" for i in range(number)], documents],
        None,
        [float(i % 2) for i in range(number)],
        [*range(number)],
    )


@pytest.mark.parametrize("grades", [[1.0, 1.0], [-1.0, 1.0], [float("nan"), 1.0]])
def test_labels_that_teach_nothing_are_refused(grades: list[float]) -> None:
    with pytest.raises(TrainingDataError) as error:
        rerank._targets(TextRows("relevance", [["a", "b"], ["c", "d"]], None, grades, [1, 2]))
    assert error.value.column == "label"


def test_grades_become_shares_of_the_highest() -> None:
    assert rerank._targets(
        TextRows("relevance", [["a"] * 3, ["b"] * 3], None, [0.0, 1.0, 3.0], [1, 2, 3])
    ).tolist() == pytest.approx([0, 1 / 3, 1])


def test_a_classifier_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="3 labels"):
        TrainableCrossEncoder(locate(str(tiny_models.classifier(tmp_path / "classes"))), CPU, TunerSettings())


def table(vectors: Mapping[str, Sequence[float]]) -> Any:
    """An encoder that knows a few texts."""

    def embed(texts: Sequence[str]) -> Floats:
        found = np.array([vectors[text] for text in texts], dtype=np.float32)
        return normalize(found)

    return embed


def test_hard_negatives_are_near_and_wrong_never_right_or_nearly_so() -> None:
    embed = table(
        {
            "q1": [1, 0, 0],
            "q2": [0, 1, 0],
            "p1": [1, 0.1, 0],
            "p1 again": [1, 0.2, 0],
            "twin": [1, 0.11, 0],
            "near": [1, 0.8, 0],
            "far": [0, 0, 1],
        }
    )
    pairs = TextRows(
        "pairs",
        [["q1", "q1", "q2", "q2", "q2"], ["p1", "p1 again", "twin", "near", "far"]],
        None,
        None,
        [1, 2, 3, 4, 5],
    )
    mined = mine_hard_negatives(pairs, embed, 1, seed=0)
    assert mined.kind == "triplets"
    assert mined.lines == [1, 2, 3, 4, 5]
    assert mined.texts[2][:2] == ["near", "near"]
    assert all(negative in ("p1", "p1 again") for negative in mined.texts[2][2:])
    assert mine_hard_negatives(pairs, embed, 1, seed=0) == mined
    with pytest.raises(ValueError, match="expected pairs"):
        mine_hard_negatives(mined, embed, 1, seed=0)


def test_a_search_is_judged_by_the_ranks_of_its_positives() -> None:
    embed = table({"q1": [1, 0], "Q1": [1, 0], "q2": [0, 1], "a": [1, 0.1], "b": [1, 0.2], "c": [1, 0.05]})
    found = evaluate(embed, TextRows("pairs", [["q1", "q2", "Q1"], ["a", "b", "c"]], None, None, [1, 2, 3]))
    assert found.metrics == pytest.approx({"ndcg_at_10": 1.0, "mrr": 1.0, "accuracy_at_1": 1.0})
    worse = evaluate(embed, TextRows("pairs", [["q1", "q2"], ["b", "a"]], None, None, [1, 2]))
    assert worse.metrics == pytest.approx({"ndcg_at_10": 1 / np.log2(3), "mrr": 0.5, "accuracy_at_1": 0.0})
    assert worse.each.tolist() == [0.5, 0.5]


def test_an_encoder_that_tells_nothing_apart_gains_nothing() -> None:
    def constant(texts: Sequence[str]) -> Floats:
        return np.ones((len(texts), 1), dtype=np.float32)

    found = evaluate(constant, rows("triplets", 24)).metrics
    assert found["triplet_accuracy"] == found["accuracy_at_1"] == 0.0
    assert found["mrr"] < 0.05
    assert sanity(constant)["sanity_accuracy"] == 0.0


def test_the_everyday_sentences_are_thirty_different_triples() -> None:
    columns = sanity_texts()
    assert [len(column) for column in columns] == [30, 30, 30]
    assert len({text for column in columns for text in column}) == 90


def test_forgetting_is_told() -> None:
    before, after = {"sanity_accuracy": 1.0, "sanity_margin": 0.5}, {"sanity_accuracy": 0.8, "sanity_margin": 0.1}
    finding = embedding.forgetting(before, after)
    assert (finding.status, finding.check) == ("warn", "forgetting")
    assert embedding.forgetting(before, before).status == "ok"


def test_what_a_job_asks_for_takes_the_place_of_the_recipes_own() -> None:
    own = TunerSettings(learning_rate=1e-4, epochs=2)
    asked = EmbeddingHyperparameters.model_validate(
        {"learning_rate_multiplier": 3, "batch_size": 5, "n_epochs": "auto", "mode": "auto", "loss": "auto"}
    )
    got = merge_settings(own, asked, seed=9)
    assert got.learning_rate == pytest.approx(3e-4)
    assert (got.batch_size, got.epochs, got.mode, got.loss, got.seed) == (5, 2, "full", None, 9)
    assert augmenter(asked.augmentation, 1) is None
