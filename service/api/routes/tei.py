"""The routes of text-embeddings-inference, so that its clients work unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Response

from models.linalg import normalize
from models.text.tokenization import Explained, Side
from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.json_body import JsonRoute
from service.api.routes.classify import classifier_prompt, rank_labels, score_own_labels
from service.api.routes.embeddings import check_dimensions, embed_inputs, finish_vectors, vectors_body
from service.api.routes.rerank import jina_answer, rank_documents, score_documents, to_relevance
from service.api.schemas.requests import name_by_index, name_inputs, require_few_scores
from service.api.schemas.rerank import JinaRerankAnswer, TeiRank, TeiRerankBody
from service.api.schemas.tei import (
    DecodeBody,
    EmbedBody,
    PredictBody,
    SimilarityBody,
    SimilarityParameters,
    TeiScore,
    TeiToken,
    TokenizeBody,
)
from service.errors import InvalidRequest
from service.serving.fine_tuned import FineTunedModel
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

router = APIRouter(route_class=JsonRoute, tags=["text-embeddings-inference"])


@compute_route(router, "/embed", list[list[float]], "Embed texts")
async def embed(body: EmbedBody, call: CallDep) -> Response:
    """One vector per input, in order, as a plain list."""
    served = await call.manager.resolve_for("embedding", body.model)
    call.require_inputs(len(body.inputs), "inputs")
    check_dimensions(body.dimensions, served)
    options = _embed_options(body, served, name_inputs("inputs", body.inputs))

    def write(rows: ModelOutput) -> bytes:
        return vectors_body(finish_vectors(rows.values, normalized=body.normalize, dimensions=body.dimensions))

    return await embed_inputs(body.inputs, served, call, options, write)


@compute_route(router, "/predict", list[TeiScore] | list[list[TeiScore]], "Run a sequence classifier")
async def predict(body: PredictBody, call: CallDep) -> Response:
    """Labels with scores, best first; a list of those when `inputs` was a list of lists."""
    sent = (await call.request.json())["inputs"]
    many = isinstance(sent, list) and isinstance(sent[0], list)
    # Parameters are Hugging Face's inference API, which answers even a single text with a list of its own.
    return await classify_sequences(body, call, many=many, batched=many or body.parameters is not None)


async def classify_sequences(body: PredictBody, call: ComputeCall, *, many: bool, batched: bool) -> Response:
    """Labels with scores, best first: a list for each of the inputs, or, unless `batched`, the first one's alone.

    `many` says that the inputs came in a list.
    """
    served = await call.manager.resolve_for("classification", body.model)
    call.require_inputs(len(body.inputs), "inputs")
    top_k = body.parameters.top_k if body.parameters else None
    require_few_scores(len(body.inputs), served.metadata.labels, top_k, "inputs")
    _require_pairs_allowed(body, served)
    options = TokenizeOptions(
        prompt=classifier_prompt(served),
        truncate=body.truncate,
        side=_truncation_side(body.truncation_direction),
        param="inputs",
        name=name_by_index("inputs", alone=not many),
    )
    rows = await call.cancel_on_disconnect(served.rows(body.inputs, call.caller, "classification", options))
    chosen = body.parameters.function_to_apply if body.parameters else None
    multi_label = served.metadata.multi_label if chosen is None else chosen == "sigmoid"
    scored = await score_own_labels(served, rows, multi_label=multi_label, raw=body.raw_scores or chosen == "none")

    def write() -> bytes:
        ranked = [rank_labels(scored, index, top_k) for index in range(len(body.inputs))]
        return orjson.dumps(ranked if batched else ranked[0])

    return call.respond(await served.run_in_pool(write), served, rows)


@compute_route(router, "/rerank", list[TeiRank] | JinaRerankAnswer, "Rank texts (TEI), or documents (Jina, vLLM)")
async def rerank(body: TeiRerankBody, call: CallDep) -> Response:
    """Texts by relevance to the query, best first; documents as Jina ranks them."""
    served = await call.manager.resolve_for("rerank", body.model)
    side = _truncation_side(body.truncation_direction)
    if body.documents is not None:
        found = await rank_documents(body, body.documents, served, call, side)
        return call.respond(orjson.dumps(jina_answer(found, body, body.documents, served)), served, *found.parts)
    texts: list[str] = body.texts or []
    call.require_inputs(len(texts), "texts")
    options = TokenizeOptions(truncate=body.truncate, side=side, max_tokens=body.max_tokens_per_doc, param="texts")
    raw, parts = await call.cancel_on_disconnect(score_documents(served, body.query, texts, options, call.caller))
    scores = raw if body.raw_scores else to_relevance(raw, served)
    order = np.argsort(-scores, kind="stable")[: body.top_n]
    ranked: list[dict[str, Any]] = [{"index": int(at), "score": float(scores[at])} for at in order]
    if body.return_text:
        for entry in ranked:
            entry["text"] = texts[entry["index"]]
    return call.respond(orjson.dumps(ranked), served, *parts)


@compute_route(router, "/similarity", list[float], "Compare one sentence with others")
async def similarity(body: SimilarityBody, call: CallDep) -> Response:
    """The cosine of each sentence to the source sentence."""
    served = await call.manager.resolve_for("embedding", body.model)
    call.require_inputs(len(body.inputs.sentences), "inputs.sentences")
    options = _embed_options(body.parameters or SimilarityParameters(), served, _name_sentence)
    texts = [body.inputs.source_sentence, *body.inputs.sentences]
    rows = await call.cancel_on_disconnect(served.rows(texts, call.caller, "embedding", options))
    vectors = normalize(rows.values)
    return call.respond(orjson.dumps((vectors[1:] @ vectors[0]).tolist()), served, rows)


@compute_route(router, "/tokenize", list[list[TeiToken]], "Show the tokens of texts")
async def tokenize(body: TokenizeBody, call: CallDep) -> Response:
    """Each text's tokens, uncut, with their place in the text after its prompt."""
    served = await call.manager.resolve_texts(body.model)
    call.require_inputs(len(body.inputs), "inputs")
    work = served.explain(
        body.inputs, call.caller, "inputs", prompt=served.prompt(body.prompt_name), special=body.add_special_tokens
    )
    explained = await call.cancel_on_disconnect(work)
    content = await served.run_in_pool(lambda: orjson.dumps([_tei_tokens(text) for text in explained]))
    return call.respond(content, served)


@compute_route(router, "/decode", list[str], "Turn token ids into text")
async def decode(body: DecodeBody, call: CallDep) -> Response:
    """The text of each list of ids."""
    served = await call.manager.resolve_texts(body.model)
    call.require_inputs(len(body.ids), "ids")
    name = name_by_index("ids", alone=not isinstance((await call.request.json())["ids"][0], list))
    work = served.decode(body.ids, call.caller, skip_special_tokens=body.skip_special_tokens, named=name)
    return call.respond(orjson.dumps(await call.cancel_on_disconnect(work)), served)


def _require_pairs_allowed(body: PredictBody, served: ServedText) -> None:
    """Raise InvalidRequest for pairs, unless the model was trained on pairs."""
    if isinstance(served, FineTunedModel) and not served.takes_pairs and not isinstance(body.inputs[0], str):
        raise InvalidRequest(f"{served.metadata.name} reads single texts, got pairs", param="inputs")


def _tei_tokens(seen: Explained) -> list[dict[str, object]]:
    return [
        {
            "id": token_id,
            "text": token if is_special else seen.text[start:stop],
            "special": is_special,
            "start": None if is_special else start,
            "stop": None if is_special else stop,
        }
        for token_id, token, is_special, (start, stop) in zip(
            seen.ids, seen.tokens, seen.special, seen.offsets, strict=True
        )
    ]


def _embed_options(
    body: EmbedBody | SimilarityParameters, served: ServedText, name: Callable[[int], str]
) -> TokenizeOptions:
    return TokenizeOptions(
        prompt=served.prompt(body.prompt_name),
        truncate=body.truncate,
        side=_truncation_side(body.truncation_direction),
        param="inputs",
        name=name,
    )


def _name_sentence(index: int) -> str:
    return f"inputs.sentences[{index - 1}]" if index else "inputs.source_sentence"


def _truncation_side(direction: str) -> Side:
    return "left" if direction.lower() == "left" else "right"
