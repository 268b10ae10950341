"""Models in service as the Open Inference Protocol sees them: each kind has a contract of tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from models.linalg import normalize
from models.programs.contract import Contract, Limits, Shaped, TensorSpec
from models.programs.expressions import parse
from models.programs.tensors import HostTensor
from models.sensors.base import LARGEST, Readings, Scored, State
from models.text.sequence_classifier import probabilities
from service.api.readings import missing_warnings
from service.api.routes.classify import classifier_prompt, score_own_labels
from service.api.routes.rerank import score_documents, to_relevance
from service.api.routes.sensor_anomaly import require_window
from service.api.schemas.fields import check_texts, require_few_scores
from service.api.schemas.open_inference import InferParameters
from service.api.tensor_data import bytes_tensor
from service.config import Settings
from service.errors import BackendError, InvalidRequest, WrongTask
from service.serving.fine_tuned import FineTunedModel
from service.serving.image_model import Encoded, ImageOutput, ReadsImages
from service.serving.program_model import ServedProgram, Tensors
from service.serving.sensor_model import ServedSensor
from service.serving.servable import Caller, Servable, Timings
from service.serving.stream_state import StreamPosition, seal, unseal
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

ServedT = TypeVar("ServedT", bound=Servable)
# Names of tensors, with dtype and shape.
_Specs = dict[str, tuple[str, tuple[int | str, ...]]]
# What an answer says beside its tensors.
_Said = dict[str, str | bool]
# Parameters that are for some kinds of models.
_OF_KINDS = ("truncate", "prompt_name", "state", "horizon")
_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class TensorOutput:
    """A model's outputs by name, what was computed for them, and the answer's parameters."""

    tensors: Tensors
    parts: Sequence[Timings]
    parameters: Mapping[str, str | bool] = field(default_factory=dict)


class TensorModel(ABC, Generic[ServedT]):
    """A model in service with its contract.

    `takes` are the parameters of its kind. `has_batches` says that the rows of a request are independent, and
    `with_missing` that NaN is a missing value.
    """

    platform: ClassVar[str] = "sonde"
    takes: ClassVar[Collection[str]] = ()
    has_batches: ClassVar[bool] = True
    with_missing: ClassVar[bool] = False

    def __init__(self, served: ServedT, settings: Settings) -> None:
        self.served = served
        self._settings = settings
        self.contract = self._make_contract()

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """The names of an output's columns, by output."""
        return {}

    @property
    def most_rows(self) -> int:
        """The most rows of a request; 0 where they are no batch."""
        if not self.has_batches or self.contract.batch is None:
            return 0
        return self.contract.most_rows or self._settings.max_inputs

    def check(self, tensors: Mapping[str, Shaped], parameters: InferParameters) -> None:
        """Check inputs, whose values need not be read yet, and parameters.

        Raises TensorError naming an input that does not fit, and InvalidRequest.
        """
        for name in _OF_KINDS:
            if getattr(parameters, name) is not None and name not in self.takes:
                known = ", ".join(self.takes) or "none"
                about = f"{self.served.metadata.name} has no such parameter; those of its kind: {known}"
                raise InvalidRequest.at(f"parameters.{name}", about)
        self.contract.check(tensors)

    @abstractmethod
    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """Compute outputs, at least those `wanted`, of inputs that were checked.

        Raises Overloaded before any work, DeadlineExceeded, and InvalidRequest for values that the model cannot read.
        """

    @abstractmethod
    def _make_contract(self) -> Contract: ...


class ProgramTensors(TensorModel[ServedProgram]):
    """An exported program, whose contract is its own."""

    platform = "pytorch_exported_program"

    def check(self, tensors: Mapping[str, Shaped], parameters: InferParameters) -> None:
        """See TensorModel."""
        super().check(tensors, parameters)
        self.served.check(tensors)

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        output = await self.served.infer(tensors, caller)
        return TensorOutput(output.tensors, [output])

    def _make_contract(self) -> Contract:
        return self.served.contract


class _TextTensors(TensorModel[ServedText]):
    """Texts [n] in."""

    takes: ClassVar[Collection[str]] = ("truncate",)

    @abstractmethod
    def _outputs(self) -> _Specs: ...

    def _make_contract(self) -> Contract:
        return _contract({"text": ("bytes", ("n",))}, self._outputs(), {"n": self._settings.max_inputs})

    def _prompt(self, parameters: InferParameters) -> str:
        return self.served.prompt(parameters.prompt_name)

    async def _rows(self, tensors: Tensors, parameters: InferParameters, caller: Caller) -> ModelOutput:
        options = TokenizeOptions(self._prompt(parameters), parameters.truncate is not False, param="text")
        texts = _read_texts(tensors["text"], "text")
        return await self.served.rows(texts, caller, self.served.metadata.task, options)


class EmbeddingTensors(_TextTensors):
    """Texts in, vectors of length 1 out."""

    takes = ("truncate", "prompt_name")

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(tensors, parameters, caller)
        vectors = HostTensor("float32", normalize(rows.values))
        return TensorOutput({"embedding": vectors}, [rows], _cut_texts(rows))

    def _outputs(self) -> _Specs:
        return {"embedding": ("float32", ("n", self.served.metadata.width))}


class ClassifierTensors(_TextTensors):
    """Texts in, the best label and the scores of all labels out."""

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """See TensorModel."""
        return {"scores": self.served.metadata.labels}

    def check(self, tensors: Mapping[str, Shaped], parameters: InferParameters) -> None:
        """See TensorModel."""
        super().check(tensors, parameters)
        require_few_scores(tensors["text"].shape[0], self.served.metadata.labels, None, "text")

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(tensors, parameters, caller)
        scored = await score_own_labels(self.served, rows, multi_label=self.served.metadata.multi_label)
        best = [scored.names[at].encode() for at in scored.in_scope.argmax(axis=1)]
        outputs = {"label": bytes_tensor(best), "scores": HostTensor("float32", scored.scores)}
        return TensorOutput(outputs, scored.parts, _cut_texts(rows))

    def _outputs(self) -> _Specs:
        return {"label": ("bytes", ("n",)), "scores": ("float32", ("n", len(self.served.metadata.labels)))}

    def _prompt(self, parameters: InferParameters) -> str:
        return classifier_prompt(self.served)


class TextAnomalyTensors(_TextTensors):
    """Texts in, scores and p-values out, by a detector that was trained on texts."""

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(tensors, parameters, caller)
        detector = self.served
        if not isinstance(detector, FineTunedModel):
            raise BackendError(f"{detector.metadata.name} has no detector")
        scored = await detector.run_in_pool(lambda: detector.score(rows.values))
        if scored is None:
            raise BackendError(f"{detector.metadata.name} has no detector")
        outputs = {
            "score": HostTensor("float32", scored.scores.numpy().astype(np.float32)),
            "p_value": HostTensor("float64", scored.p_values.numpy().astype(np.float64)),
        }
        return TensorOutput(outputs, [rows], _cut_texts(rows))

    def _outputs(self) -> _Specs:
        return {"score": ("float32", ("n",)), "p_value": ("float64", ("n",))}


class ImageEmbeddingTensors(TensorModel[ReadsImages]):
    """Image files in, vectors of length 1 out."""

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(tensors, caller)
        return TensorOutput({"embedding": HostTensor("float32", normalize(rows.values))}, [rows])

    async def _rows(self, tensors: Tensors, caller: Caller) -> ImageOutput:
        files: list[Encoded] = [partial(bytes, one) for one in tensors["image"].values]
        return await self.served.image_rows(files, caller, self.served.metadata.task, "image[{}]".format)

    def _outputs(self) -> _Specs:
        return {"embedding": ("float32", ("n", self.served.metadata.width))}

    def _make_contract(self) -> Contract:
        return _contract({"image": ("bytes", ("n",))}, self._outputs(), {"n": self._settings.max_inputs})


class ImageClassifierTensors(ImageEmbeddingTensors):
    """Image files in, the best label and the scores of all labels out."""

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """See TensorModel."""
        return {"scores": self.served.metadata.labels}

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(tensors, caller)
        scores = probabilities(rows.values, multi_label=self.served.metadata.multi_label)
        best = [self.served.metadata.labels[at].encode() for at in scores.argmax(axis=1)]
        return TensorOutput({"label": bytes_tensor(best), "scores": HostTensor("float32", scores)}, [rows])

    def _outputs(self) -> _Specs:
        return {"label": ("bytes", ("n",)), "scores": ("float32", ("n", len(self.served.metadata.labels)))}


class RerankTensors(TensorModel[ServedText]):
    """A query and documents in, the documents' relevance out."""

    takes = ("truncate",)
    has_batches = False

    async def infer(
        self, tensors: Tensors, wanted: Collection[str], parameters: InferParameters, caller: Caller
    ) -> TensorOutput:
        """See TensorModel."""
        [query] = _read_texts(tensors["query"], "query")
        documents = _read_texts(tensors["documents"], "documents")
        options = TokenizeOptions(truncate=parameters.truncate is not False, param="documents")
        raw, parts = await score_documents(self.served, query, documents, options, caller)
        scores = HostTensor("float32", to_relevance(raw, self.served).astype(np.float32))
        return TensorOutput({"relevance_score": scores}, parts, _cut_texts(*parts))

    def _make_contract(self) -> Contract:
        inputs: _Specs = {"query": ("bytes", (1,)), "documents": ("bytes", ("n",))}
        outputs: _Specs = {"relevance_score": ("float32", ("n",))}
        return _contract(inputs, outputs, {"n": self._settings.max_inputs})


class _ReadingTensors(TensorModel[ServedSensor]):
    """Readings [n, columns] in, in the input that `reads` names."""

    reads: ClassVar[str] = "series"
    with_missing = True

    @abstractmethod
    def _outputs(self) -> _Specs: ...

    @property
    def _width(self) -> int:
        return len(self.served.signature.columns)

    def _make_contract(self) -> Contract:
        inputs: _Specs = {self.reads: ("float64", ("n", self._width))}
        limits = {"n": self._settings.max_readings, "h": max(self.served.signature.horizon, 1)}
        return _contract(inputs, self._outputs(), limits)

    async def _read(self, tensors: Tensors) -> tuple[Readings, _Said]:
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
        readings, said = await self._read(tensors)
        scored, timings = await self._score(readings, None, wanted, caller)
        return TensorOutput(_scored_tensors(scored), [timings], said | _say_drift(scored))

    async def _score(
        self, readings: Readings, state: State | None, wanted: Collection[str], caller: Caller
    ) -> tuple[Scored, Timings]:
        return await self.served.score(readings, caller, state=state, contributions="contributions" in wanted)

    def _outputs(self) -> _Specs:
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
        readings, said = await self._read(tensors)
        require_window(self.served, len(readings), state)
        scored, timings = await self._score(readings, state, wanted, caller)
        said["state"] = seal(scored.state, digest, StreamPosition(place.last_s, followed=True))
        return TensorOutput(_scored_tensors(scored), [timings], said | _say_drift(scored))


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
        readings, said = await self._read(tensors)
        require_window(self.served, len(readings), None)
        made, timings = await self.served.forecast(readings, caller, parameters.horizon or most, _QUANTILES)
        quantiles = np.stack([made.quantiles[level] for level in _QUANTILES])
        outputs = {"mean": HostTensor("float64", made.mean), "quantiles": HostTensor("float64", quantiles)}
        return TensorOutput(outputs, [timings], {**said, "quantiles": ",".join(map(str, _QUANTILES))})

    def _outputs(self) -> _Specs:
        return {"mean": ("float64", ("h", self._width)), "quantiles": ("float64", (len(_QUANTILES), "h", self._width))}


_KINDS: dict[tuple[str, str], Callable[[Any, Settings], TensorModel[Any]]] = {
    ("tensors", "inference"): ProgramTensors,
    ("texts", "embedding"): EmbeddingTensors,
    ("texts", "classification"): ClassifierTensors,
    ("texts", "anomaly"): TextAnomalyTensors,
    ("texts", "rerank"): RerankTensors,
    ("texts and images", "embedding"): EmbeddingTensors,
    ("images", "embedding"): ImageEmbeddingTensors,
    ("images", "classification"): ImageClassifierTensors,
    ("readings", "records"): RecordTensors,
    ("readings", "series"): SeriesTensors,
    ("readings", "forecast"): ForecastTensors,
}


def tensor_model(served: Servable, settings: Settings) -> TensorModel[Any]:
    """A model in service with its contract. Raises WrongTask for a kind without one."""
    kind = served.signature.kind if isinstance(served, ServedSensor) else served.metadata.task
    made = _KINDS.get((served.reads, kind))
    if made is None:
        about = f"{served.metadata.name} does {kind} with {served.reads}, which has no tensors in the protocol"
        raise WrongTask(f"{about}; use its route below /v1", param="model")
    return made(served, settings)


def best_values(tensor: HostTensor, count: int, labels: Sequence[str]) -> HostTensor:
    """The `count` best values of each row as BYTES `value:index[:label]`, as Triton writes them."""
    rows = tensor.values.reshape(-1, tensor.shape[-1] if tensor.shape else 1)
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    texts = [
        f"{row[at]:f}:{at}{f':{labels[at]}' if labels else ''}".encode()
        for row, best in zip(rows, order, strict=True)
        for at in best
    ]
    return bytes_tensor(texts, (*tensor.shape[:-1], order.shape[1]))


def _contract(inputs: _Specs, outputs: _Specs, most: Mapping[str, int]) -> Contract:
    """A contract of tensors by name, where `most` bounds the sizes that vary."""

    def specs(given: _Specs) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, dtype, tuple(map(_size, shape))) for name, (dtype, shape) in given.items())

    return Contract(specs(inputs), specs(outputs), {name: Limits(1, limit) for name, limit in most.items()})


def _size(size: int | str) -> Any:
    return parse(size) if isinstance(size, str) else size


def _read_texts(tensor: HostTensor, param: str) -> list[str]:
    """The texts of BYTES. Raises InvalidRequest naming one that is empty or not UTF-8."""
    texts = []
    for index, text in enumerate(tensor.values):
        try:
            texts.append(text.decode())
        except UnicodeDecodeError as error:
            raise InvalidRequest.at(f"{param}[{index}]", f"expected UTF-8, got other bytes ({error.reason})") from error
    return check_texts(texts, param)


def _cut_texts(*rows: ModelOutput) -> _Said:
    """A warning where texts were cut."""
    truncated = sum(part.truncated for part in rows)
    return {"warnings": f"{truncated} texts were cut to the model's length"} if truncated else {}


def _scored_tensors(scored: Scored) -> Tensors:
    tensors = {"score": HostTensor("float32", scored.scores), "p_value": HostTensor("float64", scored.p_values)}
    if scored.contributions is not None:
        tensors["contributions"] = HostTensor("float32", scored.contributions)
    return tensors


def _say_drift(scored: Scored) -> _Said:
    return {} if scored.drift is None else {"drift_detected": bool(scored.drift.detected)}
