"""OpenAI's embeddings."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.api.deps import INFER, CallerDep, HubDep, SettingsDep, unless_gone
from service.api.json_body import JsonRoute
from service.api.openapi import answers
from service.api.responses import INLINE_NUMBERS, answer, check_dimensions, embeddings_body, finished
from service.api.schemas.fields import naming_of, require_count
from service.api.schemas.texts import EmbeddingsAnswer, EmbeddingsBody
from service.serving.text_model import Reading

router = APIRouter(route_class=JsonRoute, dependencies=[INFER], tags=["OpenAI"])


@router.post("/v1/embeddings", responses=answers(EmbeddingsAnswer), summary="Embed texts")
async def embeddings(body: EmbeddingsBody, request: Request, hub: HubDep, settings: SettingsDep, caller: CallerDep) -> Response:
    """One vector per input, in order."""
    served = await hub.resolve_for("embedding", body.model)
    require_count(len(body.input), settings.max_inputs, "input")
    check_dimensions(body.dimensions, served)
    name = naming_of("input", body.input)
    reading = Reading(prompt=served.prompt(body.prompt_name), truncate=body.truncate, name=name)
    rows = await unless_gone(request, served.rows(body.input, caller, "embedding", reading))

    def write() -> bytes:
        vectors = finished(rows.values, normalized=body.normalize, dimensions=body.dimensions)
        return embeddings_body(vectors, rows, body.model, body.encoding_format)

    content = write() if rows.values.size <= INLINE_NUMBERS else await served.aside(write)
    return answer(request, content, served, rows)
