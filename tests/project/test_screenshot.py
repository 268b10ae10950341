"""The example with a screenshot as a tensor: what is found, and what a wrong shape, dtype or device does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from examples import screenshot
from models.programs.export import export_program
from service.api.app import create_app
from service.auth import Keyring
from service.config import Settings
from service.metrics import Metrics
from service.serving.model_manager import ModelManager

pytestmark = pytest.mark.slow


def test_wrong_tensors_are_refused_by_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "screenshot.pt2"
    export_program("examples.screenshot:make", program)
    settings = Settings.read({"home": tmp_path / "home", "host": "testserver", "model": [str(program)]})
    metrics = Metrics()
    manager = ModelManager(settings, metrics)
    manager.open()
    app = create_app(settings, manager, Keyring(settings.keys_file), metrics)
    monkeypatch.setattr("httpx.Client", lambda **_: TestClient(app))
    screenshot.draw_screenshot().save(tmp_path / "screen.png")
    monkeypatch.setattr(sys, "argv", ["screenshot", "--image", str(tmp_path / "screen.png")])
    screenshot.main()
    manager.close()
    said = capsys.readouterr().out
    assert "'shape': ['batch', 1, 1080, 1920]" in said
    assert "lines: [(211, 255), (612, 654)]" in said
    expected = "422 screen: expected float32 [batch, 1, 1080, 1920], got"
    assert f"{expected} [1080, 1920]\n" in said
    assert f"{expected} dtype int32\n" in said
    assert f"{expected} [1, 1, 1079, 1920]: dimension 2 is 1079, expected 1080\n" in said
    assert "PyTorch alone: RuntimeError: Expected 3D (unbatched) or 4D (batched) input to conv2d" in said
    assert "no device; the program computes it on cpu" in said
