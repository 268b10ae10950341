"""Data checks of texts: can these rows teach anything?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from models.counted import counted
from models.linalg import normalize
from models.training.checks.duplicates import check_duplicates, check_leaks, check_near_duplicates, check_near_leaks
from models.training.checks.labels import check_class_counts, check_conflicts, check_label_errors
from models.training.checks.wording import share_text, warn_if
from models.training.data.baselines import Baseline, majority, word_counts
from models.training.data.rows import TEXT_COLUMNS, TextRows, normalized
from models.training.report import Finding, Status

if TYPE_CHECKING:  # it needs PyTorch, which takes two seconds to import
    from models.training.embeddings import Embed

Shares = Callable[[Sequence[str]], Sequence[float]]

MAX_IDENTICAL_PAIRS = 0.05
MAX_TRUNCATED = 0.05
MAX_UNKNOWN = 0.05
_finding = partial(Finding.of, "data")


def check_data(
    train: TextRows,
    held_out: TextRows,
    *,
    embed: Embed | None = None,
    truncated: Shares | None = None,
    unknown: Shares | None = None,
    baselines: Sequence[Baseline] | None = None,
    columns: Mapping[str, str] | None = None,
    same_file: bool = True,
    seed: int = 0,
) -> Iterator[Finding]:
    """Check rows before training.

    Findings name lines of the training file unless the message says otherwise.

    Args:
        train: the rows to train on.
        held_out: the rows to evaluate on.
        embed: gives float32 [n, d] of n texts, of any length but zero; None skips near duplicates and label errors.
        truncated: whether each text exceeds the model's limit (1.0 or 0.0).
        unknown: the share of each text's tokens that the vocabulary lacks.
        baselines: baselines that are already computed.
        columns: our names of the file's columns, as the job maps them.
        same_file: whether the held-out rows come from the training file.
        seed: seeds the folds of the label check and the baselines.
    """
    yield _check_parsing(train, held_out)
    yield from _check_header(train, columns or {})
    yield from _check_constant_columns(train)
    if train.labels is not None:
        yield from check_class_counts(train, held_out, same_file=same_file)
    yield from _check_identical_pairs(train)
    yield check_duplicates(train)
    yield from check_conflicts(train)
    yield check_leaks(train, held_out)
    if embed is not None:
        yield from _check_embeddings(train, held_out, embed, seed)
    yield from _check_tokens(train, truncated, unknown)
    if train.labels is not None and held_out.labels and len(set(train.labels)) > 1:
        yield from _check_baselines(baselines or [majority(train, held_out), word_counts(train, held_out, seed=seed)])


def _check_parsing(train: TextRows, held_out: TextRows) -> Finding:
    used = "; ".join(train.notes) if train.notes else "every column was used"
    message = f"Read {counted(len(train), 'row')} to train on and {counted(len(held_out), 'held-out row')}; {used}."
    remedy = "Remove these columns or rows from the file, or map the columns with `columns`."
    return _finding("parse", warn_if(train.notes), float(len(train)), None, message, remedy)


def _check_constant_columns(train: TextRows) -> Iterator[Finding]:
    columns: list[tuple[str, Sequence[object]]] = list(zip(TEXT_COLUMNS[train.kind], train.texts, strict=True))
    if train.scores is not None:
        columns.append(("score" if train.kind == "scored" else "label", train.scores))
    empty = [name for name, values in columns if all(isinstance(value, str) and not value.strip() for value in values)]
    constant = [name for name, values in columns if len(values) > 1 and len(set(values)) == 1]
    if not constant and not empty:
        yield _finding("constant_columns", "ok", 0.0, 0.0, "Every column varies.")
    for name in dict.fromkeys(empty + constant):
        what = "is empty" if name in empty else "has the same value in every row"
        message = f"The column {name!r} {what}; a model cannot learn from it."
        remedy = "Check how the file was made, and `columns`."
        yield _finding("constant_columns", "fail", name, None, message, remedy, train.lines)


def _check_header(train: TextRows, columns: Mapping[str, str]) -> Iterator[Finding]:
    """Warn of a column whose name is also one of its cells, as in a file without a header."""
    cells = dict(zip(TEXT_COLUMNS[train.kind], train.texts, strict=True)) | {"label": train.labels or []}
    for ours, name in columns.items():
        same = [line for line, cell in zip(train.lines, cells.get(ours, ()), strict=False) if cell == name]
        if same:
            message = f"The column for {ours} is called {name!r}, and {len(same)} of its cells are the same."
            remedy = "If the file has no header, write a line of names above its first row, which is lost otherwise."
            yield _finding("header", "warn", float(len(same)), 0.0, message, remedy, [1, *same])


def _check_identical_pairs(train: TextRows) -> Iterator[Finding]:
    """Check for equal texts in a row.

    Such a pair teaches nothing; a negative equal to its positive teaches the opposite.
    """
    if len(train.texts) < 2:
        return
    first, second = ([normalized(text) for text in column] for column in train.texts[-2:])
    same = [line for line, one, other in zip(train.lines, first, second, strict=True) if one == other]
    names = " and ".join(TEXT_COLUMNS[train.kind][-2:])
    share = len(same) / len(train)
    limit = 0.0 if train.kind == "triplets" else MAX_IDENTICAL_PAIRS
    status: Status = "ok" if share <= limit else "fail" if train.kind == "triplets" else "warn"
    message = f"{names} are the same text in {len(same)} of {len(train)} rows; the limit is {limit:.0%}."
    yield _finding("identical_pairs", status, share, MAX_IDENTICAL_PAIRS, message, "Remove these rows.", same)


def _check_embeddings(train: TextRows, held_out: TextRows, embed: Embed, seed: int) -> Iterator[Finding]:
    x = normalize(embed(train.texts[0]))
    yield check_near_duplicates(train, x)
    if len(held_out) and held_out.kind in ("labelled", "plain"):
        yield check_near_leaks(train, held_out, x, normalize(embed(held_out.texts[0])))
    if train.labels is not None:
        yield check_label_errors(train, x, seed)


def _check_tokens(train: TextRows, truncated: Shares | None, unknown: Shares | None) -> Iterator[Finding]:
    texts = list(chain.from_iterable(train.texts))
    lines = np.array(train.lines * len(train.texts))
    if truncated is not None:
        cut = np.asarray(truncated(texts)) > 0
        share, count = float(cut.mean()), int(cut.sum())
        cut_texts = counted(count, f"of {len(texts)} texts is", f"of {len(texts)} texts are")
        message = f"{cut_texts} cut to the model's length; the limit is {MAX_TRUNCATED:.0%}."
        remedy = "Split or shorten these texts, or choose a model with a longer input."
        yield _finding("truncation", warn_if(share > MAX_TRUNCATED), share, MAX_TRUNCATED, message, remedy, lines[cut])
    if unknown is not None:
        shares = np.asarray(unknown(texts), dtype=np.float64)
        share, rows = float(shares.mean()), lines[shares > MAX_UNKNOWN]
        message = f"The vocabulary lacks {share:.1%} of a text's tokens on average; the limit is {MAX_UNKNOWN:.0%}."
        remedy = "Choose a model that knows this language or script."
        yield _finding("unknown_tokens", warn_if(share > MAX_UNKNOWN), share, MAX_UNKNOWN, message, remedy, rows)


def _check_baselines(baselines: Sequence[Baseline]) -> Iterator[Finding]:
    for baseline in baselines:
        rows = len(baseline.predictions)
        right = share_text(round(baseline.accuracy * rows), rows)
        message = f"Macro-F1 {baseline.macro_f1:.3f}, right for {right}."
        yield _finding(f"baseline_{baseline.name}", "ok", baseline.macro_f1, None, message)
    if len(baselines) == 2:
        floor, best = (baseline.macro_f1 for baseline in baselines)
        of = "Word counts reach" if baselines[1].name == "tfidf" else "Coarse colours reach"
        message = f"{of} macro-F1 {best:.3f}; always predicting one label reaches {floor:.3f}."
        remedy = "Look at some rows: do the labels belong to them?"
        yield _finding("signal", warn_if(best <= floor), best, floor, message, remedy)
