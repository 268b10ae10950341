"""The detectors that a sensor job tries: which ones, how they are fitted, and how they do on later readings."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.counted import counted
from models.runtime.placement import place_sensor
from models.sensors.adaptive import detector as adaptive
from models.sensors.calibrated_detector import FittedDetector, most_columns, training_curve
from models.sensors.detectors.factory import DETECTORS, build
from models.sensors.detectors.network import NetworkDetector, Watch
from models.sensors.fitting import fit_sensor
from models.training.checks.gradient import GradientMonitor
from models.training.checks.sensor_network import check_network
from models.training.context import JobContext
from models.training.data.job_readings import JobReadings
from models.training.data.segments import Segments
from models.training.data.table import MOST_COLUMNS
from models.training.errors import TrainingDataError
from models.training.hyperparameters import SensorAnomalyHyperparameters
from models.training.job_events import emit
from models.training.recipes.sensor_checks import check_after_training, check_before_training
from models.training.sensors.detector_selection import UNLABELLED_CHOICE, DetectorResult, evaluate_detector

# A network learns nothing worth its time from fewer rows.
_ROWS_FOR_NETWORKS = 2000
_TOO_FEW = "too_few_rows"


class SensorCandidates:
    """The detectors of one job, fitted to the training part and measured on the held-out part."""

    def __init__(self, context: JobContext, settings: SensorAnomalyHyperparameters, parts: JobReadings) -> None:
        self._context, self._settings, self._parts = context, settings, parts
        self._columns = parts.train.columns

    def names(self) -> list[str]:
        """The detector asked for, or all that the rows allow and that can be served.

        Raises TrainingDataError for more columns than the detector asked for can serve.
        """
        if self._settings.detector == "auto":
            return self._servable(self._affordable())
        self._require_servable(self._settings.detector)
        return [self._settings.detector]

    def check_networks(self, names: list[str]) -> None:
        """Check the forward pass and the loss of each fresh network. Raises CheckFailed."""
        kind, seed, normal = self._settings.kind, self._context.job.seed, self._parts.train.normal()
        for name in filter(self._is_network, names):
            check_before_training(self._context.report, name, check_network(kind, name, normal, seed=seed))

    def results(self, names: list[str]) -> list[DetectorResult]:
        """Fit and measure each detector; under `auto` those that need longer runs are left out.

        Raises TrainingDataError where none is left, CheckFailed where a network's training fails a check.
        """
        results: list[DetectorResult] = []
        refused: list[TrainingDataError] = []
        for name in names:
            try:
                results.append(self._result(name))
            except TrainingDataError as error:
                if self._settings.detector != "auto" or error.code != _TOO_FEW:
                    raise
                refused.append(error)
        if not results:
            raise refused[0]
        for refusal in refused:
            emit(self._context.events, f"left out: {refusal.message}", "warn")
        return results

    def fit(self, name: str, parts: Sequence[Segments], watch: Watch | None = None) -> FittedDetector:
        """A detector fitted to the normal rows of `parts`.

        Raises TrainingDataError for too few rows or too many columns.
        """
        period_s, job = self._parts.repairs.period_s, self._context.job
        runs = [run for part in parts for run in part.normal()]
        code = "too_many_columns" if name == adaptive.DETECTOR_ID else _TOO_FEW
        try:
            if name == adaptive.DETECTOR_ID:
                times = [at for part in parts for at in part.normal_times()]
                return adaptive.fit_adaptive(runs, self._columns, period_s, times=times or None, zone=parts[0].zone)
            device = place_sensor(job.device).device
            kind = self._settings.kind
            return fit_sensor(
                kind, name, self._columns, runs, seed=job.seed, period_s=period_s, device=device, watch=watch
            )
        except ValueError as error:
            raise TrainingDataError(code, f"training_file: detector {name}: {error}", "training_file") from error

    def _result(self, name: str) -> DetectorResult:
        monitors: list[GradientMonitor] = []

        def watch(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> GradientMonitor:
            monitors.append(GradientMonitor(module, optimizer))
            return monitors[-1]

        sensor = self.fit(name, [self._parts.train], watch)
        check_after_training(self._context.report, name, monitors, training_curve(sensor).steps)
        return evaluate_detector(name, sensor, self._parts.held_out, self._context.job.seed)

    def _affordable(self) -> list[str]:
        """All detectors, without networks where they cannot win."""
        names, reason = list(DETECTORS[self._settings.kind]), self._reason_against_networks()
        if reason is None:
            return names
        emit(self._context.events, f"no network is tried: {reason}")
        return [name for name in names if not self._is_network(name)]

    def _reason_against_networks(self) -> str | None:
        rows = sum(map(len, self._parts.train.normal()))
        if rows < _ROWS_FOR_NETWORKS:
            return f"{counted(rows, 'normal row')} to train on, expected {_ROWS_FOR_NETWORKS}"
        labels = self._parts.held_out.labels
        if self._settings.kind == "series" and (labels is None or not labels.any()):
            return f"without labelled anomalies to compare by, {UNLABELLED_CHOICE} is taken"
        return None

    def _servable(self, names: list[str]) -> list[str]:
        most, columns = {name: self._most_columns(name) for name in names}, len(self._columns)
        large = [f"{name} (at most {most[name]} columns of a series)" for name in names if most[name] < columns]
        if large:
            message = f"not tried, since its state would be too large to serve: {', '.join(large)}"
            emit(self._context.events, message, "warn")
        return [name for name in names if most[name] >= columns]

    def _require_servable(self, name: str) -> None:
        most, columns = self._most_columns(name), len(self._columns)
        if columns > most:
            message = (
                f"training_file: detector {name}: expected at most {most} columns of a series, got {columns}; "
                "name fewer in `columns`, train one for each few, or take them as records (`kind`)"
            )
            raise TrainingDataError("too_many_columns", message, "training_file")

    def _most_columns(self, name: str) -> int:
        """The columns that a detector can serve: a series' caller carries its state, records have none."""
        kind = self._settings.kind
        if kind == "records" or name == adaptive.DETECTOR_ID:  # fitting the adaptive one checks its own limit
            return MOST_COLUMNS
        return min(most_columns(build(kind, name, 1).window), MOST_COLUMNS)

    def _is_network(self, name: str) -> bool:
        return name != adaptive.DETECTOR_ID and issubclass(DETECTORS[self._settings.kind][name], NetworkDetector)
