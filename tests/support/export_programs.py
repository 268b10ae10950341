"""Writes the exported programs of `tests/data/programs`: `python -m tests.support.export_programs`.

They are kept, because torch.export takes seconds for each, and because files of a former PyTorch must stay readable.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

PROGRAMS = Path(__file__).parents[1] / "data" / "programs"


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        self.register_buffer("scale", torch.ones(1).expand(4))

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.layers(x) * self.scale
        return scaled


class Convolution(nn.Module):
    """Two inputs, sizes that vary beside the batch, and outputs with names."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, image: Tensor, gain: Tensor) -> dict[str, Any]:
        features = self.norm(self.convolution(image))
        height, width = features.shape[-2:]
        small = nn.functional.interpolate(features, size=(height // 2, width // 2))
        return {"features": features * gain[:, None, None, None], "means": small.mean((2, 3)), "count": image.shape[0]}


class Branches(nn.Module):
    """Control flow, and parts under no_grad and autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.linear(x)
        with torch.autocast("cpu", enabled=False):
            z = self.linear(y)
        chosen: Tensor = torch.cond(z.sum() > 0, lambda a: a + 1, lambda a: a - 1, (z,))
        return chosen


class Multiples(nn.Module):
    """It takes only widths that are multiples of 8."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] % 8 == 0:
            return x.reshape(x.shape[0], -1, 8).sum(-1)
        return x


class Doubled(nn.Module):
    """One input has twice the rows of the other, and two inputs are constants."""

    def forward(self, x: Tensor, y: Tensor, plus: bool = True, extra: Tensor | None = None) -> Tensor:
        return x + y[::2][:, :] if plus else x


class Words(nn.Module):
    """Token ids in, a list of tensors out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)

    def forward(self, ids: Tensor) -> list[Tensor]:
        rows = self.table(ids).mean(1)
        return list(rows.split([3, 5], dim=1))


class Centred(nn.Module):
    """Each row depends on all rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1)


class Constant(nn.Module):
    """A constant in the code, and a buffer that is not saved with the weights."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.arange(3.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        shifted: Tensor = x * torch.tensor([1.0, 2.0, 3.0]) + self.shift
        return shifted


class Lookup(nn.Module):
    """It fails for values beyond a table."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(3.0)[x.sum(1).long() + 1]


class Picture(nn.Module):
    """The mean of each colour of images."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class PictureScore(nn.Module):
    """The mean of images."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2).to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.linear(x)
        return projected


def write_all(folder: Path = PROGRAMS) -> None:
    """Export and save all programs. The weights are random, so that a test which needs them reads the file."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    batch, auto = Dim("batch", min=1, max=64), Dim.AUTO
    image = {0: auto, 2: Dim("height", min=8, max=512), 3: auto}
    rows = Dim("rows", min=4, max=100)
    x, ids = torch.randn(2, 16), torch.randint(0, 50, (2, 7))
    _write(folder, "mlp", Mlp(), (x,), ({0: batch},))
    _write(folder, "convolution", Convolution(), (torch.randn(2, 3, 32, 40), torch.randn(2)), (image, {0: auto}))
    _write(folder, "branches", Branches(), (torch.randn(2, 3),), ({0: auto},))
    _write(folder, "multiples", Multiples(), (x,), ({0: auto, 1: auto},))
    doubled = {"x": {0: rows}, "y": {0: 2 * rows}, "plus": None, "extra": None}
    _write(folder, "doubled", Doubled(), (torch.randn(6, 3), torch.randn(12, 3), True, None), doubled)
    _write(folder, "words", Words(), (ids,), ({0: batch, 1: auto},))
    _write(folder, "centred", Centred(), (x,), ({0: auto},))
    _write(folder, "fixed", Fixed(), (x,), None)
    _write(folder, "half", Half(), (torch.randn(2, 4, dtype=torch.bfloat16),), ({0: batch},))
    _write(folder, "constant", Constant(), (torch.randn(2, 3),), ({0: batch},))
    _write(folder, "lookup", Lookup(), (torch.rand(2, 3) / 3,), ({0: batch},))
    for name, module in (("picture", Picture()), ("picture_score", PictureScore())):
        _write(folder, name, module, (torch.randn(2, 3, 8, 8),), ({0: batch},))
    training = nn.BatchNorm1d(4)
    _write(folder, "training", training, (torch.randn(3, 4),), ({0: batch},), train=True)


def _write(
    folder: Path, name: str, module: nn.Module, inputs: tuple[Any, ...], shapes: Any, *, train: bool = False
) -> None:
    exported = torch.export.export(module.train(train), inputs, dynamic_shapes=shapes)
    saved = io.BytesIO()
    torch.export.save(exported, saved)
    (folder / f"{name}.pt2").write_bytes(_without_traces(saved))


def _without_traces(saved: io.BytesIO) -> bytes:
    """The archive without the paths of this machine."""
    written = io.BytesIO()
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(written, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("models/model.json"):
                content = json.dumps(_drop_traces(json.loads(content))).encode()
            target.writestr(entry.filename, content)
    return written.getvalue()


def _drop_traces(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "" if key == "stack_trace" else _drop_traces(one) for key, one in value.items()}
    return [_drop_traces(one) for one in value] if isinstance(value, list) else value


if __name__ == "__main__":
    write_all()
