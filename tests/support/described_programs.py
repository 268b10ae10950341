"""Exported programs that do a task, with what is described beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support.programs import program_path

LABELS = ["red", "green", "blue", "grey"]
# Names with the program's file, and what is described beside it.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "classes": ("mlp", {"task": "classification", "labels": LABELS, "scores": "logits"}),
    "stated": ("mlp", {"task": "classification", "labels": LABELS, "scores": "probabilities"}),
    "vectors": ("words", {"task": "embedding", "output": "output_1"}),
    "strange": ("fixed", {"task": "anomaly", "calibration": [float(at) for at in range(39)]}),
    "pictures": (
        "picture",
        {
            "task": "classification",
            "labels": ["red", "green", "blue"],
            "scores": "logits",
            "preprocess": {"height": 8, "width": 8, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        },
    ),
    "defects": (
        "picture_score",
        {"task": "anomaly", "calibration": [-1.0] * 39, "preprocess": {"height": 8, "width": 8}},
    ),
    "plain": ("mlp", {}),
}


def described(folder: Path, name: str) -> str:
    """The file of a program in a folder, with its description beside it."""
    file, about = MODELS[name]
    path = folder / f"{name}.pt2"
    shutil.copy(program_path(file), path)
    if about:
        path.with_suffix(".sonde.json").write_text(json.dumps(about))
    return str(path)
