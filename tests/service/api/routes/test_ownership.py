"""The owner of a name, its grants, and the rows that judge its versions, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.errors import SondeError
from models.filesystem import sha256_of
from models.registry.held_out import HeldOut
from models.registry.registry import Registry
from service.auth import Key, Keyring
from service.errors import InvalidRequest
from service.jobs import held_out_check
from tests.fakes.model import FakeModel
from tests.support.app import MakeApp
from tests.support.artifacts import NAME, numbered, staging

ROWS = b'{"text": "my card is lost", "label": "yes"}\n{"text": "I lost my card", "label": "no"}\n'
OWNER, HELD_OUT = f"/v1/models/{NAME}/owner", f"/v1/models/{NAME}/held_out"
STRANGER = "key-0123456789ab"


class Office:
    """An application with keys of every scope; version 1 of a classifier is published by key `a`."""

    def __init__(self, app: FastAPI, client: TestClient, where: Path) -> None:
        self.app, self.client, self.where = app, client, where
        self.keyring = Keyring(app.state.settings.keys_file)
        self._secrets: dict[str, str] = {}
        self.keys: dict[str, Key] = {}
        for name, scope in (("a", "train"), ("b", "train"), ("admin", "admin"), ("reader", "infer")):
            self.keys[name], self._secrets[name] = self.keyring.create([scope], name)  # type: ignore[list-item]
        self.publish(owner=self.keys["a"].id)

    @property
    def registry(self) -> Registry:
        registry: Registry = self.app.state.registry
        return registry

    def publish(self, **manifest: Any) -> int:
        return self.registry.publish(NAME, staging(self.where / "staging"), numbered(**manifest))

    def ask(self, who: str, method: str, path: str, body: object = None, status: int = 200) -> Any:
        given = {} if body is None else {"json": body}
        answer = self.client.request(method, path, headers={"x-api-key": self._secrets[who]}, **given)  # type: ignore[arg-type]
        assert answer.status_code == status, answer.text
        return answer.json() if status == 200 else answer.json()["error"]

    def upload(self, who: str, content: bytes = ROWS, name: str = "rows.jsonl") -> str:
        answer = self.client.post(
            "/v1/files",
            headers={"x-api-key": self._secrets[who]},
            data={"purpose": "fine-tune"},
            files={"file": (name, content)},
        )
        assert answer.status_code == 200, answer.text
        file: str = answer.json()["id"]
        return file


def count_here(file: bytes, most: int) -> int:
    """In place of the process, which takes seconds to start."""
    try:
        return held_out_check._count(file)
    except SondeError as error:
        raise InvalidRequest(error.message, param="file") from error


@pytest.fixture(autouse=True)
def _without_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out_check, "_run", count_here)


@pytest.fixture
def office(make_app: MakeApp, tmp_path: Path) -> Iterator[Office]:
    app = make_app(FakeModel("fake"))
    with TestClient(app) as client:
        yield Office(app, client, tmp_path)


# --- owner and grants
# ------------------------------------------------------------------------------------------------------------------


def test_an_admin_gives_a_name_away_and_grants_it(office: Office) -> None:
    a, b = office.keys["a"].id, office.keys["b"].id
    expected = {"object": "model.owner", "model": NAME, "owner": a, "grants": []}
    assert office.ask("b", "GET", OWNER) == expected
    assert office.ask("admin", "PUT", f"/v1/models/{NAME}/grants/{b}")["grants"] == [b]
    assert office.ask("admin", "DELETE", f"/v1/models/{NAME}/grants/{b}") == expected
    assert office.ask("admin", "PUT", OWNER, {"owner": b})["owner"] == b
    assert office.ask("admin", "DELETE", OWNER) == {**expected, "owner": None}
    ledger = office.ask("reader", "GET", f"/v1/models/{NAME}/ledger")["data"]
    admin = office.keys["admin"].id
    assert [(line["action"], line["by"], line["why"]) for line in ledger[1:]] == [
        ("grant", admin, b),
        ("revoke_grant", admin, b),
        ("set_owner", admin, b),
        ("remove_owner", admin, ""),
    ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", OWNER, {"owner": STRANGER}),
        ("DELETE", OWNER, None),
        ("PUT", f"/v1/models/{NAME}/grants/{STRANGER}", None),
        ("DELETE", f"/v1/models/{NAME}/grants/{STRANGER}", None),
        ("POST", f"/v1/models/{NAME}/promote", {"version": 1}),
        ("POST", f"/v1/models/{NAME}/rollback", None),
        ("POST", f"/v1/models/{NAME}/withdraw", None),
        ("DELETE", f"/v1/models/{NAME}", None),
        ("PUT", "/v1/aliases/prod", {"target": NAME}),
    ],
)
def test_owning_a_name_is_no_admins_right(office: Office, method: str, path: str, body: object) -> None:
    for who in ("a", "b", "reader"):
        assert office.ask(who, method, path, body, status=403)["code"] == "insufficient_scope"
    assert office.ask("b", "GET", OWNER)["owner"] == office.keys["a"].id


@pytest.mark.parametrize("name", ["ft:fake:team:unknown", "nothing", f"{NAME}:v9"])
def test_a_name_that_was_never_published_has_no_owner(office: Office, name: str) -> None:
    for method, path, body in (
        ("GET", "owner", None),
        ("PUT", "owner", {"owner": STRANGER}),
        ("DELETE", "owner", None),
        ("PUT", f"grants/{STRANGER}", None),
        ("GET", "held_out", None),
        ("PUT", "held_out", {"file": "file-1"}),
        ("DELETE", "held_out", None),
    ):
        assert office.ask("admin", method, f"/v1/models/{name}/{path}", body, status=404)["code"] == "model_not_found"
    assert office.registry.names() == [NAME]


def test_ids_that_no_key_has_are_refused(office: Office) -> None:
    assert office.ask("admin", "PUT", OWNER, {"owner": "anonymous"}, status=422)["param"] == "owner"
    assert office.ask("admin", "PUT", f"/v1/models/{NAME}/grants/key-1", status=422)["param"] == "key"
    error = office.ask("admin", "DELETE", f"/v1/models/{NAME}/grants/{STRANGER}", status=404)
    assert error["message"] == f"{NAME} was not granted to '{STRANGER}'"


def test_the_owner_of_a_deleted_name_is_told_and_removed(office: Office) -> None:
    office.ask("admin", "DELETE", f"/v1/models/{NAME}")
    assert office.ask("admin", "GET", OWNER)["owner"] == office.keys["a"].id
    assert office.ask("admin", "DELETE", OWNER)["owner"] is None


# --- bound rows
# ------------------------------------------------------------------------------------------------------------------


def test_the_owner_binds_rows_that_outlive_the_upload(office: Office) -> None:
    file = office.upload("a")
    bound = office.ask("a", "PUT", HELD_OUT, {"file": file})
    office.ask("a", "DELETE", f"/v1/files/{file}")
    assert office.ask("b", "GET", HELD_OUT) == bound
    assert (bound["file"], bound["rows"], bound["task"], bound["by"]) == (
        file,
        2,
        "classification",
        office.keys["a"].id,
    )
    copy = office.registry.copy_held_out(NAME, office.where)
    assert copy is not None
    assert copy[1].read_bytes() == ROWS
    assert office.ask("a", "DELETE", HELD_OUT) == {"object": "model.held_out", "model": NAME, "deleted": True}
    for method in ("GET", "DELETE"):
        office.ask("a", method, HELD_OUT, status=404)


def test_only_the_owner_and_admins_bind_rows(office: Office) -> None:
    mine, theirs = office.upload("a"), office.upload("b")
    office.ask("a", "PUT", HELD_OUT, {"file": mine})
    office.ask("admin", "PUT", f"/v1/models/{NAME}/grants/{office.keys['b'].id}")
    error = office.ask("b", "PUT", HELD_OUT, {"file": theirs}, status=403)
    assert error["message"] == f"{office.keys['b'].id} does not own {NAME}: its owner or an admin binds rows to it"
    office.ask("b", "DELETE", HELD_OUT, status=403)
    office.ask("reader", "PUT", HELD_OUT, {"file": theirs}, status=403)
    assert office.ask("b", "GET", HELD_OUT)["file"] == mine
    assert office.ask("a", "PUT", HELD_OUT, {"file": theirs}, status=404)["param"] == "file"
    assert office.ask("admin", "PUT", HELD_OUT, {"file": theirs})["by"] == office.keys["admin"].id


def test_the_owner_does_not_take_away_what_an_admin_bound(office: Office) -> None:
    mine, theirs = office.upload("a"), office.upload("admin")
    office.ask("a", "PUT", HELD_OUT, {"file": mine})
    office.ask("a", "PUT", HELD_OUT, {"file": mine})
    office.ask("admin", "PUT", HELD_OUT, {"file": theirs})
    error = office.ask("a", "PUT", HELD_OUT, {"file": mine}, status=403)
    admin = office.keys["admin"].id
    assert error["message"] == f"{admin} bound the rows of {NAME}: an admin replaces or removes them"
    office.ask("a", "DELETE", HELD_OUT, status=403)
    assert office.ask("a", "GET", HELD_OUT)["file"] == theirs
    office.ask("admin", "DELETE", HELD_OUT)
    office.ask("a", "PUT", HELD_OUT, {"file": mine})


def test_rows_that_cannot_be_read_are_an_admins_to_bind_again(office: Office) -> None:
    mine, theirs = office.upload("a"), office.upload("admin")
    office.ask("a", "PUT", HELD_OUT, {"file": mine})
    next(office.app.state.settings.home.rglob("held_out.json")).write_text("")
    error = office.ask("a", "PUT", HELD_OUT, {"file": mine}, status=403)
    assert error["message"] == f"the rows bound to {NAME} cannot be read: an admin binds or removes them"
    office.ask("admin", "PUT", HELD_OUT, {"file": theirs})


@pytest.mark.parametrize("change", ["owner", "rows"])
def test_what_changes_while_a_file_is_checked_counts(
    office: Office, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = office.where / "rows.jsonl"
    rows.write_bytes(ROWS)
    others = HeldOut("file-1", "jsonl", sha256_of(rows), 2, office.keys["admin"].id, 0, "classification", {}, {})

    def count_slowly(file: bytes, most: int) -> int:
        if change == "owner":
            office.registry.set_owner(NAME, STRANGER, by="admin")
        else:
            office.registry.bind_held_out(NAME, rows, others)
        return 2

    monkeypatch.setattr(held_out_check, "_run", count_slowly)
    office.ask("a", "PUT", HELD_OUT, {"file": office.upload("a")}, status=403)
    assert office.registry.held_out(NAME) == (None if change == "owner" else others)


def test_a_name_without_an_owner_is_bound_by_admins_alone(office: Office) -> None:
    office.ask("admin", "DELETE", OWNER)
    office.ask("a", "PUT", HELD_OUT, {"file": office.upload("a")}, status=403)
    office.ask("admin", "PUT", HELD_OUT, {"file": office.upload("admin")})


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b'{"text": "a"}\n', "rows.jsonl", "expected columns text and label for task classification"),
        (b'{"anchor": "a", "positive": "b"}\n', "rows.jsonl", "for task classification"),
        (b"{\n", "rows.jsonl", "line 1"),
        (b"PAR1", "rows.parquet", "file: expected a Parquet file"),
    ],
)
def test_rows_that_the_task_cannot_read_are_refused(office: Office, content: bytes, name: str, says: str) -> None:
    error = office.ask("a", "PUT", HELD_OUT, {"file": office.upload("a", content, name)}, status=422)
    assert (error["param"], says in error["message"]) == ("file", True), error
    office.ask("a", "GET", HELD_OUT, status=404)


def test_columns_are_mapped_as_in_a_job(office: Office) -> None:
    file = office.upload("a", b"utterance,intent\nhello,yes\n", "rows.csv")
    office.ask("a", "PUT", HELD_OUT, {"file": file}, status=422)
    columns = {"text": "utterance", "label": "intent"}
    assert office.ask("a", "PUT", HELD_OUT, {"file": file, "columns": columns})["rows"] == 1
    found = office.registry.held_out(NAME)
    assert found is not None
    assert found.columns == columns


def test_readings_are_bound_with_the_columns_of_the_version(office: Office) -> None:
    settings = {"kind": "series", "timestamp": "time", "label": "bad"}
    sensor = {"kind": "series", "columns": ["a", "b"]}
    version = office.publish(task="anomaly", hyperparameters=settings, sensor=sensor, labels=())
    office.registry.promote(NAME, version, by="test", why="")
    lines = [f"2026-01-01T00:00:{i:02d},{i},{i * 2},{i * 3},0" for i in range(10)]
    table = ("time,a,b,c,bad\n" + "\n".join(lines)).encode()
    assert office.ask("a", "PUT", HELD_OUT, {"file": office.upload("a", table, "rows.csv")})["rows"] == 10
    found = office.registry.held_out(NAME)
    assert found is not None
    assert found.hyperparameters == {**settings, "columns": ["a", "b"]}
    error = office.ask("a", "PUT", HELD_OUT, {"file": office.upload("a", b"a,c\n1,2\n", "rows.csv")}, status=422)
    assert "expected a column 'b'" in error["message"]


def test_without_keys_anyone_binds(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(FakeModel("fake"))
    registry: Registry = app.state.registry
    registry.publish(NAME, staging(tmp_path / "staging"), numbered(owner="anonymous"))
    with TestClient(app) as client:
        sent = client.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("rows.jsonl", ROWS)})
        answer = client.put(HELD_OUT, json={"file": sent.json()["id"]})
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.content)["by"] == "anonymous"
