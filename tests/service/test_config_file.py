"""`sonde.toml`: below flags and variables, above the defaults, and no unknown name in it."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

from service import cli
from service.config import Settings
from service.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; no variable is set."""
    for name in [name for name in os.environ if name.startswith("SONDE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> None:
    Path("sonde.toml").write_text(text, encoding="utf-8")


def test_the_file_beats_the_default_a_variable_the_file_and_a_flag_both(monkeypatch: pytest.MonkeyPatch) -> None:
    write('port = 1\nmax_inputs = 2\nthreads = 3\nmodel = ["a", "b=c,d"]\naccess_log = false\n')
    monkeypatch.setenv("SONDE_MAX_INPUTS", "20")
    monkeypatch.setenv("SONDE_THREADS", "30")
    settings = Settings.read({"threads": "300"})
    assert (settings.port, settings.max_inputs, settings.threads) == (1, 20, 300)
    assert (settings.model, settings.access_log, settings.runners) == (("a", "b=c,d"), False, 0)
    origins = Settings.origins({"threads": "300", "port": None})
    assert (origins["port"], origins["max_inputs"], origins["threads"], origins["runners"]) == (
        "sonde.toml",
        "SONDE_MAX_INPUTS",
        "--threads",
        "default",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "sonde.toml: prot: expected the name of a setting; did you mean port?"),
        ("max-inputs = 1", "sonde.toml: max-inputs: expected the name of a setting; did you mean max_inputs?"),
        ("[server]\nport = 1", "sonde.toml: server: expected the name of a setting; "),
        ("qqqq = 1", "'sonde config' lists them"),
        ("port: 1", "sonde.toml: expected TOML such as port = 9000: "),
        ("port = " + "[" * 100_000, "sonde.toml: expected TOML such as port = 9000: "),
        ("home = {}", "sonde.toml: home: expected a path, got {}"),
        ("port = 99999", "sonde.toml: port: "),
        ('port = "x"', "sonde.toml: port: "),
    ],
)
def test_what_is_wrong_in_the_file_is_named(text: str, message: str) -> None:
    write(text)
    with pytest.raises(ConfigError) as caught:
        Settings.read({})
    assert message in caught.value.message


def test_a_long_value_is_cut() -> None:
    write(f'port = "{"x" * 10_000}"')
    with pytest.raises(ConfigError, match="got 'xxx") as caught:
        Settings.read({})
    assert len(caught.value.message) < 300


def test_a_file_that_is_no_text_is_named() -> None:
    Path("sonde.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"sonde.toml: expected TOML"):
        Settings.read({})


def test_config_prints_a_file_with_origins(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write('home = "a # b"\n')
    monkeypatch.setenv("SONDE_PORT", "7")
    assert cli.main(["config", "--device", "cpu", "--database-url", "postgresql://me:secret@host/x"]) == 0
    said = capsys.readouterr().out
    assert "secret" not in said
    found = {line.split(" = ")[0]: line.rpartition("# ")[2] for line in said.splitlines()}
    assert (found["home"], found["port"], found["device"], found["org"]) == (
        "sonde.toml",
        "SONDE_PORT",
        "--device",
        "default",
    )
    read_again = tomllib.loads(said)
    assert set(read_again) == set(Settings.model_fields)
    assert (read_again["home"], read_again["port"]) == ("a # b", 7)


def test_config_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["port"] == {"value": 8000, "from": "default"}


def test_a_wrong_file_ends_a_command_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    write("prot = 1")
    assert cli.main(["config"]) == 2
    assert capsys.readouterr().err.startswith("sonde: sonde.toml: prot: ")
