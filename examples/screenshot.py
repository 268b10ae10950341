"""A screenshot as a tensor, and a program that reads it: what a wrong shape, dtype or device does.

The program looks for lines of text in a screenshot of 1920 x 1080, as an OCR model's detector does. It reads float32
of the shape (batch, channel, height, width), and nothing else.

sonde export examples.screenshot:make screenshot.pt2
sonde up --model screenshot.pt2          # in one terminal
python -m examples.screenshot            # in another; --image takes a screenshot of your own
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional

HEIGHT, WIDTH = 1080, 1920
_MODEL = "screenshot"
_DATATYPES = {"float32": "FP32", "uint8": "UINT8", "int32": "INT32"}


class LineDetector(nn.Module):
    """How much ink each row of pixels has: text is darker or lighter than what surrounds it."""

    edges: Tensor

    def __init__(self) -> None:
        super().__init__()
        edges = torch.tensor([[[[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]]])
        self.register_buffer("edges", edges)

    def forward(self, screen: Tensor) -> dict[str, Tensor]:
        return {"ink": functional.conv2d(screen, self.edges, padding=1).abs().mean(dim=(1, 3))}


def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """What `sonde export` calls."""
    return LineDetector(), (torch.rand(2, 1, HEIGHT, WIDTH),)


def draw_screenshot() -> Image.Image:
    """A screen with two lines of text."""
    screen = Image.new("L", (WIDTH, HEIGHT), 250)
    pen = ImageDraw.Draw(screen)
    for top, text in ((200, "Where is my card?"), (600, "It is in the post.")):
        pen.text((100, top), text, fill=20, font_size=48)
    return screen


def to_tensor(screen: Image.Image) -> NDArray[np.float32]:
    """A screenshot as float32 [1, 1, 1080, 1920] between 0 and 1."""
    grey = np.asarray(screen.convert("L").resize((WIDTH, HEIGHT)), dtype=np.float32)
    return grey[None, None] / np.float32(255)


def infer(client: httpx.Client, tensor: NDArray[np.generic]) -> httpx.Response:
    """Send a tensor as raw values by the Open Inference Protocol."""
    raw = tensor.tobytes()
    described = {"name": "screen", "datatype": _DATATYPES[tensor.dtype.name], "shape": list(tensor.shape)}
    header = json.dumps({"inputs": [{**described, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    headers = {"inference-header-content-length": str(len(header)), "content-type": "application/octet-stream"}
    return client.post(f"/v2/models/{_MODEL}/infer", content=header + raw, headers=headers)


def find_lines(ink: list[float]) -> list[tuple[int, int]]:
    """First and last row of each line of text."""
    rows = np.flatnonzero(np.diff(np.concatenate([[0], np.array(ink) > 0.01, [0]]).astype(int)))
    return [(int(first), int(last) - 1) for first, last in rows.reshape(-1, 2)]


def said_by_pytorch(call: Callable[[], object]) -> str:
    """The first line of what PyTorch raises, or that it takes the tensor."""
    try:
        call()
    except Exception as error:  # PyTorch has no class of its own for each of them
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "no error, whatever the model was made for"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=os.environ.get("SONDE_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--image", type=Path, help="a screenshot; without it, one is drawn")
    chosen = parser.parse_args()
    screen = to_tensor(Image.open(chosen.image) if chosen.image else draw_screenshot())
    wrong = {
        "(1080, 1920) instead of (1, 1, 1080, 1920)": screen[0, 0],
        "int instead of float32": (screen * 255).astype(np.int32),
        "1079 rows": screen[:, :, :-1],
    }
    detector = LineDetector()
    with httpx.Client(base_url=chosen.url, timeout=60.0) as client:
        contract = client.get(f"/v1/models/{_MODEL}").raise_for_status().json()
        print("contract:", contract["signature"]["inputs"][0])
        answer = infer(client, screen).raise_for_status().json()
        print("lines:", find_lines(answer["outputs"][0]["data"]))
        for what, tensor in wrong.items():
            refused = infer(client, tensor)
            alone = said_by_pytorch(partial(detector, torch.from_numpy(tensor)))
            print(f"\n{what}\n  PyTorch alone: {alone}")
            print(f"  Sonde: {refused.status_code} {refused.json()['error']}")
        elsewhere = torch.empty(screen.shape, device="meta")
        alone = said_by_pytorch(lambda: detector(elsewhere)["ink"].tolist())
        print(f"\na tensor of another device\n  PyTorch alone: {alone}")
        print(f"  Sonde: a request's tensor has no device; the program computes it on {contract['device']}")


if __name__ == "__main__":
    main()
