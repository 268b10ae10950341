"""The guide's way from pictures to a trained model, as printed, with a tiny encoder in place of `image-default`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.image_files import discs, tile, tiles
from tests.support.processes import SONDE, sonde_up
from tests.support.tiny_image_models import image_encoder

pytestmark = [pytest.mark.real, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
_SECTION = re.compile(r"## Train from your pictures\n(.*?)\n## ", re.DOTALL)
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


def test_pictures_become_a_model_in_service(tmp_path: Path) -> None:
    work, tools = tmp_path / "work", tmp_path / "bin"
    write(work, {f"{_NAMES[name.split('/')[1]]}/{name.split('/')[2]}": data for name, data in discs(12).items()})
    write(work, {**tiles(40, 4), "new.jpg": tile(999, defect=True)})
    for folder in (tools, tmp_path / "home"):
        folder.mkdir()
    for name, command in {"sonde": SONDE, "python": [sys.executable]}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
        (tools / name).chmod(0o755)
    encoder = image_encoder(tmp_path / "encoder")
    with sonde_up(tmp_path / "home", "--model", f"image-default={encoder}", "--device", "cpu") as (_, url):
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SONDE_URL": url, "PYTHONPATH": str(ROOT)}
        printed = []
        for command in commands():
            text = command.replace("http://127.0.0.1:8000", url).replace("curl ", f"{shutil.which('curl')} -sS --fail ")
            done = subprocess.run(
                ["bash", "-c", text],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            printed.append(done.stdout)
    answers = [json.loads(one)["data"][0] for one in printed if one.startswith("{")]
    classified, scored = answers
    assert {one["label"] for one in classified["labels"]} == set(_NAMES.values())
    assert scored["is_anomaly"] is True
    assert scored["anomaly_map"].startswith("data:image/png")
