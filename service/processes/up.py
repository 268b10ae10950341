"""`sonde up`: the API and a worker as two processes of one, ended together."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from service.config import Settings
from service.errors import ConfigError
from service.processes.parent_death import with_parent_death_signal
from service.processes.signals import on_signals

log = logging.getLogger(__name__)

_POLL_S = 0.1
_RESTART_AFTER_S = 1.0
_MARGIN_S = 10.0
_ASKED_WRONGLY = 2
_LAST_PORT = 65535


def up(settings: Settings, flags: Sequence[str]) -> int:
    """Run `sonde serve` and `sonde worker` until SIGTERM or SIGINT; the exit code of `serve`. A worker that dies is
    started again.

    `flags` are handed to both, but the worker's metrics are on the port after the API's. Raises ConfigError where
    there is none, or where it is the API's own.
    """
    if settings.metrics_port == _LAST_PORT:
        message = (
            f"--metrics-port: expected less than {_LAST_PORT}, since the worker's metrics take the next port; "
            f"got {_LAST_PORT}"
        )
        raise ConfigError(message, param="metrics_port")
    if settings.metrics_port and settings.metrics_port + 1 == settings.port:
        message = (
            f"--metrics-port: the worker's metrics take the next port, which is --port; got {settings.metrics_port}"
        )
        raise ConfigError(message, param="metrics_port")
    stopping = threading.Event()
    on_signals(stopping.set)
    workers = [*flags, "--metrics-port", str(settings.metrics_port and settings.metrics_port + 1)]
    serve, worker = _start("serve", flags), _start("worker", workers)
    try:
        while not stopping.wait(_POLL_S) and serve.poll() is None:
            if worker.poll() == _ASKED_WRONGLY:
                log.error("the worker cannot start")
                return _ASKED_WRONGLY
            if worker.poll() is not None:
                log.warning("the worker ended with %d and is started again", worker.returncode)
                stopping.wait(_RESTART_AFTER_S)
                worker = _start("worker", workers)
    finally:
        for process in (serve, worker):  # once: a second signal would cut their endings short
            if process.poll() is None:
                process.terminate()
        _end(worker, settings.job_stop_s + _MARGIN_S)
        _end(serve, settings.shutdown_s + _MARGIN_S)
    return serve.returncode if serve.returncode >= 0 else 128 - serve.returncode


def _start(command: str, flags: Sequence[str]) -> subprocess.Popen[bytes]:
    """In a session of its own, since Ctrl-C would reach it twice, and on a leash, since nobody could end it if this
    process were killed.
    """
    words = with_parent_death_signal(signal.SIGTERM, sys.executable, "-m", "service.cli", command, *flags)
    return subprocess.Popen(words, start_new_session=True)  # noqa: S603


def _end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        log.warning("a process did not end within %g s and is killed", timeout_s)
        process.kill()
        process.wait()
