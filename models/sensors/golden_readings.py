"""Golden readings: a loaded sensor model must reproduce its results after training."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from models.registry.artifact import Manifest
from models.registry.golden_rows import compare
from models.sensors.model import AnomalyModel, Forecaster


def reproduce(manifest: Manifest, model: AnomalyModel | Forecaster) -> None:
    """Run the golden readings, if any. Raises ArtifactError when the results differ."""
    if manifest.golden.readings:
        compare(manifest, _results(manifest, model), "float32")


def _results(manifest: Manifest, model: AnomalyModel | Forecaster) -> NDArray[np.floating]:
    """A detector's scores [n, 1], or a forecaster's mean forecast [h, d]."""
    readings = np.array(manifest.golden.readings, dtype=np.float64)
    if manifest.task == "forecast":
        return cast(Forecaster, model).forecast(readings, len(manifest.golden.rows), ()).mean
    return cast(AnomalyModel, model).score(readings).scores[:, None]
