"""The paths of Azure OpenAI: a deployment is a model. The query's `api-version` is not used."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.api.compute_route import CallDep, compute_route
from service.api.openapi import path_parameter
from service.api.routes import embeddings as openai
from service.api.schemas.texts import EmbeddingsAnswer, EmbeddingsBody

router = APIRouter(tags=["Azure OpenAI"])


@compute_route(router, "/openai/v1/embeddings", EmbeddingsAnswer, "Embed texts")
async def embeddings(body: EmbeddingsBody, call: CallDep) -> Response:
    """The same as /v1/embeddings."""
    return await openai.embeddings(body, call)


@compute_route(
    router,
    "/openai/deployments/{deployment:path}/embeddings",
    EmbeddingsAnswer,
    "Embed texts with a deployment",
    openapi_extra=path_parameter("deployment"),
)
async def embed_with_deployment(body: EmbeddingsBody, call: CallDep) -> Response:
    """The same as /v1/embeddings, with the model that the path names."""
    named = body.model_copy(update={"model": call.request.path_params["deployment"]})
    return await openai.embeddings(named, call)
