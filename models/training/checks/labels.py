"""Data checks of labels: counts, spellings, contradictions and probable errors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain

import numpy as np

from models.counted import counted
from models.training.checks.duplicates import Vectors, row_keys
from models.training.checks.wording import name_first, warn_if
from models.training.data.rows import TextRows, normalized
from models.training.report import MAX_ROWS_NAMED, Finding

MIN_ROWS_OF_LABEL = 2
MAX_IMBALANCE = 10.0
MAX_CONFLICTS = 0.01
MAX_LABEL_ERRORS = 0.05
# With fewer rows of a label, a wrong label looks like a hard row.
MIN_ROWS_TO_SUSPECT = 12
_finding = partial(Finding.of, "data")


def check_class_counts(train: TextRows, held_out: TextRows, *, same_file: bool) -> Iterator[Finding]:
    """Check the labels' counts, balance and spelling."""
    trained = Counter(train.labels or ())
    counts = trained + Counter(held_out.labels or ()) if same_file else trained
    yield _check_counts(train, trained, counts, sorted(set(held_out.labels or ()) - set(trained)))
    if len(trained) > 1:
        yield _check_imbalance(counts)
    yield _check_spelling(train)


def _check_counts(
    train: TextRows, trained: Counter[str], counts: Counter[str], only_held_out: Sequence[str]
) -> Finding:
    limit = float(MIN_ROWS_OF_LABEL)
    if len(trained) < 2:
        message = "There is only one label."
        return _finding("class_counts", "fail", float(len(trained)), limit, message, "Add rows of a second label.")
    least = float(min(counts.values()))
    rare = [label for label, count in counts.items() if count < MIN_ROWS_OF_LABEL]
    if not rare and not only_held_out:
        return _finding("class_counts", "ok", least, limit, f"{len(counts)} labels with at least {least:.0f} rows.")
    names = name_first([repr(label) for label in rare or only_held_out])
    what = (
        counted(len(rare), "label has fewer than two rows", "labels have fewer than two rows")
        if rare
        else "Only the held-out part has the labels"
    )
    remedy = "Add rows of these labels, or remove the labels."
    return _finding("class_counts", "fail", least, limit, f"{what}: {names}.", remedy, _lines_of(train, rare))


def _check_imbalance(counts: Counter[str]) -> Finding:
    (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
    message = (
        f"The largest label, {most!r}, has {counted(many, 'row')}; the smallest, {least!r}, has {few}. The limit is "
        f"{MAX_IMBALANCE:.0f} to 1."
    )
    remedy = "Collect more rows of the rare labels; read macro-F1 rather than accuracy."
    ratio = many / few
    return _finding("imbalance", warn_if(ratio > MAX_IMBALANCE), ratio, MAX_IMBALANCE, message, remedy)


def _check_spelling(train: TextRows) -> Finding:
    spellings: dict[str, set[str]] = defaultdict(set)
    for label in train.labels or ():
        spellings[normalized(label.replace("_", " "))].add(label)
    alike = [sorted(names) for names in spellings.values() if len(names) > 1]
    if not alike:
        return _finding("similar_labels", "ok", 0.0, 0.0, "All labels differ by more than spelling.")
    groups = "; ".join(" and ".join(map(repr, names)) for names in alike[:5])
    message = f"Some labels differ only by case, punctuation or whitespace: {groups}."
    rows = _lines_of(train, set(chain.from_iterable(alike)))
    return _finding("similar_labels", "warn", float(len(alike)), 0.0, message, "Give each class one spelling.", rows)


def check_conflicts(train: TextRows) -> Iterator[Finding]:
    """Check that equal texts have equal labels or scores."""
    targets: Sequence[object] | None = train.labels if train.labels is not None else train.scores
    if targets is None:
        return
    by_text: dict[str, set[object]] = defaultdict(set)
    keys = row_keys(train)
    for key, target in zip(keys, targets, strict=True):
        by_text[key].add(target)
    rows = [line for key, line in zip(keys, train.lines, strict=True) if len(by_text[key]) > 1]
    share = len(rows) / len(train)
    shared = counted(len(rows), f"of {len(train)} rows shares its", f"of {len(train)} rows share their")
    message = f"{shared} {train.inputs[:-1]} with a row of another label or score. The limit is {MAX_CONFLICTS:.0%}."
    remedy = "Keep the right label and remove the other rows; if both are right, the classes overlap."
    status = warn_if(share > MAX_CONFLICTS)
    yield _finding("conflicting_labels", status, share, MAX_CONFLICTS, message, remedy, rows)


def check_label_errors(train: TextRows, x: Vectors, seed: int) -> Finding:
    """Find labels that are probably wrong, from embeddings float32 [n, d].

    Confident learning (Northcutt et al. 2021) on out-of-fold probabilities of a logistic regression.
    """
    labels = train.labels or []
    counts = Counter(labels)
    kept = [index for index, label in enumerate(labels) if counts[label] >= 2]
    names = sorted({labels[index] for index in kept})
    if len(names) < 2 or len(kept) < MIN_ROWS_TO_SUSPECT * len(names):
        message = f"The check for wrong labels needs {MIN_ROWS_TO_SUSPECT} rows of each label."
        return _finding("label_errors", "skipped", None, None, message)
    from cleanlab.filter import find_label_issues  # takes a second to import, and PyTorch two

    from models.training.heads.linear_head import out_of_fold_probabilities

    number = {name: index for index, name in enumerate(names)}
    y = np.array([number[labels[index]] for index in kept], dtype=np.int64)
    probabilities = out_of_fold_probabilities(x[kept], y, seed=seed)
    issues = find_label_issues(
        y, probabilities, n_jobs=1, filter_by="both", return_indices_ranked_by="normalized_margin"
    ).tolist()
    lines = [train.lines[kept[index]] for index in issues]
    wrong = counted(len(lines), f"of {len(train)} labels is", f"of {len(train)} labels are")
    message = f"{wrong} probably wrong; the limit is {MAX_LABEL_ERRORS:.0%}."
    if lines:
        given, suggested = names[y[issues[0]]], names[int(probabilities[issues[0]].argmax())]
        message += f" Most suspect: line {lines[0]}, labelled {given!r}, which looks like {suggested!r}."
    remedy = "Read these rows and correct them; a wrong label costs more than a missing row."
    share, rows = len(lines) / len(train), lines[:MAX_ROWS_NAMED]
    return _finding("label_errors", warn_if(share > MAX_LABEL_ERRORS), share, MAX_LABEL_ERRORS, message, remedy, rows)


def _lines_of(train: TextRows, labels: Iterable[str]) -> list[int]:
    wanted = set(labels)
    return [line for label, line in zip(train.labels or (), train.lines, strict=True) if label in wanted]
