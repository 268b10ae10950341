"""Cohere's rerank, by a cross-encoder or by an encoder."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Response
from numpy.typing import NDArray

from models.linalg import normalize
from models.text.sequence_classifier import relevance
from service.api.fast_path import CallDep, compute_route
from service.api.schemas.fields import name_by_index
from service.api.schemas.texts import RerankAnswer, RerankBody
from service.serving.servable import Caller
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

router = APIRouter(tags=["Cohere"])


@compute_route(router, "/v1/rerank", RerankAnswer, "Rank documents (Cohere v1)")
@compute_route(router, "/v2/rerank", RerankAnswer, "Rank documents (Cohere v2)")
async def rerank(body: RerankBody, call: CallDep) -> Response:
    """Documents by relevance to the query, best first.

    An encoder's relevance is the cosine; negative cosines count as 0.
    """
    served = await call.manager.resolve_for("rerank", body.model)
    call.require_inputs(len(body.documents), "documents")
    options = TokenizeOptions(max_tokens=body.max_tokens_per_doc, param="documents")
    work = score_documents(served, body.query, body.documents, options, call.caller)
    raw, parts = await call.cancel_on_disconnect(work)
    scores = to_relevance(raw, served)
    order = np.argsort(-scores, kind="stable")[: body.top_n]
    results: list[dict[str, Any]] = [{"index": int(at), "relevance_score": float(scores[at])} for at in order]
    if body.return_documents:
        for entry in results:
            entry["document"] = {"text": body.documents[entry["index"]]}
    meta = {
        "api_version": {"version": call.request.url.path[2]},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": sum(rows.token_count for rows in parts)},
        "truncated": sum(rows.truncated for rows in parts),
    }
    content = orjson.dumps({"id": str(uuid.uuid4()), "results": results, "meta": meta})
    return call.respond(content, served, *parts)


async def score_documents(
    served: ServedText, query: str, documents: list[str], options: TokenizeOptions, caller: Caller
) -> tuple[NDArray[np.float32], tuple[ModelOutput, ...]]:
    """A cross-encoder's logits or an encoder's cosines, [documents], and the rows behind them."""
    if served.metadata.task == "rerank":
        rows = await served.rows([(query, document) for document in documents], caller, "rerank", options)
        return rows.values[:, 0], (rows,)
    limits = served.metadata.input_limits
    of_query = replace(
        options,
        prompt=served.prompt_for("query"),
        max_tokens=None,
        max_input_tokens=limits.get("query"),
        param="query",
        name=name_by_index("query", alone=True),
    )
    of_documents = replace(options, prompt=served.prompt_for("document"), max_input_tokens=limits.get("document"))
    query_rows, document_rows = await _gather_or_cancel(
        served.rows([query], caller, "rerank", of_query), served.rows(documents, caller, "rerank", of_documents)
    )
    cosines: NDArray[np.float32] = normalize(document_rows.values) @ normalize(query_rows.values)[0]
    return cosines, (document_rows, query_rows)


async def _gather_or_cancel(*work: Coroutine[Any, Any, ModelOutput]) -> list[ModelOutput]:
    """All results; when one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def to_relevance(raw: NDArray[np.float32], served: ServedText) -> NDArray[np.float32]:
    """Raw scores [n] → relevance between 0 and 1."""
    return relevance(raw[:, None]) if served.metadata.task == "rerank" else raw.clip(0.0, 1.0)
