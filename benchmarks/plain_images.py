"""A server of images without Sonde: FastAPI that decodes, prepares and computes in its thread pool, an image a request.

transformers' `pipeline()` does the same with a model of its own; it has none for these weights.
"""

from __future__ import annotations

import io

import torch
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from models.images.lite_encoder import LiteEncoder
from models.loader import load_images
from models.runtime.placement import place
from models.source import locate

app = FastAPI()
_placement = place("cpu", "auto")
_encoder = load_images(locate("image-default"), _placement)


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
    assert isinstance(_encoder, LiteEncoder)  # as image-default is
    image = Image.open(io.BytesIO(data)).convert("RGB")
    pixels = torch.from_numpy(_encoder.images.processor(image)["pixel_values"][0])[None]
    with torch.inference_mode():
        row: list[float] = _encoder._network.vectors(pixels.to(_placement.dtype))[0].float().tolist()
    return row
