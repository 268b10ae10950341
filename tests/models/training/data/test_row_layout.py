"""A job reads the layouts of its task and ignores other columns; an error proposes `columns` that work."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import combinations

import pytest

from models.training.data.row_layout import CHAT_COLUMN, TASK_KINDS, LayoutFinder, check_columns
from models.training.data.rows import TEXT_COLUMNS, RowKind, columns_of
from models.training.errors import TrainingDataError

TASKS = [None, *TASK_KINDS]
ROLES = (*dict.fromkeys(column for kind in TEXT_COLUMNS for column in columns_of(kind)), CHAT_COLUMN)
FILES = [
    (*roles, *others)
    for count in range(4)
    for roles in combinations(ROLES, count)
    for others in ((), ("x",), ("x", "y"), ("x", "y", "z"))
]


def read(names: tuple[str, ...], columns: Mapping[str, str], task: str | None) -> RowKind:
    """The kind of a row with these columns. Raises TrainingDataError, as the parser does, for one of another task."""
    finder = LayoutFinder(columns, task, param="training_file", unit="line")
    record = dict.fromkeys(names, "a")
    layout = finder.find(1, record, None)
    if layout.kind not in finder.kinds:
        raise finder.wrong_columns("wrong_row_kind", 1, record, layout.source)
    return layout.kind


@pytest.mark.parametrize("task", TASKS)
def test_a_proposal_of_columns_is_whole_and_of_the_jobs_task_alone(task: str | None) -> None:
    proposals = 0
    for names in FILES:
        try:
            read(names, {}, task)
        except TrainingDataError as error:
            found = re.search(r"such as (\{.*\})$", error.message)
            if found:
                proposals += 1
                proposed = json.loads(found[1])
                check_columns(proposed, task)
                read(names, proposed, task)
    assert proposals > 50


@pytest.mark.parametrize("task", TASK_KINDS)
def test_columns_of_other_tasks_do_not_matter_where_those_of_the_task_are_there(task: str) -> None:
    for kind in TASK_KINDS[task]:
        for other in set(TEXT_COLUMNS) - {*TASK_KINDS[task], "plain"}:
            # A detector's texts may have labels, and rerank's rows have a label beside a text.
            assert read(tuple({*columns_of(kind), *columns_of(other)}), {}, task) in TASK_KINDS[task], (kind, other)


def test_rows_of_two_other_tasks_are_told_what_the_task_takes() -> None:
    names = (*columns_of("labelled"), *columns_of("pairs"))
    with pytest.raises(TrainingDataError, match="query and document and label for task rerank") as refused:
        read(names, {}, "rerank")
    assert refused.value.code == "wrong_row_kind"
