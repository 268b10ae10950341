"""Rerank as Cohere's clients ask for it, by a cross-encoder or by an encoder."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from models.linalg import normalize
from models.text.sequence_classifier import relevance
from service.api.deps import INFER, CallerDep, ManagerDep, SettingsDep, cancel_on_disconnect
from service.api.json_body import JsonRoute
from service.api.openapi import answers
from service.api.responses import build_response
from service.api.schemas.fields import naming, require_count
from service.api.schemas.texts import RerankAnswer, RerankBody
from service.serving.servable import Caller
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

router = APIRouter(route_class=JsonRoute, dependencies=[INFER], tags=["Cohere"])


@router.post("/v1/rerank", responses=answers(RerankAnswer), summary="Rank documents (Cohere v1)")
@router.post("/v2/rerank", responses=answers(RerankAnswer), summary="Rank documents (Cohere v2)")
async def rerank(
    body: RerankBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """Documents by relevance to the query, best first. An encoder's relevance is the cosine, negative ones counting
    as 0.
    """
    served = await manager.resolve_for("rerank", body.model)
    require_count(len(body.documents), settings.max_inputs, "documents")
    reading = TokenizeOptions(max_tokens=body.max_tokens_per_doc, param="documents")
    raw, parts = await cancel_on_disconnect(request, raw_scores(served, body.query, body.documents, reading, caller))
    scores = to_relevance(raw, served)
    order = np.argsort(-scores, kind="stable")[: body.top_n]
    results = [{"index": int(at), "relevance_score": float(scores[at]), **_text(body, int(at))} for at in order]
    tokens = sum(rows.token_count for rows in parts)
    meta = {
        "api_version": {"version": request.url.path[2]},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": tokens},
        "truncated": sum(rows.truncated for rows in parts),
    }
    return build_response(
        request, orjson.dumps({"id": str(uuid.uuid4()), "results": results, "meta": meta}), served, *parts
    )


async def raw_scores(
    served: ServedText, query: str, documents: list[str], reading: TokenizeOptions, caller: Caller
) -> tuple[NDArray[np.float32], tuple[ModelOutput, ...]]:
    """A cross-encoder's logits, or an encoder's cosines, [documents]; and the rows they came from."""
    if served.card.task == "rerank":
        rows = await served.rows([(query, document) for document in documents], caller, "rerank", reading)
        return rows.values[:, 0], (rows,)
    prompts = served.card.prompts
    name = naming("query", alone=True)
    asked = replace(
        reading, prompt=prompts.get("query", served.prompt(None)), max_tokens=None, param="query", name=name
    )
    read = replace(reading, prompt=prompts.get("document", served.prompt(None)))
    query_rows, document_rows = await _both(
        served.rows([query], caller, "rerank", asked), served.rows(documents, caller, "rerank", read)
    )
    cosines: NDArray[np.float32] = normalize(document_rows.values) @ normalize(query_rows.values)[0]
    return cosines, (document_rows, query_rows)


async def _both(
    one: Coroutine[Any, Any, ModelOutput], other: Coroutine[Any, Any, ModelOutput]
) -> tuple[ModelOutput, ModelOutput]:
    """Both results; when one fails, the other is not computed."""
    tasks = asyncio.ensure_future(one), asyncio.ensure_future(other)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def to_relevance(raw: NDArray[np.float32], served: ServedText) -> NDArray[np.float32]:
    """Raw scores [n] as numbers between 0 and 1."""
    return relevance(raw[:, None]) if served.card.task == "rerank" else raw.clip(0.0, 1.0)


def _text(body: RerankBody, index: int) -> dict[str, object]:
    return {"document": {"text": body.documents[index]}} if body.return_documents else {}
