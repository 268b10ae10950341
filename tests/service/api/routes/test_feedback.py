"""Feedback: kept as it came, exported as the job that uses it saw it."""

from __future__ import annotations

import io
import json
import tracemalloc
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, PngImagePlugin

from models.training.data.dataset import read_rows
from models.training.data.image_reader import ImageReader, read_small
from models.training.images.store import ImageStore
from service.jobs.database import Database
from service.jobs.feedback import GOOD, FeedbackStore
from tests.support.images import encoded, picture

IMAGE = encoded(picture(80, 60))
BASE64 = b64encode(IMAGE).decode()
ROW = {"model": "support", "text": "my card is gone", "label": "card_arrival", "correct_label": "lost_card"}


def test_a_report_is_answered_with_what_was_kept(client: TestClient) -> None:
    made = client.post("/v1/feedback", json=ROW).json()
    assert made.pop("created_at") > 0
    assert made == {"id": "feedback-1", "object": "feedback", "image": None, **ROW}


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
        ({"image": BASE64}, "image"),
        ({"text": None}, "text"),
        ({"text": None, "image": "%"}, "image"),
        ({"text": None, "image": "https://example.com/a.png"}, "image"),
        ({"text": None, "image": b64encode(IMAGE[:80]).decode()}, "image"),
    ],
)
def test_what_breaks_the_contract_is_named(client: TestClient, changed: dict[str, Any], param: str) -> None:
    answer = client.post("/v1/feedback", json={**ROW, **changed})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def report_image(client: TestClient, data: bytes) -> str:
    """The data URI that is kept of an image."""
    body = {"model": "parts", "image": b64encode(data).decode(), "correct_label": "nut"}
    made = client.post("/v1/feedback", json=body).raise_for_status().json()
    assert (made["text"], client.get("/v1/feedback?model=parts").json()["data"][-1]) == (None, made)
    uri: str = made["image"]
    return uri


def test_an_image_is_kept_as_it_came(client: TestClient) -> None:
    assert report_image(client, IMAGE) == f"data:image/png;base64,{BASE64}"


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("image", "kind", "size"),
    [
        (picture(80, 60), "TIFF", (80, 60)),
        (NOISE, "PNG", (512, 384)),
        (NOISE.crop((0, 0, 512, 512)), "PNG", (256, 256)),
    ],
    ids=["another format", "large", "large as a JPEG, too"],
)
def test_other_images_are_kept_as_small_jpegs(
    client: TestClient, image: Image.Image, kind: str, size: tuple[int, int]
) -> None:
    uri = report_image(client, encoded(image, kind, compress_level=1))
    assert len(uri) <= 100_000
    kept = Image.open(io.BytesIO(b64decode(uri.removeprefix("data:image/jpeg;base64,"))))
    assert (kept.format, kept.size) == ("JPEG", size)


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "PNG"])
def test_a_small_copy_has_no_comment(client: TestClient, kind: str) -> None:
    """Pillow would write a file's comment into the copy, and refuses to write a long one."""
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "secret" * 10_000)
    options = {"pnginfo": info} if kind == "PNG" else {"comment": b"secret" * 10_000}
    uri = report_image(client, encoded(NOISE.crop((0, 0, 300, 225)), kind, **options))
    assert len(uri) <= 100_000
    assert b"secret" not in b64decode(uri.partition(",")[2])


def test_an_export_has_the_rows_of_one_kind(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    database.migrate()
    feedback = FeedbackStore(database)
    feedback.add("m", "a text", None, "good")
    for seed, label in enumerate(["good", "bad", "normal"]):
        uri = f"data:image/png;base64,{b64encode(encoded(picture(seed=seed))).decode()}"
        feedback.add("m", uri, None, label, kind="image")
    assert (feedback.newest("m"), feedback.newest("m", "image")) == (1, 4)
    path = tmp_path / "rows.jsonl"
    assert feedback.export("m", 4, path) == 1
    assert feedback.export("m", 4, path, kind="image", labels=GOOD) == 2
    assert feedback.export("m", 4, path, kind="image") == 3
    store = ImageStore(tmp_path / "images")
    rows = ImageReader("classification", read_small, store).rows(path, {}, "training_file")
    assert rows.labels == ["good", "bad", "normal"]
    store.close()
    database.close()


def test_an_export_has_one_models_rows_up_to_a_number_and_the_last_word_on_each(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    database.migrate()
    feedback = FeedbackStore(database)
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


@pytest.mark.slow
def test_an_export_holds_few_images_in_memory(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    database.migrate()
    feedback = FeedbackStore(database)
    for number in range(300):
        feedback.add("m", f"{number:05}" * 20_000, None, "good", kind="image")
    tracemalloc.start()
    assert feedback.export("m", 300, tmp_path / "rows.jsonl", kind="image") == 300
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
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
    feedback = FeedbackStore(database)
    for name in STORED:
        feedback.add(name, f"to {name}", None, "a")
    newest = feedback.newest(asked)
    assert newest == (max(STORED.index(name) for name in counted) + 1 if counted else None)
    assert feedback.export(asked, 1000, tmp_path / "rows.jsonl") == len(counted)
    assert read_texts(tmp_path) == [f"to {name}" for name in counted]
    assert feedback.export(asked, 3, tmp_path / "rows.jsonl") == len(set(counted) & set(STORED[:3]))


def test_the_last_word_on_a_text_may_be_on_another_version(database: Database, tmp_path: Path) -> None:
    feedback = FeedbackStore(database)
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
    feedback = FeedbackStore(database)
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


def test_a_page_of_large_rows_ends_early(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand images of 100 kB would be a gigabyte in memory."""
    monkeypatch.setattr("service.jobs.feedback.MAX_PAGE_CHARACTERS", 250)
    for number in range(3):
        client.post("/v1/feedback", json={**ROW, "text": f"{number}" * 100}).raise_for_status()
    client.post("/v1/feedback", json={**ROW, "text": "3" * 300}).raise_for_status()
    sizes, params, has_more = list[list[int]](), {"model": "support"}, True
    while has_more:
        page = client.get("/v1/feedback", params=params).raise_for_status().json()
        sizes.append([len(row["text"]) for row in page["data"]])
        params["after"], has_more = page["last_id"], page["has_more"]
    assert sizes == [[100, 100], [100], [300]]
