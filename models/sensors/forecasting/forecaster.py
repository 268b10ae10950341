"""A trained forecaster: readings in their own units in, the steps that follow with their uncertainty out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.errors import ModelSourceError
from models.sensors.base import Forecast, Readings
from models.sensors.forecasting.intervals import Intervals, typical_change
from models.sensors.forecasting.networks import LinearForecast, PatchForecast, build_model
from models.sensors.forecasting.windows import Windows

STATE, SETTINGS = "sensor.safetensors", "sensor.json"


class SeriesForecaster(nn.Module):
    """Standardises readings, continues them with its network, and says how far it may be off; the seam's `Forecaster`.

    `period_s` is the time between readings it was trained on, None where the file had no timestamps.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        model: LinearForecast | PatchForecast,
        intervals: Intervals,
        columns: tuple[str, ...],
        *,
        context: int,
        horizon: int,
        centre: Tensor,
        spread: Tensor,
        period_s: float | None = None,
    ) -> None:
        super().__init__()
        self.model, self.intervals = model.eval(), intervals
        self._columns, self._context, self._horizon = columns, context, horizon
        self.period_s = period_s
        self.register_buffer("centre", centre.double())
        self.register_buffer("spread", spread.double())

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return self._columns

    @property
    def context(self) -> int:
        """Readings that a call needs at least; of more, the last are used."""
        return self._context

    @property
    def horizon(self) -> int:
        """The most steps that it forecasts."""
        return self._horizon

    def forecast(self, readings: Readings, horizon: int, quantiles: tuple[float, ...]) -> Forecast:
        """The `horizon` steps behind readings float64 [n, d], n >= context. ValueError names what does not fit."""
        if readings.ndim != 2 or len(readings) < self._context or readings.shape[1] != len(self._columns):
            expected = f"[{self._context} or more, {len(self._columns)}]"
            raise ValueError(f"readings: expected finite numbers {expected}, got {list(readings.shape)}")
        if not 1 <= horizon <= self._horizon:
            raise ValueError(f"horizon: expected 1 to {self._horizon} steps, got {horizon}")
        with torch.inference_mode():
            x = self.standardised(readings[-self._context :]).T[None]
            mean, change = self.model(x)[0], typical_change(x, self._horizon)[0]
            levels = {level: self._restored(mean + change * self.intervals.at(level), horizon) for level in quantiles}
            return Forecast(self._restored(mean, horizon), levels)

    def standardised(self, readings: Readings) -> Tensor:
        """Readings [n, d] as the network sees them, float32 [n, d]."""
        return ((torch.from_numpy(np.ascontiguousarray(readings)) - self.centre) / self.spread).float()

    def coverage(self, windows: Windows, share: float = 0.8) -> float:
        """How much of what came lies in the central interval that promises `share`, over windows (standardised),
        steps and columns.
        """
        low, high = (self.intervals.at(level) for level in ((1 - share) / 2, (1 + share) / 2))
        inside = []
        with torch.inference_mode():
            for x, y in windows.batches():
                error = (y - self.model(x)) / typical_change(x, self._horizon)
                inside.append(((error >= low) & (error <= high)).double().mean(dim=(1, 2)))
        return float(torch.cat(inside).mean())

    def _restored(self, standard: Tensor, horizon: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Standardised [d, steps] in the readings' units, float32 [horizon, d]."""
        readings = (standard.T[:horizon].double() * self.spread + self.centre).float()
        return np.ascontiguousarray(readings.numpy())

    def memory_bytes(self) -> int:
        """Bytes of weights and tables."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state_dict().values())

    def settings(self) -> dict[str, object]:
        """What sensor.json keeps beside the tensors."""
        return {
            "kind": "forecast",
            "columns": list(self._columns),
            "period_s": self.period_s,
            "context": self._context,
            "horizon": self._horizon,
            "model": self.model.kind,
            "model_settings": self.model.settings(),
        }


def save_forecaster(forecaster: SeriesForecaster, directory: Path) -> None:
    """Write sensor.safetensors and sensor.json."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in forecaster.state_dict().items()}, directory / STATE)
    (directory / SETTINGS).write_text(json.dumps(forecaster.settings(), indent=1, allow_nan=False), encoding="utf-8")


def load_forecaster(directory: Path) -> SeriesForecaster:
    """Read what `save_forecaster` wrote. Raises ModelSourceError when it is not that."""
    try:
        return restore_forecaster(json.loads((directory / SETTINGS).read_bytes()), load_file(directory / STATE))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelSourceError(f"{directory.name} holds no forecaster of this version: {error}") from error


def restore_forecaster(settings: dict[str, Any], state: dict[str, Tensor]) -> SeriesForecaster:
    """From sensor.json and the tensors; whoever reads them turns errors into ModelSourceError."""
    if settings["kind"] != "forecast":
        raise ValueError(f"expected the kind 'forecast', got {settings['kind']!r}")
    context, horizon, columns = int(settings["context"]), int(settings["horizon"]), tuple(settings["columns"])
    made = SeriesForecaster(
        build_model(settings["model"], context, horizon, settings["model_settings"]),
        Intervals(len(columns), horizon),
        columns,
        context=context,
        horizon=horizon,
        centre=torch.zeros(len(columns)),
        spread=torch.ones(len(columns)),
        period_s=settings["period_s"],
    )
    made.load_state_dict(state)
    return made
