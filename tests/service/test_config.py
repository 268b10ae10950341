"""Settings: flags beat the environment, which beats the defaults, and what is wrong is named as the operator knows
it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from pydantic import ValidationError

from service.config import Settings
from service.errors import ConfigError


def read(flags: dict[str, Any], environment: dict[str, str]) -> Settings:
    """The settings of a process with that environment."""
    with mock.patch.dict(os.environ, environment, clear=True):
        return Settings.read(flags)


def test_the_defaults_listen_on_loopback_alone() -> None:
    settings = read({}, {})
    assert (settings.host, settings.port, settings.loopback, settings.insecure) == ("127.0.0.1", 8000, True, False)
    assert settings.model == ("all-MiniLM-L6-v2",)
    assert settings == Settings()


def test_no_default_allows_an_image_that_no_body_can_have() -> None:
    assert Settings().max_image_bytes <= Settings().max_body_bytes


@pytest.mark.parametrize(
    ("flags", "environment", "port"),
    [
        ({}, {}, 8000),
        ({}, {"SONDE_PORT": "9"}, 9),
        ({"port": "7"}, {"SONDE_PORT": "9"}, 7),
        ({"port": 0}, {"SONDE_PORT": "9"}, 0),  # 0 is given, too
        ({"port": None}, {"SONDE_PORT": "9"}, 9),  # None is not
        ({}, {"PORT": "9", "sonde_port": "9", "SONDEPORT": "9"}, 8000),
    ],
)
def test_flags_beat_the_environment_which_beats_the_defaults(
    flags: dict[str, Any], environment: dict[str, str], port: int
) -> None:
    assert read(flags, environment).port == port


def test_a_wrong_variable_does_not_matter_where_a_flag_is_given() -> None:
    assert read({"port": "7"}, {"SONDE_PORT": "none"}).port == 7


def test_without_an_environment_the_process_own_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONDE_MAX_INPUTS", "17")
    assert Settings.read({}).max_inputs == 17


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SONDE_PROT", "did you mean SONDE_PORT?"),
        ("SONDE_METRIC_PORT", "did you mean SONDE_METRICS_PORT?"),
        ("SONDE_max_inputs", "did you mean SONDE_MAX_INPUTS?"),
        ("SONDE_DB_URL", "did you mean SONDE_"),
        ("SONDE_QQQQQQ", "'sonde up --help' lists them"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name_and_without_its_value(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read({}, {name: "secret", "SONDE_HOST": "127.0.0.1"})
    assert caught.value.message.startswith(f"{name}: expected the variable of a setting; ")
    assert hint in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SONDE_URL", "http://127.0.0.1:8000"),
        ("SONDE_API_KEY", "x"),
        ("SONDE_SERVICE_HOST", "10.0.0.1"),
        ("SONDE_API_SERVICE_PORT_HTTP", "8000"),
        ("SONDE_API_PORT", "tcp://10.0.0.1:8000"),
        ("SONDE_PORT_8000_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_of_clients_and_of_kubernetes_are_no_settings(name: str, value: str) -> None:
    assert read({}, {name: value}) == Settings()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5/jobs?password=secret&sslmode=require", "postgresql://host:5/jobs"),
        ("postgresql://me:se/cret@host/jobs", "postgresql://host/jobs"),
        ("postgresql://me:x@secret@host/jobs", "postgresql://…"),
        ("postgresql://host/jobs?password=a@secret", "postgresql://host/jobs"),
        ("postgresql://me:secret/jobs", "…"),
        ("secret", "…"),
    ],
)
def test_changed_settings_have_no_secret_of_the_database(url: str, shown: str) -> None:
    settings = read({"database_url": url, "port": 9}, {})
    assert settings.changed() == {"database_url": shown, "port": 9}


def as_text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_field_can_be_set_by_its_variable(name: str) -> None:
    others: dict[str, object] = {
        "host": "::1",
        "home": Path("/x"),
        "insecure": True,
        "model": ("a", "b=c"),
        "trusted_proxies": ("10.0.0.0/8", "::1/128"),
        "device": "cpu",
        "token_ids": "model",
        "token_ids_file": "/x/o200k_base.tiktoken",
    }
    others |= {
        "dtype": "float32",
        "log_level": "debug",
        "database_url": "postgresql://x/y",
        "org": "us",
        "auto_promote": False,
        "log_format": "json",
        "access_log": False,
    }
    others |= {"max_calibration_error": 0.5, "token_ids": "model", "token_ids_file": "/x.tiktoken"}
    others |= {"cors_origin": ("https://app.example", "http://localhost:5173")}
    others |= {"allow_urls": ("images.example", "cdn.example:8443"), "trust_native": ("net", "Other"), "compile": True}
    default = getattr(Settings(), name)
    value = others[name] if name in others else default + 1
    assert getattr(read({}, {f"SONDE_{name.upper()}": as_text(value)}), name) == value


@pytest.mark.parametrize(
    ("given", "models"),
    [
        ("a", ("a",)),
        ("a,b", ("a", "b")),
        ("support=/models/x,BAAI/bge-small-en", ("support=/models/x", "BAAI/bge-small-en")),
        (",a, b ,", ("a", "b")),
    ],
)
def test_the_variable_takes_several_models(given: str, models: tuple[str, ...]) -> None:
    assert read({}, {"SONDE_MODEL": given}).model == models


@pytest.mark.parametrize("given", ["", ",", " , "])
def test_no_model_at_all_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="SONDE_MODEL"):
        read({}, {"SONDE_MODEL": given})


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("port", "http", "expected an integer"),
        ("port", "65536", "less than or equal to 65535"),
        ("port", "-1", "greater than or equal to 0"),
        ("max_inputs", "0", "greater than or equal to 1"),
        ("max_inputs", "", "expected an integer"),
        ("max_body_bytes", "16M", "expected an integer"),
        ("default_timeout_s", "0", "greater than 0"),
        ("default_timeout_s", "nan", "greater than 0"),
        ("device", "tpu", "'auto', 'cuda', 'mps' or 'cpu'"),
        ("log_level", "INFO", "'debug', 'info', 'warning' or 'error'"),
        ("insecure", "maybe", "expected a boolean"),
    ],
)
@pytest.mark.parametrize("by_flag", [True, False])
def test_what_is_wrong_is_named_by_flag_and_by_variable(name: str, value: str, problem: str, by_flag: bool) -> None:
    flags, environment = ({name: value}, {}) if by_flag else ({}, {f"SONDE_{name.upper()}": value})
    with pytest.raises(ConfigError, match=problem) as caught:
        read(flags, environment)
    assert str(caught.value).startswith(f"--{name.replace('_', '-')} (or SONDE_{name.upper()}): ")
    assert str(caught.value).endswith(f"got {value!r}")
    assert caught.value.param == name


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--max-imputs .* no such field"):
        read({"max_imputs": 3}, {})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.7", False),
    ],
)
def test_loopback_is_what_no_other_machine_reaches(host: str, loopback: bool) -> None:
    assert Settings(host=host).loopback is loopback


def test_keys_lie_in_the_home_directory() -> None:
    assert read({"home": "/var/lib/sonde"}, {}).keys_file == Path("/var/lib/sonde/keys.json")


def test_limits_that_were_set_are_divided_and_defaults_are_not() -> None:
    given = {"max_queued_items": "100", "cache_mb": "3", "threads": "2", "max_inputs": "5"}
    part = read(given, {"SONDE_MAX_QUEUED_TOKENS": "1000"}).share(3)
    assert (part.max_queued_items, part.max_queued_tokens, part.cache_mb) == (34, 334, 1), (
        "rounded up: a little room is room"
    )
    assert (part.threads, part.max_inputs) == (2, 5), "these are of each process and of each request"
    assert Settings().share(3) == Settings()


def test_a_cache_that_is_off_stays_off() -> None:
    assert Settings(cache_mb=0).share(4).cache_mb == 0


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(("name", "field"), Settings.model_fields.items())
def test_every_setting_is_described(name: str, field: Any) -> None:
    assert field.description, name


@pytest.mark.parametrize(
    ("asked", "quota", "processors", "threads"),
    [(0, 2.0, 8, 2), (0, 2.9, 8, 2), (0, 0.5, 8, 1), (0, 8.0, 8, 0), (0, None, 8, 0), (6, 2.0, 8, 6)],
)
def test_a_quota_bounds_the_threads_unless_they_were_asked_for(
    asked: int, quota: float | None, processors: int, threads: int
) -> None:
    assert Settings(threads=asked).within(quota, processors).threads == threads


def test_proxies_are_networks_however_they_are_given() -> None:
    assert Settings.read({"trusted_proxies": ["10.0.0.0/8,192.0.2.7", "::1"]}).trusted_proxies == (
        "10.0.0.0/8",
        "192.0.2.7/32",
        "::1/128",
    )


@pytest.mark.parametrize("given", ["*", "proxy", "10.0.0.1/8", "10.0.0.0/99"])
def test_a_proxy_that_is_no_network_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"--trusted-proxies .* expected networks like 10\.0\.0\.0/8"):
        Settings.read({"trusted_proxies": [given]})


def test_fronts_and_workers_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="expected one of them, got 2 and 3") as refused:
        Settings.read({"fronts": 2, "workers": 3})
    assert refused.value.param == "fronts"
    assert Settings.read({"fronts": 2}).workers == 1
