"""`sonde bench` from flags to reports, against a fake server and against Sonde itself over a fake model."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from service import cli
from tests.fakes.openai_server import FakeServer, listening
from tests.support.app import MakeApp
from tests.support.server import free_port, wait_until

pytestmark = pytest.mark.slow

NO_URLS = ("nowhere", "http://h:99999", "http://h:abc", "http://h:0", "http://[::1")
QUICK = ("--seconds", "0.5", "--warmup-s", "0.1")


def test_closed_load_with_all_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ("--json", str(tmp_path / "run.json"), "--html", str(tmp_path / "run.html"))
    with listening(FakeServer(lambda number: (0.01, 200))) as url:
        assert (
            cli.main(
                ["bench", "--url", url, "--clients", "2", "--key", "secret", "--short", "--batch", "3", *QUICK, *files]
            )
            == 0
        )
    said = capsys.readouterr().out
    assert "closed loop, 2 clients, texts of 12 tokens, 3 a request" in said
    read = json.loads((tmp_path / "run.json").read_text())
    assert read["summary"]["inputs_per_s"] == pytest.approx(3 * read["summary"]["requests_per_s"])
    assert read["summary"]["requests_per_s"] <= 200
    assert read["settings"]["batch"] == 3
    assert "secret" not in (tmp_path / "run.json").read_text() + (tmp_path / "run.html").read_text()


def test_open_load_at_random_and_from_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trace.csv").write_text("\n".join(str(second) for second in range(61)))
    with listening(FakeServer()) as url:
        assert cli.main(["bench", "--url", url, "--rate", "100", *QUICK, "--mix", "single:0.5,bulk:0.5"]) == 0
        assert "100 requests/s at random, texts of a chatbot's lengths, single:0.5,bulk:0.5" in capsys.readouterr().out
        trace = ("--arrivals", str(tmp_path / "trace.csv"), "--rate", "50")
        assert cli.main(["bench", "--url", url, *trace, "--words", "5-9", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "50.0 requests/s recorded, texts of 5 to 9 words" in said
    assert "25 requests due in 0.5 s: 25 with 200" in said


def test_a_trace_that_ends_early_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trace.csv").write_text("0\n1\n2\n3\n")
    with listening(FakeServer()) as url:
        assert cli.main(["bench", "--url", url, "--arrivals", str(tmp_path / "trace.csv"), "--rate", "20", *QUICK]) == 0
    assert "requests/s recorded, none in the last 0." in capsys.readouterr().out


def test_overload_is_an_outcome_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(FakeServer(lambda number: (0.0, 429 if number % 2 else 200))) as url:
        assert cli.main(["bench", "--url", url, "--rate", "100", *QUICK]) == 0
    assert "with 429" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--clients", "2", "--rate", "5"), "expected one kind"),
        (("--protocol", "v2", "--mix", "single:1"), "--protocol v2 has no --mix: leave it out"),
        (("--shape", "x:1,16"), "--protocol openai has no --shape: leave it out, or use --protocol v2"),
        (("--protocol", "v2-grpc", "--tensors", "json"), "gRPC has no JSON"),
        (("--rate", "0.001"), "no request is due"),
        (("--words", "9-5"), "--words"),
        (("--words", "some"), "--words"),
        (("--mix", "some"), "--mix"),
        *((("--url", url), f"--url: expected http://HOST:PORT or https://HOST, got {url!r}") for url in NO_URLS),
        (("--ceiling", "--mix", "single:1", "--rate", "5"), "leave out --rate, --mix"),
        (("--ceiling", "--json", "x.json", "--html", "x.html"), "leave out --json, --html"),
        (
            ("--ceiling", "--arrivals", "x.csv", "--encoding-format", "base64"),
            "leave out --arrivals, --encoding-format",
        ),
        (("--ceiling", "--url", "http://h", "--warmup-s", "1"), "leave out --url, --warmup-s"),
    ],
)
def test_wrong_flags_are_refused(flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--clients=0", "--seconds=-1", "--repeat-share=2", "--rate=inf", "--seconds=nan"])
def test_numbers_out_of_range_are_refused(flag: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bench", flag])


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--shape=x:1,b", "expected NAME:N,N as in x:1,16, got 'x:1,b'"),
        ("--seconds=abc", "expected a number above 0, got 'abc'"),
        ("--warmup-s=abc", "expected 0 or more, got 'abc'"),
        ("--warmup-s=-1", "expected 0 or more, got '-1'"),
        ("--clients=2.5", "expected a whole number of 1 or more, got '2.5'"),
        ("--repeat-share=some", "expected 0 to 1, got 'some'"),
    ],
)
def test_what_is_no_number_is_told_in_words(flag: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bench", flag])
    assert f"argument {flag.partition('=')[0]}: {said}" in capsys.readouterr().err


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--url", "http://127.0.0.1:9"]) == 1
    assert "is the server up" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listening(FakeServer()) as url:
        assert cli.main(["bench", "--url", url, "--clients", "1", *QUICK, "--json", str(tmp_path / "no" / "file")]) == 2
    assert "--json" in capsys.readouterr().err


def test_the_ceiling_is_measured_against_a_server_that_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--ceiling", "--clients", "2", "--seconds", "0.3", "--batch", "2"]) == 0
    assert "a server that does nothing: closed loop, 2 clients" in capsys.readouterr().out


def test_sonde_itself_is_a_server_to_measure(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    server = uvicorn.Server(uvicorn.Config(make_app(), port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        assert cli.main(["bench", "--url", url, "--model", "fake", "--clients", "2", "--batch", "2", *QUICK]) == 0
        assert cli.main(["bench", "--url", url, "--model", "other", *QUICK]) == 1
        tensors = ["bench", "--protocol", "v2", "--url", url, "--model", "fake", "--clients", "2", "--batch", "2"]
        assert cli.main([*tensors, *QUICK]) == 0
        assert cli.main([*tensors, *QUICK, "--tensors", "json"]) == 0
        assert cli.main(["bench", "--protocol", "v2", "--url", url, "--model", "other"]) == 1
    finally:
        server.should_exit = True
        thread.join(60)
    said = capsys.readouterr()
    assert "with 200" in said.out
    assert "closed loop, 2 clients, v2, raw values: text BYTES [2]" in said.out
    assert "closed loop, 2 clients, v2, json values: text BYTES [2]" in said.out
    assert "/v2/models/other answered with 404, expected 200" in said.err
    assert " with 4" not in said.out
    assert "with 404" in said.err


def test_calls_over_grpc_are_measured(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("grpc")
    with rpc_listening(make_app()) as address:
        flags = ["bench", "--protocol", "v2-grpc", "--url", f"http://{address}", *QUICK]
        assert cli.main([*flags, "--model", "fake", "--clients", "2"]) == 0
        assert cli.main([*flags, "--model", "other"]) == 1
    said = capsys.readouterr()
    assert "closed loop, 2 clients, v2-grpc, raw values: text BYTES [1]" in said.out
    assert "did not describe 'other': NOT_FOUND" in said.err


@contextmanager
def rpc_listening(app: FastAPI) -> Iterator[str]:
    """The address of an application's gRPC server, in a thread with an event loop of its own."""
    from service.rpc.server import RpcServer

    ready, stop = threading.Event(), threading.Event()
    settings = app.state.settings.model_copy(update={"host": "127.0.0.1", "grpc_port": free_port()})

    async def main() -> None:
        server = RpcServer(app, settings, shared=False)
        await server.start()
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.01)
        await server.stop(0)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield f"127.0.0.1:{settings.grpc_port}"
    finally:
        stop.set()
        thread.join(60)
