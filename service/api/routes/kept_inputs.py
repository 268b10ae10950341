"""Classified texts and images that wait for a person's review; see `--keep-inputs`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from service.api.dependencies import KeptInputsDep, PrincipalDep, requires
from service.api.openapi import READING, errors
from service.api.schemas.kept_inputs import KeptInputList

router = APIRouter(dependencies=[Depends(requires("train"))], tags=["Sonde"])


@router.get(
    "/v1/kept_inputs",
    responses={**READING, **errors(422)},
    response_model=KeptInputList,
    summary="Classified texts and images, the least certain first",
)
async def list_kept_inputs(
    kept: KeptInputsDep,
    principal: PrincipalDep,
    model: Annotated[str | None, Query(description="only those that this model answered, any version")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> dict[str, Any]:
    """The newest texts and images of your key, as many as `--keep-inputs` says, by the score of their best label.

    They are in memory alone. Feedback on a text or an image removes it from here.
    """
    found = kept.least_certain(None if principal.sees_all else principal.id)
    wanted = [one for one in found if model is None or one.model.rpartition(":")[0] == model]
    data = [
        {
            "id": one.id,
            "object": "kept_input",
            "created_at": int(one.at),
            "model": one.model,
            "text": None if one.is_image else one.text,
            "image": one.text if one.is_image else None,
            "labels": one.labels,
            "owner": one.owner,
        }
        for one in wanted[:limit]
    ]
    more = len(wanted) > limit
    return {"object": "list", "data": data, "has_more": more, "kept_per_key": kept.limit, "skipped": kept.skipped}
