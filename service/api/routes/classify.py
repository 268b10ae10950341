"""Classification: zero-shot with labels over an encoder, or by a model that was trained for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from models.text.detectors.knn import ReferenceDetector
from models.text.sequence_classifier import probabilities
from models.text.zero_shot import ZeroShotHead
from service.api.deps import INFER, CallerDep, ManagerDep, SettingsDep, cancel_on_disconnect
from service.api.json_body import JsonRoute
from service.api.openapi import answers
from service.api.responses import build_response, list_body, usage
from service.api.schemas.fields import brief, naming_of, require_count
from service.api.schemas.texts import ClassifyAnswer, ClassifyBody
from service.errors import InvalidRequest
from service.serving.fine_tuned import FineTunedModel
from service.serving.model_manager import ModelManager
from service.serving.servable import Caller
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

router = APIRouter(route_class=JsonRoute, dependencies=[INFER], tags=["Sonde"])

# With fewer examples a p-value of 0.05 is out of reach (1 / (19 + 1)).
_LEAST_EXAMPLES = 19
_OUT_OF_SCOPE_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class LabelSet:
    """What a caller's labels come to on one model: a head, and a detector where examples allow one."""

    names: tuple[str, ...]
    head: ZeroShotHead
    detector: ReferenceDetector | None
    count: int
    truncated: int

    @property
    def size_bytes(self) -> int:
        held = self.head.prototypes.nbytes + (self.detector.reference.nbytes if self.detector else 0)
        return int(held) + sum(len(name) for name in self.names)


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Probabilities float32 [n, labels] and, where they are known, p-values [n]; `label_set` is what came of labels
    sent along.
    """

    names: Sequence[str]
    scores: NDArray[np.float32]
    p_values: list[float] | None
    label_set: dict[str, object] | None


@router.post("/v1/classify", responses=answers(ClassifyAnswer), summary="Classify texts")
async def classify(
    body: ClassifyBody, request: Request, manager: ManagerDep, settings: SettingsDep, caller: CallerDep
) -> Response:
    """Labels with probabilities, best first. An encoder needs `labels`; a trained classifier has its own."""
    served = await manager.resolve_texts(body.model)
    require_count(len(body.input), settings.max_inputs, "input")
    require_count(
        sum(len(_texts(name, about)) for name, about in (body.labels or {}).items()), settings.max_inputs, "labels"
    )
    work = (
        _zero_shot(body, served, caller) if served.card.task == "embedding" else _trained(body, manager, served, caller)
    )
    judged, rows, *more = await cancel_on_disconnect(request, work)
    data = [_one(judged, index, rows, body.top_k) for index in range(len(body.input))]
    content = list_body(body.model, data, label_set=judged.label_set, usage=usage(rows, *more))
    return build_response(request, content, served, rows, *more)


async def _zero_shot(
    body: ClassifyBody, served: ServedText, caller: Caller
) -> tuple[LabelScores, ModelOutput, *tuple[ModelOutput, ...]]:
    if body.labels is None:
        raise InvalidRequest(f"{served.card.name} is an encoder: give it labels to choose from", param="labels")
    about = body.labels
    texts = [text for name, more in about.items() for text in _texts(name, more)]
    reading = TokenizeOptions(
        prompt=served.prompt(None), truncate=body.truncate, param="labels", name=partial(_named, about)
    )
    labels, more = await served.fitted(
        LabelSet, list(about.items()), texts, caller, "classification", reading, partial(_fit, about)
    )
    rows = await served.rows(body.input, caller, "classification", _reading(body, served.prompt(None)))

    def judge() -> LabelScores:
        with torch.inference_mode():
            vectors = torch.from_numpy(rows.values)
            scores = labels.head(vectors, multi_label=body.multi_label).numpy()
            p_values = labels.detector.judge(vectors).p_values.tolist() if labels.detector else None
            label_set: dict[str, object] = {"count": labels.count, "cached": not more, "truncated": labels.truncated}
            return LabelScores(labels.names, scores, p_values, label_set)

    return await served.run_in_pool(judge), rows, *more


def _texts(name: str, about: str | list[str]) -> list[str]:
    """All that is known of a label: its name as words (`card_arrival` means "card arrival"), its description or
    examples.
    """
    return [name.replace("_", " ").strip() or name, *([about] if isinstance(about, str) else about)]


def _named(labels: dict[str, str | list[str]], index: int) -> str:
    """What the caller calls the label text of that index: of labels that are names alone `labels[2]`, else by the
    label's name.
    """
    return [place for number, (name, about) in enumerate(labels.items()) for place in _places(number, name, about)][
        index
    ]


def _places(number: int, name: str, about: str | list[str]) -> list[str]:
    """What the caller calls each of a label's `_texts`."""
    if not about:
        return [f"labels[{number}]"]
    place = f"labels.{brief(name)}"
    return [place, *([place] if isinstance(about, str) else [f"{place}[{at}]" for at in range(len(about))])]


def _reading(body: ClassifyBody, prompt: str) -> TokenizeOptions:
    return TokenizeOptions(prompt=prompt, truncate=body.truncate, name=naming_of("input", body.input))


def _fit(labels: dict[str, str | list[str]], rows: ModelOutput) -> LabelSet:
    """Only examples can tell what is out of scope: names and descriptions are not written as callers' texts are."""
    known = [
        (owner, at > 0 and not isinstance(about, str))
        for owner, about in enumerate(labels.values())
        for at, _ in enumerate(_texts("", about))
    ]
    with torch.inference_mode():
        vectors = torch.from_numpy(rows.values)
        examples = vectors[torch.tensor([is_example for _, is_example in known])]
        detector = ReferenceDetector().fit(examples) if len(examples) >= _LEAST_EXAMPLES else None
        head = ZeroShotHead.from_texts(vectors, [owner for owner, _ in known])
        return LabelSet(tuple(labels), head, detector, len(known), rows.truncated)


async def _trained(
    body: ClassifyBody, manager: ModelManager, served: ServedText, caller: Caller
) -> tuple[LabelScores, ModelOutput, *tuple[ModelOutput, ...]]:
    manager.require_task(served, "classification")
    if body.labels is not None:
        raise InvalidRequest(f"{served.card.name} was trained on labels of its own; leave labels out", param="labels")
    multi_label = body.multi_label or served.card.multi_label
    if not isinstance(served, FineTunedModel):
        rows = await served.rows(body.input, caller, "classification", _reading(body, ""))
        return LabelScores(served.card.labels, probabilities(rows.values, multi_label=multi_label), None, None), rows
    rows = await served.rows(body.input, caller, "classification", _reading(body, served.prompt(None)))

    def judge() -> LabelScores:
        scores = probabilities(served.logits(rows.values, rows.tokens), multi_label=multi_label)
        verdict = served.judge(rows.values)
        return LabelScores(served.card.labels, scores, verdict.p_values.tolist() if verdict else None, None)

    return await served.run_in_pool(judge), rows


def _one(judged: LabelScores, index: int, rows: ModelOutput, top_k: int | None) -> dict[str, object]:
    scores = judged.scores[index]
    order = np.argsort(-scores, kind="stable")[:top_k]
    p_value = judged.p_values[index] if judged.p_values else None
    return {
        "object": "classification",
        "index": index,
        "label": judged.names[order[0]],
        "labels": [{"label": judged.names[at], "score": float(scores[at])} for at in order],
        "out_of_scope": None if p_value is None else p_value <= _OUT_OF_SCOPE_ALPHA,
        "p_value": p_value,
        "truncated": rows.tokens[index].truncated,
    }
