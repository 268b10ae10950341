"""Hyperparameters: each can be set, nonsense is refused by name, and OpenAI's clients are understood."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from models.training.errors import HyperparameterError
from models.training.hyperparameter_parser import parse
from models.training.hyperparameters import (
    ClassificationHyperparameters,
    EmbeddingHyperparameters,
    ForecastHyperparameters,
    RerankHyperparameters,
    SensorAnomalyHyperparameters,
    TextAnomalyHyperparameters,
)


def test_nothing_given_is_a_job_too() -> None:
    made = parse("classification", {})
    assert isinstance(made, ClassificationHyperparameters)
    assert (made.mode, made.C, made.detector, made.held_out) == ("auto", "auto", "auto", 0.2)


def test_what_openai_clients_send_is_understood() -> None:
    made = parse(
        "classification",
        {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto", "mode": "frozen"},
    )
    assert isinstance(made, ClassificationHyperparameters)
    assert made.mode == "frozen"
    tuned = parse("embedding", {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": 2})
    assert isinstance(tuned, EmbeddingHyperparameters)
    assert (tuned.n_epochs, tuned.batch_size, tuned.learning_rate_multiplier) == (3, 16, 2)
    assert isinstance(parse("anomaly", {"n_epochs": "auto"}), TextAnomalyHyperparameters)


def test_every_part_of_a_recipe_can_be_set() -> None:
    settings = {
        "mode": "lora",
        "optimizer": "sgd",
        "weight_decay": 0.1,
        "schedule": "cosine",
        "warmup": 0.2,
        "augmentation": {"typos": 0.1, "casing": 0.2, "word_dropout": 0.05},
        "held_out": 0.3,
        "C": 30,
        "label_names": True,
        "detector": "knn",
        "neighbours": 5,
        "learning_rate": 1e-4,
        "lora_rank": 8,
    }
    made = parse("classification", settings).model_dump(exclude_unset=True)
    assert made == settings


@pytest.mark.parametrize(
    ("task", "given"),
    [
        ("classification", {"mode": "contrastive", "loss": "batch_hard"}),
        ("classification", {"loss": "supervised_contrastive", "temperature": 0.2}),
        ("classification", {"mode": "full", "temperature": 0.2}),
        ("classification", {"mode": "full", "head": "cosine", "temperature": 0.2}),
        ("classification", {"mode": "lora", "head": "linear"}),
        ("classification", {"mode": "frozen", "head": "linear"}),
        ("classification", {"mode": "contrastive", "head": "auto"}),
        ("classification", {"head": "linear", "metric": "accuracy", "confidence": 0.9}),
        ("embedding", {"loss": "cosent", "temperature": 0.2, "lora_rank": 4}),
        ("rerank", {"mode": "lora", "loss": "binary_cross_entropy", "lora_rank": 4}),
        ("anomaly", {"detector": "combined", "C": 3, "neighbours": 3}),
        ("anomaly", {"C": 3, "neighbours": 3}),
    ],
)
def test_what_is_heeded_is_taken(task: str, given: dict[str, object]) -> None:
    assert parse(task, given).model_dump(exclude_unset=True) == given


@pytest.mark.parametrize(
    ("task", "given", "param", "message"),
    [
        ("classification", {"epochs": 3}, ".epochs", "unknown for task classification; known are C, augmentation"),
        ("anomaly", {"learning_rate": 0.1}, ".learning_rate", "unknown for task anomaly"),
        (
            "classification",
            {"mode": "magic"},
            ".mode",
            "'auto', 'frozen', 'contrastive', 'lora' or 'full', got 'magic'",
        ),
        ("classification", {"optimizer": "lion"}, ".optimizer", "'adamw', 'sgd' or 'adafactor'"),
        ("classification", {"n_epochs": 0}, ".n_epochs", "greater than 0"),
        ("classification", {"n_epochs": "many"}, ".n_epochs", "'auto'"),
        ("classification", {"batch_size": 1}, ".batch_size", "greater than or equal to 2"),
        ("classification", {"held_out": 1.0}, ".held_out", "less than 1"),
        ("classification", {"C": float("nan")}, ".C", "C:"),
        (
            "classification",
            {"mode": "frozen", "n_epochs": 3},
            ".n_epochs",
            "means nothing here, since mode 'frozen' tunes nothing",
        ),
        ("classification", {"mode": "full", "lora_rank": 8}, ".lora_rank", "adds no LoRA"),
        ("classification", {"detector": "energy", "neighbours": 3}, ".neighbours", "looks at no neighbours"),
        ("classification", {"lora_rank": 8}, ".lora_rank", "mode 'auto' adds no LoRA"),
        (
            "classification",
            {"mode": "full", "loss": "batch_hard"},
            ".loss",
            "mode 'full' learns by the cross-entropy of its head",
        ),
        (
            "classification",
            {"mode": "lora", "loss": "batch_hard"},
            ".loss",
            "mode 'lora' learns by the cross-entropy of its head",
        ),
        ("classification", {"mode": "full", "head": "mlp"}, ".head", "'auto', 'cosine' or 'linear', got 'mlp'"),
        ("classification", {"mode": "frozen", "head": "cosine"}, ".head", "the head of mode 'frozen' is linear"),
        (
            "classification",
            {"mode": "contrastive", "head": "cosine"},
            ".head",
            "the head of mode 'contrastive' is linear",
        ),
        (
            "classification",
            {"head": "cosine"},
            ".head",
            "the head of mode 'auto' is linear; leave it out, or take mode 'lora' or 'full'",
        ),
        (
            "classification",
            {"mode": "full", "head": "linear", "temperature": 1},
            ".temperature",
            "a linear head has none",
        ),
        ("classification", {"metric": "ece"}, ".metric", "'macro_f1' or 'accuracy', got 'ece'"),
        ("classification", {"mode": "frozen", "metric": "accuracy"}, ".metric", "mode 'frozen' tunes nothing"),
        ("classification", {"mode": "frozen", "confidence": 0.9}, ".confidence", "mode 'frozen' tunes nothing"),
        ("classification", {"confidence": 1}, ".confidence", "less than 1"),
        ("anomaly", {"head": "linear"}, ".head", "unknown for task anomaly"),
        ("classification", {"loss": "nonsense"}, ".loss", "'batch_hard' or 'batch_all', got 'nonsense'"),
        ("classification", {"loss": "batch_all", "temperature": 1}, ".temperature", "loss 'batch_all' has none"),
        ("anomaly", {"detector": "mahalanobis", "neighbours": 3}, ".neighbours", "looks at no neighbours"),
        ("anomaly", {"detector": "knn", "C": 3}, ".C", "detector 'knn' has no head"),
        ("anomaly", {"detector": "mahalanobis", "C": 3}, ".C", "detector 'mahalanobis' has no head"),
        ("rerank", {"mode": "full", "lora_alpha": 8}, ".lora_alpha", "mode 'full' adds no LoRA"),
        ("rerank", {"lora_alpha": 8}, ".lora_alpha", "mode 'auto' adds no LoRA"),
        ("rerank", {"temperature": 1}, ".temperature", "binary cross-entropy has none"),
        ("rerank", {"loss": "cosent"}, ".loss", "'auto' or 'binary_cross_entropy', got 'cosent'"),
        ("embedding", {"loss": "triplet", "temperature": 1}, ".temperature", "loss 'triplet' has none"),
        ("embedding", {"loss": "supervised_contrastive"}, ".loss", "'cosent' or 'angle', got"),
        (
            "classification",
            {"learning_rate": 1e-4, "learning_rate_multiplier": 2},
            ".learning_rate",
            "give one of them",
        ),
        (
            "classification",
            {"augmentation": {"noise": 1}},
            ".augmentation.noise",
            "known are casing, typos, word_dropout",
        ),
        ("classification", {"augmentation": {"typos": 2}}, ".augmentation.typos", "less than or equal to 1"),
        ("embedding", {"mode": "frozen"}, ".mode", "'auto', 'lora' or 'full'"),
        ("embedding", {"matryoshka": [0]}, ".matryoshka.0", "greater than or equal to 1"),
        ("embedding", {"matryoshka": [64, 64]}, ".matryoshka", "each length once"),
    ],
)
def test_what_is_unknown_or_means_nothing_is_refused_by_name(
    task: str, given: dict[str, object], param: str, message: str
) -> None:
    with pytest.raises(HyperparameterError) as refused:
        parse(task, given)
    assert refused.value.param == f"method.supervised.hyperparameters{param}"
    assert refused.value.code in ("invalid_hyperparameter", "unknown_hyperparameter")
    assert message in refused.value.message


def test_a_value_of_lists_within_lists_is_refused_as_any_other() -> None:
    value: list[object] = []
    for _ in range(1020):
        value = [value]
    with pytest.raises(HyperparameterError, match=r"^C: .*, got 'a list'$"):
        parse("classification", {"C": value})


@pytest.mark.parametrize("name", ["int", "str", "literal[x", "function-"])
def test_what_is_unknown_is_named_whatever_its_name(name: str) -> None:
    with pytest.raises(HyperparameterError) as refused:
        parse("classification", {name: 1})
    assert refused.value.param == f"method.supervised.hyperparameters.{name}"
    assert refused.value.message.startswith(f"{name}: unknown for task classification")


def test_a_kind_of_none_is_as_good_as_no_kind() -> None:
    assert parse("anomaly", {"kind": None, "neighbours": 3}) == TextAnomalyHyperparameters(neighbours=3)


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(HyperparameterError, match="classification, embedding, anomaly, rerank, forecast, got 'poetry'"):
        parse("poetry", {})


@pytest.mark.parametrize(
    "recipe",
    [
        ClassificationHyperparameters,
        TextAnomalyHyperparameters,
        SensorAnomalyHyperparameters,
        ForecastHyperparameters,
        EmbeddingHyperparameters,
        RerankHyperparameters,
    ],
)
def test_every_hyperparameter_is_documented(recipe: type[BaseModel]) -> None:
    told = (Path(__file__).parents[3] / "docs" / "reference" / "hyperparameters.md").read_text(encoding="utf-8")
    assert [name for name in recipe.model_fields if f"`{name}`" not in told] == []


@pytest.mark.slow
def test_reading_hyperparameters_needs_no_torch() -> None:
    code = "import sys, models.training.hyperparameters; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
