"""Classification of texts: zero-shot by a request's labels, or by a model trained for it; and the route."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from fastapi import APIRouter, Response

from models.images.data_uri import to_kept_data_uri
from models.probabilities import probabilities
from models.text.detectors.knn import ReferenceDetector
from models.text.zero_shot import ZeroShotHead
from service.api.compute_route import CallDep, compute_route
from service.api.hot_path import ComputeCall
from service.api.image_urls import fetch_images
from service.api.responses import list_body, usage
from service.api.routes.classify_images import score_images
from service.api.routes.label_scores import LabelScores
from service.api.routes.program_inputs import program_rows, refuse_text_fields
from service.api.schemas.images import EncodedImage
from service.api.schemas.requests import name_inputs, require_few_scores, shorten_name
from service.api.schemas.texts import ClassifyAnswer, ClassifyBody
from service.errors import InvalidRequest
from service.serving.fine_tuned import FineTunedModel
from service.serving.image_model import ReadsImages
from service.serving.program_model import ServedProgram
from service.serving.text_model import ModelOutput, ServedText, TokenizeOptions

router = APIRouter(tags=["Sonde"])

# With fewer examples a p-value of 0.05 is out of reach (1 / (19 + 1)).
_LEAST_EXAMPLES = 19
_OUT_OF_SCOPE_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A head for a request's labels, and a detector where there are enough examples."""

    names: tuple[str, ...]
    head: ZeroShotHead
    detector: ReferenceDetector | None
    count: int
    truncated: int

    @property
    def size_bytes(self) -> int:
        held = self.head.prototypes.nbytes + (self.detector.reference.nbytes if self.detector else 0)
        return int(held) + sum(len(name) for name in self.names)


@compute_route(router, "/v1/classify", ClassifyAnswer, "Classify texts or images")
async def classify(body: ClassifyBody, call: CallDep) -> Response:
    """Labels with probabilities, best first.

    An encoder needs `labels`; a trained classifier has its own.
    """
    if body.inputs is not None or body.rows is not None:
        return await _classify_tensors(body, call)
    if body.images is not None:
        return await _classify_images(body.images, body, call)
    served = await call.manager.resolve_texts(body.model)
    call.require_inputs(len(body.texts), "input")
    call.require_inputs(sum(len(_label_texts(name, about)) for name, about in (body.labels or {}).items()), "labels")
    require_few_scores(len(body.texts), body.labels or served.metadata.labels, body.top_k, "input")
    classify_texts = _classify_with_labels if served.metadata.task == "embedding" else _classify_by_training
    scored = await call.cancel_on_disconnect(classify_texts(body, served, call))

    def write() -> bytes:
        data = [_classification_object(scored, index, body) for index in range(len(body.texts))]
        call.keep_for_review(served, body.texts, data)
        return list_body(body.model, data, label_set=scored.label_set, usage=usage(*scored.parts))

    return call.respond(await served.run_in_pool(write), served, *scored.parts)


async def _classify_images(images: list[EncodedImage], body: ClassifyBody, call: ComputeCall) -> Response:
    """The same for images, by a classifier of images or an encoder of texts and images."""
    served = await call.manager.resolve(body.model)
    if not (isinstance(served, ReadsImages) and served.metadata.task in {"classification", "embedding"}):
        served = call.manager.require_images(served, "classification")  # says what does
    if isinstance(served, ServedProgram):
        refuse_text_fields(body, served)
    call.require_inputs(len(images), "images")
    call.require_inputs(len(body.labels or {}), "labels")
    require_few_scores(len(images), body.labels or served.metadata.labels, body.top_k, "images")
    images = await call.cancel_on_disconnect(fetch_images(images, call))
    work = score_images(images, body.labels, served, call, multi_label=body.multi_label)
    scored = await call.cancel_on_disconnect(work)
    data = [_classification_object(scored, index, body) for index in range(len(images))]
    if call.kept_inputs.limit:
        await _keep_images(images, data, served, call)
    content = list_body(body.model, data, label_set=scored.label_set, usage=usage(*scored.parts))
    return call.respond(content, served, *scored.parts)


async def _keep_images(
    images: list[EncodedImage], answers: list[dict[str, object]], served: ReadsImages, call: ComputeCall
) -> None:
    """Keep images with their answers for review, small copies of large ones."""

    def write() -> None:
        uris = [to_kept_data_uri(image(), served.image_limits, image.param) for image in images]
        call.keep_for_review(served, uris, answers, are_images=True)

    await served.run_in_pool(write)


async def _classify_tensors(body: ClassifyBody, call: ComputeCall) -> Response:
    """The same for the inputs of an exported program."""
    served = await call.manager.resolve_program("classification", body.model)
    if body.labels is not None:
        raise InvalidRequest(f"{served.metadata.name} has labels of its own; leave labels out", param="labels")
    rows = await call.cancel_on_disconnect(program_rows(body, served, call))
    require_few_scores(len(rows.values), served.metadata.labels, body.top_k, "rows" if body.rows else "inputs")

    def write() -> bytes:
        scores = served.probabilities(rows.values, multi_label=body.multi_label)
        scored = LabelScores(served.metadata.labels, scores, None, (rows,))
        data = [_classification_object(scored, index, body) for index in range(len(scores))]
        return list_body(body.model, data, label_set=None, usage=usage(rows))

    return call.respond(await served.run_in_pool(write), served, rows)


async def _classify_with_labels(body: ClassifyBody, served: ServedText, call: ComputeCall) -> LabelScores:
    if body.labels is None:
        raise InvalidRequest(f"{served.metadata.name} is an encoder: give it labels to choose from", param="labels")
    options = _options(body, served.prompt(None))
    return await classify_by_labels(body.texts, body.labels, served, call, options, multi_label=body.multi_label)


async def classify_by_labels(
    inputs: list[str],
    about: dict[str, str | list[str]],
    served: ServedText,
    call: ComputeCall,
    options: TokenizeOptions,
    *,
    multi_label: bool,
) -> LabelScores:
    """Probabilities of labels that are names with a description or examples, by an encoder."""
    texts = [text for name, more in about.items() for text in _label_texts(name, more)]
    of_labels = replace(options, param="labels", name=partial(_name_label_text, about))
    labels, more = await served.fitted(
        LabelSet, list(about.items()), texts, call.caller, "classification", of_labels, partial(_fit_labels, about)
    )
    rows = await served.rows(inputs, call.caller, "classification", options)

    def compute() -> LabelScores:
        with torch.inference_mode():
            vectors = torch.from_numpy(rows.values)
            # A sum of 1 over a single label says nothing, unless it is multiplied by the chance of being in scope.
            by_itself = multi_label or (len(labels.names) == 1 and labels.detector is None)
            scores = labels.head(vectors, multi_label=by_itself).numpy()
            scope = labels.detector.score(vectors) if labels.detector else None
            label_set: dict[str, object] = {"count": labels.count, "cached": not more, "truncated": labels.truncated}
            return LabelScores(labels.names, scores, scope, (rows, *more), label_set)

    return await served.run_in_pool(compute)


async def _classify_by_training(body: ClassifyBody, served: ServedText, call: ComputeCall) -> LabelScores:
    call.manager.require_task(served, "classification")
    if body.labels is not None:
        raise InvalidRequest(
            f"{served.metadata.name} was trained on labels of its own; leave labels out", param="labels"
        )
    options = _options(body, classifier_prompt(served))
    rows = await served.rows(body.texts, call.caller, "classification", options)
    return await score_own_labels(served, rows, multi_label=body.multi_label or served.metadata.multi_label)


def classifier_prompt(served: ServedText) -> str:
    """The prompt of a trained classifier's encoder; other classifiers have none."""
    return served.prompt(None) if isinstance(served, FineTunedModel) else ""


async def score_own_labels(
    served: ServedText, rows: ModelOutput, *, multi_label: bool, raw: bool = False
) -> LabelScores:
    """Probabilities of a classifier's own labels, by its rows; its logits where they are wanted `raw`."""
    labels = served.metadata.labels
    if not isinstance(served, FineTunedModel):
        scores = rows.values if raw else probabilities(rows.values, multi_label=multi_label)
        return LabelScores(labels, scores, None, (rows,))

    def compute() -> LabelScores:
        if raw:
            return LabelScores(labels, served.logits(rows.values, rows.tokens), None, (rows,))
        scores = served.probabilities(rows.values, rows.tokens, multi_label=multi_label)
        return LabelScores(labels, scores, served.score(rows.values), (rows,))

    return await served.run_in_pool(compute)


def _options(body: ClassifyBody, prompt: str) -> TokenizeOptions:
    return TokenizeOptions(prompt, body.truncate, name=name_inputs("input", body.texts))


def _label_texts(name: str, about: str | list[str]) -> list[str]:
    """A label's name as words (`card_arrival`: "card arrival"), its description or examples."""
    return [name.replace("_", " ").strip() or name, *([about] if isinstance(about, str) else about)]


def _name_label_text(labels: dict[str, str | list[str]], index: int) -> str:
    """The parameter of a label text: `labels[2]` in a list of names, else the label's name."""
    params = [param for at, (name, about) in enumerate(labels.items()) for param in _label_params(at, name, about)]
    return params[index]


def _label_params(number: int, name: str, about: str | list[str]) -> list[str]:
    """The parameter of each of a label's `_label_texts`."""
    if not about:
        return [f"labels[{number}]"]
    param = f"labels.{shorten_name(name)}"
    return [param, *([param] if isinstance(about, str) else [f"{param}[{at}]" for at in range(len(about))])]


def _fit_labels(labels: dict[str, str | list[str]], rows: ModelOutput) -> LabelSet:
    """Fit the head on all texts; calibrate it and fit the detector on examples alone.

    Names and descriptions are not written like inputs, so they cannot tell what is out of scope.
    """
    known = [
        (owner, at > 0 and not isinstance(about, str))
        for owner, about in enumerate(labels.values())
        for at, _ in enumerate(_label_texts("", about))
    ]
    with torch.inference_mode():
        vectors = torch.from_numpy(rows.values)
        examples = torch.tensor([is_example for _, is_example in known])
        enough = int(examples.sum()) >= _LEAST_EXAMPLES
        detector = ReferenceDetector().fit(vectors[examples]) if enough else None
        head = ZeroShotHead.from_texts(vectors, [owner for owner, _ in known], examples if enough else None)
        return LabelSet(tuple(labels), head, detector, len(known), rows.truncated)


def rank_labels(scored: LabelScores, index: int, top_k: int | None = None) -> list[dict[str, object]]:
    """An input's labels with scores, best first."""
    scores = scored.scores[index]
    return [{"label": scored.names[at], "score": float(scores[at])} for at in _order(scored, index, top_k)]


def _order(scored: LabelScores, index: int, top_k: int | None) -> list[int]:
    """The numbers of an input's labels, best first."""
    best: list[int] = np.argsort(-scored.in_scope[index], kind="stable")[:top_k].tolist()
    return best


def _classification_object(scored: LabelScores, index: int, body: ClassifyBody) -> dict[str, object]:
    in_scope, order = scored.in_scope[index], _order(scored, index, body.top_k)
    scores = scored.scores[index]
    p_value = None if scored.scope is None else float(scored.scope.p_values[index])
    sure = body.min_confidence is None or scores[order[0]] >= body.min_confidence
    return {
        "object": "classification",
        "index": index,
        "label": scored.names[order[0]] if sure else None,
        "labels": [
            {"label": scored.names[at], "score": float(scores[at]), "score_in_scope": float(in_scope[at])}
            for at in order
        ],
        "out_of_scope": None if p_value is None else p_value <= _OUT_OF_SCOPE_ALPHA,
        "p_value": p_value,
        "truncated": scored.parts[0].tokens[index].truncated,
    }
