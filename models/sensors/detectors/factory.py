"""The detectors of records and of series, simplest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.sensors.detectors.autoencoders import ConvAutoencoder, RecordAutoencoder
from models.sensors.detectors.combined import CombinedRecords, CombinedSeries, EnsembleSeries
from models.sensors.detectors.detector import SensorDetector
from models.sensors.detectors.level import LevelDetector
from models.sensors.detectors.network import NetworkDetector
from models.sensors.detectors.prediction_error import PredictionErrorDetector
from models.sensors.detectors.records import KnnRecords, MahalanobisRecords, PcaDetector
from models.sensors.detectors.residual import ResidualDetector
from models.sensors.detectors.window_statistics import StatisticsDetector
from models.sensors.model import SensorKind

_RECORDS: tuple[type[SensorDetector], ...] = (
    PcaDetector,
    MahalanobisRecords,
    KnnRecords,
    CombinedRecords,
    RecordAutoencoder,
)
_SERIES: tuple[type[SensorDetector], ...] = (
    LevelDetector,
    ResidualDetector,
    StatisticsDetector,
    CombinedSeries,
    EnsembleSeries,
    ConvAutoencoder,
    PredictionErrorDetector,
)
DETECTORS: Mapping[SensorKind, Mapping[str, type[SensorDetector]]] = {
    "records": {one.kind: one for one in _RECORDS},
    "series": {one.kind: one for one in _SERIES},
}


def build(
    kind: SensorKind, name: str, columns: int, settings: Mapping[str, Any] | None = None, *, seed: int | None = None
) -> SensorDetector:
    """An unfitted detector, with `seed` for random weights; with `settings`, that of an artifact.

    Raises ValueError for unknown names.
    """
    chosen = DETECTORS[kind].get(name)
    if chosen is None:
        raise ValueError(f"detector {name!r} is none of {', '.join(DETECTORS[kind])}")
    if settings is not None:
        return chosen.restored(columns, settings)
    if seed is not None and issubclass(chosen, NetworkDetector):
        return chosen(columns, seed=seed)
    return chosen(columns)
