"""Servers of this process: alone, one of several that a parent supervises, or the engine of several fronts."""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from models.source import locate_ahead
from service import logs
from service.auth import Keyring
from service.banner import Banner
from service.config import Settings
from service.console_log import takes_colours

if TYPE_CHECKING:
    import socket

    from service.api.server import Server
    from service.metrics import Metrics
    from service.processes.server_process import ServerProcess
    from service.serving.model_opener import ModelOpener


# Measured in benchmarks/NOTES.md.
_TORCH_ENVIRONMENT = {
    # Threads wait for each other a hundred times in one forward pass, and by default spin for milliseconds. Where
    # another process (such as a training job) uses the cores too, each wait then costs a time slice.
    "GOMP_SPINCOUNT": "10000",
    # Two caches of compiled kernels, one kernel per shape. Batches of texts have hundreds of shapes; the default of a
    # thousand kernels takes 200 MB. A network of convolutions needs 160 for batches of one to five images.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
    "LRU_CACHE_CAPACITY": "64",
}


def serve_alone(settings: Settings, keyring: Keyring) -> int:
    """Serve as one process, this one."""
    prepare_torch()
    from service.processes.sockets import open_sockets

    # A port in use is said before PyTorch loads.
    with open_sockets(settings.host, settings.port, listening=False) as sockets:
        return _run_server(settings, keyring, None, sockets)


def serve_together(settings: Settings, flags: Sequence[str]) -> int:
    """Supervise several server processes."""
    from service.memory_estimate import available_bytes, warn_unless_they_fit
    from service.processes.supervisor import supervise

    warn_unless_they_fit(settings, available_bytes())
    # Libraries read their variables when they are imported, which is before a process forks.
    prepare_torch()
    logs.hide_progress_bars()
    return supervise(settings, flags, "service.preloaded")


def serve_as_process(settings: Settings, keyring: Keyring, spec: str) -> int:
    """Serve as one of several processes; the parent passes `spec`."""
    from service.processes.server_process import ProcessSpec, ServerProcess

    process = ServerProcess(ProcessSpec.load(spec))
    process.show_name()
    configure_logs(settings, {"process": process.name if process.role == "engine" else process.number})
    prepare_torch()
    try:
        if process.role == "engine":
            return _serve_engine(process.take_share(settings), process)
        return _run_server(process.take_share(settings), keyring, process, [])  # its parent sends it connections
    finally:
        process.close()


def _serve_engine(settings: Settings, process: ServerProcess) -> int:
    """Compute for the fronts; the parent has started this process for that."""
    from service.metrics import Metrics
    from service.serving.engine_server import serve_engine

    metrics = Metrics()
    process.publish(metrics)
    return serve_engine(settings, metrics, process)


def _run_server(
    settings: Settings, keyring: Keyring, process: ServerProcess | None, sockets: list[socket.socket]
) -> int:
    gc.disable()  # the server enables it once PyTorch and the models are loaded: a million objects that stay
    # By Python's default a thread could hold the interpreter for 5 ms, as long as a whole batch takes.
    sys.setswitchinterval(0.0001)
    is_front = process is not None and process.role == "front"
    located = None if is_front else locate_ahead(settings.text_models)  # while PyTorch is imported
    # Imported here because it loads PyTorch, which `sonde keys` does not need.
    from pydantic.warnings import UnsupportedFieldAttributeWarning

    from service.metrics import Metrics, listen
    from service.serving.model_manager import ModelManager

    # FastAPI silences this one while it reads routes, but loading models in another thread replaces its filter.
    warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)
    metrics = Metrics()
    server: Server | None = None

    def fail(error: Exception) -> None:
        if server is not None:  # before that, opening the models fails with it
            server.fail(error)

    opener = None if process is None else _remote_opener(settings, metrics, process, fail)
    manager = ModelManager(settings, metrics, on_failure=fail, opener=opener, located=located)
    manager.start_opening(alone=False)
    # Most of loading a model is no work of the interpreter's, which has time to import the rest.
    from service.api.app import create_app
    from service.api.server import Server, serve
    from service.rpc import open_rpc

    if process is not None:
        process.publish(metrics)
    banner = make_banner(settings, keyring)
    announce = banner.show if process is None else process.announcing(banner.text)
    app = create_app(settings, manager, keyring, metrics)
    server = Server(app, settings, manager, announce, process, open_rpc(app, settings, shared=process is not None))
    listen(metrics.registry, settings.host, settings.metrics_port)
    with contextlib.closing(app.state.jobs):
        return serve(server, manager, sockets)


def _remote_opener(
    settings: Settings, metrics: Metrics, process: ServerProcess, on_failure: Callable[[Exception], None]
) -> ModelOpener | None:
    """The opener of models in the engine process, for a front; None for a process that loads its own."""
    if process.role != "front":
        return None
    from service.serving.engine_link import EngineLink
    from service.serving.remote_models import RemoteModelOpener

    link = EngineLink(lambda: process.send_state("connect"), on_failure)
    process.link = lambda: link
    return RemoteModelOpener(settings, link, metrics)


def make_banner(settings: Settings, keyring: Keyring) -> Banner:
    """What a terminal shows when the server is ready."""
    home = f" --home {shlex.quote(str(settings.home))}" if "home" in settings.changed() else ""
    return Banner(keys=keyring.were_made, home=home, colours=takes_colours(sys.stdout))


def prepare_torch() -> None:
    """Set the variables that OpenMP and oneDNN read when they load, here or in a child."""
    for name, value in _TORCH_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def configure_logs(settings: Settings, always: Mapping[str, object] | None = None) -> None:
    """Log as the settings say, with the fields `always` on each line."""
    logs.configure(settings.log_level, always, form=settings.log_format, access=settings.access_log)
