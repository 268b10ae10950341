"""Which trained models are promoted and which are held."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from models.registry.registry import Registry
from service.jobs import incumbent
from service.jobs.promotion_gate import Decision, decide
from tests.support.artifacts import NAME, numbered, staging


def result(now: float = 0.9, before: float | None = None, **more: Any) -> dict[str, Any]:
    incumbent = None if before is None else {"macro_f1": before}
    return {"task": "classification", "metrics": {"macro_f1": now, "ece": 0.02, **more}, "incumbent_metrics": incumbent}


def tuned(now: float, base: float, before: float | None = None) -> dict[str, Any]:
    """An encoder's result, which tells of its base as well."""
    incumbent = None if before is None else {"mrr": before}
    return {"task": "embedding", "metrics": {"mrr": now, "base_mrr": base}, "incumbent_metrics": incumbent}


def decision(of: dict[str, Any], *, wrong: str | None = None, auto_promote: bool = True) -> Decision:
    return decide(of, serves=of["incumbent_metrics"] is not None, wrong=wrong, auto_promote=auto_promote, max_ece=0.1)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (result(), "nothing served under this name before"),
        (result(0.9, 0.8), "macro-F1 on the held-out rows is 0.9000, against 0.8000 of what served before"),
        (result(0.8, 0.8), "macro-F1 on the held-out rows is 0.8000, against 0.8000 of what served before"),
        (result(ece=0.1), "nothing served under this name before"),
        (result(ece=0.3, ece_low=0.02), "nothing served under this name before"),  # eight rows say no more
        (
            {"task": "embedding", "metrics": {"mrr": 0.5}, "incumbent_metrics": None},
            "nothing served under this name before",
        ),
        (tuned(0.5, base=0.4), "mean reciprocal rank on the held-out rows is 0.5000, against 0.4000 of the base model"),
        (
            tuned(0.5, base=0.9, before=0.4),
            "mean reciprocal rank on the held-out rows is 0.5000, against 0.4000 of what served before",
        ),
    ],
)
def test_what_is_not_worse_is_promoted(given: dict[str, Any], why: str) -> None:
    assert decision(given) == Decision(True, why)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (result(0.79, 0.8), "its macro-F1 on the held-out rows is 0.7900, less than the 0.8000 of what serves now"),
        (
            result(float("nan"), 0.8),
            "its macro-F1 on the held-out rows is nan, less than the 0.8000 of what serves now",
        ),
        (
            result(0.9, float("nan")),
            "its macro-F1 on the held-out rows is 0.9000, less than the nan of what serves now",
        ),
        (
            tuned(0.5, base=0.6),
            "its mean reciprocal rank on the held-out rows is 0.5000, less than the 0.6000 of the base model",
        ),
        (result(ece=0.11), "its expected calibration error is 0.1100, more than 0.1"),
        (
            result(ece=0.3, ece_low=0.2),
            "its expected calibration error is 0.3000 (0.2000 or more beyond chance), more than 0.1",
        ),
        (
            {"task": "rerank", "metrics": {"x": 1.0}, "incumbent_metrics": {"y": 1.0}},
            "it cannot be compared with what serves now: they have no deciding number in common on the held-out rows",
        ),
    ],
)
def test_what_is_worse_or_not_comparable_is_held(given: dict[str, Any], why: str) -> None:
    assert decision(given) == Decision(False, why)


def test_what_does_not_reproduce_its_golden_rows_is_held_whatever_its_numbers() -> None:
    assert decision(result(0.9, 0.1), wrong="row 3 is off by 0.2") == Decision(False, "row 3 is off by 0.2")


def test_without_auto_promote_even_the_best_is_held() -> None:
    held = decision(result(0.9, 0.1), auto_promote=False)
    assert not held.promote
    assert held.why.startswith("it passes the gate (macro-F1")
    assert held.why.endswith("auto_promote is off")


def test_what_cannot_be_compared_with_what_serves_is_held() -> None:
    decided = decide(result(0.9), serves=True, wrong=None, auto_promote=True, max_ece=0.1)
    why = (
        "it cannot be compared with what serves now, which was not measured on the held-out rows: the job's events "
        "say why"
    )
    assert decided == Decision(False, why)


def test_a_model_that_is_no_baseline_is_not_replaced() -> None:
    decided = decide(
        result(0.9), serves=True, wrong=None, auto_promote=True, max_ece=0.1, incomparable="it is another thing"
    )
    assert decided == Decision(False, "it is another thing")


def serving(tmp_path: Path, **manifest: Any) -> Registry:
    registry = Registry(tmp_path / "models")
    registry.publish(NAME, staging(tmp_path / "staging"), numbered(**manifest))
    registry.promote(NAME, 1, by="", why="")
    return registry


def job(task: str = "classification", **hyperparameters: Any) -> Any:
    made = Mock(task=task, hyperparameters=hyperparameters)
    made.name = NAME  # which Mock(name=…) takes for its own
    return made


@pytest.mark.parametrize(
    ("manifest", "asked", "there"),
    [
        ({}, job("embedding"), "a classification model"),
        (
            {"task": "anomaly", "sensor": {"kind": "series"}},
            job("anomaly", kind="records"),
            "an anomaly model of series",
        ),
        ({"task": "anomaly", "sensor": {"kind": "series"}}, job("anomaly", kind="series"), None),
        ({"task": "forecast", "sensor": {"kind": "forecast"}}, job("forecast"), None),
        ({"task": "anomaly"}, job("anomaly"), None),
        ({}, job(), None),
    ],
)
def test_only_a_model_of_the_same_task_and_kind_is_a_baseline(
    tmp_path: Path, manifest: dict[str, Any], asked: Any, there: str | None
) -> None:
    found = incumbent.find(serving(tmp_path, **manifest), asked, lambda manifest: "fake=/fake")
    assert (found.serves, found.path is None) == (True, there is not None)
    assert (found.base, found.base_version) == ((None, None) if there else ("fake=/fake", "0"))
    assert (found.objection or "").partition(", and")[0] == (f"what serves now is {there}" if there else "")


def test_what_serves_with_a_broken_manifest_is_not_replaced(tmp_path: Path) -> None:
    registry = serving(tmp_path)
    (registry.path(NAME, 1) / "manifest.json").write_text("{")
    found = incumbent.find(registry, job(), lambda manifest: manifest.base)
    assert (found.serves, found.path) == (True, None)
    assert found.objection is not None
    assert found.objection.startswith("what serves now cannot be compared: 1/manifest.json")


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({"power": 0.0}, "it finds none of the faults that were put into the held-out rows, however large"),
        ({"recall": 0.0, "auroc": 0.5}, "it finds none of the labelled faults in the held-out rows"),
    ],
)
def test_a_detector_that_sees_nothing_is_held(metrics: dict[str, float], why: str) -> None:
    given = {"task": "anomaly", "metrics": {"primary": 1.0, **metrics}, "incumbent_metrics": None}
    assert decision(given) == Decision(False, why)
    seeing = {"primary": 1.0, "power": 0.5, "recall": 0.1, "auroc": 0.7}
    assert decision({**given, "metrics": seeing}).promote
