"""Feedback: kept as it came, exported as the job that uses it saw it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.training.data.dataset import read_rows
from service.jobs.database import Database
from service.jobs.feedback import Feedback

ROW = {"model": "support", "text": "my card is gone", "label": "card_arrival", "correct_label": "lost_card"}


def test_a_report_is_answered_with_what_was_kept(client: TestClient) -> None:
    made = client.post("/v1/feedback", json=ROW).json()
    assert made.pop("created_at") > 0
    assert made == {"id": "feedback-1", "object": "feedback", **ROW}


def test_the_given_label_may_be_left_out(client: TestClient) -> None:
    row = {key: value for key, value in ROW.items() if key != "label"}
    assert client.post("/v1/feedback", json=row).json()["label"] is None


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"text": ""}, "text"),
        ({"text": "a\x00b"}, "text"),
        ({"correct_label": "x" * 257}, "correct_label"),
        ({"correct_label": None}, "correct_label"),
        ({"model": 3}, "model"),
        ({"more": 1}, "more"),
    ],
)
def test_what_breaks_the_contract_is_named(client: TestClient, changed: dict[str, Any], param: str) -> None:
    answer = client.post("/v1/feedback", json={**ROW, **changed})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def test_an_export_has_one_models_rows_up_to_a_number_and_the_last_word_on_each(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    database.migrate()
    feedback = Feedback(database)
    assert feedback.newest("m") is None
    feedback.add("m", "one", "x", "a")
    feedback.add("other", "one", "x", "b")
    feedback.add("m", "two", None, "b")
    feedback.add("m", "one", "a", "ü")
    until = feedback.newest("m")
    assert until == 4
    feedback.add("m", "late", None, "b")
    assert feedback.export("m", until, tmp_path / "rows.jsonl") == 2
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == [{"text": "one", "label": "ü"}, {"text": "two", "label": "b"}]
    database.close()


STORED = [
    "ft:base:local:csv",
    "ft:base:local:csv:v1",
    "ft:base:local:csv:v2",
    "ft:base:local:csv:v12",
    "ft:base:local:csv2:v1",
    "ft:base:local:CSV:v1",
    "ft:base:local",
    "MiniLM_L6",
    "MiniLM_L6:abc123",
    "MiniLM_L6:def",
    "MiniLMxL6:abc",
    "ft",
]


@pytest.mark.parametrize(
    ("asked", "counted"),
    [
        ("ft:base:local:csv", STORED[:4]),
        ("ft:base:local:csv:v1", ["ft:base:local:csv:v1"]),
        ("ft:base:local:csv:v3", []),
        ("ft:base:local", ["ft:base:local"]),
        ("MiniLM_L6", ["MiniLM_L6", "MiniLM_L6:abc123", "MiniLM_L6:def"]),
        ("MiniLM_L6:def", ["MiniLM_L6:def"]),
        ("MiniLM_L", []),
        ("ft", ["ft"]),
        ("%", []),
    ],
)
def test_feedback_on_any_version_counts_for_the_name(
    database: Database, tmp_path: Path, asked: str, counted: list[str]
) -> None:
    """Answers name the version that gave them, and so does a bot that sends their `model` back."""
    feedback = Feedback(database)
    for name in STORED:
        feedback.add(name, f"to {name}", None, "a")
    newest = feedback.newest(asked)
    assert newest == (max(STORED.index(name) for name in counted) + 1 if counted else None)
    assert feedback.export(asked, 1000, tmp_path / "rows.jsonl") == len(counted)
    assert read_texts(tmp_path) == [f"to {name}" for name in counted]
    assert feedback.export(asked, 3, tmp_path / "rows.jsonl") == len(set(counted) & set(STORED[:3]))


def test_the_last_word_on_a_text_may_be_on_another_version(database: Database, tmp_path: Path) -> None:
    feedback = Feedback(database)
    feedback.add("ft:b:o:m:v2", "one", None, "b")
    feedback.add("ft:b:o:m:v1", "one", None, "a")
    feedback.export("ft:b:o:m", 1000, tmp_path / "rows.jsonl")
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {"text": "one", "label": "a"}


def read_texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


def test_rows_that_no_job_could_use_are_left_out_of_an_export(tmp_path: Path) -> None:
    """Nobody can take such a report back: it would fail every later job on the model's feedback."""
    database = Database("", tmp_path)
    database.migrate()
    feedback = Feedback(database)
    feedback.add("m", " \u200b\n", None, "a")
    feedback.add("m", "one", None, "\t")
    odd = ['"quoted"\\', "two\r\nlines", "a\u2028b\x85c", "\x01\x1b[31mred", "é" * 5, "👩‍🚒", "=1+1", '{"text": 1}']
    for text in odd:
        feedback.add("m", text, None, "a")
        feedback.add("m", f"{text}!", None, text)
    assert feedback.export("m", 1000, tmp_path / "rows.jsonl") == 2 * len(odd)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert rows.texts[0] == [one for text in odd for one in (text, f"{text}!")]
    assert rows.labels == [one for text in odd for one in ("a", text)]
    database.close()


def test_feedback_is_listed_a_page_at_a_time(client: TestClient) -> None:
    for number in range(3):
        client.post("/v1/feedback", json={**ROW, "text": f"text {number}"}).raise_for_status()
    client.post("/v1/feedback", json={**ROW, "model": "another"}).raise_for_status()
    first = client.get("/v1/feedback", params={"model": "support", "limit": 2}).raise_for_status().json()
    assert ([row["text"] for row in first["data"]], first["has_more"]) == (["text 0", "text 1"], True)
    rest = client.get("/v1/feedback", params={"model": "support", "after": first["last_id"]}).raise_for_status().json()
    assert ([row["text"] for row in rest["data"]], rest["has_more"]) == (["text 2"], False)
    assert client.get("/v1/feedback").status_code == 422
