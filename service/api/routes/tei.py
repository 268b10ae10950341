"""The routes of text-embeddings-inference, so that its clients work unchanged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from models.linalg import normalize
from models.text.sequence_classifier import probabilities
from models.text.tokenization import Side
from models.text.tokens import Explained
from service.api.deps import INFER, CallerDep, ManagerDep, SettingsDep, cancel_on_disconnect
from service.api.json_body import JsonRoute
from service.api.openapi import answers
from service.api.responses import (
    INLINE_NUMBERS,
    build_response,
    check_dimensions,
    finish_vectors,
    list_body,
    vectors_body,
)
from service.api.routes.rerank import raw_scores, to_relevance
from service.api.schemas.base import RequestBody
from service.api.schemas.fields import naming, naming_of, require_count
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
from service.serving.text_model import ServedText, TokenizeOptions

router = APIRouter(route_class=JsonRoute, dependencies=[INFER], tags=["text-embeddings-inference"])


@router.post("/", include_in_schema=False)
async def root(request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep) -> Response:
    """What the first model does: /embed, /predict or /rerank; or /similarity, when that is what the body asks. As
    TEI has it.
    """
    sent = await request.json()
    compares = isinstance(sent, dict) and isinstance(sent.get("inputs"), dict)
    kind, route = _ROOT["similarity" if compares else (await manager.resolve(None)).card.task]
    try:
        body = kind.model_validate(sent)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    return await route(body, request, manager, settings, caller)


@router.post("/embed", responses=answers(list[list[float]]), summary="Embed texts")
async def embed(
    body: EmbedBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """One vector per input, in order, as a plain list."""
    served = await manager.resolve_for("embedding", body.model)
    require_count(len(body.inputs), settings.max_inputs, "inputs")
    check_dimensions(body.dimensions, served)
    reading = TokenizeOptions(
        prompt=served.prompt(body.prompt_name),
        truncate=_on(body.truncate),
        side=_side(body.truncation_direction),
        param="inputs",
        name=naming_of("inputs", body.inputs),
    )
    rows = await cancel_on_disconnect(request, served.rows(body.inputs, caller, "embedding", reading))

    def write() -> bytes:
        return vectors_body(finish_vectors(rows.values, normalized=body.normalize, dimensions=body.dimensions))

    content = write() if rows.values.size <= INLINE_NUMBERS else await served.run_in_pool(write)
    return build_response(request, content, served, rows)


@router.post("/predict", responses=answers(list[TeiScore] | list[list[TeiScore]]), summary="Run a sequence classifier")
async def predict(
    body: PredictBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """Labels with scores, best first; a list of those when `inputs` was a list of lists."""
    served = await manager.resolve_for("classification", body.model)
    require_count(len(body.inputs), settings.max_inputs, "inputs")
    _require_pairs_allowed(body, served)
    prompt = served.prompt(None) if isinstance(served, FineTunedModel) else ""
    sent = await request.json()
    many = isinstance(sent["inputs"], list) and isinstance(sent["inputs"][0], list)
    reading = TokenizeOptions(
        prompt=prompt, truncate=_on(body.truncate), param="inputs", name=naming("inputs", alone=not many)
    )
    rows = await cancel_on_disconnect(request, served.rows(body.inputs, caller, "classification", reading))
    logits = (
        await served.run_in_pool(lambda: served.logits(rows.values, rows.tokens))
        if isinstance(served, FineTunedModel)
        else rows.values
    )
    scores = _scores(logits, body, served)
    top_k = body.parameters.top_k if body.parameters else None
    ranked = [
        [{"label": served.card.labels[at], "score": float(line[at])} for at in np.argsort(-line, kind="stable")[:top_k]]
        for line in scores
    ]
    # With parameters it is Hugging Face's inference API that is asked, where even a single text has a list of its own.
    batched = many or body.parameters is not None
    return build_response(request, orjson.dumps(ranked if batched else ranked[0]), served, rows)


@router.post("/rerank", responses=answers(list[TeiRank]), summary="Rank texts")
async def rerank(
    body: TeiRerankBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """Texts by relevance to the query, best first."""
    served = await manager.resolve_for("rerank", body.model)
    require_count(len(body.texts), settings.max_inputs, "texts")
    reading = TokenizeOptions(truncate=_on(body.truncate), param="texts")
    raw, parts = await cancel_on_disconnect(request, raw_scores(served, body.query, body.texts, reading, caller))
    scores = raw if body.raw_scores else to_relevance(raw, served)
    ranked: list[dict[str, Any]] = [
        {"index": int(at), "score": float(scores[at])} for at in np.argsort(-scores, kind="stable")
    ]
    if body.return_text:
        for entry in ranked:
            entry["text"] = body.texts[entry["index"]]
    return build_response(request, orjson.dumps(ranked), served, *parts)


@router.post("/similarity", responses=answers(list[float]), summary="Compare one sentence with others")
async def similarity(
    body: SimilarityBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """The cosine of each sentence to the source sentence."""
    served = await manager.resolve_for("embedding", body.model)
    require_count(len(body.inputs.sentences), settings.max_inputs, "inputs.sentences")
    how = body.parameters or SimilarityParameters()
    reading = TokenizeOptions(
        prompt=served.prompt(how.prompt_name),
        truncate=_on(how.truncate),
        side=_side(how.truncation_direction),
        param="inputs",
        name=lambda index: f"inputs.sentences[{index - 1}]" if index else "inputs.source_sentence",
    )
    texts = [body.inputs.source_sentence, *body.inputs.sentences]
    rows = await cancel_on_disconnect(request, served.rows(texts, caller, "embedding", reading))
    vectors = normalize(rows.values)
    return build_response(request, orjson.dumps((vectors[1:] @ vectors[0]).tolist()), served, rows)


@router.post("/tokenize", responses=answers(list[list[TeiToken]]), summary="Show the tokens of texts")
async def tokenize(
    body: TokenizeBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """Each text's tokens, uncut, with their place in the preprocessed text."""
    served = await manager.resolve_texts(body.model)
    require_count(len(body.inputs), settings.max_inputs, "inputs")
    reading = served.explain(
        body.inputs, caller, "inputs", prompt=served.prompt(body.prompt_name), special=body.add_special_tokens
    )
    seen = await cancel_on_disconnect(request, reading)
    return build_response(
        request, await served.run_in_pool(lambda: orjson.dumps([_tei_tokens(one) for one in seen])), served
    )


@router.post(
    "/v1/tokenize", responses=answers(ExplainAnswer), summary="Show texts as the model sees them", tags=["Sonde"]
)
async def explain(
    body: ExplainBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """Each text after preprocessing, with its tokens and ids, uncut, and whether the model would have to cut it."""
    served = await manager.resolve_texts(body.model)
    require_count(len(body.input), settings.max_inputs, "input")
    reading = served.explain(
        body.input, caller, "input", prompt=served.prompt(body.prompt_name), special=body.add_special_tokens
    )
    seen = await cancel_on_disconnect(request, reading)

    def write() -> bytes:
        most = served.card.max_tokens
        return list_body(
            body.model, [_explanation(index, one, most) for index, one in enumerate(seen)], max_tokens=most
        )

    return build_response(request, await served.run_in_pool(write), served)


@router.post("/decode", responses=answers(list[str]), summary="Turn token ids into text")
async def decode(
    body: DecodeBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """The text of each list of ids."""
    served = await manager.resolve_texts(body.model)
    require_count(len(body.ids), settings.max_inputs, "ids")
    name = naming("ids", alone=not isinstance((await request.json())["ids"][0], list))
    decoded = await cancel_on_disconnect(
        request, served.decode(body.ids, caller, skip_special_tokens=body.skip_special_tokens, named=name)
    )
    return build_response(request, orjson.dumps(decoded), served)


_ROOT: dict[str, tuple[type[RequestBody], Callable[..., Awaitable[Response]]]] = {
    "embedding": (EmbedBody, embed),
    "classification": (PredictBody, predict),
    "rerank": (TeiRerankBody, rerank),
    "similarity": (SimilarityBody, similarity),
}


def _require_pairs_allowed(body: PredictBody, served: ServedText) -> None:
    """An encoder reads one text at a time; only models that were made for pairs read two as one."""
    if isinstance(served, FineTunedModel) and not served.takes_pairs and not isinstance(body.inputs[0], str):
        raise InvalidRequest(f"{served.card.name} reads single texts, got pairs", param="inputs")


def _scores(logits: Any, body: PredictBody, served: ServedText) -> Any:
    """Logits [n, labels] as the caller wants them."""
    chosen = body.parameters.function_to_apply if body.parameters else None
    if body.raw_scores or chosen == "none":
        return logits
    multi_label = served.card.multi_label if chosen is None else chosen == "sigmoid"
    return probabilities(logits, multi_label=multi_label)


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


def _on(truncate: bool | None) -> bool:
    """TEI's null means the server's default, which is to cut."""
    return truncate is not False


def _side(direction: str) -> Side:
    return "left" if direction.lower() == "left" else "right"
