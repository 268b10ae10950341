"""`sonde export`: a module of the user, exported, read back and compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from models.errors import ModelSourceError
from models.programs.description import Description, read_description
from models.programs.export import export_program
from service.cli import main
from tests.support.programs import open_program

_MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    def forward(self, x, weight):
        return {"scores": self.layers(x) * weight[:, None]}

class OneRow(nn.Module):
    def forward(self, x):
        return x.sum() if x.shape[0] == 2 else x

class Random(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)

class Sums(nn.Module):
    def forward(self, x):
        return x.sum(1)

def rows():
    return nn.Linear(4, 3), (torch.randn(2, 4),)

def sums():
    return Sums(), (torch.randn(2, 4),)

def make():
    return Net(), {"x": torch.randn(1, 4), "weight": torch.ones(1)}

def one_row():
    return OneRow(), torch.randn(2, 4)

def random():
    return Random(), (torch.randn(2, 4),)

def nothing():
    return Net()

def fails():
    raise ValueError("no weights here")
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    name = f"my_{tmp_path.name}".replace("-", "_")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{name}.py").write_text(_MODULE)
    monkeypatch.chdir(tmp_path / "code")
    return Path(name)


@pytest.mark.slow
def test_a_module_is_exported_with_a_batch_that_varies(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", f"{directory}:make", "net.pt2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": ["batch", 4]},
        {"name": "weight", "dtype": "float32", "shape": ["batch"]},
    ]
    assert shown["outputs"] == [{"name": "scores", "dtype": "float32", "shape": ["batch", 3]}]
    assert shown["batches"].startswith("rows of several requests share a batch")
    assert open_program(Path("net.pt2")).contract.batch is not None
    assert sorted(path.name for path in Path().iterdir() if path.suffix != "") == [f"{directory}.py", "net.pt2"]


@pytest.mark.parametrize("name", ["my_model.py", "./my_model.py", "code/my_model.py", "code/my_model"])
def test_a_file_is_told_from_a_module(name: str) -> None:
    file = Path(name).name
    message = f"expected the name of a module, got {name}; of a file, write my_model:make in the directory of {file}"
    with pytest.raises(ModelSourceError, match=f"^{re.escape(f'{name}:make: {message}')}$"):
        export_program(f"{name}:make", Path("net.pt2"))


@pytest.mark.slow
def test_what_cannot_be_exported_says_why_and_leaves_no_file(directory: Path) -> None:
    for function, message in [
        ("one_row", "torch.export cannot export it: .*; see the message; --fixed-batch"),
        ("random", "the program's output output differs from the module's"),
        ("nothing", "expected a module and its example inputs, got Net"),
        ("fails", "it cannot be called: ValueError: no weights here"),
        ("missing", "it cannot be called: AttributeError"),
        ("", "expected MODULE:FUNCTION"),
    ]:
        with pytest.raises(ModelSourceError, match=message):
            export_program(f"{directory}:{function}", Path("net.pt2"))
        assert not Path("net.pt2").exists()
    assert export_program(f"{directory}:one_row", Path("net.pt2"), fixed_batch=True).contract.batch is None


@pytest.mark.slow
def test_the_task_of_a_program_is_written_beside_it(directory: Path) -> None:
    Path("labels.json").write_text('["low", "middle", "high"]')
    arguments = ["export", f"{directory}:rows", "net.pt2", "--task", "classification", "--labels", "labels.json"]
    assert main([*arguments, "--scores", "logits"]) == 0
    described = read_description(Path("net.pt2"))
    assert (described.labels, described.scores, described.output) == (("low", "middle", "high"), "logits", "output")
    with pytest.raises(ModelSourceError, match=r"net\.sonde\.json: labels: expected 1, one for each column of output"):
        export_program(f"{directory}:sums", Path("net.pt2"))  # the labels beside it are of another program
    np.save("normal.npy", np.ones((70, 4)))
    detects = Description(task="anomaly")
    export_program(f"{directory}:sums", Path("net.pt2"), description=detects, normal=Path("normal.npy"))
    assert read_description(Path("net.pt2")).calibration == (4.0,) * 70
    np.save("five.npy", np.arange(20.0).reshape(5, 4))
    export_program(f"{directory}:sums", Path("two.pt2"), fixed_batch=True, description=detects, normal=Path("five.npy"))
    assert read_description(Path("two.pt2")).calibration == (6.0, 22.0, 38.0, 54.0, 70.0)  # in batches of 2
    np.savez("rows.npz", np.ones((2, 4)))
    Path("rows.npz").rename("archive.npy")
    Path("empty.npy").touch()
    Path("text.npy").write_text("1, 2")
    np.save("words.npy", np.array(["one", "two"]))
    np.save("number.npy", np.ones(()))
    np.save("infinite.npy", np.full((2, 4), np.inf))
    expected = dict.fromkeys(("archive", "empty", "text", "words", "number"), "an array of rows that numpy.save wrote")
    for name, message in {**expected, "infinite": "inputs with finite scores"}.items():
        with pytest.raises(ModelSourceError, match=rf"{name}\.npy: expected {message}"):
            export_program(f"{directory}:sums", Path("net.pt2"), description=detects, normal=Path(f"{name}.npy"))
    assert read_description(Path("net.pt2")).calibration == (4.0,) * 70


def test_the_file_must_end_in_pt2(directory: Path) -> None:
    with pytest.raises(ModelSourceError, match=r"net\.pt: expected a file that ends in \.pt2"):
        export_program(f"{directory}:make", Path("net.pt"))


def test_a_preprocessing_that_cannot_be_followed_is_refused_before_the_export(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for std in (1e-9, 0):
        Path("images.json").write_text(json.dumps({"height": 8, "width": 8, "mean": [0.3] * 3, "std": [std] * 3}))
        described = ["--task", "classification", "--preprocess", "images.json"]
        assert main(["export", f"{directory}:rows", "net.pt2", *described]) == 1
        assert "images.json: preprocess: expected scale, mean and std by which float32" in capsys.readouterr().err
        assert not Path("net.pt2").exists()
