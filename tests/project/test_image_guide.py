"""The guide's way from pictures to a trained model, as printed, with a tiny encoder in place of `image-default`."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.image_files import discs, tile, tiles
from tests.support.processes import SONDE, output_of, sonde_up
from tests.support.tiny_image_models import image_encoder

pytestmark = [pytest.mark.real, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
_SECTION = re.compile(r"## Train from your pictures\n(.*?)\n## ", re.DOTALL)
_PROGRAMS = {"sonde": SONDE, "python": [sys.executable], "curl": ["curl", "--silent", "--show-error", "--fail"]}
_NAMES = {"blue": "bolt", "green": "nut", "red": "washer"}


def commands() -> list[str]:
    """The commands of the section."""
    found = _SECTION.search((ROOT / "docs/guides/images.md").read_text(encoding="utf-8"))
    assert found is not None
    return [line.removeprefix("$ ") for line in found[1].splitlines() if line.startswith("$ ")]


def write(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


def run(command: str, directory: Path, url: str) -> str:
    """What a command prints; `sonde` is a fork."""
    name, *words = shlex.split(command)
    return output_of([*_PROGRAMS[name], *words], directory, {"SONDE_URL": url})


def test_pictures_become_a_model_in_service(tmp_path: Path) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    write(work, {f"{_NAMES[name.split('/')[1]]}/{name.split('/')[2]}": data for name, data in discs(12).items()})
    write(work, {**tiles(40, 4), "new.jpg": tile(999, defect=True)})
    home.mkdir()
    encoder = image_encoder(tmp_path / "encoder")
    with sonde_up(home, "--model", f"image-default={encoder}", "--device", "cpu") as (_, url):
        printed = [run(command.replace("http://127.0.0.1:8000", url), work, url) for command in commands()]
    answers = [json.loads(one)["data"][0] for one in printed if one.startswith("{")]
    classified, scored = answers
    assert {one["label"] for one in classified["labels"]} == set(_NAMES.values())
    assert scored["is_anomaly"] is True
    assert scored["anomaly_map"].startswith("data:image/png")
