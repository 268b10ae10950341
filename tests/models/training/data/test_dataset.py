"""The split of a job: the kinds of rows a task takes, out-of-scope texts, one class as plain rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.training.data.dataset import DataSplit, read_split
from models.training.errors import TrainingDataError
from models.training.hyperparameter_parser import parse
from models.training.job import TrainingJob

NORMAL = [{"text": f"text {index}", "label": "ab"[index % 2]} for index in range(20)]
STRANGE = [{"text": f"odd {index}", "label": "oos"} for index in range(5)]


def divided(
    directory: Path,
    rows: list[dict[str, Any]],
    task: str = "classification",
    validation: list[dict[str, Any]] | None = None,
    **given: object,
) -> DataSplit:
    paths = []
    for name, part in (("train.jsonl", rows), ("validation.jsonl", validation)):
        path = directory / name
        path.write_text("".join(json.dumps(row) + "\n" for row in part or []))
        paths.append(path)
    job = TrainingJob("ftjob-1", "m", "m", task, paths[0], given, paths[1] if validation is not None else None)
    return read_split(job, parse(task, given))


def test_out_of_scope_rows_of_both_files_are_set_apart(tmp_path: Path) -> None:
    parts = divided(tmp_path, NORMAL + STRANGE[:3], validation=NORMAL[:4] + STRANGE[3:], out_of_scope_label="oos")
    assert parts.out_of_scope == ("odd 0", "odd 1", "odd 2", "odd 3", "odd 4")
    assert set(parts.train.labels or ()) == {"a", "b"}
    assert len(parts.held_out) == 4
    assert not parts.same_file


def test_without_a_validation_file_a_share_is_held_out(tmp_path: Path) -> None:
    parts = divided(tmp_path, NORMAL, held_out=0.3)
    assert (len(parts.train), len(parts.held_out), parts.same_file) == (14, 6, True)


def test_normal_rows_and_anomalies_become_plain_rows_and_out_of_scope_texts(tmp_path: Path) -> None:
    rows = [row | {"label": "ok"} for row in NORMAL] + [row | {"label": "anomaly"} for row in STRANGE]
    parts = divided(tmp_path, rows, "anomaly")
    assert parts.train.kind == parts.held_out.kind == "plain"
    assert len(parts.out_of_scope) == 5


def test_plain_training_rows_can_be_evaluated_on_labelled_anomalies(tmp_path: Path) -> None:
    validation = [row | {"label": "ok"} for row in NORMAL[:6]] + [row | {"label": "anomaly"} for row in STRANGE]
    parts = divided(tmp_path, [{"text": row["text"]} for row in NORMAL], "anomaly", validation)
    assert parts.held_out.kind == "plain"
    assert (len(parts.held_out), len(parts.out_of_scope)) == (6, 5)


@pytest.mark.parametrize(
    ("rows", "task", "given", "code"),
    [
        ([{"text": "a"}, {"text": "b"}], "classification", {}, "wrong_row_kind"),
        (NORMAL, "embedding", {}, "wrong_row_kind"),
        (STRANGE, "classification", {"out_of_scope_label": "oos"}, "no_normal_rows"),
    ],
)
def test_rows_that_do_not_fit_the_task_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], task: str, given: dict[str, Any], code: str
) -> None:
    with pytest.raises(TrainingDataError) as refused:
        divided(tmp_path, rows, task, **given)
    assert (refused.value.code, refused.value.param) == (code, "training_file")


def test_rows_of_another_kind_are_named_by_line_and_column_with_what_may_be_meant(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"such as {\"label\": \"lable\"}$") as refused:
        divided(tmp_path, [{"text": "a", "lable": "b"}])
    assert (refused.value.code, refused.value.line, refused.value.column) == ("wrong_row_kind", 1, "label")


@pytest.mark.parametrize("task", ["anomaly", "classification"])
def test_a_validation_file_of_out_of_scope_texts_alone_is_refused(tmp_path: Path, task: str) -> None:
    given = {} if task == "anomaly" else {"out_of_scope_label": "anomaly"}
    with pytest.raises(
        TrainingDataError, match="validation_file: expected rows of other labels than 'anomaly'"
    ) as refused:
        divided(tmp_path, NORMAL, task, [row | {"label": "anomaly"} for row in STRANGE], **given)
    assert (refused.value.code, refused.value.param) == ("no_normal_rows", "validation_file")


@pytest.mark.parametrize("validation", [None, NORMAL[:2]])
@pytest.mark.parametrize(("rows", "code"), [(NORMAL[::2], "one_class"), (NORMAL[:3], "too_few_per_class")])
def test_classes_too_few_are_told_with_a_validation_file_as_without(
    tmp_path: Path, rows: list[dict[str, Any]], code: str, validation: list[dict[str, Any]] | None
) -> None:
    with pytest.raises(TrainingDataError) as refused:
        divided(tmp_path, rows, validation=validation)
    assert (refused.value.code, refused.value.param) == (code, "training_file")
