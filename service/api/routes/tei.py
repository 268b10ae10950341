"""The routes of text-embeddings-inference, so that its clients work unchanged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import ValidationError

from models.linalg import normalize
from models.text.sequence_classifier import probabilities
from models.text.tokenization import Side
from models.text.tokens import Explained
from service.api.fast_path import INFER, CallDep, compute_route
from service.api.json_body import JsonRoute
from service.api.responses import list_body
from service.api.routes.embeddings import INLINE_NUMBERS, check_dimensions, finish_vectors, vectors_body
from service.api.routes.rerank import score_documents, to_relevance
from service.api.schemas.base import RequestBody
from service.api.schemas.fields import name_by_index, name_inputs
from service.api.schemas.tei import (
    DecodeBody,
    EmbedBody,
    ExplainAnswer,
    ExplainBody,
    PredictBody,
    SimilarityBody,
    SimilarityParameters,
    TeiRank,
    TeiRerankBody,
    TeiScore,
    TeiToken,
    TokenizeBody,
)
from service.errors import InvalidRequest
from service.serving.fine_tuned import FineTunedModel
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

router = APIRouter(route_class=JsonRoute, tags=["text-embeddings-inference"])


@router.post("/", include_in_schema=False, dependencies=[INFER])
async def root(request: Request, call: CallDep) -> Response:
    """TEI's root: /embed, /predict or /rerank, by what the first model does.

    A body with a source sentence goes to /similarity.
    """
    sent = await request.json()
    compares = isinstance(sent, dict) and isinstance(sent.get("inputs"), dict)
    kind, endpoint = _ROOT["similarity" if compares else (await call.manager.resolve(None)).metadata.task]
    try:
        body = kind.model_validate(sent)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    return await endpoint(body, call)


@compute_route(router, "/embed", list[list[float]], "Embed texts")
async def embed(body: EmbedBody, call: CallDep) -> Response:
    """One vector per input, in order, as a plain list."""
    served = await call.manager.resolve_for("embedding", body.model)
    call.require_inputs(len(body.inputs), "inputs")
    check_dimensions(body.dimensions, served)
    options = _embed_options(body, served, name_inputs("inputs", body.inputs))
    rows = await call.cancel_on_disconnect(served.rows(body.inputs, call.caller, "embedding", options))

    def write() -> bytes:
        return vectors_body(finish_vectors(rows.values, normalized=body.normalize, dimensions=body.dimensions))

    content = write() if rows.values.size <= INLINE_NUMBERS else await served.run_in_pool(write)
    return call.respond(content, served, rows)


@compute_route(router, "/predict", list[TeiScore] | list[list[TeiScore]], "Run a sequence classifier")
async def predict(body: PredictBody, call: CallDep) -> Response:
    """Labels with scores, best first; a list of those when `inputs` was a list of lists."""
    served = await call.manager.resolve_for("classification", body.model)
    call.require_inputs(len(body.inputs), "inputs")
    _require_pairs_allowed(body, served)
    sent = (await call.request.json())["inputs"]
    many = isinstance(sent, list) and isinstance(sent[0], list)
    options = TokenizeOptions(
        prompt=served.prompt(None) if isinstance(served, FineTunedModel) else "",
        truncate=_truncates(body.truncate),
        param="inputs",
        name=name_by_index("inputs", alone=not many),
    )
    rows = await call.cancel_on_disconnect(served.rows(body.inputs, call.caller, "classification", options))
    scores = await _scores(served, rows, body)
    top_k = body.parameters.top_k if body.parameters else None
    ranked = [
        [
            {"label": served.metadata.labels[at], "score": float(line[at])}
            for at in np.argsort(-line, kind="stable")[:top_k]
        ]
        for line in scores
    ]
    # Parameters are Hugging Face's inference API, which answers even a single text with a list of its own.
    batched = many or body.parameters is not None
    return call.respond(orjson.dumps(ranked if batched else ranked[0]), served, rows)


@compute_route(router, "/rerank", list[TeiRank], "Rank texts")
async def rerank(body: TeiRerankBody, call: CallDep) -> Response:
    """Texts by relevance to the query, best first."""
    served = await call.manager.resolve_for("rerank", body.model)
    call.require_inputs(len(body.texts), "texts")
    options = TokenizeOptions(truncate=_truncates(body.truncate), param="texts")
    work = score_documents(served, body.query, body.texts, options, call.caller)
    raw, parts = await call.cancel_on_disconnect(work)
    scores = raw if body.raw_scores else to_relevance(raw, served)
    order = np.argsort(-scores, kind="stable")
    ranked: list[dict[str, Any]] = [{"index": int(at), "score": float(scores[at])} for at in order]
    if body.return_text:
        for entry in ranked:
            entry["text"] = body.texts[entry["index"]]
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
    """Each text's tokens, uncut, with their place in the preprocessed text."""
    served = await call.manager.resolve_texts(body.model)
    call.require_inputs(len(body.inputs), "inputs")
    work = served.explain(
        body.inputs, call.caller, "inputs", prompt=served.prompt(body.prompt_name), special=body.add_special_tokens
    )
    explained = await call.cancel_on_disconnect(work)
    content = await served.run_in_pool(lambda: orjson.dumps([_tei_tokens(text) for text in explained]))
    return call.respond(content, served)


@compute_route(router, "/v1/tokenize", ExplainAnswer, "Show texts as the model sees them", tags=["Sonde"])
async def explain(body: ExplainBody, call: CallDep) -> Response:
    """Each text after preprocessing, with its tokens and ids, uncut.

    `truncated` says whether the model would have to cut it.
    """
    served = await call.manager.resolve_texts(body.model)
    call.require_inputs(len(body.input), "input")
    work = served.explain(
        body.input, call.caller, "input", prompt=served.prompt(body.prompt_name), special=body.add_special_tokens
    )
    explained = await call.cancel_on_disconnect(work)
    max_tokens = served.metadata.max_tokens

    def write() -> bytes:
        data = [_explanation(index, text, max_tokens) for index, text in enumerate(explained)]
        return list_body(body.model, data, max_tokens=max_tokens)

    return call.respond(await served.run_in_pool(write), served)


@compute_route(router, "/decode", list[str], "Turn token ids into text")
async def decode(body: DecodeBody, call: CallDep) -> Response:
    """The text of each list of ids."""
    served = await call.manager.resolve_texts(body.model)
    call.require_inputs(len(body.ids), "ids")
    name = name_by_index("ids", alone=not isinstance((await call.request.json())["ids"][0], list))
    work = served.decode(body.ids, call.caller, skip_special_tokens=body.skip_special_tokens, named=name)
    return call.respond(orjson.dumps(await call.cancel_on_disconnect(work)), served)


_ROOT: dict[str, tuple[type[RequestBody], Callable[..., Awaitable[Response]]]] = {
    "embedding": (EmbedBody, embed),
    "classification": (PredictBody, predict),
    "rerank": (TeiRerankBody, rerank),
    "similarity": (SimilarityBody, similarity),
}


def _require_pairs_allowed(body: PredictBody, served: ServedText) -> None:
    """Raise InvalidRequest for pairs, unless the model was trained on pairs."""
    if isinstance(served, FineTunedModel) and not served.takes_pairs and not isinstance(body.inputs[0], str):
        raise InvalidRequest(f"{served.metadata.name} reads single texts, got pairs", param="inputs")


async def _scores(served: ServedText, rows: ModelOutput, body: PredictBody) -> NDArray[np.float32]:
    """Logits or probabilities [n, labels], as the caller wants them; `/v1/classify` gives the same probabilities."""
    chosen = body.parameters.function_to_apply if body.parameters else None
    raw = body.raw_scores or chosen == "none"
    multi_label = served.metadata.multi_label if chosen is None else chosen == "sigmoid"
    if not isinstance(served, FineTunedModel):
        return rows.values if raw else probabilities(rows.values, multi_label=multi_label)

    def compute() -> NDArray[np.float32]:
        if raw:
            return served.logits(rows.values, rows.tokens)
        in_scope = served.probabilities(rows.values, rows.tokens, multi_label=multi_label)
        scope = served.score(rows.values)
        return in_scope if scope is None else in_scope * scope.in_scope.numpy()[:, None]

    return await served.run_in_pool(compute)


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


def _explanation(index: int, seen: Explained, max_tokens: int) -> dict[str, object]:
    return {
        "object": "tokens",
        "index": index,
        "text": seen.text,
        "tokens": seen.tokens,
        "ids": seen.ids,
        "special": seen.special,
        "truncated": len(seen.ids) > max_tokens,
    }


def _embed_options(
    body: EmbedBody | SimilarityParameters, served: ServedText, name: Callable[[int], str]
) -> TokenizeOptions:
    return TokenizeOptions(
        prompt=served.prompt(body.prompt_name),
        truncate=_truncates(body.truncate),
        side=_truncation_side(body.truncation_direction),
        param="inputs",
        name=name,
    )


def _name_sentence(index: int) -> str:
    return f"inputs.sentences[{index - 1}]" if index else "inputs.source_sentence"


def _truncates(truncate: bool | None) -> bool:
    """TEI's null means the server's default, which is to cut."""
    return truncate is not False


def _truncation_side(direction: str) -> Side:
    return "left" if direction.lower() == "left" else "right"
