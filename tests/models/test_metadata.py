"""A model's metadata: the signature says what goes in and what comes out."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args

import pytest

from models.metadata import ModelMetadata, SensorSignature, Task

TEXT = {"name": "text", "dtype": "string", "shape": ["n"]}
IDS = {"name": "token_ids", "dtype": "int32", "shape": ["n", "1..256"], "minimum": 0, "maximum": 30521}
PAIR = {"name": "pair", "dtype": "string", "shape": ["n", 2]}


def metadata(task: Task = "embedding", width: int = 384) -> ModelMetadata:
    return ModelMetadata(
        name="m",
        version="0",
        task=task,
        origin="nowhere",
        architecture="bert",
        width=width,
        max_tokens=256,
        vocabulary=30522,
        device="cpu",
        dtype="float32",
        reason="as asked",
        sensor=SensorSignature("forecast", ("a", "b"), 4, 8) if task == "forecast" else None,
        tensors={"inputs": [dict(TEXT)], "outputs": []} if task == "inference" else None,
    )


@pytest.mark.parametrize(
    ("task", "width", "inputs", "output"),
    [
        ("embedding", 384, [TEXT, IDS], "embedding"),
        ("classification", 3, [TEXT, IDS], "scores"),
        ("rerank", 1, [PAIR], "relevance_score"),
    ],
)
def test_the_signature_names_shapes_and_dtypes(
    task: Task, width: int, inputs: list[dict[str, object]], output: str
) -> None:
    assert metadata(task, width).signature() == {
        "inputs": inputs,
        "outputs": [{"name": output, "dtype": "float32", "shape": ["n", width]}],
    }


@pytest.mark.parametrize("task", get_args(Task))
def test_every_task_has_a_signature_in_json(task: Task) -> None:
    signature = metadata(task).signature()
    assert json.loads(json.dumps(signature)) == signature


@pytest.mark.parametrize("task", get_args(Task))
def test_whoever_changes_a_signature_changes_no_other(task: Task) -> None:
    made = metadata(task)
    made.signature()["inputs"][0]["name"] = "changed"
    assert made.signature() == metadata(task).signature()


def test_metadata_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        metadata().width = 1  # type: ignore[misc]
