"""The commands over a scripted service: what they send, print and end with."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from service import cli
from service.client import Client
from service.client.errors import Unauthorized
from service.commands import CLIENT_COMMANDS, connection

ESC = "\x1b[31mred\x1b[0m \u202e"
MODEL = {"id": "fake", "task": "embedding", "version": "1", "device": "cpu", "dtype": "float32"}
TEXTS = {"signature": {"inputs": [{"name": "text"}]}}
PUMP = {"signature": {"kind": "series", "window": 1, "inputs": [{"columns": ["flow", "pressure"]}]}}
JOB = {
    "id": "ftjob-1",
    "status": "succeeded",
    "paused": False,
    "model": ESC,
    "fine_tuned_model": "ft:fake:local:x:v1",
    "created_at": 1,
    "result": {"decision": "held", "why": ESC, "metrics": {"macro_f1": 0.5}},
}
FINDING = {"check": "leaks", "status": "warn", "message": ESC, "remedy": "remove", "rows": list(range(20))}
FINE = {
    "check": "slope",
    "label": "loss",
    "subject": "conv",
    "status": "ok",
    "message": "It falls.",
    "remedy": "",
    "rows": [],
}
METRIC = {"name": "macro_f1", "label": "macro-F1", "value": 0.5, "low": 0.4, "high": 0.6, "served_before": 0.25}
CHOICE = {
    "what": "Detector",
    "chosen": "conv",
    "reason": ESC,
    "candidates": {ESC: {"AUROC": 0.5, "false alarms": None}},
}
CONFUSION = {
    "labels": [ESC, "b"],
    "counts": [[7, 3], [0, 9]],
    "left_out": 0,
    "pairs": [{"label": ESC, "taken_for": "b", "rows": 3, "of": 10, "examples": [{"line": 4, "text": ESC}]}],
}
EVENT = {
    "start": "2026-11-01T00:00:00Z",
    "end": "2026-11-01T01:00:00Z",
    "readings": 5,
    "severity": "high",
    "p_value": 0.001,
    "columns": [ESC, "flow"],
    "labelled": True,
}
CURVE = {"confidence": [0.55], "accuracy": [0.5], "low": [0.2], "high": [0.8], "rows": [6]}
REPORT = {
    "title": "Report of ft:x (ftjob-1)",
    "status": "warn",
    "verdict": ["It was held: " + ESC],
    "metrics": [METRIC],
    "choices": [CHOICE],
    "confusion": CONFUSION,
    "events": {"found": 60, "alpha": 0.05, "shown": [EVENT]},
    "plots": {"calibration": CURVE},
    "rungs": [
        {"rung": "data", "status": "warn", "findings": [FINDING]},
        {"rung": "loss", "title": "Loss: does it?", "status": "ok", "findings": [FINE]},
    ],
}
SCORES = {
    "reference": {"count": 400},
    "model": "pump",
    "alpha": 0.05,
    "threshold": 1.0,
    "drift": {"detected": True, "p_value": 0.0},
    "warnings": [ESC],
}
EVENTS = {
    "data": [
        {"id": "ftevent-2", "created_at": 1, "level": "info", "message": "", "type": "metrics", "data": {"step": 1}},
        {"id": "ftevent-1", "created_at": 1, "level": "warn", "message": ESC, "type": "message", "data": None},
    ]
}


class Service:
    """Answers by method and path, and keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {
            "GET /v1/models": {"data": [MODEL | TEXTS]},
            "GET /v1/models/fake": MODEL | TEXTS,
            "GET /v1/models/pump": MODEL | PUMP | {"id": "pump", "task": "anomaly"},
            "POST /v1/embeddings": self.embeddings,
            "POST /v1/classify": lambda body: {
                "model": "fake",
                "data": [self.label(at) for at in range(len(body["input"]))],
            },
            "POST /v1/anomaly/score": self.scores,
            "POST /v2/rerank": {"results": [{"index": 1, "relevance_score": 0.5}]},
            "POST /v1/forecast": {
                "model": "pump",
                "columns": ["flow"],
                "timestamps": None,
                "mean": [[1.0]],
                "quantiles": {"0.9": [[2.0]]},
                "warnings": [],
            },
            "POST /v1/feedback": {"id": "feedback-1", "model": "fake"},
            "POST /v1/files": {"id": "file-1", "filename": "x.csv", "bytes": 1},
            "POST /v1/fine_tuning/jobs": JOB,
            "GET /v1/fine_tuning/jobs": {"data": [JOB], "has_more": True},
            "GET /v1/fine_tuning/jobs/ftjob-1": JOB,
            "GET /v1/fine_tuning/jobs/ftjob-1/events": EVENTS,
            "GET /v1/fine_tuning/jobs/ftjob-1/report": REPORT,
            "POST /v1/fine_tuning/jobs/ftjob-1/cancel": JOB | {"status": "cancelled", "result": None},
            "GET /v1/models/ft:x/versions": {
                "data": [
                    {
                        "id": "ft:x:v1",
                        "version": 1,
                        "in_service": True,
                        "metrics": {"macro_f1": 0.5},
                        "metric_labels": {"macro_f1": "macro-F1"},
                    }
                ]
            },
            "POST /v1/models/ft:x/promote": {"model": "ft:x", "version": 2, "previous": 1},
            "POST /v1/models/ft:x/rollback": {"model": "ft:x", "version": 1, "previous": None},
            "DELETE /v1/models/ft:x": {"id": "ft:x", "deleted": True},
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = f"{request.method} {request.url.path}"
        raw = request.read()
        body = json.loads(raw) if raw.startswith(b"{") else raw
        self.sent.append((name, body))
        answer = self.answers[name]
        if request.headers.get("accept") == "text/html":
            return httpx.Response(200, text="<p>report")
        return httpx.Response(200, json=answer(body) if callable(answer) else answer)

    def bodies(self, name: str) -> list[Any]:
        return [body for sent, body in self.sent if sent == name]

    @staticmethod
    def embeddings(body: Any) -> Any:
        data = [{"index": at, "embedding": [0.5] * 9, "truncated": False} for at in range(len(body["input"]))]
        return {"model": "fake", "data": data}

    @staticmethod
    def label(index: int) -> Any:
        return {"index": index, "label": ESC, "labels": [{"label": ESC, "score": 0.9}], "out_of_scope": True}

    @staticmethod
    def scores(body: Any) -> Any:
        count = len(body.get("series") or body.get("input"))
        item = {"score": 3.0, "p_value": 0.01, "is_anomaly": True, "contributions": {"flow": 0.75, "pressure": 0.25}}
        return SCORES | {"data": [{"index": at, **item} for at in range(count)], "state": f"after {count}"}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Service:
    made = Service()
    for name in ("SONDE_URL", "SONDE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def connect(url: str, key: str) -> Client:
        return Client(key=key, http=httpx.Client(base_url="http://sonde", transport=httpx.MockTransport(made)))

    for module in ("inference", "training", "jobs", "registry"):
        monkeypatch.setattr(f"service.commands.{module}.connect", connect)
    Path("live.csv").write_text("time,pressure,more,flow\n2026-01-01,1,x,2\n2026-01-02,3,x,4\n")
    Path("texts.txt").write_text("one\n\n two \n")
    Path("texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    Path("texts.csv").write_text('text,label\n"one",x\n"two\nlines",y\n')
    return made


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(service: Service, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `sonde`; exit code, standard output and standard error."""

    def start(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return start


EVERY = [
    ("embed", "a"),
    ("classify", "a", "--label", "x"),
    ("anomaly", "a", "--reference", "texts.txt"),
    ("anomaly", "--model", "pump", "--file", "live.csv", "--timestamp", "time"),
    ("forecast", "--model", "pump", "--file", "live.csv"),
    ("rerank", "q", "a", "b"),
    ("feedback", "a", "--correct-label", "x", "--model", "fake"),
    ("train", "texts.csv", "--suffix", "x"),
    ("jobs",),
    ("jobs", "ftjob-1"),
    ("jobs", "ftjob-1", "--follow"),
    ("report", "ftjob-1"),
    ("models",),
    ("models", "fake"),
    ("models", "ft:x", "versions"),
    ("models", "ft:x", "promote", "--version", "2"),
    ("models", "ft:x", "rollback"),
    ("models", "ft:x", "delete", "--yes"),
]


@pytest.mark.parametrize("arguments", EVERY, ids=" ".join)
def test_every_command_prints_text_without_control_characters_and_pure_json(
    run: Run, arguments: tuple[str, ...]
) -> None:
    code, out, err = run(*arguments)
    assert (code, out != "") == (0, True), err
    assert "\x1b" not in out + err
    assert "\u202e" not in out + err
    code, out, err = run(*arguments, "--json")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()]
    assert "\x1b" not in out + err
    assert "\u202e" not in out + err


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("a", "b"), ["a", "b"]),
        (("--file", "texts.txt"), ["one", " two "]),
        (("--file", "texts.jsonl"), ["one", "two"]),
        (("--file", "texts.csv"), ["one", "two\nlines"]),
        (("--file", "texts.csv", "--column", "label"), ["x", "y"]),
        (("--file", "EXCEL.CSV"), ["one, and", "two"]),
        (("--file", "quoted.csv"), ["one"]),
        (("--file", "TEXTS.JSONL"), ["one"]),
        ((), ["from", "a pipe"]),
        (("--file", "-"), ["from", "a pipe"]),
    ],
)
def test_texts_come_from_arguments_files_or_standard_input(
    run: Run, service: Service, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], texts: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from\na pipe\n"))
    Path("EXCEL.CSV").write_text("\ufefftext;label\none, and;x\ntwo;y\n", encoding="utf-8")
    Path("quoted.csv").write_text('text,"a;b;c"\none,x\n')
    Path("TEXTS.JSONL").write_text('{"text": "one"}')
    assert run("embed", *arguments)[0] == 0
    assert service.bodies("POST /v1/embeddings") == [{"model": "fake", "input": texts}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("embed", "a", "--file", "texts.txt"), "expected texts or --file, got both"),
        (("embed", "--file", "none.txt"), "none.txt: No such file or directory"),
        (("embed", "--file", "."), ".: Is a directory"),
        (("embed", "--file", "binary"), "binary: expected UTF-8 text, got the byte 0xff"),
        (("embed", "--file", "empty"), "expected at least one text, got none in empty"),
        (("embed", "--file", "texts.csv", "--column", "x"), "texts.csv, line 2: expected text in 'x' (--column)"),
        (("embed", "--file", "bad.jsonl"), "bad.jsonl, line 1: expected JSON"),
        (("anomaly", "--model", "pump"), "expected --file: a CSV or JSONL file of readings"),
        (("anomaly", "--model", "pump", "--file", "texts.csv"), "texts.csv: expected a column 'flow'"),
        (
            ("anomaly", "--model", "pump", "--file", "bad.csv"),
            "bad.csv, line 3, column 'flow': expected a number, got 'high'",
        ),
        (("forecast", "--model", "fake", "--file", "live.csv"), "fake reads texts: give a model of readings"),
        (("classify", "a"), "no model for classification is in service: name labels with --label, give --model"),
        (("train", "none.csv"), "none.csv: No such file or directory"),
        (("embed", "caf\udce9"), 'expected texts in UTF-8, got half a character after \'ake", "input": ["caf\''),
    ],
)
def test_what_cannot_be_sent_is_named(run: Run, arguments: tuple[str, ...], message: str) -> None:
    Path("binary").write_bytes(b"a\xff")
    Path("empty").write_text("\n")
    Path("bad.jsonl").write_text("{")
    Path("bad.csv").write_text("flow,pressure\n1,2\nhigh,2\n")
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.rpartition("sonde: ")[2].startswith(message)


def test_output_without_room_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.commands.screen.Screen.table", Mock(side_effect=OSError(ENOSPC, "No space left")))
    assert run("embed", "a") == (1, "", "sonde: the output: No space left\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "texts.csv", "--set", "kind"), "--set: expected NAME=VALUE, got 'kind'"),
        (("train", "texts.csv", "--column", "=x"), "--column: expected NAME=VALUE, got '=x'"),
        (("jobs", "--follow"), "--follow: expected the id of a job"),
        (("models", "ft:x", "promote"), "promote: expected --version N"),
        (("models", "ft:x", "delete"), "delete: expected --yes to delete ft:x without a question"),
    ],
)
def test_wrong_use_ends_with_2(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith(f"sonde: {message}")


def test_an_address_without_a_scheme_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["embed", "a", "--url", "localhost:8000"]) == 2
    assert "expected an address like http://127.0.0.1:8000, got 'localhost:8000'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("embed", "--nope"), ("jobs", "ftjob-1", "explode"), ("rerank",)])
def test_unknown_flags_end_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_help_is_short_and_has_an_example(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f": sonde {command}" in out
    assert len(out.splitlines()) <= 40


def test_help_lists_the_commands_beside_those_of_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("    ")}
    assert {*CLIENT_COMMANDS, "up", "serve", "worker", "keys", "config"} <= listed


def test_a_long_file_goes_in_pieces_and_a_series_keeps_its_state(
    run: Run, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client.pieces._MAX_ROWS", 1)
    _, out, err = run("anomaly", "--model", "pump", "--file", "live.csv", "--timestamp", "time")
    first, second = service.bodies("POST /v1/anomaly/score")
    assert first["series"] == [{"flow": 2.0, "pressure": 1.0}]
    assert (first["timestamps"], second["timestamps"]) == (["2026-01-01"], ["2026-01-02"])
    assert ("state" in first, second["state"]) == (False, "after 1")
    assert out.splitlines()[1].split("\t") == ["2", "2026-01-01", "3.000", "0.0100", "anomaly", "flow 75%"]
    assert "2 rows, 2 anomalies at alpha 0.05" in out
    assert "the detector no longer fits" in err


def test_readings_go_to_the_name_that_was_given(run: Run, service: Service) -> None:
    service.answers["GET /v1/models/an-alias-of-one-version"] = service.answers["GET /v1/models/pump"]
    run("anomaly", "--model", "an-alias-of-one-version", "--file", "live.csv", "--timestamp", "time")
    assert {body["model"] for body in service.bodies("POST /v1/anomaly/score")} == {"an-alias-of-one-version"}


def test_a_table_that_is_checked_as_texts_is_told_the_other_task(run: Run) -> None:
    code, out, err = run("check", "live.csv")
    assert (code, "For a table of readings: --task anomaly --set kind=series" in err) == (1, True)
    faults = [line for line in out.splitlines() if line.startswith("  fail")]
    assert len(faults) == 1, "a fault of the header is told once"


@pytest.mark.parametrize(
    ("content", "flags", "said"),
    [
        ("message,intent\nhello,greeting\n", (), "--column NAME=COLUMN"),
        ("time,a\n" + "2026-01-01 00:00,1\n" * 9, ("--task=anomaly", "--set=kind=series"), "--set timestamp=COLUMN"),
        ("a\n" + "1\n2\n" * 90 + "-9999\n" * 9, ("--task=anomaly", "--set=kind=series"), "--set 'csv={"),
    ],
)
def test_a_setting_that_is_missing_is_told_with_its_flag(
    run: Run, content: str, flags: tuple[str, ...], said: str
) -> None:
    Path("own.csv").write_text(content, encoding="utf-8")
    code, _, err = run("check", "own.csv", *flags)
    assert (code, said in err) == (1, True)


@pytest.mark.parametrize(
    "text",
    [
        "Zeit;flow;pressure\n;m³/h;bar\n01.03.2026 00:30;1.200,5;4,06\n01.03.2026 00:31;;4,1\n",
        "Zeit,Uhrzeit,flow,pressure\n01.03.2026,00:30,1200.5,4.06\n01.03.2026,00:31,,4.1\n",
        "Zeit,flow,Quality,pressure\n2026-03-01 00:30,1200.5,Good,4.06\n2026-03-01 00:31,7,Bad,4.1\n",
    ],
)
def test_readings_come_in_the_forms_that_jobs_read(run: Run, service: Service, text: str) -> None:
    Path("live.csv").write_bytes(text.encode("cp1252"))
    assert run("anomaly", "--model", "pump", "--file", "live.csv", "--timestamp", "Zeit")[0] == 0
    [body] = service.bodies("POST /v1/anomaly/score")
    assert body["series"] == [{"flow": 1200.5, "pressure": 4.06}, {"flow": None, "pressure": 4.1}]
    assert body["timestamps"] == ["2026-03-01T00:30:00+00:00", "2026-03-01T00:31:00+00:00"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [("1767225600", 1767225600.0), ("1.5", 1.5), ("2026010100", "2026010100"), ("20260101", "20260101"), ("x", "x")],
)
def test_times_go_as_numbers_where_they_are_seconds(run: Run, service: Service, written: str, sent: object) -> None:
    Path("t.csv").write_text(f"t,flow,pressure\n{written},1,2\n")
    run("anomaly", "--model", "pump", "--file", "t.csv", "--timestamp", "t")
    assert service.bodies("POST /v1/anomaly/score")[0]["timestamps"] == [sent]


def test_train_sends_what_was_asked_for_and_prints_the_verdict(run: Run, service: Service) -> None:
    _, out, err = run("train", "texts.csv", "--set", "n_epochs=2", "--set", "mode=frozen", "--column", "text=question")
    [body] = service.bodies("POST /v1/fine_tuning/jobs")
    assert (body["training_file"], body["model"]) == ("file-1", "fake")
    assert body["method"]["supervised"] == {
        "task": "classification",
        "hyperparameters": {"n_epochs": 2, "mode": "frozen"},
        "columns": {"text": "question"},
    }
    assert out.startswith("It was held: \\u001b[31mred")
    assert "macro-F1\t0.5 (0.4 to 0.6)\t0.25" in out
    assert "\\u001b[31mred" in err
    assert "step 1/None" in err


@pytest.mark.parametrize(
    ("arguments", "model"), [(("-t", "forecast"), "sensors"), (("-t", "anomaly", "--set", "kind=series"), "sensors")]
)
def test_readings_are_trained_without_a_base(
    run: Run, service: Service, arguments: tuple[str, ...], model: str
) -> None:
    assert run("train", "live.csv", *arguments)[0] == 0
    assert service.bodies("POST /v1/fine_tuning/jobs")[0]["model"] == model


def test_feedback_is_trained_on_without_an_upload(run: Run, service: Service) -> None:
    assert run("train", "feedback:fake", "--no-follow")[1] == "ftjob-1\n"
    assert service.bodies("POST /v1/files") == []
    assert service.bodies("POST /v1/fine_tuning/jobs")[0]["training_file"] == "feedback:fake"


def test_a_job_that_failed_ends_with_1_and_says_why(run: Run, service: Service) -> None:
    failed = JOB | {"status": "failed", "result": None, "error": {"code": "one_class", "message": ESC}}
    service.answers["GET /v1/fine_tuning/jobs/ftjob-1"] = failed
    code, out, _ = run("jobs", "ftjob-1", "--follow")
    assert code == 1
    assert out.startswith("ftjob-1 failed (one_class): \\u001b")


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back(
    run: Run, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.answers["GET /v1/fine_tuning/jobs/ftjob-1"] = JOB | {"status": "running", "waiting": "no worker"}

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("service.client.client.time.sleep", interrupt)
    code, out, err = run("train", "texts.csv")
    assert (code, out) == (130, "")
    assert "waiting: no worker" in err
    assert "ftjob-1 goes on. Come back with: sonde jobs ftjob-1 --follow" in err
    assert service.bodies("POST /v1/fine_tuning/jobs/ftjob-1/cancel") == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("invalid_api_key", "a key is needed: give a key with --key or SONDE_API_KEY"),
        ("insufficient_scope", "a key is needed: send it"),
    ],
)
def test_a_refused_key_says_how_to_give_one(run: Run, monkeypatch: pytest.MonkeyPatch, code: str, said: str) -> None:
    def refuse(client: Client) -> None:
        raise Unauthorized("a key is needed: send it", status=401, code=code)

    monkeypatch.setattr(Client, "models", refuse)
    ended, _, err = run("embed", "hello")
    assert (ended, err) == (1, f"sonde: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("promote", "--version", "2"), "version 2 is in service; 1 served before, and rollback leads to it"),
        (("rollback",), "version 1 is in service; none served before it"),
    ],
)
def test_a_move_says_what_serves_and_what_served(run: Run, arguments: tuple[str, ...], says: str) -> None:
    assert run("models", "ft:x", *arguments)[2] == f"ft:x: {says}\n"
    assert run("models", "ft:x", *arguments, "--json")[2] == ""


def test_train_waits_until_a_promoted_model_answers(
    run: Run, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.answers["GET /v1/fine_tuning/jobs/ftjob-1"] = JOB | {"result": {"decision": "promoted", "why": "first"}}
    looks: list[float] = []

    def appear(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            service.answers["GET /v1/models"] = {"data": [MODEL | TEXTS | {"id": JOB["fine_tuned_model"]}]}

    monkeypatch.setattr("service.commands.watch_job.time.sleep", appear)
    assert "ft:fake:local:x:v1 is in service" in run("train", "texts.csv", "--model", "fake")[2]
    assert len(looks) == 2
    service.answers["GET /v1/models"] = {"data": [MODEL | TEXTS]}
    assert "is not in service after 20 s" in run("train", "texts.csv", "--model", "fake")[2]


def test_a_report_begins_with_the_verdict_and_names_few_rows(run: Run) -> None:
    lines = run("report", "ftjob-1")[1].splitlines()
    assert lines[0] == "Report of ft:x (ftjob-1)"
    assert lines[1].startswith("It was held: ")
    assert lines[4] == "Nothing failed, but something needs a look."
    assert "rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10 more" in lines[8]
    assert lines[9].strip() == "what to do: remove"
    assert lines[11] == "What was chosen"
    assert lines[-2:] == ["Loss: does it? (ok)", "  ok      loss (conv): It falls."]


def test_a_report_shows_confusions_calibration_and_events(run: Run) -> None:
    out = run("report", "ftjob-1")[1]
    assert "was taken for 'b' in 3 of its 10 held-out rows." in out
    assert "    row 4: " in out
    assert "b\t0\t9" in out
    assert "55%\t50%\t20% to 80%\t6" in out
    assert "Events in the held-out readings at alpha 0.05: 60: the 1 strangest" in out
    assert "5\thigh\t0.001" in out


def test_the_report_of_the_newest_job_needs_no_id(run: Run, service: Service) -> None:
    assert run("report")[1] == run("report", "ftjob-1")[1]
    service.answers["GET /v1/fine_tuning/jobs"] = {"data": []}
    code, _, err = run("report")
    assert (code, "there is no job yet" in err) == (1, True)


def test_a_report_is_written_as_a_page_and_opened(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_page(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr("service.commands.jobs.webbrowser.open", open_page)
    assert run("report", "ftjob-1", "--html", "r.html")[0] == 0
    assert Path("r.html").read_text() == "<p>report"
    assert run("report", "ftjob-1", "--open")[0] == 0
    assert [Path(address.removeprefix("file://")).read_text() for address in opened] == ["<p>report"]
    assert run("report", "ftjob-1", "--html", "none/r.html")[0] == 1


def test_versions_show_metrics_as_people_read_them(run: Run) -> None:
    assert "macro-F1 0.5" in run("models", "ft:x", "versions")[1]


def test_a_long_list_says_how_to_see_more(run: Run) -> None:
    assert "more: sonde jobs --after ftjob-1" in run("jobs")[2]


def test_the_service_has_its_address_and_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, str]] = []

    def connect(url: str, key: str) -> Client:
        given.append((url, key))
        return Client(http=httpx.Client(base_url="http://sonde", transport=httpx.MockTransport(Service())))

    monkeypatch.setattr("service.commands.inference.connect", connect)
    monkeypatch.setenv("SONDE_URL", "http://there")
    monkeypatch.setenv("SONDE_API_KEY", "secret")
    assert cli.main(["embed", "a"]) == 0
    assert cli.main(["embed", "a", "--url", "http://here", "--key", "mine"]) == 0
    assert given == [("http://there", "secret"), ("http://here", "mine")]
    assert connection.DEFAULT_URL == "http://127.0.0.1:8000"


HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "pyarrow",
    "sqlalchemy",
    "fastapi",
    "models.training",
    "service.api",
    "service.engine",
)


@pytest.mark.slow
def test_a_command_starts_without_heavy_libraries() -> None:
    code = f"""
import sys
from service import cli
try:
    cli.main(["embed", "a", "--url", "http://127.0.0.1:9"])
finally:
    print(*(name for name in {HEAVY!r} if name in sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "")
    assert "nothing listens on http://127.0.0.1:9: start it with 'sonde up'" in ended.stderr
