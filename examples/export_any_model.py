"""Serve any PyTorch module: export it, start a service on the file, and call it with tensors.

    python -m examples.export_any_model

The module is a small network that reads 16 numbers. Yours may be any module that torch.export takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Scores of four classes for 16 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": self.layers(x).softmax(-1)}


def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """What `sonde export` calls: the module, and example inputs."""
    return Network(), (torch.randn(2, 16),)


def export(file: Path) -> None:
    """Write the program. `sonde export` runs it and compares it with the module."""
    sonde("export", "examples.export_any_model:make", str(file))


@contextmanager
def serving(file: Path, home: Path) -> Iterator[str]:
    """Start a service on the program; its URL."""
    flags = ["serve", "--port", "0", "--home", str(home), "--model", f"net={file}"]
    with subprocess.Popen([sys.executable, "-m", "service.cli", *flags], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split("ready on ")[1].split()[0]
        finally:
            process.terminate()


def infer(url: str, rows: list[list[float]]) -> Any:
    """The scores of rows, by the Open Inference Protocol."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": rows}
    request = Request(f"{url}/v2/models/net/infer", json.dumps({"inputs": [tensor]}).encode())
    request.add_header("content-type", "application/json")
    with urlopen(request) as answer:
        return json.load(answer)["outputs"][0]


def sonde(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "service.cli", *arguments], check=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.pt2"
        export(file)
        with serving(file, Path(folder)) as url:
            with urlopen(f"{url}/v1/models/net") as answer:
                print("contract:", json.load(answer)["signature"])
            print("scores:", infer(url, [[0.5] * 16, [-0.5] * 16]))
            try:
                infer(url, [[0.5] * 15])
            except HTTPError as error:
                print("15 numbers:", error.code, json.load(error)["error"])


if __name__ == "__main__":
    main()
