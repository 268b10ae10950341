"""Examples that are started before the service say so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from examples import chatbot, pump

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize("main", [chatbot.main, pump.main])
def test_a_service_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: Callable[[], None]
) -> None:
    monkeypatch.setenv("SONDE_URL", NOWHERE)
    monkeypatch.setattr(sys, "argv", ["example", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"nothing answers at {NOWHERE}: start"):
        main()
