"""First rung: can these rows teach anything?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
from cleanlab.filter import find_label_issues
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.training.data.baselines import Baseline, majority, word_counts
from models.training.data.rows import TEXT_COLUMNS, TextRows, normalised
from models.training.heads.linear_head import out_of_fold_probabilities
from models.training.report import MAX_ROWS_NAMED, Finding, Status, named_rows

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
Shares = Callable[[Sequence[str]], Sequence[float]]

MAX_IMBALANCE = 10.0
NEAR = 0.97
MAX_DUPLICATES = 0.05
MAX_LEAKS = 0.10
MAX_NEAR_LEAKS = 0.20
MAX_CONFLICTS = 0.01
MAX_LABEL_ERRORS = 0.05
ENOUGH_A_LABEL = 12
MAX_TRUNCATED = 0.05
MAX_UNKNOWN = 0.05
# Comparing everything with everything grows with the square: 10,000 rows take some seconds on a core.
_COMPARED = 10_000
_BLOCK = 1024


def check_data(
    train: TextRows,
    held_out: TextRows,
    *,
    embed: Embed | None = None,
    truncated: Shares | None = None,
    unknown: Shares | None = None,
    baselines: Sequence[Baseline] | None = None,
    same_file: bool = True,
    seed: int = 0,
) -> Iterator[Finding]:
    """Check rows before anything is trained on them; rows in findings are lines of the training file unless the
    message says otherwise.

    `embed` gives float32 [n, d] of n texts, any length but zero; without it near duplicates and label errors are not
    looked for. `truncated` says of each text whether it is cut (1.0 or 0.0), `unknown` which share of its tokens is
    unknown. `same_file`: the held-out part comes from the training file. `baselines` are those already computed.
    """
    yield _notes(train)
    yield from _constant_columns(train)
    if train.labels is not None:
        yield from check_classes(train, held_out, same_file=same_file)
    yield from _pairs(train)
    yield _exact_duplicates(train)
    yield from _conflicts(train)
    yield _leaks(train, held_out)
    if embed is not None:
        yield from _with_embeddings(train, held_out, embed, seed)
    yield from _tokens(train, truncated, unknown)
    if train.labels is not None and held_out.labels and len(set(train.labels)) > 1:
        yield from _baselines(baselines or [majority(train, held_out), word_counts(train, held_out, seed=seed)])


def check_classes(train: TextRows, held_out: TextRows, *, same_file: bool) -> Iterator[Finding]:
    """Counts per label: at least two rows each, at most ten to one, none that differ by spelling alone."""
    counts = Counter(train.labels or ())
    total = counts + Counter(held_out.labels or ()) if same_file else counts
    out_of_scope = sorted(set(held_out.labels or ()) - set(counts))
    rare = [label for label, count in total.items() if count < 2]
    if len(counts) < 2:
        yield _finding(
            "class_counts", "fail", float(len(counts)), 2.0, "There is only one label.", "Add rows of a second label."
        )
    elif rare or out_of_scope:
        named = ", ".join(repr(label) for label in (rare or out_of_scope)[:5])
        what = (
            f"{len(rare)} labels have fewer than two rows: {named}."
            if rare
            else f"Only the held-out part has the labels {named}."
        )
        rows = [line for label, line in _labelled(train) if label in rare]
        yield _finding(
            "class_counts",
            "fail",
            float(min(total.values())),
            2.0,
            what,
            "Add rows of these labels, or take the labels out.",
            rows,
        )
    else:
        yield _finding(
            "class_counts",
            "ok",
            float(min(total.values())),
            2.0,
            f"{len(total)} labels with at least {min(total.values())} rows.",
        )
    if len(counts) > 1:
        yield _imbalance(total)
    yield _similar_labels(train)


def _imbalance(counts: Counter[str]) -> Finding:
    (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
    message = f"The largest label, {most!r}, has {many} rows; the smallest, {least!r}, has {few}."
    remedy = "Collect more rows of the rare labels, or weigh classes; trust macro-F1, not accuracy."
    return _graded("imbalance", many / few, MAX_IMBALANCE, message, remedy)


def _similar_labels(train: TextRows) -> Finding:
    spellings: dict[str, set[str]] = defaultdict(set)
    for label in train.labels or ():
        spellings[normalised(label.replace("_", " "))].add(label)
    alike = [sorted(names) for names in spellings.values() if len(names) > 1]
    if not alike:
        return _finding("similar_labels", "ok", 0.0, 0.0, "No two labels differ by spelling alone.")
    chosen = set(chain.from_iterable(alike))
    rows = [line for label, line in _labelled(train) if label in chosen]
    message = (
        f"Labels that differ by case, punctuation or whitespace alone: "
        f"{'; '.join(' and '.join(map(repr, names)) for names in alike[:5])}."
    )
    return _finding("similar_labels", "warn", float(len(alike)), 0.0, message, "Give each class one spelling.", rows)


def _notes(train: TextRows) -> Finding:
    if not train.notes:
        return _finding(
            "parse", "ok", float(len(train)), None, f"{len(train)} rows were read, and every column was used."
        )
    message = f"{len(train)} rows were read; {'; '.join(train.notes)}."
    return _finding(
        "parse",
        "warn",
        float(len(train)),
        None,
        message,
        "Take these out of the file, or map them with `columns`, if that was not meant.",
    )


def _constant_columns(train: TextRows) -> Iterator[Finding]:
    columns: list[tuple[str, Sequence[object]]] = list(zip(TEXT_COLUMNS[train.kind], train.texts, strict=True))
    if train.scores is not None:
        columns.append(("score" if train.kind == "scored" else "label", train.scores))
    constant = [name for name, values in columns if len(values) > 1 and len(set(values)) == 1]
    empty = [name for name, values in columns if all(isinstance(value, str) and not value.strip() for value in values)]
    if not constant and not empty:
        yield _finding("constant_columns", "ok", 0.0, 0.0, "Every column varies.")
    for name in dict.fromkeys(empty + constant):
        what = "is empty" if name in empty else "has the same value in every row"
        message = f"The column {name!r} {what}; nothing can be learned from it."
        yield _finding(
            "constant_columns", "fail", name, None, message, "Check how the file was made, and `columns`.", train.lines
        )


def _pairs(train: TextRows) -> Iterator[Finding]:
    """Pairs that are one text twice teach nothing; a negative that is its positive teaches the wrong thing."""
    if len(train.texts) < 2:
        return
    keys = [[normalised(text) for text in column] for column in train.texts]
    same = [line for line, one, other in zip(train.lines, keys[-2], keys[-1], strict=True) if one == other]
    names = " and ".join(TEXT_COLUMNS[train.kind][-2:])
    status: Status = (
        "ok" if not same else "fail" if train.kind == "triplets" else "warn" if len(same) > 0.05 * len(train) else "ok"
    )
    message = f"{names} are the same text in {len(same)} of {len(train)} rows."
    yield _finding(
        "identical_pairs", status, len(same) / len(train), 0.05, message, "Take these rows out." if same else "", same
    )


def _row_keys(rows: TextRows) -> list[str]:
    return ["\n".join(map(normalised, texts)) for texts in zip(*rows.texts, strict=True)]


def _exact_duplicates(train: TextRows) -> Finding:
    seen: dict[str, int] = {}
    rows = [line for key, line in zip(_row_keys(train), train.lines, strict=True) if seen.setdefault(key, line) != line]
    message = f"{len(rows)} of {len(train)} rows repeat an earlier one (case and punctuation aside)."
    return _graded(
        "exact_duplicates",
        len(rows) / len(train),
        MAX_DUPLICATES,
        message,
        "Take the copies out: they count double.",
        rows,
    )


def _conflicts(train: TextRows) -> Iterator[Finding]:
    targets: Sequence[object] | None = train.labels if train.labels is not None else train.scores
    if targets is None:
        return
    said: dict[str, set[object]] = defaultdict(set)
    keys = _row_keys(train)
    for key, target in zip(keys, targets, strict=True):
        said[key].add(target)
    rows = [line for key, line in zip(keys, train.lines, strict=True) if len(said[key]) > 1]
    message = f"{len(rows)} of {len(train)} rows have a text that another row labels otherwise."
    remedy = "Decide which label is right, and take the other rows out; if both are, the classes overlap."
    yield _graded("conflicting_labels", len(rows) / len(train), MAX_CONFLICTS, message, remedy, rows)


def _leaks(train: TextRows, held_out: TextRows) -> Finding:
    known = dict(zip(_row_keys(train), train.lines, strict=True))
    rows = [known[key] for key in _row_keys(held_out) if key in known]
    share = len(rows) / max(len(held_out), 1)
    message = f"{len(rows)} of {len(held_out)} held-out rows are in the training part too (its lines are named)."
    status: Status = "ok" if not rows else "fail" if share > MAX_LEAKS else "warn"
    return _finding(
        "leaks",
        status,
        share,
        MAX_LEAKS,
        message,
        "Take these rows out of one part: the evaluation would praise memory." if rows else "",
        rows,
    )


def _with_embeddings(train: TextRows, held_out: TextRows, embed: Embed, seed: int) -> Iterator[Finding]:
    x = _unit(embed(train.texts[0]))
    yield _near_duplicates(train, x)
    if len(held_out) and held_out.kind in ("labelled", "plain"):
        yield _near_leaks(train, held_out, x, _unit(embed(held_out.texts[0])))
    if train.labels is not None:
        yield _label_errors(train, x, seed)


def _near_duplicates(train: TextRows, x: Vectors) -> Finding:
    """Rows close to an earlier one that is not the same text; for pairs, by their first text and only if the others
    are the same.
    """
    keys, rest = (
        [normalised(text) for text in train.texts[0]],
        list(zip(*train.texts[1:], strict=True)) or [()] * len(train),
    )
    rows = [
        train.lines[index]
        for index, near in _near(x[:_COMPARED], x[:_COMPARED])
        if any(place < index and keys[place] != keys[index] and rest[place] == rest[index] for place in near)
    ]
    compared = min(len(train), _COMPARED)
    message = f"{len(rows)} of {compared} rows compared are nearly the same as an earlier one (cosine {NEAR} or more)."
    return _graded(
        "near_duplicates",
        len(rows) / compared,
        2 * MAX_DUPLICATES,
        message,
        "Keep one of each; varied rows teach more.",
        rows,
    )


def _near_leaks(train: TextRows, held_out: TextRows, x: Vectors, other: Vectors) -> Finding:
    rows = [train.lines[near[0]] for _, near in _near(other[:_COMPARED], x)]
    compared = min(len(held_out), _COMPARED)
    message = (
        f"{len(rows)} of {compared} held-out rows are nearly the same as a training row (cosine {NEAR} or "
        f"more; those are named)."
    )
    remedy = "Hold out whole conversations, users or templates, so that near copies stay on one side."
    return _graded("near_leaks", len(rows) / compared, MAX_NEAR_LEAKS, message, remedy, rows)


def _label_errors(train: TextRows, x: Vectors, seed: int) -> Finding:
    """Confident learning (Northcutt et al. 2021) on out-of-fold probabilities of a logistic regression."""
    labels = train.labels or []
    counts = Counter(labels)
    kept = [index for index, label in enumerate(labels) if counts[label] >= 2]
    names = sorted({labels[index] for index in kept})
    if len(names) < 2 or len(kept) < ENOUGH_A_LABEL * len(names):
        message = (
            f"With fewer than {ENOUGH_A_LABEL} rows a label a wrong label cannot be told from a hard row; none "
            f"was looked for."
        )
        return _finding("label_errors", "ok", None, None, message)
    number = {name: index for index, name in enumerate(names)}
    y = np.array([number[labels[index]] for index in kept], dtype=np.int64)
    probabilities = out_of_fold_probabilities(x[kept], y, seed=seed)
    issues = find_label_issues(
        y, probabilities, n_jobs=1, filter_by="both", return_indices_ranked_by="normalized_margin"
    ).tolist()
    lines = [train.lines[kept[index]] for index in issues]
    share = len(lines) / len(train)
    message = f"{len(lines)} of {len(train)} labels are suspected to be wrong."
    if lines:
        given, suggested = names[y[issues[0]]], names[int(probabilities[issues[0]].argmax())]
        message += f" Most suspect: line {lines[0]}, labelled {given!r}, which looks like {suggested!r}."
    remedy = "Read these rows and correct them; a wrong label costs more than a missing row."
    return _graded("label_errors", share, MAX_LABEL_ERRORS, message, remedy, lines[:MAX_ROWS_NAMED])


def _tokens(train: TextRows, truncated: Shares | None, unknown: Shares | None) -> Iterator[Finding]:
    texts = list(chain.from_iterable(train.texts))
    lines = train.lines * len(train.texts)
    if truncated is not None:
        cut = np.asarray(truncated(texts), dtype=np.float64)
        rows = [line for line, share in zip(lines, cut, strict=True) if share > 0]
        message = f"{int((cut > 0).sum())} of {len(texts)} texts are longer than the model reads, and are cut."
        remedy = "Split or shorten these texts, or take a model that reads more."
        yield _graded("truncation", float((cut > 0).mean()), MAX_TRUNCATED, message, remedy, rows)
    if unknown is not None:
        shares = np.asarray(unknown(texts), dtype=np.float64)
        rows = [line for line, share in zip(lines, shares, strict=True) if share > MAX_UNKNOWN]
        message = f"On average {shares.mean():.1%} of a text's tokens are unknown to the model."
        yield _graded(
            "unknown_tokens",
            float(shares.mean()),
            MAX_UNKNOWN,
            message,
            "Take a model that knows this language or script.",
            rows,
        )


def _baselines(baselines: Iterable[Baseline]) -> Iterator[Finding]:
    known = {baseline.name: baseline for baseline in baselines}
    for baseline in known.values():
        message = f"{baseline.name}: {baseline.accuracy:.1%} of held-out rows right, macro-F1 {baseline.macro_f1:.3f}."
        yield _finding(f"baseline_{baseline.name}", "ok", baseline.macro_f1, None, message)
    if "majority" in known and "tfidf" in known:
        floor, words = known["majority"].macro_f1, known["tfidf"].macro_f1
        message = f"Words alone reach macro-F1 {words:.3f}; always the same label reaches {floor:.3f}."
        remedy = "Look at some rows: do the labels belong to these texts?"
        yield _finding(
            "signal", "ok" if words > floor else "warn", words, floor, message, remedy if words <= floor else ""
        )


def _near(x: Vectors, reference: Vectors) -> list[tuple[int, list[int]]]:
    """The rows of x that have any, each with the rows of the reference that are at least `NEAR` to it."""
    found: list[tuple[int, list[int]]] = []
    with threadpool_limits(limits=1, user_api="blas"):
        for start in range(0, len(x), _BLOCK):
            close = x[start : start + _BLOCK] @ reference.T >= NEAR
            found += [
                (start + int(row), np.flatnonzero(close[row]).tolist()) for row in np.flatnonzero(close.any(axis=1))
            ]
    return found


def _unit(x: Vectors) -> Vectors:
    x = np.asarray(x, dtype=np.float32)
    scaled: Vectors = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return scaled


def _labelled(rows: TextRows) -> Iterator[tuple[str, int]]:
    return zip(rows.labels or (), rows.lines, strict=True)


def _graded(check: str, value: float, limit: float, message: str, remedy: str, rows: Iterable[int] = ()) -> Finding:
    """Fine up to a limit, a warning beyond; rows are named either way."""
    over = value > limit
    return _finding(check, "warn" if over else "ok", value, limit, message, remedy if over else "", rows)


def _finding(
    check: str,
    status: Status,
    value: float | str | None,
    threshold: float | None,
    message: str,
    remedy: str = "",
    rows: Iterable[int] = (),
) -> Finding:
    return Finding("data", check, status, value, threshold, message, remedy, named_rows(rows))
