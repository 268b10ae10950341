"""What the processes of tests tell pytest-xdist, which takes more processor time than most tests."""

from __future__ import annotations

from typing import Any

import pytest


def send_fewer_messages(config: pytest.Config) -> None:
    """Send two messages for a test that passes, instead of six: its result, and that it has ended.

    Where all are wanted (`-v`, `--durations`, `--junit-xml`), all are sent.
    """
    options = config.option
    if options.verbose > 0 or options.durations or options.xmlpath:
        return
    interactor: Any = next(plugin for plugin in config.pluginmanager.get_plugins() if hasattr(plugin, "sendevent"))
    send = interactor.sendevent
    interactor.sendevent = lambda name, **event: None if _is_idle(name, event) else send(name, **event)


def _is_idle(name: str, event: dict[str, Any]) -> bool:
    """Whether a message has no effect: a start, an end, or a setup or teardown that has passed and printed nothing."""
    if name != "testreport":
        return name in ("logstart", "logfinish")
    report = event["data"]
    return report["when"] != "call" and report["outcome"] == "passed" and not report["sections"]
