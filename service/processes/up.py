"""`sonde up`: the API and a worker as two processes that end together."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from models.interpreter import RUN_MODULE
from service.config import Settings
from service.errors import ConfigError
from service.processes.parent_death import with_parent_death_signal
from service.processes.signals import on_signals

log = logging.getLogger(__name__)

_POLL_S = 0.1
_RESTART_AFTER_S = 1.0
_MARGIN_S = 10.0
_USAGE_ERROR = 2
_LAST_PORT = 65535


def up(settings: Settings, serve_flags: Sequence[str], worker_flags: Sequence[str]) -> int:
    """Run `sonde serve` and `sonde worker` until a signal; return the exit code of `serve`. A second ends both at once.

    The worker's metrics are on the port after the API's. A worker that dies is started again.
    Raises ConfigError where there is no next port, or where it is the API's own.
    """
    _require_next_port(settings)
    stopping = threading.Event()
    on_signals(stopping.set)
    worker_flags = [*worker_flags, "--metrics-port", str(settings.metrics_port and settings.metrics_port + 1)]
    serve, worker = _start("serve", serve_flags), _start("worker", worker_flags)
    try:
        while not stopping.wait(_POLL_S) and serve.poll() is None:
            if worker.poll() == _USAGE_ERROR:
                log.error("the worker cannot start")
                return _USAGE_ERROR
            if worker.poll() is not None:
                log.warning("the worker ended with %d and is started again", worker.returncode)
                stopping.wait(_RESTART_AFTER_S)
                worker = _start("worker", worker_flags)
        if serve.returncode is not None and serve.returncode < 0:
            why = ", as the kernel does for want of memory" if serve.returncode == -signal.SIGKILL else ""
            log.error("signal %d ended the server%s", -serve.returncode, why)
    finally:
        limits_s = {serve: settings.shutdown_s + _MARGIN_S, worker: settings.job_stop_s + _MARGIN_S}
        _end(limits_s, stopping)
    return serve.returncode if serve.returncode >= 0 else 128 - serve.returncode


def _require_next_port(settings: Settings) -> None:
    port = settings.metrics_port
    if port == _LAST_PORT:
        problem = f"expected less than {_LAST_PORT}, since the worker's metrics take the next port"
    elif port and port + 1 == settings.port:
        problem = "the worker's metrics take the next port, which is --port"
    else:
        return
    raise ConfigError(f"--metrics-port: {problem}; got {port}", param="metrics_port")


def _start(command: str, flags: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start `sonde COMMAND` as a child in its own session, which Ctrl-C reaches once."""
    words = with_parent_death_signal(signal.SIGTERM, *RUN_MODULE, "service.cli", command, "--child", *flags)
    return subprocess.Popen(words, start_new_session=True)  # noqa: S603


def _end(limits_s: Mapping[subprocess.Popen[bytes], float], again: threading.Event) -> None:
    """Send each process one SIGTERM, and a second one, which ends it at once, after another signal.

    Kills what runs longer than its limit. Two signals within 0.1 s count as one, as everywhere (`on_signals`).
    """
    began = time.monotonic()
    _terminate(limits_s)
    time.sleep(_POLL_S)
    again.clear()
    while running := [process for process in limits_s if process.poll() is None]:
        if again.wait(_POLL_S):
            again.clear()
            _terminate(running)
        for process in running:
            if time.monotonic() - began > limits_s[process]:
                log.warning("a process did not end within %g s and is killed", limits_s[process])
                process.kill()
                process.wait()


def _terminate(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
