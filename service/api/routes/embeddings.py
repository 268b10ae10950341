"""OpenAI's embeddings."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.api.deps import INFER, CallerDep, ManagerDep, SettingsDep, cancel_on_disconnect
from service.api.json_body import JsonRoute
from service.api.openapi import answers
from service.api.responses import INLINE_NUMBERS, build_response, check_dimensions, embeddings_body, finish_vectors
from service.api.schemas.fields import naming_of, require_count
from service.api.schemas.texts import EmbeddingsAnswer, EmbeddingsBody
from service.serving.text_model import TokenizeOptions

router = APIRouter(route_class=JsonRoute, dependencies=[INFER], tags=["OpenAI"])


@router.post("/v1/embeddings", responses=answers(EmbeddingsAnswer), summary="Embed texts")
async def embeddings(
    body: EmbeddingsBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """One vector per input, in order."""
    served = await manager.resolve_for("embedding", body.model)
    require_count(len(body.input), settings.max_inputs, "input")
    check_dimensions(body.dimensions, served)
    name = naming_of("input", body.input)
    reading = TokenizeOptions(prompt=served.prompt(body.prompt_name), truncate=body.truncate, name=name)
    rows = await cancel_on_disconnect(request, served.rows(body.input, caller, "embedding", reading))

    def write() -> bytes:
        vectors = finish_vectors(rows.values, normalized=body.normalize, dimensions=body.dimensions)
        return embeddings_body(vectors, rows, body.model, body.encoding_format)

    content = write() if rows.values.size <= INLINE_NUMBERS else await served.run_in_pool(write)
    return build_response(request, content, served, rows)
