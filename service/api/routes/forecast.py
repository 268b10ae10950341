"""Forecasts of series by models that were trained for it."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Response

from models.sensors.model import Forecast, Readings
from service.api.compute_route import CallDep, compute_route
from service.api.readings import TimestampColumn, gap_warnings, missing_warnings, to_matrix, to_timestamps
from service.api.schemas.anomaly import ForecastAnswer, ForecastBody
from service.api.schemas.requests import require_count
from service.errors import InvalidRequest
from service.serving.sensor_model import ServedSensor

router = APIRouter(tags=["Sonde"])


@compute_route(router, "/v1/forecast", ForecastAnswer, "Forecast a series")
async def forecast(body: ForecastBody, call: CallDep) -> Response:
    """The next steps of a series: the mean and quantiles of each column."""
    served = call.manager.require_readings(await call.manager.resolve(body.model), "forecast")
    require_count(len(body.series), call.settings.max_readings, "series")
    horizon = _choose_horizon(body, served)
    readings, stamps, missing = await served.run_in_pool(lambda: _read_series(body, served))
    made, timings = await call.cancel_on_disconnect(served.forecast(readings, call.caller, horizon, body.quantiles))
    content = await served.run_in_pool(lambda: _forecast_body(body, served, made, stamps, missing))
    return call.respond(content, served, timings)


def _choose_horizon(body: ForecastBody, served: ServedSensor) -> int:
    most = served.signature.horizon
    if body.horizon is not None and body.horizon > most:
        raise InvalidRequest.at("horizon", f"{served.metadata.name} forecasts at most {most} steps, got {body.horizon}")
    if len(body.series) < served.signature.window:
        needs = f"{served.metadata.name} needs the last {served.signature.window} readings at least"
        raise InvalidRequest.at("series", f"{needs}, got {len(body.series)}")
    return body.horizon or most


def _read_series(body: ForecastBody, served: ServedSensor) -> tuple[Readings, TimestampColumn | None, list[str]]:
    """Readings, timestamps, and warnings of missing values."""
    readings = to_matrix(body.series, served.signature.columns, "series")
    stamps = None if body.timestamps is None else to_timestamps(body.timestamps, len(readings), None)
    return readings, stamps, missing_warnings(readings, served.signature, "series")


def _forecast_body(
    body: ForecastBody, served: ServedSensor, made: Forecast, stamps: TimestampColumn | None, missing: list[str]
) -> bytes:
    period_s = served.signature.period_s
    future = None if stamps is None else stamps.after(len(made.mean), period_s)
    gaps = [] if stamps is None else gap_warnings(stamps.seconds, period_s)
    content = {
        "object": "forecast",
        "model": body.model,
        "columns": served.signature.columns,
        "timestamps": None if future is None else future.timestamps,
        "step": None if future is None else future.step,
        "mean": made.mean.tolist(),
        "quantiles": {str(level): rows.tolist() for level, rows in made.quantiles.items()},
        "warnings": missing if future is None else [*missing, *gaps, *future.warnings],
        "usage": {"prompt_tokens": 0, "total_tokens": 0, "readings": len(body.series)},
    }
    return orjson.dumps(content)
