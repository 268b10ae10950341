"""Files of images that jobs train on: coloured discs to classify, and grey tiles with and without a defect."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tests.support.images import encoded

COLOURS = {"blue": (30, 50, 210), "green": (20, 160, 40), "red": (220, 30, 30)}


def disc(label: str, seed: int) -> bytes:
    """A disc of about its label's colour on a light ground."""
    chance = np.random.default_rng([seed, *label.encode()])
    image = Image.new("RGB", (48, 48), tuple(chance.integers(190, 256, 3).tolist()))
    left, top, side = chance.integers((4, 4, 14), (18, 18, 24)).tolist()
    colour = np.clip(np.array(COLOURS[label]) + chance.integers(-20, 21, 3), 0, 255)
    ImageDraw.Draw(image).ellipse((left, top, left + side, top + side), fill=tuple(colour.tolist()))
    return encoded(image)


def tile(seed: int, *, defect: bool = False) -> bytes:
    """A grey texture, and a dark spot in the upper left of a tile with a defect."""
    pixels = np.random.default_rng(seed).normal(150, 12, (64, 64, 3))
    if defect:
        pixels[8:24, 8:24] = 10
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


def discs(per_label: int, seed: int = 0) -> dict[str, bytes]:
    """Images by their names, in a folder for each label."""
    return {
        f"discs/{label}/{number}.png": disc(label, seed + number) for label in COLOURS for number in range(per_label)
    }


def tiles(good: int, bad: int = 0, seed: int = 0) -> dict[str, bytes]:
    """Good tiles, and some with a defect in the folder `anomaly`."""
    whole = {f"good/{number}.png": tile(seed + number) for number in range(good)}
    return whole | {f"anomaly/{number}.png": tile(seed + 10_000 + number, defect=True) for number in range(bad)}


def archive(path: Path, files: Mapping[str, bytes]) -> Path:
    """A ZIP archive of files."""
    with zipfile.ZipFile(path, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def image_job(
    directory: Path,
    encoder: Path,
    task: str,
    files: Mapping[str, bytes],
    validation: Mapping[str, bytes] | None = None,
    *,
    hyperparameters: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """Write a job on images and its files; its directory. Classifiers tune no encoder unless asked to."""
    mode = {"mode": "frozen"} if task == "classification" else {}
    directory.mkdir(parents=True, exist_ok=True)
    judged = None if validation is None else str(archive(directory / "validation_file.zip", validation))
    wanted = {
        "job": "ftjob-1",
        "base_spec": f"tiny={encoder}",
        "base": "tiny",
        "task": task,
        "training_file": str(archive(directory / "training_file.zip", files)),
        "validation_file": judged,
        "hyperparameters": {"kind": "images", **mode, **(hyperparameters or {})},
        "seed": 7,
        "dtype": "float32",
    }
    (directory / "job.json").write_text(json.dumps(wanted | more), encoding="utf-8")
    return directory
