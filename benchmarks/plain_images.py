"""A server of images without Sonde: FastAPI that decodes, prepares and computes in its thread pool, an image a request.

transformers' `pipeline()` does the same with a model of its own; it has none for these weights.
"""

from __future__ import annotations

import io

import torch
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from safetensors.torch import load_file

from models.images.efficientnet_lite import EfficientNetLite0
from models.images.processor import load_processor
from models.runtime.placement import place
from models.source import locate

app = FastAPI()
_placement = place("cpu", "auto")
_source = locate("image-default")
_processor = load_processor(_source, _source.path).processor
_network = EfficientNetLite0().load(load_file(_source.path / "model.safetensors")).eval()
_network.to(_placement.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the readiness probe."""
    return {"status": "ok"}


@app.post("/embed")
async def embed(request: Request) -> dict[str, list[float]]:
    """The vector of the image that is the body."""
    data = await request.body()
    return {"embedding": await run_in_threadpool(_vector, data)}


def _vector(data: bytes) -> list[float]:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    pixels = torch.from_numpy(_processor(image)["pixel_values"][0])[None]
    with torch.inference_mode():
        row: list[float] = _network(pixels.to(_placement.dtype))[0].float().tolist()
    return row
