"""A warning where more server processes are asked for than the memory holds; none of them starts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service import serve
from service.config import Settings
from service.memory_estimate import available_bytes, warn_unless_they_fit

WEIGHTS = 100 * 10**6


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(WEIGHTS)  # a file without blocks on the disk
    return Settings.read({"home": tmp_path, "workers": 64, "model": [f"mine={tmp_path}"]})


def warning(caplog: pytest.LogCaptureFixture) -> str:
    return "".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


def test_processes_that_do_not_fit_are_warned_of(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    warn_unless_they_fit(settings, 10**9)
    assert "--workers 64: these processes need about 7.9 GB of memory, and 1.0 GB are available" in warning(caplog)
    assert "take at most 8, or --fronts" in warning(caplog)


def test_no_warning_where_they_fit(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    warn_unless_they_fit(settings, 10**10)
    warn_unless_they_fit(settings.model_copy(update={"workers": 1, "fronts": 64}), 10**8)
    warn_unless_they_fit(settings.model_copy(update={"device": "cuda"}), 10**8)
    assert not warning(caplog)


def test_a_link_that_leads_nowhere_has_no_weights(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "old.safetensors").symlink_to(tmp_path / "gone")
    warn_unless_they_fit(settings, 10**9)
    assert "need about 7.9 GB" in warning(caplog)


def test_it_warns_before_a_process_starts(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> None:
        raise RuntimeError("it starts")

    monkeypatch.setattr("service.memory_estimate.available_bytes", lambda: 10**9)
    monkeypatch.setattr(serve, "prepare_torch", start)
    with pytest.raises(RuntimeError, match="it starts"):
        serve.serve_together(settings, [])
    assert "--workers 64" in warning(caplog)


def test_the_memory_of_this_machine_is_known() -> None:
    assert 10**7 < available_bytes() < 10**14
