"""A trained detector of numbers as serving uses it: scale, detector, calibration and drift check in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.sensors.base import MOST_STATE_BYTES, Readings, Scored, Sensor, SensorKind, State
from models.sensors.block_calibration import BlockedCalibration
from models.sensors.detectors.base import SensorDetector
from models.sensors.detectors.network import NetworkDetector, TrainingCurve
from models.sensors.drift import DriftMonitor
from models.sensors.scaling import RobustScale

Doubles = NDArray[np.float64]
# So many readings are scored at a time: bounds what windows of them take.
_ROWS_AT_ONCE = 16_384


@runtime_checkable
class FittedSensor(Sensor, Protocol):
    """A sensor as the recipe needs it: it also knows how many readings lie between independent ones."""

    @property
    def stride(self) -> int:
        """Readings from one to the next that it tells nothing of."""
        ...


class ScaledDetector(nn.Module):
    """A detector behind its scale: readings float64 [n + window - 1, d] as they come, scores [n] out."""

    def __init__(self, scale: RobustScale, detector: SensorDetector) -> None:
        super().__init__()
        self.scale, self.detector = scale, detector

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of the last n readings."""
        scores: Tensor = self.detector(self.scale(x))
        return scores

    def parts(self, x: Tensor) -> Tensor:
        """Each column's part in the scores, [n, d], not negative."""
        return self.detector.parts(self.scale(x))

    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.scale.center.device


@dataclass(frozen=True, slots=True)
class CalibratedSensor:
    """Implements `seam.Sensor` with a detector of records (window 1, no state) or of series.

    A series' state is its last window - 1 readings, and the drift check's memory. `stride` is how many readings lie
    between independent ones; `period_s` the median seconds between readings, where there were timestamps.
    """

    kind: SensorKind
    columns: tuple[str, ...]
    model: ScaledDetector
    calibration: BlockedCalibration
    stride: int
    period_s: float | None = None

    @property
    def window(self) -> int:
        """Readings that a first score needs."""
        return self.model.detector.window

    @property
    def calibrated_on(self) -> int:
        """Independent scores that the p-values rest on."""
        return self.calibration.blocks

    @property
    def learns(self) -> bool:
        """It stays as it was trained."""
        return False

    def threshold(self, alpha: float) -> float | None:
        """The score from which a reading is an anomaly at `alpha`; None when there were too few normal readings to
        tell.
        """
        return self.calibration.threshold(alpha)

    def monitor(self) -> DriftMonitor:
        """A drift check for p-values of this sensor that nothing is known of yet; for records whoever serves keeps
        one.
        """
        return DriftMonitor(self.stride)

    def memory_bytes(self) -> int:
        """Tensors and calibration scores."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors) + self.calibration.scores.nbytes

    def score(self, readings: Readings, state: State | None = None, *, contributions: bool = False) -> Scored:
        """Score readings float64 [n, d], finite. Raises ValueError for another shape or a state that is not this
        sensor's.
        """
        self._require(readings)
        if self.kind == "records":
            scores, shares = self._scored(readings, contributions)
            return Scored(scores, self.calibration.p_values(scores), shares, None, {})
        return self._continued(readings, state, contributions)

    def _continued(self, readings: Readings, state: State | None, contributions: bool) -> Scored:
        tail, monitor = self._opened(state)
        whole = np.concatenate([tail, readings])
        missing = min(max(self.window - 1 - len(tail), 0), len(readings))
        scores, shares = self._scored(whole, contributions)
        p_values = self.calibration.p_values(scores)
        drift = monitor.update(p_values)
        scores, p_values = np.pad(scores, (missing, 0)), np.pad(p_values, (missing, 0), constant_values=1.0)
        if shares is not None:
            shares = np.pad(shares, ((missing, 0), (0, 0)))
        kept = whole[max(len(whole) - self.window + 1, 0) :].copy()
        return Scored(scores, p_values, shares, drift, {"readings": kept, "drift": monitor.to_array()})

    def _scored(self, whole: Readings, contributions: bool) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Scores of the readings that have a whole window before them, a bounded number at a time."""
        scores, shares = [], []
        reach, device = self.window - 1, self.model.device()
        with torch.inference_mode():
            for start in range(reach, len(whole), _ROWS_AT_ONCE):
                part = torch.from_numpy(np.ascontiguousarray(whole[start - reach : start + _ROWS_AT_ONCE])).to(device)
                scores.append(self.model(part).float().cpu().numpy())
                if contributions:
                    shares.append(_shares(self.model.parts(part)).float().cpu().numpy())
        joined = np.concatenate(scores) if scores else np.zeros(0, dtype=np.float32)
        if not contributions:
            return joined, None
        return joined, np.concatenate(shares) if shares else np.zeros((0, whole.shape[1]), dtype=np.float32)

    def _opened(self, state: State | None) -> tuple[Readings, DriftMonitor]:
        if state is None:
            return np.zeros((0, len(self.columns))), self.monitor()
        if set(state) != {"readings", "drift"}:
            raise ValueError(f"state: expected readings and drift, got {sorted(state)}")
        tail = state["readings"]
        if (
            tail.ndim != 2
            or tail.shape[1] != len(self.columns)
            or len(tail) >= max(self.window, 1)
            or not np.isfinite(tail).all()
        ):
            raise ValueError(
                f"state: expected at most {self.window - 1} finite readings of {len(self.columns)} columns, got "
                f"{tail.shape}"
            )
        return tail, DriftMonitor.from_array(state["drift"], self.stride)

    def _require(self, readings: Readings) -> None:
        if readings.ndim != 2 or readings.shape[1] != len(self.columns):
            raise ValueError(f"readings: expected shape [n, {len(self.columns)}], got {list(readings.shape)}")


def most_columns(window: int) -> int:
    """Columns of a series of which a service takes the state of a detector with this window (above 1)."""
    return (MOST_STATE_BYTES - DriftMonitor().to_array().nbytes) // ((window - 1) * np.dtype(np.float64).itemsize)


def _shares(parts: Tensor) -> Tensor:
    """Rows that sum to 1, or are all zero where there is nothing to share."""
    total = parts.sum(dim=1, keepdim=True)
    return torch.where(total > 0, parts / total.clamp(min=1e-300), torch.zeros_like(parts))


def training_curve(sensor: Sensor) -> TrainingCurve:
    """What a network fitted in this process went through; empty for other detectors."""
    if isinstance(sensor, CalibratedSensor) and isinstance(sensor.model.detector, NetworkDetector):
        return sensor.model.detector.descent
    return TrainingCurve()
