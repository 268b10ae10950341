"""Images for programs: what a description may state of them, found when the program is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from models.errors import ModelSourceError
from models.images.stated_processor import stated_processor
from models.loader import load_program
from models.programs.description import Preprocessing
from models.runtime.placement import place
from models.source import locate_program
from tests.support.programs import program_path


@pytest.mark.parametrize("stated", [{"std": [1e-9] * 3, "mean": [0.3] * 3}, {"scale": 1e30}])
def test_what_float32_cannot_hold_is_refused_with_the_file(tmp_path: Path, stated: dict[str, object]) -> None:
    shutil.copy(program_path("picture"), tmp_path / "net.pt2")
    about = {"task": "classification", "labels": list("abc"), "scores": "logits"}
    content = about | {"preprocess": {"height": 8, "width": 8, **stated}}
    (tmp_path / "net.sonde.json").write_text(json.dumps(content))
    with pytest.raises(ModelSourceError, match=r"net\.sonde\.json: preprocess: expected scale, mean and std by which"):
        load_program(locate_program(f"net={tmp_path / 'net.pt2'}"), place("cpu", "float32"))


def test_the_service_takes_the_processor_that_was_checked() -> None:
    stated = Preprocessing(8, 8)
    assert stated_processor(stated) is stated_processor(Preprocessing(8, 8))
