"""The command line: keys are made, shown and revoked, and no service is open to others by mistake."""

from __future__ import annotations

import os
import typing
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from service import cli
from service.auth import Keyring
from service.config import Settings
from service.errors import MissingKey
from service.flags import read_settings
from service.key_use import KeyUse

Sonde = Callable[..., int]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SONDE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings with which a service would have been started."""
    started: list[Settings] = []

    def start(settings: Settings, more: object) -> int:
        started.append(settings)
        return 0

    monkeypatch.setattr(cli, "serve_alone", start)
    monkeypatch.setattr(cli, "serve_together", start)
    monkeypatch.setattr("service.logs.configure", lambda *_, **__: None)
    return started


@pytest.fixture
def sonde(tmp_path: Path) -> Sonde:
    """Runs `sonde` with a home of its own; the exit code."""

    def run(*arguments: str) -> int:
        return cli.main([*arguments, "--home", str(tmp_path)])

    return run


def keyring(home: Path) -> Keyring:
    return Keyring(home / "keys.json")


def test_a_new_keys_secret_is_all_that_is_printed(
    sonde: Sonde, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sonde("keys", "create", "--scope", "infer", "--name", "mine") == 0
    said = capsys.readouterr()
    key = keyring(tmp_path).authenticate(said.out.removesuffix("\n"))
    assert (key.scopes, key.name) == (("infer",), "mine")
    assert f"{key.id} may infer." in said.err
    assert said.out.strip() not in said.err


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        (["infer"], ("infer",)),
        (["admin, infer"], ("infer", "admin")),
        (["train,infer,train"], ("infer", "train")),
        (["train", "infer"], ("infer", "train")),
        (["infer,train", "admin", "infer"], ("infer", "train", "admin")),
    ],
)
def test_a_key_may_have_several_scopes(sonde: Sonde, tmp_path: Path, given: list[str], scopes: tuple[str, ...]) -> None:
    assert sonde("keys", "create", *(part for scope in given for part in ("--scope", scope))) == 0
    assert [key.scopes for key in keyring(tmp_path).keys] == [scopes]


@pytest.mark.parametrize(
    ("given", "unknown"), [("root", "root"), ("infer,root,all", "root, all"), ("", ""), ("Infer", "Infer")]
)
def test_an_unknown_scope_is_refused(
    sonde: Sonde, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, unknown: str
) -> None:
    assert sonde("keys", "create", "--scope", given) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"sonde: --scope: expected some of infer, train, admin, got {unknown}\n")
    assert not (tmp_path / "keys.json").exists()


def test_keys_are_listed_without_their_secrets(
    sonde: Sonde, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets = [keyring(tmp_path).create(["infer"], "one")[1], keyring(tmp_path).create(["train", "admin"], "two")[1]]
    assert sonde("keys", "list") == 0
    said = capsys.readouterr().out
    first, second = keyring(tmp_path).keys
    shown = [line.split("\t") for line in said.splitlines()]
    assert shown[0] == ["id", "scopes", "created", "last used", "expires", "limits", "name"]
    assert [(row[0], row[1], *row[3:]) for row in shown[1:]] == [
        (first.id, "infer", "never", "never", "none", "one"),
        (second.id, "train,admin", "never", "never", "none", "two"),
    ]
    assert not any(secret in said for secret in [*secrets, first.digest, second.digest])


def test_a_key_may_expire_and_have_limits(sonde: Sonde, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ("--requests-per-minute", "60", "--tokens-per-minute", "9000")
    assert sonde("keys", "create", "--scope", "infer", "--expires", "90d", *limits) == 0
    [key] = keyring(tmp_path).keys
    assert (key.expires, key.requests_per_minute, key.tokens_per_minute) == (key.created + 90 * 86400, 60, 9000)
    KeyUse(tmp_path).note(key.id)
    capsys.readouterr()
    assert sonde("keys", "list") == 0
    row = capsys.readouterr().out.splitlines()[1].split("\t")
    assert row[3] != "never"
    assert row[5] == "60 requests/min, 9000 tokens/min"


@pytest.mark.parametrize(
    "flags", [("--expires", "soon"), ("--expires", "0d"), ("--expires", "90"), ("--expires", "999999d")]
)
def test_other_times_to_expire_are_refused(
    sonde: Sonde, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, str]
) -> None:
    assert sonde("keys", "create", "--scope", "infer", *flags) == 2
    assert f"like 12h, 90d or 4w, got {flags[1]!r}" in capsys.readouterr().err
    assert not (tmp_path / "keys.json").exists()


@pytest.mark.parametrize("flag", ["--requests-per-minute", "--tokens-per-minute"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_limit_is_a_number_above_zero(sonde: Sonde, flag: str, value: str) -> None:
    with pytest.raises(SystemExit) as ended:
        sonde("keys", "create", "--scope", "infer", f"{flag}={value}")
    assert ended.value.code == 2


def test_the_first_key_says_that_calls_need_one_now_and_how_to_undo_it(
    sonde: Sonde, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for _ in range(2):
        assert sonde("keys", "create", "--scope", "infer") == 0
        said.append(capsys.readouterr().err)
    assert "from now on every call needs one" in said[0]
    undo = f"rm {tmp_path / 'keys.json'} {tmp_path / 'keys.lock'}  and restart the service"
    assert undo in said[0]
    assert "from now on" not in said[1]


def test_without_keys_the_list_is_empty(sonde: Sonde, capsys: pytest.CaptureFixture[str]) -> None:
    assert sonde("keys", "list") == 0
    assert capsys.readouterr().out == ""


def test_a_revoked_key_is_gone(sonde: Sonde, tmp_path: Path) -> None:
    key, secret = keyring(tmp_path).create(["infer"])
    keyring(tmp_path).create(["infer"])
    assert sonde("keys", "revoke", key.id) == 0
    with pytest.raises(MissingKey):
        keyring(tmp_path).authenticate(secret)


def test_a_key_that_is_not_there_cannot_be_revoked(sonde: Sonde, capsys: pytest.CaptureFixture[str]) -> None:
    assert sonde("keys", "revoke", "key-1") == 2
    assert capsys.readouterr().err == "sonde: there is no key 'key-1'; 'sonde keys list' shows them\n"


def test_a_broken_keys_file_is_named(sonde: Sonde, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys.json").write_text("{")
    assert sonde("keys", "list") == 2
    assert f"{tmp_path / 'keys.json'} is not a list of keys" in capsys.readouterr().err


@pytest.mark.parametrize("below", [(), ("state",)])
@pytest.mark.parametrize(
    "command",
    [
        *(("keys", "create", "--scope", "infer"), ("keys", "list"), ("keys", "revoke", "key-1")),
        *(("serve",), ("up",), ("worker",), ("score", "x.csv", "--model", "ft:sensors:local:pump")),
    ],
)
def test_a_home_that_is_a_file_is_refused(
    served: list[Settings],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    below: tuple[str, ...],
) -> None:
    (tmp_path / "home").write_text("")
    home = (tmp_path / "home").joinpath(*below)
    assert cli.main([*command, "--home", str(home)]) == 2
    assert (
        capsys.readouterr().err == f"sonde: --home (or SONDE_HOME): expected a directory, got {home}: Not a directory\n"
    )
    assert served == []


@pytest.mark.parametrize("command", ["up", "serve"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7"])
def test_no_service_is_open_to_others_without_keys(
    sonde: Sonde, served: list[Settings], capsys: pytest.CaptureFixture[str], command: str, host: str
) -> None:
    assert sonde(command, "--host", host) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"sonde: --host {host} is reachable from other machines and there is no API key")
    assert "sonde keys create" in message
    assert served == []


@pytest.mark.parametrize("command", ["up", "serve"])
@pytest.mark.parametrize("model", ["./nowhere", "net=nowhere.pt2", "all-minilm"])
def test_a_model_that_is_not_there_is_refused_before_anything_starts(
    sonde: Sonde,
    served: list[Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    model: str,
) -> None:
    monkeypatch.setattr("service.processes.up.up", lambda *_: pytest.fail("it was started"))
    assert sonde(command, "--model", model) == 1
    assert model.removeprefix("net=") in capsys.readouterr().err
    assert served == []


@pytest.mark.parametrize(
    ("flags", "with_key"),
    [
        ([], False),
        (["--host", "localhost"], False),
        (["--host", "0.0.0.0", "--insecure"], False),
        (["--host", "0.0.0.0"], True),
    ],
)
def test_a_service_starts_on_loopback_or_with_a_key_or_where_it_is_told_to(
    sonde: Sonde, served: list[Settings], tmp_path: Path, flags: list[str], with_key: bool
) -> None:
    if with_key:
        keyring(tmp_path).create(["infer"])
    assert sonde("serve", *flags) == 0
    assert [settings.home for settings in served] == [tmp_path]


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_service_whose_keys_file_is_gone_does_not_start(
    sonde: Sonde, served: list[Settings], tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    keyring(tmp_path).create(["infer"])
    (tmp_path / "keys.json").unlink()
    assert sonde(command) == 2
    assert "keys.json is gone, and keys were made here: restore it" in capsys.readouterr().err
    (tmp_path / "keys.lock").unlink()
    assert served == []
    assert sonde("serve") == 0


def given_as(name: str) -> tuple[list[str], object]:
    """A value for a setting's flag, and what it means."""
    field = Settings.model_fields[name]
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        return [flag], True
    several = {"trusted_proxies": "10.0.0.0/8", "cors_origin": "https://app.example", "allow_urls": "images.example"}
    several["trust_native"] = "net"
    if name in several:
        return [flag, several[name]], (several[name],)
    if typing.get_origin(field.annotation) is typing.Literal:
        choice = typing.get_args(field.annotation)[-1]
        return [flag, choice], choice
    others: dict[str, Any] = {
        "home": Path("/x"),
        "host": "::1",
        "model": ("a", "b=c,d"),
        "org": "us",
        "max_calibration_error": 0.5,
        "token_ids_file": "/x.tiktoken",
    }
    others |= {"database_url": "postgresql://x/y", "token_ids_file": "/x/o200k_base.tiktoken"}
    value = others[name] if name in others else field.default + 1
    return [part for one in (value if name == "model" else [value]) for part in (flag, str(one))], value


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_flag_that_up_passes_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    started: list[tuple[Settings, list[str], list[str]]] = []

    def start(*given: Any) -> int:
        started.append(given)
        return 0

    monkeypatch.setattr("service.processes.up.up", start)
    monkeypatch.setattr("service.logs.configure", lambda *_, **__: None)
    monkeypatch.setattr("service.cli.prepare_home", lambda home: None)
    monkeypatch.setattr("service.cli.require_place", lambda spec: None)
    flags, value = given_as(name)
    assert cli.main(["up", *flags, *(["--insecure"] if name == "host" else [])]) == 0
    [(settings, serve, worker)] = started
    assert getattr(settings, name) == value
    for command, passed in (("serve", serve), ("worker", worker)):
        parsed = cli.parser().parse_args([command, *passed])
        assert not hasattr(parsed, name) or getattr(read_settings(parsed), name) == value
    assert any(name in vars(cli.parser().parse_args([command])) for command in ("serve", "worker"))


_LISTED = "'sonde {} --help' lists the flags"


@pytest.mark.parametrize(
    ("command", "flag"),
    [("worker", "--port"), ("worker", "--workers"), ("worker", "--max-inputs"), ("serve", "--job-poll-s")],
)
def test_a_command_has_only_flags_that_mean_something(
    capsys: pytest.CaptureFixture[str], command: str, flag: str
) -> None:
    assert cli.main([command, flag, "2"]) == 2
    assert capsys.readouterr().err == f"sonde: {flag}: no flag of 'sonde {command}'; {_LISTED.format(command)}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--prot", "9"], "--prot: no flag of 'sonde serve'; did you mean --port?"),
        (["up", "--modle=x"], "--modle: no flag of 'sonde up'; did you mean --model?"),
        (["up", "./net"], f"'./net': expected a flag before it, such as --model ./net; {_LISTED.format('up')}"),
        (["keys", "list", "all"], f"'all': expected a flag before it; {_LISTED.format('keys list')}"),
        (
            ["keys", "create", "--scope", "infer", "--nme=x"],
            "--nme: no flag of 'sonde keys create'; did you mean --name?",
        ),
        (["--foo", "config"], "--foo: no flag of 'sonde'; 'sonde --help' lists the flags"),
        (["serve", "--key=secret"], f"--key: no flag of 'sonde serve'; {_LISTED.format('serve')}"),
        (["serve", "--chilt"], f"--chilt: no flag of 'sonde serve'; {_LISTED.format('serve')}"),
        (["serve", ""], f"'': expected a flag before it; {_LISTED.format('serve')}"),
    ],
)
def test_an_unknown_argument_is_told_the_nearest_flag(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"sonde: {message}\n"


def test_without_flags_the_environment_counts(served: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONDE_PORT", "9")
    monkeypatch.setenv("SONDE_MAX_INPUTS", "5")
    assert cli.main(["serve", "--max-inputs", "6"]) == 0
    assert [(settings.port, settings.max_inputs) for settings in served] == [(9, 6)]


def test_a_wrong_setting_is_named(sonde: Sonde, served: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    assert sonde("serve", "--port", "99999") == 2
    assert capsys.readouterr().err.startswith("sonde: --port (or SONDE_PORT): ")
    assert served == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["keys"], ["keys", "fly"], ["keys", "create"], ["keys", "revoke"], ["serve", "--device", "tpu"]],
)
def test_what_is_asked_for_wrongly_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: sonde" in capsys.readouterr().err


def test_all_commands_are_listed_where_none_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([])
    assert "classify  label texts" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sonde {version('sonde')}\n"


@pytest.mark.parametrize("command", ["up", "serve", "worker"])
def test_help_tells_every_flag_with_its_default_and_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # argparse breaks lines at hyphens
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    raw = capsys.readouterr().out
    said = " ".join(raw.split())
    assert ended.value.code == 0
    assert "examples:\n  sonde" in raw
    assert "\njobs:\n" in raw
    for name in cli._SERVICES[getattr(cli, command)][1]:
        field = Settings.model_fields[name]
        default = "all-MiniLM-L6-v2" if name == "model" else field.default
        told = f"default {default}, " if default not in ("", ()) else ""
        assert f"--{name.replace('_', '-')}" in said
        assert f"({told}or $SONDE_{name.upper()})" in said


def test_a_service_logs_its_start_and_end_and_a_child_of_up_does_not(
    sonde: Sonde, served: list[Settings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert sonde("serve", "--port", "9", "--database-url", "postgresql://me:secret@host:5/jobs?password=x") == 0
    assert [record.message for record in caplog.records] == [
        f"sonde serve {version('sonde')} starts",
        "sonde serve has stopped",
    ]
    assert caplog.records[0].__dict__["settings"] == {
        "port": 9,
        "home": tmp_path,
        "database_url": "postgresql://host:5/jobs",
    }
    caplog.clear()
    assert sonde("serve", "--child") == 0
    assert caplog.records == []
    assert len(served) == 2


def test_ctrl_c_before_a_command_begins_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "main", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr("service.cli.threading.active_count", lambda: 1)
    with pytest.raises(SystemExit) as ended:
        cli.command()
    assert ended.value.code == 130
