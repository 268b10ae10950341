"""Models that read sensor readings, as float64."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

import numpy as np

from models.programs.contract import Contract, TensorSpec
from models.programs.expressions import parse
from models.programs.tensors import HostTensor
from models.sensors.model import LARGEST, Readings, Scored, State, Times
from models.sensors.timestamps import numbers_to_seconds
from service.api.readings import TimestampColumn, gap_warnings, missing_warnings, to_timestamps
from service.api.routes.sensor_anomaly import require_window
from service.api.tensors.data import decode_texts
from service.api.tensors.model import AnswerParameters, Specs, TensorCall, TensorModel, TensorOutput, make_contract
from service.errors import InvalidRequest
from service.serving.program_model import Tensors
from service.serving.sensor_model import ServedSensor
from service.serving.servable import Timings
from service.serving.stream_state import StreamPosition, seal, unseal

_QUANTILES = (0.1, 0.5, 0.9)
# Numbers since 1970, or ISO 8601.
_TIMESTAMPS = TensorSpec("timestamps", "int64", (parse("n"),), optional=True, other_dtype="bytes")


class _ReadingTensors(TensorModel[ServedSensor]):
    """Readings [n, columns] in, in the input that `reads` names."""

    reads: ClassVar[str] = "series"
    with_missing = True

    @property
    def _width(self) -> int:
        return len(self.served.signature.columns)

    def _make_contract(self) -> Contract:
        inputs: Specs = {self.reads: ("float64", ("n", self._width))}
        limits = {"n": self._settings.max_readings, "h": max(self.served.signature.horizon, 1)}
        return make_contract(inputs, self._outputs(), limits)

    async def _read(self, tensors: Tensors) -> tuple[Readings, list[str]]:
        """Readings float64 [n, d], and the warnings of missing values. Raises InvalidRequest."""
        # Binary values are the request's body, and PyTorch warns of memory that it may not write.
        readings: Readings = np.require(tensors[self.reads].values, requirements="W")
        signature = self.served.signature

        def check() -> list[str]:
            for row, column in np.argwhere(np.abs(readings) > LARGEST)[:1]:
                expected = f"expected a number of at most {LARGEST:g} (float64)"
                where = f"{self.reads}[{row}].{signature.columns[column]}"
                raise InvalidRequest.at(where, f"{expected}, got {readings[row, column]:g}")
            return missing_warnings(readings, signature, self.reads)

        return readings, await self.served.run_in_pool(check)


class RecordTensors(_ReadingTensors):
    """Records in, scores, p-values and each column's share out."""

    reads = "records"

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        readings, warnings = await self._read(call.tensors)
        scored, timings = await self._score(call, readings)
        return TensorOutput(
            _scored_tensors(scored), [timings], _warning_parameter(warnings) | _drift_parameters(scored)
        )

    async def _score(
        self, call: TensorCall, readings: Readings, times: Times | None = None, state: State | None = None
    ) -> tuple[Scored, Timings]:
        shares = "contributions" in call.wanted
        return await self.served.score(readings, call.caller, state=state, times=times, contributions=shares)

    def _outputs(self) -> Specs:
        return {
            "score": ("float32", ("n",)),
            "p_value": ("float64", ("n",)),
            "contributions": ("float32", ("n", self._width)),
        }


class SeriesTensors(RecordTensors):
    """A series in, which may have timestamps; the next one continues it with the `state` in the answer's parameters."""

    reads = "series"
    takes: ClassVar[Collection[str]] = ("state",)
    has_batches = False

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        digest, before = self.served.manifest.digest, call.parameters.state
        state, place = (None, StreamPosition()) if before is None else unseal(before, digest)
        readings, warnings = await self._read(call.tensors)
        require_window(self.served, len(readings), state)
        stamps = await self._read_timestamps(call.tensors, len(readings), place)
        times = None if stamps is None else stamps.seconds
        scored, timings = await self._score(call, readings, times, state)
        if times is not None:
            warnings += gap_warnings(times, self.served.signature.period_s, place.of_last_reading_s)
        now = StreamPosition(place.last_s if times is None else float(times[-1]), followed=times is None)
        extra = _warning_parameter(warnings) | _drift_parameters(scored) | {"state": seal(scored.state, digest, now)}
        return TensorOutput(_scored_tensors(scored), [timings], extra)

    async def _read_timestamps(self, tensors: Tensors, rows: int, place: StreamPosition) -> TimestampColumn | None:
        """The timestamps, which follow those before; None without. Raises InvalidRequest for the first wrong one."""
        tensor = tensors.get(_TIMESTAMPS.name)
        if tensor is None:
            return None

        def read() -> TimestampColumn:
            is_text = tensor.dtype == "bytes"
            values = decode_texts(tensor, _TIMESTAMPS.name) if is_text else numbers_to_seconds(tensor.values).tolist()
            return to_timestamps(values, rows, place.last_s)

        return await self.served.run_in_pool(read)

    def _make_contract(self) -> Contract:
        made = super()._make_contract()
        return replace(made, inputs=(*made.inputs, _TIMESTAMPS))


class ForecastTensors(_ReadingTensors):
    """A series in, the mean and three quantiles of its next h steps out."""

    takes = ("horizon",)
    has_batches = False

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        most, horizon = self.served.signature.horizon, call.parameters.horizon
        if horizon is not None and horizon > most:
            about = f"{self.served.metadata.name} forecasts at most {most} steps, got {horizon}"
            raise InvalidRequest.at("parameters.horizon", about)
        readings, warnings = await self._read(call.tensors)
        require_window(self.served, len(readings), None)
        made, timings = await self.served.forecast(readings, call.caller, horizon or most, _QUANTILES)
        quantiles = np.stack([made.quantiles[level] for level in _QUANTILES])
        outputs = {"mean": HostTensor("float64", made.mean), "quantiles": HostTensor("float64", quantiles)}
        return TensorOutput(
            outputs, [timings], _warning_parameter(warnings) | {"quantiles": ",".join(map(str, _QUANTILES))}
        )

    def _outputs(self) -> Specs:
        return {"mean": ("float64", ("h", self._width)), "quantiles": ("float64", (len(_QUANTILES), "h", self._width))}


def _warning_parameter(warnings: list[str]) -> AnswerParameters:
    return {"warnings": "; ".join(warnings)} if warnings else {}


def _scored_tensors(scored: Scored) -> Tensors:
    tensors = {"score": HostTensor("float32", scored.scores), "p_value": HostTensor("float64", scored.p_values)}
    if scored.contributions is not None:
        tensors["contributions"] = HostTensor("float32", scored.contributions)
    return tensors


def _drift_parameters(scored: Scored) -> AnswerParameters:
    return {} if scored.drift is None else {"drift_detected": bool(scored.drift.detected)}
