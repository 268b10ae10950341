"""Metadata of fine-tuned models, made from their manifests."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeGuard, cast

from models.errors import ArtifactError
from models.metadata import ModelMetadata, SensorSignature
from models.registry.artifact import Manifest
from models.sensors.missing import MAX_MISSING
from models.sensors.model import AnomalyModel, Forecaster

UNCHECKED = "no golden inputs: its answers were not checked at load"


def text_metadata(encoder: ModelMetadata, manifest: Manifest) -> ModelMetadata:
    """The metadata of a head or detector on an encoder."""
    width = {"classification": len(manifest.labels), "embedding": encoder.width}.get(manifest.task, 1)
    return replace(
        encoder,
        name=manifest.name,
        version=f"v{manifest.version}",
        task=manifest.task,
        origin=_origin(manifest),
        width=width,
        labels=manifest.labels if manifest.task == "classification" else (),
        notes=(*encoder.notes, *(() if manifest.golden.texts else (UNCHECKED,))),
    )


def sensor_metadata(model: AnomalyModel | Forecaster, manifest: Manifest) -> ModelMetadata:
    """The metadata of a sensor model. Raises ArtifactError for another task in the manifest."""
    about = manifest.sensor or {}
    period, missing = about.get("period_s"), about.get("max_missing")
    signature = replace(
        _signature(model, float(period) if isinstance(period, int | float) else None),
        max_missing=float(missing) if isinstance(missing, int | float) else MAX_MISSING,
    )
    is_forecaster = signature.kind == "forecast"
    if is_forecaster != (manifest.task == "forecast") or manifest.task not in {"anomaly", "forecast"}:
        raise ArtifactError(f"its manifest says that it does {manifest.task}, and it is a model for {signature.kind}")
    return ModelMetadata(
        name=manifest.name,
        version=f"v{manifest.version}",
        task=manifest.task,
        origin=_origin(manifest),
        architecture=str(about.get("detector") or signature.kind),
        width=1,
        max_tokens=0,
        vocabulary=0,
        device="cpu",
        dtype="float64",
        reason="sensor models compute on the CPU, from readings in float64",
        notes=() if manifest.golden.readings else (UNCHECKED,),
        sensor=signature,
    )


def _signature(model: AnomalyModel | Forecaster, period_s: float | None) -> SensorSignature:
    if _is_forecaster(model):
        return SensorSignature("forecast", model.columns, model.context, model.horizon, period_s)
    sensor = cast(AnomalyModel, model)
    return SensorSignature(sensor.kind, sensor.columns, sensor.window, period_s=period_s)


def _is_forecaster(model: AnomalyModel | Forecaster) -> TypeGuard[Forecaster]:
    return hasattr(model, "horizon")


def _origin(manifest: Manifest) -> str:
    return f"trained on {manifest.base} {manifest.base_version}"
