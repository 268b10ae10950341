"""Uploads: on disk under ids of our own, complete and hashed, or absent."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from models.registry.registry import Registry
from service.api import multipart as uploading
from service.auth import Keyring
from service.config import Settings
from service.jobs import paths, worker
from service.jobs.database import Database
from service.jobs.files import IncomingFile
from service.jobs.tables import files, jobs
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.artifacts import numbered, staging
from tests.support.jobs import JobHarness
from tests.support.server import Served, serving

ROWS = b'{"text": "a", "label": "b"}\n' * 100


@pytest.fixture
def client(make_app: MakeApp) -> Iterator[TestClient]:
    with TestClient(make_app(FakeModel(), max_file_bytes=10_000, max_body_bytes=500)) as client:
        yield client


def send(
    client: TestClient, content: bytes = ROWS, name: str = "rows.jsonl", purpose: str | None = "fine-tune"
) -> httpx.Response:
    data = {} if purpose is None else {"purpose": purpose}
    return client.post("/v1/files", files={"file": (name, BytesIO(content))}, data=data)  # type: ignore[return-value]


def on_disk(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "files").glob("*"))


def test_a_file_is_kept_with_its_hash_and_comes_back_as_it_was(client: TestClient, tmp_path: Path) -> None:
    made = send(client).json()
    assert made.pop("created_at") == pytest.approx(time.time(), abs=5)
    assert made == {
        "id": made["id"],
        "object": "file",
        "bytes": len(ROWS),
        "filename": "rows.jsonl",
        "purpose": "fine-tune",
        "expires_at": None,
        "status": "processed",
        "sha256": hashlib.sha256(ROWS).hexdigest(),
        "owner": "anonymous",
    }
    assert on_disk(tmp_path) == [f"{made['id']}.jsonl"]
    content = client.get(f"/v1/files/{made['id']}/content")
    assert (content.content, content.headers["content-disposition"]) == (ROWS, "attachment")
    assert client.get(f"/v1/files/{made['id']}").json()["sha256"] == made["sha256"]


def test_pages_go_on_where_the_last_one_ended(client: TestClient) -> None:
    ids = [send(client).json()["id"] for _ in range(3)]
    first = client.get("/v1/files", params={"limit": 2}).json()
    second = client.get("/v1/files", params={"limit": 2, "after": first["last_id"]}).json()
    assert [[one["id"] for one in page["data"]] for page in (first, second)] == [[ids[2], ids[1]], [ids[0]]]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [one["id"] for one in client.get("/v1/files", params={"order": "asc"}).json()["data"]] == ids


def test_a_deleted_file_is_gone(client: TestClient, tmp_path: Path) -> None:
    file = send(client).json()["id"]
    assert client.delete(f"/v1/files/{file}").json() == {"id": file, "object": "file", "deleted": True}
    assert on_disk(tmp_path) == []
    answers = [
        client.get(f"/v1/files/{file}"),
        client.get(f"/v1/files/{file}/content"),
        client.delete(f"/v1/files/{file}"),
    ]
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [(404, "file_not_found")] * 3


@pytest.mark.parametrize(
    ("given", "status", "code", "param"),
    [
        ({"name": "rows.exe"}, 422, "invalid_value", "file"),
        ({"content": b""}, 422, "invalid_value", "file"),
        ({"purpose": "assistants"}, 422, "invalid_value", "purpose"),
        ({"purpose": None}, 422, "invalid_value", "purpose"),
        ({"purpose": "x" * 5000}, 422, "invalid_value", "purpose"),
        ({"content": b"x" * 10_001}, 413, "body_too_large", "file"),
        ({"content": b"x" * 200_000}, 413, "body_too_large", "file"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    client: TestClient, tmp_path: Path, given: dict[str, Any], status: int, code: str, param: str
) -> None:
    answer = send(client, **given)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["param"] == param
    assert on_disk(tmp_path) == []


@pytest.mark.parametrize(
    ("about", "shown"),
    [("", "upload"), ('; filename=""', "upload"), ('; filename="upload"', "upload"), ('; filename="a_file"', "a_file")],
)
def test_a_file_without_a_name_or_an_ending_is_jsonl(
    client: TestClient, tmp_path: Path, about: str, shown: str
) -> None:
    content = body((f'name="file"{about}', ROWS), ('name="purpose"', b"fine-tune"))
    headers = {"content-type": "multipart/form-data; boundary=xx"}
    made = client.post("/v1/files", content=content, headers=headers).json()
    assert (made["filename"], made["bytes"]) == (shown, len(ROWS))
    assert on_disk(tmp_path) == [f"{made['id']}.jsonl"]


def test_a_name_in_place_of_an_id_is_told_what_gives_ids(client: TestClient) -> None:
    messages = [client.get(f"/v1/files/{name}").json()["error"]["message"] for name in ("rows.csv", "file-0")]
    assert messages == ["no file 'rows.csv': expected an id, file-…, as POST /v1/files gives it", "no file 'file-0'"]


@pytest.mark.parametrize("content", [b"rows.csv", b"my rows.jsonl", b"text,label\na,b\n", b"PAR1\xff\0"])
def test_a_file_without_a_name_that_is_no_jsonl_is_refused(client: TestClient, tmp_path: Path, content: bytes) -> None:
    """curl sends the name itself where its @ is forgotten, and a table with < in its place."""
    headers = {"content-type": "multipart/form-data; boundary=xx"}
    sent = body(('name="file"', content), ('name="purpose"', b"fine-tune"))
    answer = client.post("/v1/files", content=sent, headers=headers)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["param"] == "file"
    assert f"got {content.decode('utf-8', 'replace')!r}; curl sends a file, with its name, by @" in error["message"]
    assert on_disk(tmp_path) == []


@pytest.mark.parametrize("purpose", ["fine-tune", "batch", "user_data", "evals"])
def test_purposes_of_openais_clients_are_kept(client: TestClient, purpose: str) -> None:
    file = send(client, purpose=purpose).json()["id"]
    assert client.get(f"/v1/files/{file}").json()["purpose"] == purpose
    assert [one["id"] for one in client.get("/v1/files", params={"purpose": purpose}).json()["data"]] == [file]


def test_a_file_expires_when_its_upload_says(client: TestClient, tmp_path: Path) -> None:
    harness = JobHarness(tmp_path)
    kept, gone, needed = (send_expiring(client, after) for after in (7200, 3600, 3600))
    assert kept["expires_at"] == pytest.approx(kept["created_at"] + 7200, abs=1)
    with harness.database.write() as connection:
        past = sa.update(files).where(files.c.id.in_([gone["id"], needed["id"]]))
        connection.execute(past.values(expires_at=time.time() - 1))
    job = harness.start(replace(harness.new(), training_file=needed["id"]))
    assert client.get(f"/v1/files/{gone['id']}").status_code == 404
    assert {one["id"] for one in client.get("/v1/files").json()["data"]} >= {kept["id"], needed["id"]}
    harness.files.remove_expired()
    assert not any(gone["id"] in name for name in on_disk(tmp_path))
    assert client.get(f"/v1/files/{needed['id']}/content").content == ROWS
    harness.request_control(job, "cancel")
    harness.files.remove_expired()
    assert not any(needed["id"] in name for name in on_disk(tmp_path))
    assert any(kept["id"] in name for name in on_disk(tmp_path))
    harness.close()


def send_expiring(client: TestClient, seconds: object, anchor: str = "created_at") -> Any:
    data = {"purpose": "fine-tune", "expires_after[anchor]": anchor, "expires_after[seconds]": str(seconds)}
    return client.post("/v1/files", files={"file": ("rows.jsonl", BytesIO(ROWS))}, data=data).json()


@pytest.mark.parametrize(
    ("seconds", "anchor", "param"),
    [
        (3599, "created_at", "seconds"),
        (2_592_001, "created_at", "seconds"),
        ("an hour", "created_at", "seconds"),
        ("9" * 400, "created_at", "seconds"),
        (3600, "last_active_at", "anchor"),
    ],
)
def test_an_expiry_that_openai_does_not_know_is_refused(
    client: TestClient, seconds: object, anchor: str, param: str
) -> None:
    assert send_expiring(client, seconds, anchor)["error"]["param"] == f"expires_after[{param}]"


def test_a_file_of_exactly_the_limit_is_kept(client: TestClient) -> None:
    assert send(client, b"x" * 10_000).json()["bytes"] == 10_000


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd.csv", "/etc/cron.d/x.csv", "..\\x.csv", "a\x00b.csv", "é" * 200 + ".csv"]
)
def test_a_callers_name_is_shown_and_never_a_path(client: TestClient, tmp_path: Path, name: str) -> None:
    made = send(client, name=name).json()
    assert on_disk(tmp_path) == [f"{made['id']}.csv"]
    assert made["filename"].endswith(".csv")


def body(*parts: tuple[str, bytes], end: bytes = b"--xx--\r\n") -> bytes:
    return (
        b"".join(
            b"--xx\r\ncontent-disposition: form-data; %s\r\n\r\n%s\r\n" % (about.encode(), value)
            for about, value in parts
        )
        + end
    )


FILE = ('name="file"; filename="a.csv"', b"text\na\n")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (body(('name="purpose"', b"fine-tune"), FILE), 200),
        (body(FILE, ('name="purpose"', b"fine-tune")), 200),
        (body(('name="purpose"', b"fine-tune"), FILE, end=b""), 422),
        (body(('name="purpose"', b"fine-tune")), 422),
        (body(FILE, FILE), 422),
        (body(('name="other"; filename="a.csv"', b"x")), 422),
        (body(FILE, ('name="purpose"', b"fine-tune"), ('name="surprise"', b"1")), 422),
        (body(FILE, *[(f'name="{n}"', b"1") for n in range(20)]), 422),
        (
            body(FILE, *[(f'name="{n}"', b"1" * 4000) for n in range(10)], ('name="x"; y="' + "z" * 60_000 + '"', b"")),
            413,
        ),
        (b"rubbish", 422),
        (b"", 422),
        (body(('name="purpose"', b"fine-tune"), FILE) + b"x" * 100_000, 413),
    ],
)
def test_bodies_are_read_with_caution(client: TestClient, tmp_path: Path, content: bytes, status: int) -> None:
    answer = client.post("/v1/files", content=content, headers={"content-type": "multipart/form-data; boundary=xx"})
    assert answer.status_code == status, answer.text
    assert len(on_disk(tmp_path)) == (status == 200)


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", "", "multipart/form-data; boundary=" + "x" * 300]
)
def test_another_content_type_is_refused(client: TestClient, kind: str) -> None:
    answer = client.post("/v1/files", content=b"{}", headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_threads_of_the_disk_never_wait_for_the_database(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    read = Database.read

    def read_here(self: Database) -> Any:
        threads.append(threading.current_thread().name)
        return read(self)

    monkeypatch.setattr(Database, "read", read_here)
    assert send(client).status_code == 200
    assert threads
    assert {name.rpartition("_")[0] for name in threads} == {"call-database"}


@pytest.mark.parametrize("where", ["write", "close"])
def test_a_full_disk_is_507_and_leaves_nothing_behind(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*about: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "write":
        monkeypatch.setattr(uploading, "_write", lambda incoming, pieces: incoming.write(pieces[0]))
        opened = IncomingFile.__init__

        def open_full(self: IncomingFile, *arguments: Any) -> None:
            opened(self, *arguments)
            self._stream.close()
            self._stream = Path("/dev/full").open("wb", buffering=0)  # type: ignore[assignment]  # noqa: SIM115

        monkeypatch.setattr(IncomingFile, "__init__", open_full)
    else:
        monkeypatch.setattr(os, "fsync", full)
    answer = send(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert on_disk(tmp_path) == []


KEPT_YESTERDAY = 2 * 24 * 3600.0


def test_remains_of_a_process_that_died_while_it_kept_or_deleted_a_file_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = JobHarness(tmp_path)
    kept, deleted = harness.upload(), harness.upload()
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # the last step does not happen
        harness.files.delete(deleted)
        killed.setattr(Database, "write", lambda self: pytest.fail("no row is written"))
        with pytest.raises(pytest.fail.Exception):
            harness.upload()
    assert len(on_disk(tmp_path)) == 5, "three files, two of them unsettled"
    harness.files.remove_stale_uploads(KEPT_YESTERDAY, time.time())
    assert len(on_disk(tmp_path)) == 5, "they may be settled yet"
    harness.files.remove_stale_uploads(0.0, time.time() + 1)
    assert on_disk(tmp_path) == [f"{kept}.jsonl"]
    harness.close()


def test_a_mark_that_was_left_costs_no_file_that_has_a_row(tmp_path: Path) -> None:
    harness = JobHarness(tmp_path)
    kept = f"{harness.upload()}.jsonl"
    (tmp_path / "files" / f".incoming-{kept}").touch()
    harness.files.remove_stale_uploads(0.0, time.time() + 1)
    assert on_disk(tmp_path) == [kept]
    harness.close()


def test_an_upload_may_end_while_stale_ones_are_removed(tmp_path: Path) -> None:
    harness = JobHarness(tmp_path)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / ".incoming-gone").symlink_to(
        tmp_path / "nowhere"
    )  # listed, and not there when it is looked at
    harness.files.remove_stale_uploads(0.0, time.time())
    harness.close()


def test_a_worker_removes_stale_uploads_repeatedly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = JobHarness(tmp_path)
    monkeypatch.setattr(worker, "_REMOVE_STALE_EVERY_S", 0.0)
    monkeypatch.setattr(worker, "_ABANDONED_UPLOAD_S", -60.0)
    maintaining = worker.Worker(Settings(home=tmp_path))
    for _ in range(2):
        harness.files.receive().close()
        maintaining._remove_leftovers()
        assert on_disk(tmp_path) == []
    harness.close()


def test_a_worker_removes_old_finished_jobs_but_not_promoted_ones(tmp_path: Path) -> None:
    harness = JobHarness(tmp_path)
    promoted, old, new, running = (harness.submit(f"job-{number}") for number in range(4))
    registry, name = Registry(tmp_path / "models"), "ft:fake:local:job-0"
    registry.publish(name, staging(tmp_path / "made"), numbered(name))
    registry.promote(name, 1, by=promoted, why="")
    with harness.database.write() as connection:
        model = jobs.update().where(jobs.c.id == promoted)
        connection.execute(model.values(status="succeeded", fine_tuned_model=f"{name}:v1"))
    for job in (old, new):
        harness.store.request_control(job, "cancel")
        paths.attempt_directory(tmp_path, job, 1).mkdir(parents=True)
    worker.Worker(Settings(home=tmp_path, max_key_finished_jobs=1))._remove_leftovers()
    assert {job.id for job in harness.store.page(None, 10)[0]} == {promoted, new, running}
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [new]
    harness.close()


def test_a_file_whose_bytes_are_gone_is_404(client: TestClient, tmp_path: Path) -> None:
    file = send(client).json()["id"]
    (tmp_path / "files" / f"{file}.jsonl").unlink()
    answer = client.get(f"/v1/files/{file}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "file_not_found")
    assert client.delete(f"/v1/files/{file}").status_code == 200


def test_files_need_a_key_that_may_train(make_app: MakeApp) -> None:
    application = make_app()
    ring = Keyring(application.state.settings.keys_file)
    infer, train = ring.create(["infer"])[1], ring.create(["train"])[1]
    with TestClient(application) as client:
        answers = [client.get("/v1/files", headers={"x-api-key": key}).status_code for key in (infer, train)]
    assert answers == [403, 200]


def upload_slowly(url: str, pieces: int, piece: bytes, pause_s: float) -> bytes:
    """Send a file in pieces; the answer, empty when the service closed the connection."""
    host, port = url.removeprefix("http://").split(":")
    head = b'--xx\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    head += b'--xx\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    tail = b"\r\n--xx--\r\n"
    length = len(head) + pieces * len(piece) + len(tail)
    request = (
        f"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; "
        f"boundary=xx\r\ncontent-length: {length}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        try:
            connection.sendall(request.encode() + head)
            for _ in range(pieces):
                connection.sendall(piece)
                time.sleep(pause_s)
            connection.sendall(tail)
            return connection.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            return b""


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that waits at most a second for a sender."""
    with serving(
        tmp_path_factory.mktemp("impatient"), "--receive-timeout-s", "1", "--min-receive-bytes-per-s", "10000"
    ) as served:
        yield served


@pytest.mark.real
@pytest.mark.slow
def test_a_large_upload_takes_no_memory(impatient: Served) -> None:
    status = Path(f"/proc/{impatient.process.pid}/status")
    before = resident(status)
    with httpx.Client(timeout=120) as client:
        answer = client.post(
            f"{impatient.url}/v1/files",
            files={"file": ("a.csv", BytesIO(b"x" * 200 * 2**20))},
            data={"purpose": "fine-tune"},
        )
    assert answer.json()["bytes"] == 200 * 2**20
    assert resident(status) - before < 40 * 2**20


@pytest.mark.real
@pytest.mark.slow
def test_a_long_upload_may_take_its_time_and_a_slow_one_may_not(impatient: Served) -> None:
    assert upload_slowly(impatient.url, 40, b"x" * 8000, 0.1).startswith(b"HTTP/1.1 200")
    began = time.monotonic()
    assert upload_slowly(impatient.url, 400, b"x" * 20, 0.05) == b""
    assert time.monotonic() - began < 5
    # The service does not read what is sent after the answer.
    began = time.monotonic()
    upload_slowly(impatient.url.replace("/v1", ""), 100_000_000, b"x" * 20_000, 0.05)
    assert time.monotonic() - began < 10


def resident(status: Path) -> int:
    """Most bytes of memory that a process has had."""
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
