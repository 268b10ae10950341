"""Anomaly scores of readings: of records, and of series that continue between calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import Response

from models.sensors.base import Drift, Readings, Scored, State
from service.api.compute_route import ComputeCall
from service.api.readings import TimestampColumn, gap_warnings, to_matrix, to_timestamps
from service.api.responses import alpha_warnings
from service.api.schemas.anomaly import AnomalyBody
from service.api.schemas.fields import require_count
from service.errors import InvalidRequest
from service.serving.sensor_model import ServedSensor
from service.serving.stream_state import Clock, seal, unseal

T = TypeVar("T")
_REMEDY = "train on more normal readings (at least {} to calibrate on)"
# More rows are read and written in the pool, because they would hold up other callers on the event loop.
_INLINE_ROWS = 128
# Rows written at a time, so that other threads get their turn in between.
_CHUNK = 1024
# Of the shares in one answer. Each row names each column again, so that long names make it many times the request.
_MAX_SHARES_BYTES = 64 << 20
_BYTES_PER_SHARE = 14  # `"":0.123456,` and an exponent


async def score_readings(body: AnomalyBody, call: ComputeCall, served: ServedSensor) -> Response:
    """Scores of a request's records or series."""
    param = "records" if served.signature.kind == "records" else "series"
    rows = _require_rows(body, served, param)
    require_count(len(rows), call.settings.max_readings, param)
    if body.contributions:
        _require_small_shares(len(rows), served.signature.columns)
    state, clock = (None, Clock()) if body.state is None else unseal(body.state, served.manifest.digest)
    readings, stamps = await _run_by_size(
        served, len(rows), lambda: _read_rows(body, rows, served, param, clock.last_s)
    )
    _require_window(served, len(rows), state)
    work = served.score(readings, call.caller, state=state, contributions=body.contributions)
    scored, timings = await call.cancel_on_disconnect(work)
    content = await _run_by_size(served, len(rows), lambda: _anomaly_body(body, served, scored, stamps, clock))
    return call.respond(content, served, timings)


def _require_small_shares(rows: int, columns: tuple[str, ...]) -> None:
    """Raise InvalidRequest where the shares of all columns would make too large an answer."""
    size = rows * sum(len(orjson.dumps(name)) + _BYTES_PER_SHARE for name in columns)
    if size > _MAX_SHARES_BYTES:
        most = f"may take {_MAX_SHARES_BYTES:,} bytes of an answer"
        why = f"{most}; those of {rows:,} readings would take {size:,}: send fewer readings at a time"
        raise InvalidRequest.at("contributions", why)


def _require_rows(body: AnomalyBody, served: ServedSensor, param: str) -> list[Any]:
    """The rows of the field that the model reads.

    Raises InvalidRequest where another field came.
    """
    rows: list[Any] | None = getattr(body, param)
    if rows is None:
        came = next(name for name in ("input", "series", "records") if getattr(body, name) is not None)
        other = {"input": "texts", "series": "a series", "records": "records"}[came]
        columns = served.signature.columns
        reads = f'{param}, float64 of shape ["n", {len(columns)}] ({", ".join(columns)})'
        raise InvalidRequest(f"{served.metadata.name} reads {reads}; got {other}", param=came)
    if body.reference is not None:
        raise InvalidRequest(
            f"{served.metadata.name} was trained on what is normal; leave reference out", param="reference"
        )
    return rows


async def _run_by_size(served: ServedSensor, rows: int, work: Callable[[], T]) -> T:
    """Do work on a number of rows: at once if they are few, else off the event loop."""
    return work() if rows <= _INLINE_ROWS else await served.run_in_pool(work)


def _read_rows(
    body: AnomalyBody, rows: list[Any], served: ServedSensor, param: str, before: float | None
) -> tuple[Readings, TimestampColumn | None]:
    readings = to_matrix(rows, served.signature.columns, param)
    return readings, None if body.timestamps is None else to_timestamps(body.timestamps, len(rows), before)


def _require_window(served: ServedSensor, rows: int, state: State | None) -> None:
    window = served.signature.window
    if state is None and rows < window:
        needs = f"{served.metadata.name} needs at least {window} to begin with; calls with state may have fewer"
        raise InvalidRequest.at("series", f"has {rows} readings, {needs}")


def _anomaly_body(
    body: AnomalyBody, served: ServedSensor, scored: Scored, stamps: TimestampColumn | None, clock: Clock
) -> bytes:
    """The answer as bytes, row by row.

    A pydantic object for each row would cost more than the detector.
    """
    series = served.signature.kind == "series"
    count = served.calibrated_on
    warnings = alpha_warnings(count, body.alpha, "independent normal readings", _REMEDY)
    warnings += (
        [] if stamps is None else gap_warnings(stamps.seconds, served.signature.period_s, clock.of_last_reading_s)
    )
    now = Clock(clock.last_s, followed=True) if stamps is None else Clock(float(stamps.seconds[-1]))
    rest = {
        "alpha": body.alpha,
        "threshold": served.threshold(body.alpha),
        "drift": _drift_object(scored.drift),
        "state": seal(scored.state, served.manifest.digest, now) if series else None,
        "reference": {"count": count, "cached": True, "truncated": 0},
        "warnings": warnings,
        "usage": {"prompt_tokens": 0, "total_tokens": 0, "readings": len(scored.scores)},
    }
    data = b",".join(
        _write_rows(scored, at, served.signature.columns, body.alpha) for at in range(0, len(scored.scores), _CHUNK)
    )
    return b'{"object":"list","model":%b,"data":[%b],%b' % (orjson.dumps(body.model), data, orjson.dumps(rest)[1:])


def _write_rows(scored: Scored, at: int, columns: tuple[str, ...], alpha: float) -> bytes:
    part = slice(at, at + _CHUNK)
    scores = scored.scores[part].astype(np.float64).tolist()
    p_values = scored.p_values[part].tolist()
    shares = _shares(scored, part, columns, len(scores))
    rows = [
        {
            "object": "anomaly",
            "index": index,
            "score": score,
            "p_value": p_value,
            "is_anomaly": p_value <= alpha,
            "contributions": share,
            "nearest": [],
            "truncated": False,
        }
        for index, (score, p_value, share) in enumerate(zip(scores, p_values, shares, strict=True), start=at)
    ]
    return orjson.dumps(rows)[1:-1]


def _shares(scored: Scored, part: slice, columns: tuple[str, ...], count: int) -> list[dict[str, float] | None]:
    if scored.contributions is None:
        return [None] * count
    rows = scored.contributions[part].astype(np.float64).round(6).tolist()
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _drift_object(drift: Drift | None) -> dict[str, object] | None:
    return None if drift is None else {"detected": drift.detected, "p_value": drift.p_value}
