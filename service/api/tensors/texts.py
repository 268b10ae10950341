"""Models that read texts, as BYTES."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import numpy as np

from models.counted import counted
from models.linalg import normalize
from models.programs.contract import Shaped
from models.programs.tensors import HostTensor
from service.api.routes.classify import classifier_prompt, score_own_labels
from service.api.routes.rerank import score_documents, to_relevance
from service.api.schemas.open_inference import InferParameters
from service.api.schemas.requests import check_texts, require_few_scores
from service.api.tensors.data import decode_texts
from service.api.tensors.model import AnswerParameters, Specs, TensorCall, TensorModel, TensorOutput, label_tensors
from service.errors import BackendError
from service.serving.fine_tuned import FineTunedModel
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions


class _TextTensors(TensorModel[ServedText]):
    """Texts [n] in."""

    inputs: ClassVar[Specs] = {"text": ("bytes", ("n",))}
    takes: ClassVar[Collection[str]] = ("truncate",)

    def _prompt(self, parameters: InferParameters) -> str:
        return self.served.prompt(parameters.prompt_name)

    async def _rows(self, call: TensorCall) -> ModelOutput:
        prompt, truncate = self._prompt(call.parameters), call.parameters.truncate is not False
        options = TokenizeOptions(prompt, truncate, param="text")
        return await self.served.rows(_read_texts(call, "text"), call.caller, self.served.metadata.task, options)


class EmbeddingTensors(_TextTensors):
    """Texts in, vectors of length 1 out."""

    takes = ("truncate", "prompt_name")

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(call)
        vectors = HostTensor("float32", normalize(rows.values))
        return TensorOutput({"embedding": vectors}, [rows], _cut_texts(rows))

    def _outputs(self) -> Specs:
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

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(call)
        scored = await score_own_labels(self.served, rows, multi_label=self.served.metadata.multi_label)
        return TensorOutput(label_tensors(scored), scored.parts, _cut_texts(rows))

    def _outputs(self) -> Specs:
        return {"label": ("bytes", ("n",)), "scores": ("float32", ("n", len(self.served.metadata.labels)))}

    def _prompt(self, parameters: InferParameters) -> str:
        return classifier_prompt(self.served)


class TextAnomalyTensors(_TextTensors):
    """Texts in, scores and p-values out, by a detector that was trained on texts."""

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        rows = await self._rows(call)
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

    def _outputs(self) -> Specs:
        return {"score": ("float32", ("n",)), "p_value": ("float64", ("n",))}


class RerankTensors(TensorModel[ServedText]):
    """A query and documents in, the documents' relevance out."""

    inputs: ClassVar[Specs] = {"query": ("bytes", (1,)), "documents": ("bytes", ("n",))}
    takes = ("truncate",)
    has_batches = False

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        [query], documents = _read_texts(call, "query"), _read_texts(call, "documents")
        options = TokenizeOptions(truncate=call.parameters.truncate is not False, param="documents")
        raw, parts = await score_documents(self.served, query, documents, options, call.caller)
        scores = HostTensor("float32", to_relevance(raw, self.served).astype(np.float32))
        return TensorOutput({"relevance_score": scores}, parts, _cut_texts(*parts))

    def _outputs(self) -> Specs:
        return {"relevance_score": ("float32", ("n",))}


def _read_texts(call: TensorCall, param: str) -> list[str]:
    """The texts of an input. Raises InvalidRequest naming one that is empty or not UTF-8."""
    return check_texts(decode_texts(call.tensors[param], param), param)


def _cut_texts(*rows: ModelOutput) -> AnswerParameters:
    """A warning where texts were cut."""
    truncated = sum(part.truncated for part in rows)
    return (
        {"warnings": f"{counted(truncated, 'text was', 'texts were')} cut to the model's length"} if truncated else {}
    )
