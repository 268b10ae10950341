"""The example that finds defects: its verdicts, its maps, and the split of the magnetic tiles."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from examples import inspect_tiles
from models.loader import load_images
from models.runtime.placement import place
from models.source import locate
from tests.support.app import MakeApp
from tests.support.tiny_image_models import image_encoder


def save_tiles(folder: Path, count: int, *, defect: bool = False) -> Path:
    """Grey textures, with a dark spot where they have a defect."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number + 1000 * defect).normal(150, 12, (64, 64, 3))
        if defect:
            pixels[8:24, 8:24] = 10
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.jpg", quality=95)
    return folder


def test_it_judges_the_tiles_and_writes_maps(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_images(locate(f"image-default={image_encoder(tmp_path / 'model', 'resnet')}"), place("cpu", "float32"))
    assert model is not None
    app = make_app()
    app.state.manager.add_images(model)
    save_tiles(tmp_path / "tiles" / "MT_Free", 60)
    save_tiles(tmp_path / "tiles" / "MT_Break", 8, defect=True)
    monkeypatch.setattr("httpx.Client", lambda **_: TestClient(app))
    maps = tmp_path / "maps"
    monkeypatch.setattr(sys, "argv", ["inspect_tiles", "--tiles", str(tmp_path / "tiles"), "--maps", str(maps)])
    inspect_tiles.main()
    *verdicts, summary = capsys.readouterr().out.splitlines()
    assert len(verdicts) == 12 + 8
    assert sum(line.startswith("anomaly") for line in verdicts[12:]) == 8
    assert "image AUROC 1.000" in summary
    with Image.open(maps / "000.map.png") as drawn:
        assert drawn.size == (32, 32)


def test_the_tiles_are_split_as_the_protocol_says(tmp_path: Path) -> None:
    save_tiles(tmp_path / "MT_Free", 10)
    save_tiles(tmp_path / "MT_Fray", 2, defect=True)
    (tmp_path / "MT_Fray" / "000.png").write_bytes(b"a mask")
    good, kept, defects = inspect_tiles.split_tiles(tmp_path)
    assert [path.stem for path in kept] == ["000", "005"]
    assert len(good) == 8
    assert [path.name for path in defects] == ["000.jpg", "001.jpg"]


@pytest.mark.parametrize(
    ("folder", "message"), [("nowhere", "nowhere: expected a folder with images"), ("new", "nothing answers at")]
)
def test_a_wrong_folder_and_a_service_that_is_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, message: str
) -> None:
    save_tiles(tmp_path / "new", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SONDE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(sys, "argv", ["inspect_tiles", "--judge", folder])
    with pytest.raises(SystemExit, match=message):
        inspect_tiles.main()
