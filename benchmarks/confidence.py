"""Whether probabilities are honest: the edge of the scope, and ways to calibrate a head.

python -m benchmarks.confidence [--data ../shared/data] [--cache DIR] [--draws 3] [--only scope|scaling|aims] [--write]

`scope` leaves labels out and asks how sure heads of the others are of their texts, at several edges of the scope.
`scaling` compares one temperature with vector and Dirichlet scaling of the logits out of fold, with a penalty that
these rows choose. `aims` runs real jobs of 10 rows a label. Rows that are judged teach nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks import results
from benchmarks.training import MODEL, Pairs, banking, clinc, few, train
from models.loader import load
from models.p_values import conformal_p_values
from models.runtime.placement import place
from models.source import locate
from models.text.confidence import Confidence, ceiling_of, fit_temperature, in_scope
from models.text.detectors.serialization import load_detector
from models.text.lexical_head import load_head
from models.training.embeddings import Embedder, EmbeddingCache
from models.training.heads.detector_selection import NormalEmbeddings, fit_detector, neighbours_for
from models.training.heads.linear_head import STRENGTHS, Examples, Floats, HeadFit, Ints, fit_head, linear_logits
from models.training.hyperparameters import DetectorKind
from models.training.metrics import calibration_error

EDGES = (2.0, 2.5, 3.0, 3.5, 4.0)
KINDS: tuple[DetectorKind, ...] = ("knn", "combined")
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
Scaling = Literal["vector", "dirichlet"]
_EACH, _EVERYDAY, _MOST_JUDGED = 10, 200, 1200
_ALPHA, _SURE = 0.05, 0.6
# A lead out of fold counts beyond this number of standard errors: 95 %, one-sided.
_LEVEL = 1.645
_ITERATIONS = 60


@dataclass(frozen=True, slots=True)
class Task:
    """Rows to train on, unseen rows of the same labels, and texts of other labels."""

    rows: Pairs
    unseen: Pairs
    others: list[str]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({label for _, label in self.rows}))


def leave_out(train_rows: Pairs, unseen: Pairs, kept: Sequence[str], each: int, seed: int) -> Task:
    """The kept labels with `each` rows at most; the unseen texts of the other labels are out of scope."""
    inside = set(kept)
    by_label = few_at_most([row for row in train_rows if row[1] in inside], each, seed)
    others = [text for text, label in unseen if label not in inside]
    return Task(by_label, [row for row in unseen if row[1] in inside], others)


def few_at_most(rows: Pairs, each: int, seed: int) -> Pairs:
    """Up to a number of rows of each label."""
    chance, taken = random.Random(seed), dict[str, int]()
    kept: Pairs = []
    for text, label in chance.sample(rows, len(rows)):
        if taken.setdefault(label, 0) < each:
            taken[label] += 1
            kept.append((text, label))
    return kept


def scope_tasks(data: Path, draws: int) -> dict[str, list[Task]]:
    """Tasks with texts that are out of scope, from the nearest topics to the furthest."""
    train_rows, unseen, everyday = clinc(data)
    domains: dict[str, list[str]] = json.loads((data / "clinc150/domains.json").read_text(encoding="utf-8"))
    bank_rows, bank_unseen = banking(data)
    bank_labels = sorted({label for _, label in bank_rows})
    every = [label for labels in domains.values() for label in labels]
    tasks = {
        "CLINC150: 9 of 10 domains": [
            leave_out(train_rows, unseen, [label for label in every if label not in left], _EACH, 0)
            for left in domains.values()
        ],
        "CLINC150: 1 of 10 domains": [leave_out(train_rows, unseen, labels, _EACH, 0) for labels in domains.values()],
        "CLINC150: its own out-of-scope texts": [
            Task(few(train_rows, _EACH, seed), unseen, everyday) for seed in range(draws)
        ],
        "Banking77: half of its labels": [
            leave_out(bank_rows, bank_unseen, random.Random(seed).sample(bank_labels, 38), _EACH, seed)
            for seed in range(draws)
        ],
        "Banking77: CLINC150's out-of-scope texts": [
            Task(few(bank_rows, _EACH, seed), bank_unseen, everyday) for seed in range(draws)
        ],
    }
    for language in ("eng", "vie"):
        rows, held = sib(data, f"{language}_Latn")
        topics = sorted({label for _, label in rows})
        tasks[f"SIB-200 {language}: 6 of 7 topics"] = [
            leave_out(rows, held, [topic for topic in topics if topic != left], 100, 0) for left in topics
        ]
    for language in ("en", "vi"):
        rows, held = xquad(data, language)
        titles = sorted({label for _, label in rows})
        tasks[f"XQuAD {language}: half of its articles"] = [
            leave_out(rows, held, random.Random(seed).sample(titles, len(titles) // 2), _EACH, seed)
            for seed in range(draws)
        ]
    return tasks


def sib(data: Path, language: str) -> tuple[Pairs, Pairs]:
    """Sentences and topics: three quarters to train on, and the others."""
    rows: Pairs = []
    for path in sorted((data / "sib200" / language).glob("*.tsv")):
        with path.open(encoding="utf-8") as stream:
            rows += [(row["text"], row["category"]) for row in csv.DictReader(stream, delimiter="\t")]
    return _quarter(rows)


def xquad(data: Path, language: str) -> tuple[Pairs, Pairs]:
    """Questions and the titles of their articles: three quarters to train on, and the others."""
    articles = json.loads((data / f"xquad/xquad.{language}.json").read_text(encoding="utf-8"))["data"]
    return _quarter(
        [
            (question["question"], article["title"])
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    )


def _quarter(rows: Pairs) -> tuple[Pairs, Pairs]:
    random.Random(0).shuffle(rows)
    return rows[len(rows) // 4 :], rows[: len(rows) // 4]


def fit(task: Task, embed: Embedder, seed: int = 0) -> tuple[HeadFit, Examples]:
    """A linear head on the task's rows, without label names and word pieces."""
    labels = task.labels
    y = np.array([labels.index(label) for _, label in task.rows], np.int64)
    examples = Examples.of(embed([text for text, _ in task.rows]), y)
    strengths = STRENGTHS if len(y) < 4000 else STRENGTHS[2:3]
    return fit_head(examples, labels, strengths=strengths, seed=seed), examples


def judge_edges(task: Task, embed: Embedder) -> dict[tuple[DetectorKind, float], dict[str, float]]:
    """For each kind of detector and edge: how honest `score` is, and what becomes of texts in and out of scope."""
    fitted, examples = fit(task, embed)
    rows = np.flatnonzero(fitted.covered)
    normal = NormalEmbeddings(examples.x, examples.y, fitted.head, fitted.logits).take(rows)
    inside = random.Random(0).sample(task.unseen, min(_MOST_JUDGED, len(task.unseen)))
    outside = random.Random(0).sample(task.others, min(len(inside), len(task.others)))
    x = torch.from_numpy(embed([text for text, _ in inside] + outside))
    sure, predicted = fitted.head.probabilities(x).max(dim=1)
    right = torch.zeros(len(x), dtype=torch.bool)
    right[: len(inside)] = torch.tensor([task.labels.index(label) for _, label in inside]) == predicted[: len(inside)]
    return {
        (kind, edge): _judge_scores(sure.double(), right, len(inside), *parts)
        for kind in KINDS
        for edge, parts in _at_edges(kind, normal, x)
    }


def _at_edges(kind: DetectorKind, normal: NormalEmbeddings, x: Tensor) -> Iterator[tuple[float, tuple[Tensor, Tensor]]]:
    """For each edge the probability of being in scope, and which texts the detector flags."""
    detector = fit_detector(kind, normal, neighbours_for(normal, "auto"))
    scores, known = detector(x), detector.calibration
    flagged = conformal_p_values(known, scores) <= _ALPHA
    for edge in EDGES:
        yield edge, (in_scope(known, scores, edge=edge).double(), flagged)


def _judge_scores(sure: Tensor, right: Tensor, inside: int, scope: Tensor, flagged: Tensor) -> dict[str, float]:
    score = sure * scope
    return {
        "ece": calibration_error(score[:inside].numpy(), right[:inside].numpy()),
        "answered": float((score[:inside] >= _SURE).double().mean()),
        "below": float((score[inside:] < _SURE).double().mean()),
        "caught": float((flagged | (score < _SURE))[inside:].double().mean()),
        # Texts in scope have the same weight together as texts out of scope.
        "brier": float((_brier(score[:inside], right[:inside]) + _brier(score[inside:], right[inside:])) / 2),
    }


def _brier(score: Tensor, right: Tensor) -> Tensor:
    return (score - right.double()).square().mean()


def report_scope(data: Path, embed: Embedder, draws: int) -> None:
    """One line for each family of tasks, kind of detector and edge."""
    for family, tasks in scope_tasks(data, draws).items():
        measured = [judge_edges(task, embed) for task in tasks]
        for key in measured[0]:
            means = {name: float(np.mean([each[key][name] for each in measured])) for name in measured[0][key]}
            print(
                f"{family}; {key[0]}; {key[1]}; " + "; ".join(f"{name} {means[name]:.3f}" for name in means), flush=True
            )


def scaled(logits: Tensor, y: Tensor, temperature: float, kind: Scaling, penalty: float) -> Tensor:
    """The map [classes + 1, classes] of log-probabilities and a one to better logits, by penalised likelihood.

    Vector scaling has a diagonal and a bias (Guo et al., 2017), Dirichlet calibration a whole matrix (Kull et al.:
    Beyond temperature scaling, 2019). The penalty is on the difference to the temperature alone.
    """
    classes = logits.shape[1]
    free = torch.ones(classes, classes) if kind == "dirichlet" else torch.eye(classes)
    free = torch.cat([free, torch.ones(1, classes)]).double()
    change = torch.zeros(classes + 1, classes, dtype=torch.double, requires_grad=True)
    x, start = _inputs(logits, temperature), _start(classes)
    optimizer = torch.optim.LBFGS([change], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")
    smoothing = 2 / (len(y) + 2)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(x @ (start + change * free), y, label_smoothing=smoothing)
        value = value + penalty * (change * free).square().sum() / len(y)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return (start + change * free).detach()


def _inputs(logits: Tensor, temperature: float) -> Tensor:
    likely = (logits.double() / temperature).log_softmax(dim=1)
    return torch.cat([likely, torch.ones(len(likely), 1, dtype=torch.double)], dim=1)


def _start(classes: int) -> Tensor:
    return torch.cat([torch.eye(classes), torch.zeros(1, classes)]).double()


def choose_penalty(logits: Tensor, y: Tensor, kind: Scaling) -> tuple[float, bool]:
    """The best penalty for each half by the other, and whether it beats the temperature beyond chance."""
    half = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)) % 2
    losses = {penalty: torch.zeros(len(y), dtype=torch.double) for penalty in (None, *PENALTIES)}
    for part in (0, 1):
        fits, judges = half != part, half == part
        temperature = fit_temperature(logits[fits], y[fits])
        for penalty, loss in losses.items():
            by = (
                _start(logits.shape[1])
                if penalty is None
                else scaled(logits[fits], y[fits], temperature, kind, penalty)
            )
            loss[judges] = cross_entropy(_inputs(logits[judges], temperature) @ by, y[judges], reduction="none")
    best = min(PENALTIES, key=lambda penalty: float(losses[penalty].mean()))
    lead = losses[None] - losses[best]
    return best, bool(lead.mean() > _LEVEL * lead.std() / len(y) ** 0.5)


def compare_scalings(task: Task, embed: Embedder, seed: int) -> dict[str, float]:
    """NLL, calibration error and accuracy of unseen rows for each way to calibrate, and which ways won out of fold."""
    fitted, examples = fit(task, embed, seed)
    logits, y = torch.from_numpy(fitted.logits[fitted.covered]), torch.from_numpy(examples.y[fitted.covered])
    truth = np.array([task.labels.index(label) for _, label in task.unseen])
    unseen = torch.from_numpy(linear_logits(fitted.head, embed([text for text, _ in task.unseen])))
    temperature = fitted.head.confidence.temperature
    ways: dict[str, tuple[Tensor, bool]] = {"temperature": (_start(len(task.labels)), True)}
    for kind in ("vector", "dirichlet"):
        penalty, won = choose_penalty(logits, y, kind)
        ways[kind] = scaled(logits, y, temperature, kind, penalty), won
    measured: dict[str, float] = {}
    for name, (by, won) in ways.items():
        sure, predicted = (_inputs(logits, temperature) @ by).softmax(dim=1).max(dim=1)
        confidence = Confidence(1.0, ceiling_of(sure.numpy(), (predicted == y).numpy()))
        probabilities = confidence.probabilities(_inputs(unseen, temperature) @ by).numpy()
        measured |= {f"{name} {key}": value for key, value in _judge(probabilities, truth).items()} | {
            f"{name} won": won
        }
    return measured


def _judge(probabilities: Floats, truth: Ints) -> dict[str, float]:
    right = probabilities.argmax(axis=1) == truth
    of_truth = probabilities[np.arange(len(truth)), truth]
    return {
        "nll": float(-np.log(of_truth).mean()),
        "ece": calibration_error(probabilities.max(axis=1), right),
        "accuracy": float(right.mean()),
    }


def report_scaling(data: Path, embed: Embedder, draws: int, *, write: bool) -> None:
    """One line for each data set, number of labels and of rows a label, and a table of them."""
    found = results.Rounds("scaling", {"model": MODEL, "draws": draws}, append=False)
    found.begin()
    clinc_rows, clinc_unseen, _ = clinc(data)
    sets = {"Banking77": banking(data), "CLINC150": (clinc_rows, clinc_unseen), "SIB-200": sib(data, "eng_Latn")}
    for name, (rows, unseen) in sets.items():
        labels = sorted({label for _, label in rows})
        sizes = [(len(labels), 10), (len(labels), 30), (len(labels), 100), (10, 100), (4, 100)]
        for count, each in sizes if name != "SIB-200" else [(7, 200)]:
            measured = []
            for seed in range(draws):
                kept = labels if count == len(labels) else random.Random(seed).sample(labels, count)
                measured.append(compare_scalings(leave_out(rows, unseen, kept, each, seed), embed, seed))
            means = {key: float(np.mean([one[key] for one in measured])) for key in measured[0]}
            found.add(f"{name}, {count} labels, {each} rows each", means)
            print(f"{name}, {count} labels, {each} rows each: {means}", flush=True)
    found.finish(write=write)


def judge_job(result: Path, embed: Embedder, task: Task) -> dict[str, float]:
    """What a published head and detector say of unseen rows and of everyday sentences."""
    head, detector = load_head(result), load_detector(result)
    texts = [text for text, _ in task.unseen]
    inside, outside = torch.from_numpy(embed(texts)), torch.from_numpy(embed(task.others))
    probabilities: Floats = head.probabilities(inside, embed.read(texts)).numpy()
    truth = np.array([head.labels.index(label) for _, label in task.unseen])
    told = _judge(probabilities, truth)
    score = probabilities.max(axis=1) * detector.score(inside).in_scope.numpy()
    told["ece of score"] = calibration_error(score, probabilities.argmax(axis=1) == truth)
    if task.others:
        scope = detector.score(outside)
        strange = head.probabilities(outside, embed.read(task.others)).max(dim=1).values * scope.in_scope
        told["caught"] = float(((scope.p_values <= _ALPHA) | (strange < _SURE)).double().mean())
    return told


def report_aims(data: Path, embed: Embedder, cache: Path, draws: int) -> None:
    """Real jobs: all labels with 10 rows each, and 4 labels with 10 rows beside 200 everyday sentences."""
    bank_rows, bank_unseen = banking(data)
    clinc_rows, clinc_unseen, out_of_scope = clinc(data)
    domains: Mapping[str, list[str]] = json.loads((data / "clinc150/domains.json").read_text(encoding="utf-8"))
    tasks = {
        "Banking77, 77 x 10": [Task(few(bank_rows, _EACH, seed), bank_unseen, out_of_scope) for seed in range(draws)],
        "CLINC150, 150 x 10": [Task(few(clinc_rows, _EACH, seed), clinc_unseen, out_of_scope) for seed in range(draws)],
        "Banking77, 4 x 10": [
            _small(bank_rows, bank_unseen, [text for text, _ in clinc_unseen], seed) for seed in range(5 * draws)
        ],
    }
    names = list(domains)
    tasks["CLINC150, 4 x 10"] = []
    for seed in range(5 * draws):
        own = set(domains[names[seed % len(names)]])
        others = [text for text, label in clinc_unseen if label not in own]
        rows, unseen = ([row for row in part if row[1] in own] for part in (clinc_rows, clinc_unseen))
        tasks["CLINC150, 4 x 10"].append(_small(rows, unseen, others, seed))
    for name, family in tasks.items():
        measured = []
        for seed, task in enumerate(family):
            with tempfile.TemporaryDirectory() as directory:
                train(task.rows, Path(directory), cache, seed, {"mode": "frozen"})
                measured.append(judge_job(Path(directory) / "result", embed, task))
        means = {key: float(np.mean([one[key] for one in measured])) for key in measured[0]}
        told = ", ".join(f"{key} {value:.4f}" for key, value in means.items())
        print(
            f"{name} ({len(measured)} draws): {told}, least caught {min(one['caught'] for one in measured):.3f}",
            flush=True,
        )


def _small(rows: Pairs, unseen: Pairs, others: Sequence[str], seed: int) -> Task:
    """Four labels with 10 rows each, and 200 sentences of other topics."""
    chance = random.Random(seed)
    labels = chance.sample(sorted({label for _, label in rows}), 4)
    task = leave_out(rows, unseen, labels, _EACH, seed)
    return Task(task.rows, task.unseen, chance.sample(list(others), _EVERYDAY))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, help="keep embeddings here")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", choices=("scope", "scaling", "aims"))
    parser.add_argument("--write", action="store_true", help="keep the result of `scaling` and write RESULTS.md again")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        cache = chosen.cache or Path(temporary)
        embed = Embedder(load(locate(MODEL), place()), EmbeddingCache(cache))
        if chosen.only in (None, "scope"):
            report_scope(chosen.data, embed, chosen.draws)
        if chosen.only in (None, "scaling"):
            report_scaling(chosen.data, embed, chosen.draws, write=chosen.write)
        if chosen.only in (None, "aims"):
            report_aims(chosen.data, embed, cache, chosen.draws)


if __name__ == "__main__":
    main()
