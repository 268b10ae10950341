"""Parts that several answers share: the list around the data, the usage, and warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from models.p_values import smallest_p_value
from service.api.schemas.anomaly import AnomalyBody
from service.serving.servable import Timings


def usage(*parts: Timings) -> dict[str, int]:
    """OpenAI's usage object: all tokens computed, special ones included; of an image, its cost in tokens."""
    total = sum(rows.token_count for rows in parts)
    return {"prompt_tokens": total, "total_tokens": total}


def list_body(model: str, data: Sequence[object], **more: object) -> bytes:
    """`{"object": "list", "model": …, "data": […], …}`."""
    return orjson.dumps({"object": "list", "model": model, "data": data, **more})


def page_object(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page of OpenAI's lists, with the ids at its ends."""
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": has_more, **ends}


def anomaly_object(
    index: int, score: float, p_value: float, alpha: float, *, truncated: bool = False, **more: object
) -> dict[str, object]:
    """The score of a text, an image or a program's row."""
    fields = {"object": "anomaly", "index": index, "score": score, "p_value": p_value, "is_anomaly": p_value <= alpha}
    return {**fields, "contributions": None, "nearest": [], **more, "truncated": truncated}


def anomaly_body(
    body: AnomalyBody,
    data: Sequence[object],
    threshold: float | None,
    reference: Mapping[str, object],
    warnings: list[str],
    parts: Sequence[Timings],
) -> bytes:
    """An answer with scores that follow no series."""
    judged = {"alpha": body.alpha, "threshold": threshold, "events": None, "drift": None, "state": None}
    rest = {"reference": reference, "warnings": warnings, "usage": usage(*parts)}
    return list_body(body.model, data, **judged, **rest)


def alpha_warnings(count: int, alpha: float, what: str, remedy: str) -> list[str]:
    """A warning when `count` calibration scores can call nothing an anomaly at `alpha`.

    `remedy` says what to do; its `{}` is the smallest count that is enough.
    """
    smallest = smallest_p_value(count)
    if smallest <= alpha:
        return []
    why = f"{count} {what} cannot give a p-value below {smallest:.3g}, so nothing is an anomaly at alpha {alpha:g}"
    return [f"{why}: {remedy.format(math.ceil(1 / alpha) - 1)} or choose a larger alpha"]
