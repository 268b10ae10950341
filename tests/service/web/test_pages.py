"""Each page of the console on an application over fakes: what it shows, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

from service.auth import Keyring
from tests.fakes.model import FakeModel
from tests.service.web.conftest import ORIGIN, Answer, Open, run_axe, says, shows
from tests.support.app import MakeApp

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.slow

PAGES = ["overview", "playground/embed", "playground/classify", "playground/sensors", "jobs", "models", "review"]
EVIL = "<img src=x onerror=\"document.title='run'\"> \x1b[31mred"


def fail(status: int, message: str) -> Answer:
    return lambda: {"status": status, "json": {"error": {"message": message, "code": "some_code", "param": None}}}


def test_everybody_can_read_and_reach_everything(console: Open, axe: str) -> None:
    page = console(width=360).page
    for path in PAGES:
        page.goto(f"{ORIGIN}/console#/{path}")
        page.get_by_role("heading", level=1).wait_for()
        page.get_by_text("Loading …").wait_for(state="detached")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert run_axe(page, axe) == [], path
        page.emulate_media(color_scheme="dark")
        assert run_axe(page, axe, "cat.color") == [], path
        page.emulate_media(color_scheme="light")


def test_the_keyboard_alone_reaches_the_pages_and_the_tabs(console: Open) -> None:
    page = console().open("playground/embed")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.get_by_role("tab", name="Embed and compare").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("tab", name="Classify", selected=True).wait_for()


def test_a_key_is_asked_for_sent_and_forgotten(console: Open, make_app: MakeApp) -> None:
    app = make_app()
    secret = Keyring(app.state.settings.keys_file).create(["infer"])[1]
    page = console(app).open()
    says(page, "This service needs a key")
    for given, answer in (("sonde_wrong", "this API key is not known here"), (secret, "Nothing is wrong.")):
        page.get_by_label("API key").fill(given)
        page.keyboard.press("Enter")
        says(page, answer)
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    page.goto(f"{ORIGIN}/console#/jobs")
    says(page, "this needs a key with scope 'train'")
    page.get_by_role("button", name="Change key").click()
    says(page, "This service needs a key")
    assert page.evaluate("sessionStorage.length") == 0


def test_a_late_answer_to_a_call_without_the_key_does_not_ask_again(console: Open, make_app: MakeApp) -> None:
    app = make_app()
    secret = Keyring(app.state.settings.keys_file).create(["infer"])[1]
    visitor = console(app)
    late: list[Route] = []
    visitor.page.route("**/metrics", lambda route: late.append(route), times=1)
    page = visitor.open()
    page.get_by_label("API key").fill(secret)
    page.keyboard.press("Enter")
    says(page, "Nothing is wrong.")
    with page.expect_response("**/metrics") as got:
        late[0].fulfill(**fail(401, "an API key is needed")())
    got.value.finished()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.get_by_text("This service needs a key").count() == 0


def test_what_comes_from_elsewhere_is_text(console: Open) -> None:
    page = console().open("playground/classify")
    page.get_by_label("Labels").fill(f"{EVIL}\nother")
    page.get_by_label("Texts").fill(EVIL)
    page.locator("form").get_by_role("button", name="Classify").click()
    page.locator("meter").first.wait_for()
    assert page.locator("main img").count() == 0
    assert "\x1b" not in page.locator("main").inner_text()
    says(page, "␛[31mred")
    assert page.title() == "Playground · Sonde"


def test_requests_are_shown_for_three_languages(console: Open) -> None:
    page = console().open("playground/embed")
    page.get_by_label("Texts").fill("it's one\ntwo")
    page.locator("form").get_by_role("button").click()
    says(page, "2 vectors")
    page.get_by_text("This request in").click()
    for language, piece in (
        ("curl", r"it'\''s one"),
        ("Python", 'json={"model": "fake"'),
        ("JavaScript", "await fetch("),
    ):
        page.get_by_role("tab", name=language).click()
        assert piece in page.locator("pre").inner_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"\x7fELF\x00\x01\xff\xfe", "is not a text in UTF-8"),
        ("rows.jsonl", b"no json\n", "Line 1 is not JSON"),
        ("rows.csv", b"a,b\n1,2,3\n", "expected 2 columns as in the header, got 3"),
        ("rows.csv", b"", "Expected a CSV with a header"),
    ],
)
def test_a_file_that_no_job_could_use_is_named(console: Open, name: str, content: bytes, message: str) -> None:
    page = console().open("jobs")
    page.locator("input[type=file]").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content})
    says(page, message)


def test_rows_that_no_job_could_use_are_named(console: Open) -> None:
    rows = "said,meant\n" + "".join(f"text {at},label {at % 2}\n" for at in range(40)) + ",label 1\n"
    page = console().open("jobs")
    page.locator("input[type=file]").set_input_files(
        {"name": "rows.csv", "mimeType": "text/csv", "buffer": rows.encode()}
    )
    page.get_by_label("Column of text").select_option("said")
    page.get_by_label("Column of label").select_option("meant")
    page.get_by_role("button", name="Check the file and start").click()
    says(page, "Rows 42.")
    says(page, "A job would fail on this file.")


def drop_rows(page: Page, rows: str) -> None:
    page.locator("input[type=file]").set_input_files(
        {"name": "rows.csv", "mimeType": "text/csv", "buffer": rows.encode()}
    )


def test_a_file_without_a_header_is_told(console: Open) -> None:
    page = console().open("jobs")
    drop_rows(page, "Where is it?,lost\n" + "".join(f"text {at},lost\n" for at in range(5)))
    says(page, "The first line looks like a row, not like names of columns: “lost” occurs below it, too.")
    drop_rows(page, "said,meant\n" + "".join(f"text {at},lost\n" for at in range(5)))
    page.get_by_text("The first line looks like a row").wait_for(state="detached")


def test_an_upload_has_a_bar(console: Open) -> None:
    page = console().open("jobs")
    held: list[Route] = []
    page.route("**/v1/files", lambda route: held.append(route), times=1)
    drop_rows(page, "text,label\n" + "".join(f"text {at},label {at % 2}\n" for at in range(40)))
    page.get_by_role("button", name="Check the file and start").click()
    bar = page.get_by_role("progressbar", name="Uploaded of 0.6 kB")
    bar.wait_for()
    held[0].fulfill(**fail(413, "the file is too large: <b>send less</b>")())
    says(page, "the file is too large: <b>send less</b>")
    shows(bar)


def test_a_job_is_paused_resumed_and_cancelled(console: Open, make_app: MakeApp) -> None:
    app = make_app(FakeModel())
    with TestClient(app) as client:
        rows = "".join(f"text {at},label {at % 2}\n" for at in range(40))
        file = client.post(
            "/v1/files", data={"purpose": "fine-tune"}, files={"file": ("rows.csv", f"text,label\n{rows}")}
        ).json()["id"]
        method = {"type": "supervised", "supervised": {"task": "classification"}}
        body = {"model": "fake", "training_file": file, "method": method}
        job = client.post("/v1/fine_tuning/jobs", json=body).json()["id"]
        page = console(app).open(f"jobs/{job}")
        for click, then in (("Pause", "Resume"), ("Resume", "Pause")):
            page.get_by_role("button", name=click, exact=True).click()
            page.get_by_role("button", name=then, exact=True).wait_for()
            assert client.get(f"/v1/fine_tuning/jobs/{job}").json()["paused"] is (click == "Pause")
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("button", name="Leave it as it is").click()
        assert client.get(f"/v1/fine_tuning/jobs/{job}").json()["status"] != "cancelled"
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("button", name="Cancel the job").click()
        says(page, "cancelled")
        page.get_by_role("button", name="Pause", exact=True).wait_for(state="detached")
        assert client.get(f"/v1/fine_tuning/jobs/{job}").json()["status"] == "cancelled"


def test_a_report_shows_confusions_and_events(console: Open) -> None:
    job = {
        "object": "fine_tuning.job", "id": "ftjob-1", "status": "succeeded", "created_at": 1, "error": None,
        "method": {"supervised": {"task": "classification"}}, "result": None, "fine_tuned_model": "ft:x", "model": "m",
    }  # fmt: skip
    pair = {"label": EVIL, "taken_for": "b", "rows": 3, "of": 10, "examples": [{"line": 4, "text": EVIL}]}
    event = {
        "start": "2026-11-01T00:00:00Z", "end": "2026-11-01T01:00:00Z", "peak": "2026-11-01T00:30:00Z", "readings": 5,
        "severity": "high", "p_value": 0.001, "columns": [EVIL], "labelled": True,
    }  # fmt: skip
    report = {
        "status": "ok", "rungs": [],
        "confusion": {"labels": [EVIL, "b"], "counts": [[7, 3], [0, 9]], "left_out": 12, "pairs": [pair]},
        "events": {"found": 60, "alpha": 0.05, "shown": [event]},
    }  # fmt: skip
    path = "/v1/fine_tuning/jobs/ftjob-1"
    bodies = {path: job, f"{path}/report": report, f"{path}/events": {"data": [], "has_more": False}}
    page = console(answers={one: lambda body=body: {"json": body} for one, body in bodies.items()}).open("jobs/ftjob-1")
    says(page, "was taken for “b” in 3 of its 10 held-out rows.")
    page.get_by_text("was taken for").click()
    says(page, "Row 4")
    page.get_by_text("Confusion matrix", exact=True).click()
    says(page, "These 2 labels were confused most; 12 more are left out.")
    assert page.get_by_role("region", name="Confusion matrix").locator("td").all_inner_texts() == ["7", "3", "", "9"]
    says(page, "60 events in the held-out readings at alpha 0.05, the 1 strangest")
    page.get_by_role("cell", name="2026-11-01T00:00:00Z (labelled)").wait_for()
    assert page.locator("main img").count() == 0


def test_sensors_show_events_and_mark_the_columns_to_blame(console: Open) -> None:
    shares = {"flow": 0.9, "pressure": 0.1}
    normal = {"score": 0.0, "p_value": 0.5, "is_anomaly": False, "contributions": shares}
    strange = {**normal, "score": 4.0, "p_value": 0.001, "is_anomaly": True}
    data = [{"index": at, **(strange if at == 2 else normal)} for at in range(4)]
    moment = {"index": 2, "timestamp": "2026-11-01T00:02:00Z"}
    event = {
        "start": moment, "end": None, "open": True, "readings": 1, "peak": {**moment, "score": 4.0, "p_value": 0.001},
        "severity": "high", "columns": [{"name": name, "share": share} for name, share in shares.items()],
    }  # fmt: skip
    scores = {"data": data, "threshold": 3.0, "events": [event], "drift": None, "warnings": []}
    answers: dict[str, Answer] = {
        "/v1/models": lambda: {"json": {"data": [sensor("pressure", "flow")]}},
        "/v1/anomaly/score": lambda: {"json": scores},
    }
    page = console(answers=answers).open("playground/sensors")
    rows = "".join(f"2026-11-01T00:0{at}:00Z,2.5,{10 + at}\n" for at in range(4))
    page.get_by_label("Readings", exact=True).fill(f"time,pressure,flow\n{rows}")
    with page.expect_request("**/v1/anomaly/score") as sent:
        page.get_by_role("button", name="Score").click()
    assert json.loads(sent.value.post_data or "{}")["events"] is True
    cells = page.get_by_role("region", name="Events").locator("td")
    cells.first.wait_for()
    assert cells.all_inner_texts() == ["2026-11-01T00:02:00Z", "open", "1", "high", "0.001", "flow"]
    says(page, "anomaly: flow")
    assert page.get_by_text("anomaly: pressure").count() == 0


PLANT = (
    "Datenlogger DL-7;Werk Nord\nZeit;Uhrzeit;Druck;Durchfluss;Maschine\n;;bar;m³/h;\n"
    "01.11.2026;0:00;2,5;1.200,5;P-1\n01.11.2026;0:01;;1.201,5;P-1\n01.11.2026;0:02;2,5;1.202,5;P-1\n"
).encode("cp1252")


def test_a_table_of_a_european_logger_is_scored_and_trained_on(console: Open) -> None:
    scores = {"data": [], "threshold": 3.0, "events": [], "drift": None, "warnings": []}
    answers: dict[str, Answer] = {
        "/v1/models": lambda: {"json": {"data": [sensor("Druck", "Durchfluss")]}},
        "/v1/anomaly/score": lambda: {"json": scores},
    }
    visitor = console(answers=answers)
    page = visitor.open("playground/sensors")
    file: Any = {"name": "werk.csv", "mimeType": "text/csv", "buffer": PLANT}
    page.locator("input[type=file]").set_input_files(file)
    while "01.11.2026" not in page.get_by_label("Readings", exact=True).input_value():
        page.wait_for_timeout(20)
    with page.expect_request("**/v1/anomaly/score") as sent:
        page.get_by_role("button", name="Score").click()
    body = json.loads(sent.value.post_data or "{}")
    assert body["series"] == [[2.5, 1200.5], [None, 1201.5], [2.5, 1202.5]]
    assert body["timestamps"] == [f"2026-11-01T00:0{minute}:00" for minute in range(3)]

    page = visitor.open("jobs")
    page.locator("input[type=file]").set_input_files(file)
    assert page.get_by_label("What for").input_value() == "series"
    assert page.get_by_label("Column of time").input_value() == "Zeit"
    page.get_by_label("Column that tells machines apart").select_option("Maschine")


def sensor(*columns: str) -> dict[str, Any]:
    """A sensor model as `/v1/models` lists it."""
    signature = {"inputs": [{"name": "series", "columns": columns}], "kind": "series"}
    about = {"id": "ft:sensors:local:pump", "task": "anomaly", "base": "sensors", "labels": [], "notes": []}
    return about | {"signature": signature}


def test_a_huge_table_is_refused_by_the_playground_and_begun_by_jobs(console: Open, tmp_path: Path) -> None:
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as stream:
        stream.write(b"time,pressure\n" + 50_000 * b"2026-11-01T00:00:00Z,1.5\n")
        stream.truncate(200 * 2**20)
    models = {"json": {"data": [sensor("pressure")]}}
    page = console(answers={"/v1/models": lambda: models}).open("playground/sensors")
    page.locator("input[type=file]").set_input_files(huge)
    says(page, "expected at most 8 MiB here")
    page.goto(f"{ORIGIN}/console#/jobs")
    page.locator("input[type=file]").set_input_files(huge)
    assert page.get_by_label("Column of time").input_value() == "time"


def test_a_restart_of_the_service_is_said_and_ends(console: Open) -> None:
    visitor = console()
    page = visitor.open("jobs")
    says(page, "No job yet")
    calls = re.compile("/(v1|health)/")
    page.route(calls, lambda route: route.abort())
    page.get_by_role("link", name="Models").click()
    says(page, "The service does not answer.")
    page.unroute(calls)
    says(page, "None yet. Start a job to train one.")
    shows(page.get_by_role("alert"))


def test_a_job_that_is_gone_is_said(console: Open) -> None:
    page = console().page
    page.goto(f"{ORIGIN}/console#/jobs/ftjob-000000000000000000000000")
    says(page, "This job is gone")


def test_ten_thousand_models_come_a_page_at_a_time(console: Open) -> None:
    model = {"task": "embedding", "version": "1", "device": "cpu", "dtype": "float32", "base": None}
    data: list[dict[str, Any]] = [{**model, "id": f"model-{at:05}", "labels": [], "notes": []} for at in range(10_000)]
    page = console(answers={"/v1/models": lambda: {"json": {"data": data}}}).open()
    says(page, "Page 1 of 400")
    assert page.locator("tbody tr").count() == 25
    page.get_by_role("button", name="Next").click()
    says(page, "model-00025")
    page.get_by_label("Filter").fill("model-0999")
    says(page, "model-09990")
    assert page.locator("tbody tr").count() == 10


def test_many_jobs_are_asked_for_a_page_at_a_time(console: Open) -> None:
    job = {
        "object": "fine_tuning.job", "status": "failed", "created_at": 1, "method": {"supervised": {"task": "anomaly"}},
        "error": {"code": "x", "message": EVIL, "param": None}, "result": None,
    }  # fmt: skip
    asked = []

    def answer() -> dict[str, Any]:
        asked.append(1)
        rows = [{**job, "id": f"ftjob-{len(asked)}-{at}", "fine_tuned_model": None} for at in range(25)]
        return {"json": {"data": rows, "has_more": True}}

    page = console(answers={"/v1/fine_tuning/jobs": answer}).open("jobs")
    says(page, "ftjob-1-0")
    assert page.locator("main img").count() == 0
    with page.expect_request(re.compile("after=ftjob-1-24")):
        page.get_by_role("button", name="Older").click()


def test_an_error_of_the_service_is_shown_in_its_words(console: Open) -> None:
    answers = {"/v1/kept_inputs": fail(503, "the database does not answer: <b>try again</b>")}
    says(console(answers=answers).open("review"), "the database does not answer: <b>try again</b>")
