"""Models that read sensor readings, as float64."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import ClassVar

import numpy as np

from models.programs.contract import Contract
from models.programs.tensors import HostTensor
from models.sensors.base import LARGEST, Readings, Scored, State
from service.api.readings import missing_warnings
from service.api.routes.sensor_anomaly import require_window
from service.api.schemas.open_inference import InferParameters
from service.api.tensors.model import AnswerParameters, Specs, TensorModel, TensorOutput, make_contract
from service.errors import InvalidRequest
from service.serving.program_model import Tensors
from service.serving.sensor_model import ServedSensor
from service.serving.servable import Caller, Timings
from service.serving.stream_state import StreamPosition, seal, unseal

_QUANTILES = (0.1, 0.5, 0.9)


class _ReadingTensors(TensorModel[ServedSensor]):
    """Readings [n, columns] in, in the input that `reads` names."""

    reads: ClassVar[str] = "series"
    with_missing = True

    @abstractmethod
    def _outputs(self) -> Specs: ...

    @property
    def _width(self) -> int:
        return len(self.served.signature.columns)

    def _make_contract(self) -> Contract:
        inputs: Specs = {self.reads: ("float64", ("n", self._width))}
        limits = {"n": self._settings.max_readings, "h": max(self.served.signature.horizon, 1)}
        return make_contract(inputs, self._outputs(), limits)

    async def _read(self, tensors: Tensors) -> tuple[Readings, AnswerParameters]:
        """Readings float64 [n, d], and the warnings of missing values. Raises InvalidRequest."""
        readings: Readings = tensors[self.reads].values
        signature = self.served.signature

        def check() -> list[str]:
            for row, column in np.argwhere(np.abs(readings) > LARGEST)[:1]:
                expected = f"expected a number of at most {LARGEST:g} (float64)"
                where = f"{self.reads}[{row}].{signature.columns[column]}"
                raise InvalidRequest.at(where, f"{expected}, got {readings[row, column]:g}")
            return missing_warnings(readings, signature, self.reads)

        warnings = await self.served.run_in_pool(check)
        return readings, {"warnings": "; ".join(warnings)} if warnings else {}


class RecordTensors(_ReadingTensors):
    """Records in, scores, p-values and each column's share out."""

    reads = "records"

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        readings, extra = await self._read(tensors)
        scored, timings = await self._score(readings, None, wanted, caller)
        return TensorOutput(_scored_tensors(scored), [timings], extra | _drift_parameters(scored))

    async def _score(
        self, readings: Readings, state: State | None, wanted: Collection[str], caller: Caller
    ) -> tuple[Scored, Timings]:
        return await self.served.score(readings, caller, state=state, contributions="contributions" in wanted)

    def _outputs(self) -> Specs:
        return {
            "score": ("float32", ("n",)),
            "p_value": ("float64", ("n",)),
            "contributions": ("float32", ("n", self._width)),
        }


class SeriesTensors(RecordTensors):
    """A series in; the next one continues it with the `state` among the answer's parameters."""

    reads = "series"
    takes: ClassVar[Collection[str]] = ("state",)
    has_batches = False

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        digest = self.served.manifest.digest
        state, place = (None, StreamPosition()) if parameters.state is None else unseal(parameters.state, digest)
        readings, extra = await self._read(tensors)
        require_window(self.served, len(readings), state)
        scored, timings = await self._score(readings, state, wanted, caller)
        extra["state"] = seal(scored.state, digest, StreamPosition(place.last_s, followed=True))
        return TensorOutput(_scored_tensors(scored), [timings], extra | _drift_parameters(scored))


class ForecastTensors(_ReadingTensors):
    """A series in, the mean and three quantiles of its next h steps out."""

    takes = ("horizon",)
    has_batches = False

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        most = self.served.signature.horizon
        if parameters.horizon is not None and parameters.horizon > most:
            about = f"{self.served.metadata.name} forecasts at most {most} steps, got {parameters.horizon}"
            raise InvalidRequest.at("parameters.horizon", about)
        readings, extra = await self._read(tensors)
        require_window(self.served, len(readings), None)
        made, timings = await self.served.forecast(readings, caller, parameters.horizon or most, _QUANTILES)
        quantiles = np.stack([made.quantiles[level] for level in _QUANTILES])
        outputs = {"mean": HostTensor("float64", made.mean), "quantiles": HostTensor("float64", quantiles)}
        return TensorOutput(outputs, [timings], {**extra, "quantiles": ",".join(map(str, _QUANTILES))})

    def _outputs(self) -> Specs:
        return {"mean": ("float64", ("h", self._width)), "quantiles": ("float64", (len(_QUANTILES), "h", self._width))}


def _scored_tensors(scored: Scored) -> Tensors:
    tensors = {"score": HostTensor("float32", scored.scores), "p_value": HostTensor("float64", scored.p_values)}
    if scored.contributions is not None:
        tensors["contributions"] = HostTensor("float32", scored.contributions)
    return tensors


def _drift_parameters(scored: Scored) -> AnswerParameters:
    return {} if scored.drift is None else {"drift_detected": bool(scored.drift.detected)}
