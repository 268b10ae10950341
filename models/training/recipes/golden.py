"""Golden inputs of a trained model: a published version must reproduce their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.sensors.base import Readings
from models.training.job import TextContext


def golden_texts(
    context: TextContext, texts: Sequence[object], rows: Sequence[Sequence[float]], tolerances: Mapping[str, float]
) -> dict[str, object]:
    """Texts with the row that the model gives each; `tolerances` are by dtype, in the rows' unit."""
    return {"texts": list(texts), "rows": list(rows), "tolerance": tolerances[context.placement.dtype_name]}


def golden_readings(readings: Readings, rows: NDArray[np.floating], tolerance: float) -> dict[str, object]:
    """Readings [n, d] with the rows that the sensor model gives for them."""
    return {"texts": [], "readings": readings.tolist(), "rows": rows.tolist(), "tolerance": tolerance}
