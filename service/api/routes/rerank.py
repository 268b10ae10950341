"""Rerank as Cohere, Jina and Voyage have it, by a cross-encoder or by an encoder."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Response
from numpy.typing import NDArray

from models.linalg import normalize
from models.text.sequence_classifier import relevance
from models.text.tokenization import Side
from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.responses import usage
from service.api.schemas.requests import name_by_index
from service.api.schemas.rerank import Document, DocumentsBody, RerankAnswer, RerankBody
from service.serving.servable import Caller
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

router = APIRouter(tags=["Cohere"])


@compute_route(router, "/v1/rerank", RerankAnswer, "Rank documents (Cohere v1, Jina, Voyage)")
@compute_route(router, "/v2/rerank", RerankAnswer, "Rank documents (Cohere v2)")
async def rerank(body: RerankBody, call: CallDep) -> Response:
    """Documents by relevance to the query, best first.

    An encoder's relevance is the cosine; negative cosines count as 0.
    """
    served = await call.manager.resolve_for("rerank", body.model)
    version = call.request.url.path[2]
    ranked = await rank_documents(body, body.documents, served, call)
    results = _results(ranked, body, [_to_object(document) for document in body.documents])
    meta = {
        "api_version": {"version": version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": ranked.token_count},
        "truncated": sum(rows.truncated for rows in ranked.parts),
    }
    answer = {"id": str(uuid.uuid4()), "results": results, "meta": meta}
    if version == "1":  # what Jina's and Voyage's clients read
        answer |= _as_jina(ranked, body, body.documents, served)
    return call.respond(orjson.dumps(answer), served, *ranked.parts)


@dataclass(frozen=True, slots=True)
class RankedDocuments:
    """Scores float32 [documents] between 0 and 1, the indices by score, and the rows behind them."""

    scores: NDArray[np.float32]
    order: NDArray[np.int64]
    parts: tuple[ModelOutput, ...]

    @property
    def token_count(self) -> int:
        return sum(rows.token_count for rows in self.parts)


async def rank_documents(
    body: DocumentsBody, documents: list[Document], served: ServedText, call: ComputeCall, side: Side = "right"
) -> RankedDocuments:
    """Rank documents by their relevance to the query, best first."""
    call.require_inputs(len(documents), "documents")
    texts = body.document_texts(documents)
    options = TokenizeOptions(max_tokens=body.max_tokens_per_doc, truncate=body.truncate, side=side, param="documents")
    raw, parts = await call.cancel_on_disconnect(score_documents(served, body.query, texts, options, call.caller))
    scores = to_relevance(raw, served)
    return RankedDocuments(scores, np.argsort(-scores, kind="stable")[: body.top_n], parts)


def jina_answer(
    ranked: RankedDocuments, body: DocumentsBody, documents: list[Document], served: ServedText
) -> dict[str, Any]:
    """Jina's answer; each document is the text that was ranked, as Infinity's clients read it."""
    answer = _as_jina(ranked, body, [*body.document_texts(documents)], served)
    return {"id": str(uuid.uuid4()), "results": answer.pop("data"), **answer}


def _as_jina(
    ranked: RankedDocuments, body: DocumentsBody, documents: list[Document], served: ServedText
) -> dict[str, Any]:
    return {
        "object": "list",
        "model": served.metadata.name,
        "data": _results(ranked, body, documents),
        "usage": usage(*ranked.parts),
    }


def _results(ranked: RankedDocuments, body: DocumentsBody, documents: list[Document]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = [
        {"index": int(at), "relevance_score": float(ranked.scores[at])} for at in ranked.order
    ]
    if body.return_documents:
        for entry in results:
            entry["document"] = documents[entry["index"]]
    return results


def _to_object(document: Document) -> Document:
    return {"text": document} if isinstance(document, str) else document


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
