"""A trained sensor: scale, detector, calibration and drift monitor in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.sensors.block_calibration import BlockedCalibration
from models.sensors.detectors.detector import SensorDetector
from models.sensors.detectors.network import NetworkDetector, TrainingCurve
from models.sensors.drift import DriftMonitor
from models.sensors.missing import continue_from
from models.sensors.model import (
    MOST_STATE_BYTES,
    AnomalyModel,
    Readings,
    Scored,
    SensorKind,
    State,
    Times,
    require_columns,
)
from models.sensors.scaling import RobustScale

Doubles = NDArray[np.float64]
# Readings scored at a time, which bounds the memory of their windows.
_ROWS_AT_ONCE = 16_384


@runtime_checkable
class FittedDetector(AnomalyModel, Protocol):
    """A sensor as the recipe needs it: with the distance between independent readings."""

    @property
    def stride(self) -> int:
        """The readings from one independent score to the next."""
        ...


class ScaledDetector(nn.Module):
    """A scale and a detector: raw readings float64 [n + window - 1, d] in, scores [n] out."""

    def __init__(self, scale: RobustScale, detector: SensorDetector) -> None:
        super().__init__()
        self.scale, self.detector = scale, detector

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of the last n readings."""
        scores: Tensor = self.detector(self._scaled(x))
        return scores

    def contributions(self, x: Tensor) -> Tensor:
        """Each column's part of the scores, [n, d], not negative."""
        return self.detector.contributions(self._scaled(x))

    def _scaled(self, x: Tensor) -> Tensor:
        """Scaled readings; a missing one is 0, as its column's median is."""
        scaled: Tensor = self.scale(x)
        return scaled.nan_to_num_(nan=0.0)

    def device(self) -> torch.device:
        """The device of its tensors."""
        return self.scale.center.device


@dataclass(frozen=True, slots=True)
class CalibratedDetector:
    """Implements `AnomalyModel` with a detector of records (window 1, no state) or of series.

    A series' state is its last window - 1 readings and the drift monitor's. `stride` is the distance between
    independent readings; `period_s` the median seconds between readings, where there were timestamps.
    """

    kind: SensorKind
    columns: tuple[str, ...]
    model: ScaledDetector
    calibration: BlockedCalibration
    stride: int
    period_s: float | None = None

    learns: Literal[False] = False

    @property
    def window(self) -> int:
        return self.model.detector.window

    @property
    def calibrated_on(self) -> int:
        return self.calibration.blocks

    def threshold(self, alpha: float) -> float | None:
        """The least score of an anomaly at `alpha`; None with too few normal readings."""
        return self.calibration.threshold(alpha)

    def monitor(self) -> DriftMonitor:
        """A new drift monitor. Callers keep it for records; for series the state holds it."""
        return DriftMonitor(self.stride)

    def memory_bytes(self) -> int:
        """Bytes of tensors and calibration scores."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + self.calibration.scores.nbytes

    def score(
        self,
        readings: Readings,
        state: State | None = None,
        *,
        times: Times | None = None,  # windows count readings
        contributions: bool = False,
    ) -> Scored:
        """Score readings float64 [n, d], NaN where one is missing. Raises ValueError for another shape or state.

        A missing one is the column's last value, and its median where there is none before (as in all records).
        """
        require_columns(readings, self.columns)
        if self.kind == "records":
            scores, shares = self._score_windows(readings, contributions)
            return Scored(scores, self.calibration.p_values(scores), shares, None, {})
        return self._score_series(readings, state, contributions)

    def _score_series(self, readings: Readings, state: State | None, contributions: bool) -> Scored:
        tail, monitor = self._open_state(state)
        readings = continue_from(tail[-1] if len(tail) else self._typical(), readings)
        whole = np.concatenate([tail, readings])
        missing = min(max(self.window - 1 - len(tail), 0), len(readings))
        scores, shares = self._score_windows(whole, contributions)
        p_values = self.calibration.p_values(scores)
        drift = monitor.update(p_values)
        if missing:
            scores = np.concatenate([np.zeros(missing, dtype=np.float32), scores])
            p_values = np.concatenate([np.ones(missing), p_values])
            if shares is not None:
                shares = np.concatenate([np.zeros((missing, shares.shape[1]), dtype=np.float32), shares])
        kept = whole[max(len(whole) - self.window + 1, 0) :].copy()
        return Scored(scores, p_values, shares, drift, {"readings": kept, "drift": monitor.to_array()})

    def _typical(self) -> Doubles:
        """The medians of the training readings, [d]."""
        medians: Doubles = self.model.scale.center.cpu().numpy()
        return medians

    def _score_windows(
        self, whole: Readings, contributions: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Scores and contributions of the readings with a whole window before them."""
        scores, shares = [], []
        reach, device = self.window - 1, self.model.device()
        with torch.inference_mode():
            for start in range(reach, len(whole), _ROWS_AT_ONCE):
                part = torch.from_numpy(np.ascontiguousarray(whole[start - reach : start + _ROWS_AT_ONCE])).to(device)
                scores.append(self.model(part).float().cpu().numpy())
                if contributions:
                    shares.append(_shares(self.model.contributions(part)).float().cpu().numpy())
        joined = np.concatenate(scores) if scores else np.zeros(0, dtype=np.float32)
        if not contributions:
            return joined, None
        return joined, np.concatenate(shares) if shares else np.zeros((0, whole.shape[1]), dtype=np.float32)

    def _open_state(self, state: State | None) -> tuple[Readings, DriftMonitor]:
        """The last readings and the drift monitor. Raises ValueError for another's state."""
        if state is None:
            return np.zeros((0, len(self.columns))), self.monitor()
        if set(state) != {"readings", "drift"}:
            raise ValueError(f"state: expected readings and drift, got {sorted(state)}")
        tail, columns = state["readings"], len(self.columns)
        fits = tail.ndim == 2 and tail.shape[1] == columns and len(tail) < max(self.window, 1)
        if not fits or not np.isfinite(tail).all():
            raise ValueError(
                f"state: expected at most {self.window - 1} finite readings of {columns} columns, got {tail.shape}"
            )
        return tail, DriftMonitor.from_array(state["drift"], self.stride)


def most_columns(window: int) -> int:
    """The most columns of a series whose state fits MOST_STATE_BYTES, for a window above 1."""
    return (MOST_STATE_BYTES - DriftMonitor().to_array().nbytes) // ((window - 1) * np.dtype(np.float64).itemsize)


def _shares(parts: Tensor) -> Tensor:
    """Rows that sum to 1, or are all zero where all parts are."""
    total = parts.sum(dim=1, keepdim=True)
    return torch.where(total > 0, parts / total.clamp(min=1e-300), torch.zeros_like(parts))


def training_curve(sensor: AnomalyModel) -> TrainingCurve:
    """The training curve of a network fitted in this process; empty for other detectors."""
    if isinstance(sensor, CalibratedDetector) and isinstance(sensor.model.detector, NetworkDetector):
        return sensor.model.detector.curve
    return TrainingCurve()
