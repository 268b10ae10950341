"""A trained forecaster: readings in, the next steps and their uncertainty out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.sensors.forecasting.intervals import Intervals, typical_change
from models.sensors.forecasting.networks import LinearForecast, PatchForecast, build_model
from models.sensors.forecasting.windows import Windows
from models.sensors.missing import continue_from
from models.sensors.model import Forecast, Readings


class SeriesForecaster(nn.Module):
    """Implements `Forecaster` by a network and prediction intervals.

    `period_s` is the time between training readings, None where the file had no timestamps.
    """

    centre: Tensor
    # 0 of a constant column, 1 in artifacts of version 0.1.0.
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
        self.columns, self.context, self.horizon = columns, context, horizon
        self.period_s = period_s
        self.register_buffer("centre", centre.double())
        self.register_buffer("spread", spread.double())

    def forecast(self, readings: Readings, horizon: int, quantiles: tuple[float, ...]) -> Forecast:
        """Forecast after readings float64 [n, d], n >= context; NaN is the column's last value. Raises ValueError."""
        if readings.ndim != 2 or len(readings) < self.context or readings.shape[1] != len(self.columns):
            expected = f"[{self.context} or more, {len(self.columns)}]"
            raise ValueError(f"readings: expected finite numbers {expected}, got {list(readings.shape)}")
        if not 1 <= horizon <= self.horizon:
            raise ValueError(f"horizon: expected 1 to {self.horizon} steps, got {horizon}")
        with torch.inference_mode():
            filled = continue_from(self.centre.cpu().numpy(), readings[-self.context :])
            x = self.standardised(filled).T[None]
            mean, change = self.model(x)[0], typical_change(x, self.horizon)[0]
            levels = {level: self._to_units(mean + change * self.intervals.at(level), horizon) for level in quantiles}
            return Forecast(self._to_units(mean, horizon), levels)

    def standardised(self, readings: Readings) -> Tensor:
        """Standardised readings, float32 [n, d]; 0 in columns that were constant in training."""
        return standardised(readings, self.centre, self.spread)

    def coverage(self, windows: Windows, share: float = 0.8) -> float:
        """The share of true values within the central interval of nominal coverage `share`.

        Windows are standardised; the mean is over windows, steps and the columns that vary.
        """
        low, high = (self.intervals.at(level) for level in ((1 - share) / 2, (1 + share) / 2))
        inside, varying = [], windows.varying
        with torch.inference_mode():
            for x, y in windows.batches():
                error = (y - self.model(x)) / typical_change(x, self.horizon)
                inside.append(((error >= low) & (error <= high))[:, varying].double().mean(dim=(1, 2)))
        return float(torch.cat(inside).mean())

    def _to_units(self, standard: Tensor, horizon: int) -> Readings:
        """Standardised [d, steps] in the readings' units, [horizon, d]."""
        # In float32 small changes of large levels would be lost.
        return np.ascontiguousarray((standard.T[:horizon].double() * self.spread + self.centre).numpy())

    def memory_bytes(self) -> int:
        """Bytes of weights and tables."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state_dict().values())

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of `sensor.safetensors`."""
        return self.state_dict()

    def describe(self) -> dict[str, Any]:
        """The content of `sensor.json`."""
        return {
            "kind": "forecast",
            "columns": list(self.columns),
            "period_s": self.period_s,
            "context": self.context,
            "horizon": self.horizon,
            "model": self.model.kind,
            "model_settings": self.model.settings(),
        }

    @classmethod
    def restored(cls, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SeriesForecaster:
        """From the results of `describe` and `tensors`; anything else raises some error."""
        context, horizon = int(described["context"]), int(described["horizon"])
        columns = tuple(described["columns"])
        model = build_model(described["model"], context, horizon, described["model_settings"])
        forecaster = cls(
            model,
            Intervals(len(columns), horizon),
            columns,
            context=context,
            horizon=horizon,
            centre=torch.zeros(len(columns)),
            spread=torch.ones(len(columns)),
            period_s=described["period_s"],
        )
        forecaster.load_state_dict(tensors)
        return forecaster


def standardised(readings: Readings, centre: Tensor, spread: Tensor) -> Tensor:
    """Readings [n, d] less `centre` [d] in units of `spread` [d], float32; 0 where the spread is 0."""
    rate = torch.where(spread > 0, 1 / spread, torch.zeros_like(spread))
    return ((torch.from_numpy(np.ascontiguousarray(readings)) - centre) * rate).float()
