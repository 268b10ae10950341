"""Anomaly scores of readings: of records, and of series that continue between calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import Response
from numpy.typing import NDArray

from models.counted import counted
from models.sensors.events import Event, EventRules, EventTracker, Moment
from models.sensors.model import Drift, Readings, Scored, State
from service.api.hot_path import ComputeCall
from service.api.readings import TimestampColumn, gap_warnings, missing_warnings, to_matrix, to_timestamps
from service.api.responses import alpha_warnings
from service.api.schemas.anomaly import AnomalyBody, EventOptions
from service.api.schemas.requests import require_count
from service.errors import InvalidRequest
from service.serving.sensor_model import ServedSensor
from service.serving.stream_state import StreamPosition, seal, unseal

T = TypeVar("T")
_REMEDY = "train on more normal readings (at least {} to calibrate on)"
# More rows are read and written in the pool, because they would hold up other callers on the event loop.
_INLINE_ROWS = 128
# Late readings that a warning names.
_MAX_NAMED = 10
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
    state, place = (None, StreamPosition()) if body.state is None else unseal(body.state, served.manifest.digest)
    read = await _run_by_size(served, len(rows), lambda: _read_rows(body, rows, served, param, place.last_s))
    require_window(served, len(read.readings), state)
    contributions = body.contributions or bool(body.events)
    times = None if read.stamps is None else read.stamps.seconds
    work = served.score(read.readings, call.caller, state=state, times=times, contributions=contributions)
    scored, timings = await call.cancel_on_disconnect(work)
    content = await _run_by_size(served, len(rows), lambda: _anomaly_body(body, served, scored, read, place))
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


@dataclass(frozen=True, slots=True)
class _ReadRows:
    """A request's readings [n, d] and their timestamps; `warnings` name what is missing or was left out."""

    readings: Readings
    stamps: TimestampColumn | None
    warnings: list[str]

    def index(self, row: int) -> int:
        """The place of a reading in the request, which had more where some came late."""
        return row if row < 0 or self.stamps is None or self.stamps.rows is None else int(self.stamps.rows[row])

    def show(self, seconds: float | None) -> str | float | None:
        """A time in the form in which the timestamps came."""
        return seconds if seconds is None or self.stamps is None else self.stamps.show(seconds)


def _read_rows(body: AnomalyBody, rows: list[Any], served: ServedSensor, param: str, before: float | None) -> _ReadRows:
    readings = to_matrix(rows, served.signature.columns, param)
    warnings = missing_warnings(readings, served.signature, param)
    if body.timestamps is None:
        return _ReadRows(readings, None, warnings)
    stamps = to_timestamps(body.timestamps, len(rows), before, drop_late=body.late == "drop")
    if stamps.rows is not None:
        readings = readings[stamps.rows]
        warnings.append(_late_warning(len(rows), stamps.rows))
    return _ReadRows(readings, stamps, warnings)


def _late_warning(count: int, rows: NDArray[np.int64]) -> str:
    """What says which of `count` readings were left out, where `rows` stayed."""
    late = np.setdiff1d(np.arange(count), rows)
    named = ", ".join(map(str, late[:_MAX_NAMED])) + (", …" if len(late) > _MAX_NAMED else "")
    one, many = "reading was left out, since its timestamp is", "readings were left out, since their timestamps are"
    return f"{counted(len(late), one, many)} not later than those before: {named}"


def require_window(served: ServedSensor, rows: int, state: State | None) -> None:
    """Raise InvalidRequest for fewer readings than a series without a state needs."""
    window = served.signature.window
    if state is None and rows < window:
        needs = f"{served.metadata.name} needs at least {window} to begin with; calls with state may have fewer"
        raise InvalidRequest.at("series", f"has {counted(rows, 'reading')}, {needs}")


def _anomaly_body(
    body: AnomalyBody, served: ServedSensor, scored: Scored, read: _ReadRows, place: StreamPosition
) -> bytes:
    """The answer as bytes, row by row.

    A pydantic object for each row would cost more than the detector.
    """
    events, kept = _find_events(body, served, scored, read, place)
    rest = {
        "alpha": body.alpha,
        "threshold": served.threshold(body.alpha),
        "events": events,
        "drift": _drift_object(scored.drift),
        "state": _next_state(served, scored, read.stamps, place, kept),
        "reference": {"count": served.calibrated_on, "cached": True, "truncated": 0},
        "warnings": _warnings(body, served, scored, read, place),
        "usage": {"prompt_tokens": 0, "total_tokens": 0, "readings": len(scored.scores)},
    }
    shown = scored if body.contributions else replace(scored, contributions=None)
    data = b",".join(
        _write_rows(shown, at, served.signature.columns, body.alpha, read)
        for at in range(0, len(scored.scores), _CHUNK)
    )
    return b'{"object":"list","model":%b,"data":[%b],%b' % (orjson.dumps(body.model), data, orjson.dumps(rest)[1:])


def _warnings(
    body: AnomalyBody, served: ServedSensor, scored: Scored, read: _ReadRows, place: StreamPosition
) -> list[str]:
    warnings = read.warnings + alpha_warnings(served.calibrated_on, body.alpha, "independent normal readings", _REMEDY)
    warnings += _drift_warnings(scored, body.alpha)
    if read.stamps is None:
        return warnings
    return warnings + gap_warnings(read.stamps.seconds, served.signature.period_s, place.of_last_reading_s)


def _next_state(
    served: ServedSensor,
    scored: Scored,
    stamps: TimestampColumn | None,
    place: StreamPosition,
    events: dict[str, Any] | None,
) -> str | None:
    """What the next call of a series sends; None of records."""
    if served.signature.kind == "records":
        return None
    last_s = place.last_s if stamps is None else float(stamps.seconds[-1])
    now = StreamPosition(last_s, followed=stamps is None, events=events)
    return seal(scored.state, served.manifest.digest, now)


def _find_events(
    body: AnomalyBody, served: ServedSensor, scored: Scored, read: _ReadRows, place: StreamPosition
) -> tuple[list[dict[str, Any]] | None, dict[str, Any] | None]:
    """The answer's events, and what the state keeps of them; None where none are asked for."""
    if not body.events:
        return None, None
    options = body.events if isinstance(body.events, EventOptions) else EventOptions()
    rules = EventRules(body.alpha, options.gap or served.signature.window, options.min_duration, options.cooldown)
    tracker = EventTracker() if place.events is None else EventTracker.from_json(place.events)
    before = tracker.row
    found = tracker.update(scored, rules, None if read.stamps is None else read.stamps.seconds)

    def moment(one: Moment) -> dict[str, Any]:
        return {"index": read.index(one.row - before), "timestamp": read.show(one.seconds)}

    return [_event_object(event, rules.alpha, served, moment) for event in found], tracker.to_json()


def _event_object(
    event: Event, alpha: float, served: ServedSensor, moment: Callable[[Moment], dict[str, Any]]
) -> dict[str, Any]:
    return {
        "object": "event",
        "start": moment(event.start),
        "end": None if event.open else moment(event.end),
        "open": event.open,
        "readings": event.readings,
        "flagged": event.flagged,
        "peak": {**moment(event.peak), "score": event.peak_score, "p_value": event.peak_p_value},
        "p_value": event.p_value,
        "severity": event.severity(alpha, served.calibrated_on),
        "alert": event.alert,
        "columns": [{"name": name, "share": share} for name, share in event.blamed(served.signature.columns)],
    }


def _write_rows(scored: Scored, at: int, columns: tuple[str, ...], alpha: float, read: _ReadRows) -> bytes:
    part = slice(at, at + _CHUNK)
    scores = scored.scores[part].astype(np.float64).tolist()
    p_values = scored.p_values[part].tolist()
    shares = _shares(scored, part, columns, len(scores))
    rows = [
        {
            "object": "anomaly",
            "index": read.index(index),
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


def _drift_warnings(scored: Scored, alpha: float) -> list[str]:
    """What drift does to the promise of alpha, as seen in these readings; nothing where none of them is flagged."""
    alarms = int((scored.p_values <= alpha).sum())
    if scored.drift is None or not scored.drift.detected or not alarms:
        return []
    flagged = f"{alarms} of {counted(len(scored.p_values), 'reading')}"
    says = (
        f"drift: alpha no longer holds, {flagged} here have p <= {alpha:g}; a fault lasts, or the machine has changed"
    )
    return [f"{says} since the training: then train again on later readings"]


def _drift_object(drift: Drift | None) -> dict[str, object] | None:
    return None if drift is None else {"detected": drift.detected, "p_value": drift.p_value}
