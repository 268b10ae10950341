"""Hugging Face's inference API, at the root and below `/models`, on text-embeddings-inference's routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from service.api.compute_route import INFER, CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.json_body import JsonRoute
from service.api.openapi import path_parameter
from service.api.routes import huggingface_images, tei
from service.api.routes.classify import classify_by_labels, rank_labels
from service.api.schemas.requests import RequestBody, SingleInput, name_inputs, require_few_scores
from service.api.schemas.rerank import TeiRerankBody
from service.api.schemas.tei import EmbedBody, PredictBody, SimilarityBody, ZeroShotBody
from service.errors import InvalidRequest
from service.serving.text_model import TokenizeOptions

router = APIRouter(route_class=JsonRoute, tags=["Hugging Face"])
_PIPELINE = "pipeline/feature-extraction"
# A body of several forms: the task decides which one it has.
AnyBody = Annotated[Any, Body()]


# Decorators apply from the last one up, and the first route that fits a path answers.
@compute_route(
    router, f"/{{model:path}}/{_PIPELINE}", list[list[float]], "Embed texts with a model", include_in_schema=False
)
@compute_route(
    router, f"/{_PIPELINE}/{{model:path}}", list[list[float]], "Embed texts with a model", include_in_schema=False
)
@compute_route(
    router,
    f"/models/{{model:path}}/{_PIPELINE}",
    list[list[float]],
    "Embed texts with a model",
    openapi_extra=path_parameter("model"),
)
async def extract_features(body: EmbedBody, call: CallDep) -> Response:
    """One vector per input, in order, as a plain list, of the model that the path names."""
    return await tei.embed(_with_path_model(body, call), call)


@router.post("/models/{model:path}", include_in_schema=False, dependencies=[INFER])
async def infer(sent: AnyBody, call: CallDep) -> Response:
    """What the model that the path names does: vectors, labels, scores or similarities."""
    return await _answer_by_task(sent, call, call.request.path_params["model"])


@router.post("/", include_in_schema=False, dependencies=[INFER])
async def root(sent: AnyBody, call: CallDep) -> Response:
    """What the model that the body names does, or the first model."""
    return await _answer_by_task(sent, call, None)


async def _answer_by_task(sent: Any, call: ComputeCall, model: str | None) -> Response:
    if (images := await huggingface_images.find_model(sent, call, model)) is not None:
        return await huggingface_images.answer(sent, images, call)
    if model is not None and isinstance(sent, dict) and isinstance(sent.get("inputs"), list):
        sent = await _separate(sent, call, model)
    kind, endpoint = _TASKS[await _task_of(sent, call, model)]
    if isinstance(sent, dict) and model is not None:
        sent = {**sent, "model": model}
    _require_no_parameters(kind, sent)
    try:
        body = kind.model_validate(sent)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    return await endpoint(body, call)


def _require_no_parameters(kind: type[RequestBody], sent: Any) -> None:
    """Say what the model does to a caller that asks for another task: of all tasks, embedding has no parameters."""
    if kind is EmbedBody and isinstance(sent, dict) and sent.get("parameters") is not None:
        raise InvalidRequest.at(
            "parameters", "the model computes vectors and takes none: name another, or leave them out"
        )


async def _task_of(sent: Any, call: ComputeCall, model: str | None) -> str:
    """The task that a body's fields are for; where they leave it open, the model's."""
    fields = sent if isinstance(sent, dict) else {}
    parameters = fields.get("parameters")
    if isinstance(fields.get("inputs"), dict):
        return "similarity"
    if isinstance(parameters, dict) and parameters.get("candidate_labels") is not None:
        return "zero-shot"
    if fields.get("query") is not None:
        return "rerank"
    named = fields.get("model")
    served = await call.manager.resolve_texts(model or (named if isinstance(named, str) else None))
    return served.metadata.task


async def _separate(sent: dict[str, Any], call: ComputeCall, model: str) -> dict[str, Any]:
    """Inputs of a classifier as one list each: Hugging Face sends no pairs as text-embeddings-inference does."""
    if await _task_of(sent, call, model) != "classification":
        return sent
    return {**sent, "inputs": [[item] if isinstance(item, str) else item for item in sent["inputs"]]}


async def _classify(body: PredictBody, call: ComputeCall) -> Response:
    """A list of labels with scores for each input, even for one."""
    many = isinstance((await call.request.json())["inputs"], list)
    return await tei.classify_sequences(body, call, many=many, batched=True)


async def _classify_zero_shot(body: ZeroShotBody, call: ComputeCall) -> Response:
    """The candidate labels with scores, best first; a list of those when `inputs` was a list."""
    served = await call.manager.resolve_for("embedding", body.model)
    call.require_inputs(len(body.inputs), "inputs")
    labels = body.parameters.labels(call.settings.max_inputs)
    require_few_scores(len(body.inputs), labels, None, "inputs")
    options = TokenizeOptions(
        served.prompt(None), body.truncate, param="inputs", name=name_inputs("inputs", body.inputs)
    )
    work = classify_by_labels(body.inputs, labels, served, call, options, multi_label=body.parameters.multi_label)
    scored = await call.cancel_on_disconnect(work)

    def write() -> bytes:
        ranked = [rank_labels(scored, index) for index in range(len(body.inputs))]
        return orjson.dumps(ranked[0] if isinstance(body.inputs, SingleInput) else ranked)

    return call.respond(await served.run_in_pool(write), served, *scored.parts)


def _with_path_model(body: EmbedBody, call: ComputeCall) -> EmbedBody:
    return body.model_copy(update={"model": call.request.path_params["model"]})


_TASKS: dict[str, tuple[type[RequestBody], Callable[..., Awaitable[Response]]]] = {
    "embedding": (EmbedBody, tei.embed),
    "classification": (PredictBody, _classify),
    "rerank": (TeiRerankBody, tei.rerank),
    "similarity": (SimilarityBody, tei.similarity),
    "zero-shot": (ZeroShotBody, _classify_zero_shot),
}
