"""What is described beside a program: its task, and what does not go together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.errors import ModelSourceError
from models.programs.description import NO_TASK, Description, completed, read_description
from models.source import locate_program
from tests.support.programs import open_program, program_path

CLASSES = {"task": "classification", "labels": list("abcd"), "scores": "logits"}
SIDES = {"height": 8, "width": 8}


def _described(folder: Path, content: object) -> Path:
    path = folder / "net.pt2"
    shutil.copy(program_path("mlp"), path)
    path.with_suffix(".sonde.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_program_without_a_description_does_inference(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    shutil.copy(program_path("mlp"), path)
    assert read_description(path) == NO_TASK
    assert completed(NO_TASK, open_program("mlp").contract, "net.sonde.json").task == "inference"


def test_the_description_is_part_of_the_version(tmp_path: Path) -> None:
    path = _described(tmp_path, CLASSES)
    described = locate_program(f"net={path}").version
    path.with_suffix(".sonde.json").write_text(json.dumps({**CLASSES, "labels": list("abce")}))
    other = locate_program(f"net={path}").version
    path.with_suffix(".sonde.json").unlink()
    assert len({described, other, locate_program(f"net={path}").version}) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "net.sonde.json: Input data was truncated"),
        ("[]", "net.sonde.json: Expected `object`, got `array`"),
        ({"task": "ocr"}, r"net.sonde.json: Invalid enum value 'ocr' - at `\$.task`"),
        ({**CLASSES, "label": []}, "net.sonde.json: Object contains unknown field `label`"),
        ({**CLASSES, "preprocess": {"height": 8}}, r"missing required field `width` - at `\$.preprocess`"),
        ({**CLASSES, "preprocess": {"height": 8, "width": 1 << 20}}, "Expected `int` <= 16384"),
    ],
)
def test_a_description_that_cannot_be_read_names_the_field(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ModelSourceError, match=message):
        read_description(_described(tmp_path, content))


@pytest.mark.parametrize(
    ("program", "fields", "message"),
    [
        ("mlp", {**CLASSES, "labels": ("a", "b")}, "labels: expected 4, one for each column of output, got 2"),
        ("mlp", {**CLASSES, "labels": tuple("abca")}, "labels: expected 4, .*, got 3 different ones"),
        ("mlp", {**CLASSES, "scores": None}, "scores: expected logits or probabilities, as output has them, got none"),
        ("mlp", {**CLASSES, "output": "scores"}, "expected output to name one of output, got 'scores'"),
        ("mlp", {**CLASSES, "calibration": (1.0,)}, "calibration: expected none for the task classification"),
        ("mlp", {"labels": ("a",)}, "labels: expected none for the task inference; it has task"),
        ("mlp", {"task": "anomaly", "calibration": (1.0,)}, "its output output: expected one score a row for anomaly"),
        ("fixed", {"task": "anomaly"}, "calibration: expected the scores of normal inputs"),
        ("fixed", {"task": "embedding"}, "its output output: expected a fixed number of columns"),
        ("words", {"task": "embedding"}, "expected output to name one of output_0, output_1, got none"),
        ("convolution", {"task": "embedding", "output": "features"}, "its output features: expected a float of shape"),
        ("mlp", {**CLASSES, "preprocess": SIDES}, "preprocess: expected one input, a float .*got x float32"),
        ("picture", {"task": "embedding", "preprocess": {"height": 9, "width": 8}}, "preprocess: x: expected float32"),
        ("picture", {"task": "embedding", "preprocess": {**SIDES, "std": (0, 1, 1)}}, "expected std other than 0"),
        ("picture", {"task": "embedding", "preprocess": {**SIDES, "shorter_side": 7}}, "shorter_side at least height"),
    ],
)
def test_what_a_program_cannot_do_is_refused(program: str, fields: dict[str, Any], message: str) -> None:
    described = msgspec.convert(fields, Description)
    with pytest.raises(ModelSourceError, match=f"^net.sonde.json: .*{message}"):
        completed(described, open_program(program).contract, "net.sonde.json")
