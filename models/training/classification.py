"""The classification recipe: a linear head on a frozen encoder's embeddings, and a tuned encoder where it is provably better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.calibration import fit_temperature
from models.detectors import Trained, save_detector
from models.heads import LinearHead
from models.lexical import load_head
from models.training import detecting, evaluation, lexical, linear, measures
from models.training.embedded import Embedder
from models.training.errors import TrainingDataError
from models.training.events import Progress, say
from models.training.hyperparameters import Classification, DetectorKind
from models.training.job import Context, Outcome
from models.training.ladder import Finding, check_outcome
from models.training.parts import Parts
from models.training.tuned import reopened, retrained

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# With so many rows a label or fewer, its name is worth an example: Banking77 at 5 a class gained 1.1 points, at 10 0.4.
_FEW_ROWS = 20
_GOLDEN_TEXTS = 8
# Where a refitted artifact keeps the head that never saw the held-out rows.
JUDGED = "judged"
# How far a probability may be from the one at training time: bfloat16 rows depend on what else is in their batch.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.03}


@dataclass(frozen=True, slots=True)
class Data:
    """The job's rows as numbers: texts and class numbers into `labels`, and texts known not to belong."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    y: Ints
    held_texts: tuple[str, ...]
    held_y: Ints
    strangers: tuple[str, ...]

    @classmethod
    def of(cls, parts: Parts) -> Data:
        """Number the labels of the training rows in alphabetical order."""
        train, held = parts.train, parts.held_out
        if train.labels is None or held.labels is None:
            raise TrainingDataError("wrong_row_kind", "training_file: classification takes rows of text and label", "training_file")
        labels = tuple(sorted(set(train.labels)))
        number = {label: index for index, label in enumerate(labels)}
        y, held_y = (np.array([number[label] for label in rows], dtype=np.int64) for rows in (train.labels, held.labels))
        return cls(labels, tuple(train.texts[0]), y, tuple(held.texts[0]), held_y, parts.strangers)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An encoder with a head and a detector, and what they are worth on the held-out rows; `directory` is of a tuned encoder."""

    mode: str
    embedder: Embedder
    head: LinearHead
    detector: Trained
    probabilities: Floats
    metrics: Mapping[str, float]
    directory: Path | None = None

    @property
    def predicted(self) -> Ints:
        """Class numbers [m] of the held-out rows."""
        numbers: Ints = self.probabilities.argmax(axis=1)
        return numbers


def train(context: Context, settings: Classification, parts: Parts) -> Outcome:
    """Train, compare on the held-out rows, write the winner to `context.result`."""
    data = Data.of(parts)
    frozen = frozen_candidate(context, settings, data)
    say(context.events, _summary(frozen))
    winner = frozen
    if settings.mode != "frozen":
        winner = _better(context, data, frozen, _tuned_candidate(context, settings, data))
    _write(context, winner, _refitted(context, settings, data, winner) if settings.refit and parts.same_file else None)
    context.report.extend(_outcome(context, parts, data, frozen, winner))
    return Outcome(
        encoder="own" if winner.directory else "base",
        mode=winner.mode,
        labels=data.labels,
        metrics=winner.metrics if winner is frozen else {**winner.metrics, "frozen_macro_f1": frozen.metrics["macro_f1"]},
        incumbent_metrics=incumbent_metrics(context, data),
        golden=_golden(context, winner, data),
        trained_tokens=sum(item.count for item in context.embedder.read(data.texts)),
    )


def frozen_candidate(context: Context, settings: Classification, data: Data) -> Candidate:
    """Head and detector on the base encoder's embeddings, both calibrated out of fold on the training rows."""
    x = context.embedder(data.texts)
    held_x, strangers = context.embedder(data.held_texts), context.embedder(data.strangers)
    examples, texts = _examples(settings, data, context.embedder, x)
    fit = _fit(context, settings, data.labels, examples)
    words = _words(context, settings, fit, examples, texts)
    normal = detecting.sample(_normal(fit, x, data.y), context.job.seed)
    detector, ranking = _choose_detector(context, settings, normal, held_x, data.held_y, strangers, fit)
    if not fit.converged:
        say(context.events, "the head's solver stopped before it had converged; its accuracy may gain from a smaller C", "warn")
    metrics = {"C": fit.strength, "temperature": words.head.temperature, "lexical": words.share, **ranking}
    return _judged("frozen", context.embedder, words.head, detector, data, held_x, strangers, metrics)


def _tuned_candidate(context: Context, settings: Classification, data: Data) -> Candidate | None:
    """The same on a tuned encoder. Its embeddings of the rows it was tuned on flatter it: both calibrate on the held-out rows."""
    directory = retrained(context, settings, data.texts, [data.labels[number] for number in data.y])
    if directory is None:
        return None
    tuned = reopened(context, directory)
    x, held_x, strangers = tuned(data.texts), tuned(data.held_texts), tuned(data.strangers)
    fit = _fit(context, settings, data.labels, _examples(settings, data, tuned, x)[0])
    head = _recalibrated(fit.head, held_x, data.held_y)
    normal = detecting.sample(detecting.Normal(x, data.y, head, fit.logits), context.job.seed)
    neighbours = detecting.neighbours_for(normal, _number(settings.neighbours))
    kind: DetectorKind = "combined" if settings.detector == "auto" else settings.detector
    detector = detecting.calibrate_on(detecting.fit_detector(kind, normal, neighbours, calibrated=False), held_x)
    mode = "contrastive" if settings.mode == "auto" else settings.mode
    judged = _judged(mode, tuned, head, detector, data, held_x, strangers, {"C": fit.strength}, directory)
    honest = _crossed_calibration_error(fit.head, held_x, data.held_y)
    return Candidate(mode, tuned, head, detector, judged.probabilities, {**judged.metrics, "ece": honest}, directory)


def _examples(settings: Classification, data: Data, embedder: Embedder, x: Floats) -> tuple[linear.Examples, tuple[str, ...]]:
    """What a head is fitted to, and its texts: the rows, and the labels' names where they are worth an example each."""
    few = float(np.median(np.bincount(data.y))) <= _FEW_ROWS
    if settings.label_names is True or (settings.label_names == "auto" and few):
        names = tuple(label.replace("_", " ") for label in data.labels)
        return linear.Examples.of(x, data.y, embedder(names), np.arange(len(names))), data.texts + names
    return linear.Examples.of(x, data.y), data.texts


def _fit(context: Context, settings: Classification, labels: tuple[str, ...], examples: linear.Examples) -> linear.Fit:
    strengths = linear.STRENGTHS if settings.C == "auto" else (settings.C,)
    progress = Progress(context.events, linear.count_fits(examples.real, len(strengths)))
    return linear.fit_head(examples, labels, strengths=strengths, seed=context.job.seed, done=lambda step: progress(step, examples.real))


def _words(context: Context, settings: Classification, fit: linear.Fit, examples: linear.Examples, texts: Sequence[str]) -> lexical.Choice:
    """The head that answers. The detector keeps the linear one: its promise rests on every row's logits out of fold."""
    if settings.lexical is False:
        return lexical.Choice(fit.head)
    words = lexical.choose_head(fit, examples, context.embedder.read(texts), settings.lexical)
    if words.without is not None and words.having is not None:
        verdict = "they stay" if words.share else "left out"
        say(context.events, f"word pieces: accuracy out of fold {words.having:.4f}, {words.without:.4f} without them: {verdict}")
    return words


def _choose_detector(
    context: Context, settings: Classification, normal: detecting.Normal, held_x: Floats, held_y: Ints, strangers: Floats, fit: linear.Fit
) -> tuple[Trained, dict[str, float]]:
    """The detector asked for, or the one that tells strangers best: real ones where the job has them, else hidden classes."""
    neighbours = detecting.neighbours_for(normal, _number(settings.neighbours))
    if settings.detector != "auto":
        return detecting.fit_detector(settings.detector, normal, neighbours), {}
    if len(strangers) and len(held_x):
        kinds = {kind: detecting.fit_detector(kind, normal, neighbours) for kind in detecting.SIMPLEST_FIRST}
        ranking = detecting.rank_by_strangers(kinds, held_x, strangers)
        judges = f"{len(strangers)} out-of-scope texts"
    else:
        ranking = detecting.rank_by_hidden_classes(normal, held_x, held_y, fit.strength, neighbours, context.job.seed)
        judges = "classes that were hidden from it"
    kind = detecting.best_kind(ranking)
    if ranking:
        scores = ", ".join(f"{name} {score:.3f}" for name, score in ranking.items())
        say(context.events, f"out-of-scope detector: {kind}, chosen by AUROC on {judges} ({scores})")
    return detecting.fit_detector(kind, normal, neighbours), {f"detector_auroc_{name}": score for name, score in ranking.items()}


def _judged(
    mode: str,
    embedder: Embedder,
    head: LinearHead,
    detector: Trained,
    data: Data,
    held_x: Floats,
    strangers: Floats,
    known: Mapping[str, float],
    directory: Path | None = None,
) -> Candidate:
    probabilities: Floats = head.probabilities(torch.from_numpy(held_x), embedder.read(data.held_texts)).numpy()
    metrics = {**held_out_metrics(data.held_y, probabilities), **detecting.false_alarms(detector, held_x), **known}
    if len(strangers):
        normal, strange = (detector(torch.from_numpy(x)).numpy() for x in (held_x, strangers))
        metrics |= {"oos_auroc": evaluation.auroc(normal, strange), "oos_recall_at_95": evaluation.recall_at_in_scope(normal, strange)}
    return Candidate(mode, embedder, head, detector, probabilities, metrics, directory)


def held_out_metrics(truth: Ints, probabilities: Floats) -> dict[str, float]:
    """Accuracy, macro-F1 with its interval, and calibration error of probabilities [m, labels]."""
    predicted = probabilities.argmax(axis=1)
    sure = measures.macro_f1_gain(truth, predicted, None, probabilities.shape[1], seed=0)
    return {
        "accuracy": evaluation.accuracy(truth, predicted),
        "macro_f1": sure.value,
        "macro_f1_low": sure.low,
        "macro_f1_high": sure.high,
        "ece": evaluation.calibration_error(probabilities, truth),
        "held_out_rows": float(len(truth)),
    }


def _better(context: Context, data: Data, frozen: Candidate, tuned: Candidate | None) -> Candidate:
    """The tuned one only where the whole interval of its gain lies above 0."""
    if tuned is None:
        return frozen
    gain = measures.macro_f1_gain(data.held_y, tuned.predicted, frozen.predicted, len(data.labels), seed=context.job.seed)
    verdict = "wins" if gain.low > 0 else "does not win; the frozen encoder stays"
    say(
        context.events,
        f"{tuned.mode}: macro-F1 {gain.value:+.4f} against frozen, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}: {verdict}",
    )
    return tuned if gain.low > 0 else frozen


def _outcome(context: Context, parts: Parts, data: Data, frozen: Candidate, winner: Candidate) -> Iterator[Finding]:
    """The last rung: against the trivial baseline and the frozen head, and what tuning did to the space."""
    tuned = winner is not frozen
    yield from check_outcome(
        [data.labels[number] for number in data.held_y],
        [data.labels[number] for number in winner.predicted],
        confidence=winner.probabilities.max(axis=1),
        frozen=[data.labels[number] for number in frozen.predicted] if tuned else None,
        trivial=parts.baselines[-1].predictions,
        embeddings=winner.embedder(data.held_texts),
        embeddings_before=context.embedder(data.held_texts) if tuned else None,
        lines=parts.held_out.lines,
        seed=context.job.seed,
    )


def incumbent_metrics(context: Context, data: Data) -> dict[str, float] | None:
    """What the version now in service is worth on the same held-out rows; labels that it does not know count as wrong."""
    directory = context.job.incumbent
    if directory is None:
        return None
    head = load_head(directory / JUDGED if (directory / JUDGED).is_dir() else directory)
    embedder = reopened(context, directory / "encoder") if (directory / "encoder").is_dir() else context.embedder
    told = head.probabilities(torch.from_numpy(embedder(data.held_texts)), embedder.read(data.held_texts)).numpy()
    # Into the numbers of this job: its labels first, then those that only the incumbent has.
    names = (*data.labels, *(label for label in head.labels if label not in set(data.labels)))
    rows = np.zeros((len(told), len(names)), np.float32)
    rows[:, [names.index(label) for label in head.labels]] = told
    return held_out_metrics(data.held_y, rows)


def _recalibrated(head: LinearHead, x: Floats, y: Ints) -> LinearHead:
    logits = torch.from_numpy(x) @ head.weight.T + head.bias
    return LinearHead(head.weight, head.bias, head.labels, fit_temperature(logits, torch.from_numpy(y)))


def _crossed_calibration_error(head: LinearHead, x: Floats, y: Ints) -> float:
    """Calibration error of held-out rows, each half at the temperature that the other half gave."""
    folds = linear.stratified(y, 2, 0)
    rows = np.empty((len(y), len(head.labels)), np.float32)
    for fold in (0, 1):
        other = folds != fold
        fitted = _recalibrated(head, x[other], y[other]) if other.any() else head
        rows[~other] = fitted.probabilities(torch.from_numpy(x[~other])).numpy()
    return evaluation.calibration_error(rows, y)


def _refitted(context: Context, settings: Classification, data: Data, winner: Candidate) -> Candidate | None:
    """The winner fitted to all rows, the held-out ones too, with the same strength, kind of head and of detector.

    None for a tuned encoder, which has calibrated on the held-out rows and cannot learn from them as well.
    """
    if winner.directory is not None:
        return None
    whole = replace(data, texts=data.texts + data.held_texts, y=np.concatenate([data.y, data.held_y]))
    x = winner.embedder(whole.texts)
    known = settings.model_copy(update={"C": winner.metrics["C"], "lexical": bool(winner.metrics["lexical"])})
    examples, texts = _examples(known, whole, winner.embedder, x)
    fit = _fit(context, known, whole.labels, examples)
    head = _words(context, known, fit, examples, texts).head
    normal = detecting.sample(_normal(fit, x, whole.y), context.job.seed)
    neighbours = detecting.neighbours_for(normal, _number(settings.neighbours))
    detector = detecting.fit_detector(winner.detector.kind, normal, neighbours)
    say(context.events, f"the head that is published was fitted to all {len(x)} rows after the held-out {len(data.held_y)} had judged")
    return replace(winner, head=head, detector=detector)


def _normal(fit: linear.Fit, x: Floats, y: Ints) -> detecting.Normal:
    """The rows that a detector takes for normal: those with a logit from outside their fold, where there are any."""
    return detecting.Normal(x, y, fit.head, fit.logits).take(np.flatnonzero(fit.told) if fit.told.any() else np.arange(len(x)))


def _number(setting: int | str) -> int | None:
    return setting if isinstance(setting, int) else None


def _summary(candidate: Candidate) -> str:
    told = candidate.metrics
    return (
        f"{candidate.mode}: accuracy {told['accuracy']:.4f}, macro-F1 {told['macro_f1']:.4f} "
        f"({told['macro_f1_low']:.4f} to {told['macro_f1_high']:.4f}), calibration error {told['ece']:.4f} on held-out rows"
    )


def _write(context: Context, winner: Candidate, refitted: Candidate | None) -> None:
    """What is to be served; and, where that was refitted, the head that was judged, for successors to be compared with."""
    published = refitted or winner
    published.head.save(context.result)
    save_detector(published.detector, context.result)
    if refitted is not None:
        (context.result / JUDGED).mkdir()
        winner.head.save(context.result / JUDGED)
    if winner.directory is not None:
        winner.directory.rename(context.result / "encoder")


def _golden(context: Context, winner: Candidate, data: Data) -> dict[str, object]:
    """Held-out texts of several classes, and the probabilities that the head as it was written gives for them."""
    texts = _spread(data)
    rows = load_head(context.result).probabilities(torch.from_numpy(winner.embedder(texts)), winner.embedder.read(texts))
    return {"texts": list(texts), "rows": rows.tolist(), "tolerance": _TOLERANCE[context.placement.dtype_name]}


def _spread(data: Data) -> Sequence[str]:
    first = {int(number): text for number, text in zip(data.held_y[::-1], data.held_texts[::-1], strict=True)}
    return [first[number] for number in sorted(first)][:_GOLDEN_TEXTS]
