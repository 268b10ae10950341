"""The command line: the server's own commands; `service.commands` has those that call a service."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import logging
import os
import shlex
import sys
import threading
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic.fields import FieldInfo

from models.errors import SondeError
from models.runtime import cpu
from service import logs
from service.auth import SCOPES, Keyring
from service.banner import Banner
from service.bench.flags import add_flags as add_bench_flags
from service.commands import CLIENT_COMMANDS
from service.config import PREFIX, Settings
from service.console import takes_colours
from service.errors import ConfigError
from service.home import prepare_home
from service.printable import printable

if TYPE_CHECKING:
    import socket

    from service.metrics import Metrics
    from service.processes.server_process import ServerProcess
    from service.serving.text_sources import TextSource

log = logging.getLogger("sonde")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `sonde`; return its exit code: 0, 1 after a failure, 2 for wrong flags or settings."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if given and given[0] in CLIENT_COMMANDS:
            return _run_client_command(given)
        parsed = parser().parse_args(given)
        return int(parsed.run(parsed))
    except SondeError as error:
        print(f"sonde: {printable(error.message)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def _run_client_command(arguments: Sequence[str]) -> int:
    """Run a command that calls a service; it is Typer's, and imports what the server does not need."""
    from service.commands.app import run

    return run(arguments)


def command() -> NoReturn:
    """Run `main` and end the process.

    PyTorch aborts when the interpreter shuts down around a thread that loads a model. Everything is closed by now,
    so the process exits at once where threads are left.
    """
    code = main()
    logging.shutdown()
    if threading.active_count() > 1:
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def serve(parsed: argparse.Namespace) -> int:
    """Serve models over HTTP until SIGTERM."""
    settings = _settings(parsed)
    if parsed.process_spec is not None:
        return _serve_as_process(settings, _keyring(settings, made_before=parsed.keys_were_made), parsed.process_spec)
    keyring = _keyring(settings)
    _require_keys_file(settings, keyring)
    _configure_logs(settings)
    prepare_home(settings.home)
    with _logging_the_run(parsed, settings):
        if settings.workers > 1 or settings.fronts:
            # A process that starts later, when the file may be gone, is told that callers need a key.
            flags = _given_flags(parsed, _SERVE)
            return _serve_together(settings, [*flags, *(["--keys-were-made"] if keyring.were_made else [])])
        return _serve(_within_quota(settings), keyring)


def up(parsed: argparse.Namespace) -> int:
    """Serve models over HTTP and run fine-tuning jobs, in two processes, until SIGTERM."""
    from service.processes.up import up as run

    settings = _settings(parsed)
    _require_keys_file(settings, _keyring(settings))  # one refusal here instead of one from each process
    _configure_logs(settings)
    prepare_home(settings.home)
    with _logging_the_run(parsed, settings):
        return run(settings, _given_flags(parsed, _SERVE), _given_flags(parsed, _WORKER))


def worker(parsed: argparse.Namespace) -> int:
    """Run fine-tuning jobs, one at a time, until SIGTERM."""
    from service.jobs.worker import work

    settings = _settings(parsed)
    _configure_logs(settings)
    _prepare_torch()
    with _logging_the_run(parsed, settings):
        return work(_within_quota(settings))


def config(parsed: argparse.Namespace) -> int:
    """Print the settings in force, and what each comes from: a flag, a variable, sonde.toml or the default."""
    from service.commands.configuration import show

    given = {name: getattr(parsed, name) for name in Settings.model_fields}
    print(show(Settings.read(given).shown(), Settings.origins(given), as_json=parsed.json))
    return 0


def score(parsed: argparse.Namespace) -> int:
    """Score the rows of a CSV with a sensor model; draw or write the result."""
    from service.score import run

    return run(parsed, _require_home_directory(Settings.read({"home": parsed.home})))


def bench(parsed: argparse.Namespace) -> int:
    """Load-test a server that has OpenAI's embeddings route."""
    from service.bench.command import bench as run

    return run(parsed)


def create_key(parsed: argparse.Namespace) -> int:
    """Create a key and print its secret, once."""
    scopes = [scope.strip() for given in parsed.scope for scope in given.split(",")]
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise ConfigError(f"--scope: expected some of {', '.join(SCOPES)}, got {', '.join(unknown)}")
    chosen = [scope for scope in SCOPES if scope in scopes]
    key, secret = Keyring(_settings(parsed).keys_file).create(chosen, parsed.name)
    print(secret)
    print(f"{key.id} may {', '.join(key.scopes)}. Sonde shows the key itself only once, above.", file=sys.stderr)
    return 0


def list_keys(parsed: argparse.Namespace) -> int:
    """Print the id, scopes and name of each key."""
    for key in Keyring(_settings(parsed).keys_file).keys:
        print(printable(f"{key.id}  {','.join(key.scopes):18}  {key.name}"))
    return 0


def revoke_key(parsed: argparse.Namespace) -> int:
    """Revoke a key; running services notice by themselves."""
    if not Keyring(_settings(parsed).keys_file).revoke(parsed.id):
        raise ConfigError(f"there is no key {parsed.id!r}; 'sonde keys list' shows them")
    return 0


def _within_quota(settings: Settings) -> Settings:
    return settings.within(cpu.quota(), len(cpu.usable_processors()))


def _configure_logs(settings: Settings, always: Mapping[str, object] | None = None) -> None:
    logs.configure(settings.log_level, always, form=settings.log_format, access=settings.access_log)


@contextlib.contextmanager
def _logging_the_run(parsed: argparse.Namespace, settings: Settings) -> Iterator[None]:
    """Log the start and the end of a command; of the processes of `sonde up`, the parent alone does."""
    if parsed.child:
        yield
        return
    version = importlib.metadata.version("sonde")
    log.info("sonde %s %s starts", parsed.run.__name__, version, extra={"settings": settings.changed()})
    yield
    log.info("sonde %s has stopped", parsed.run.__name__)


def _prepare_torch() -> None:
    """Set the variables that OpenMP and oneDNN read when they load, here or in a child."""
    for name, value in _TORCH_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _serve_together(settings: Settings, flags: Sequence[str]) -> int:
    """Supervise several server processes."""
    from service.processes.supervisor import supervise

    return supervise(settings, flags)


def _serve_as_process(settings: Settings, keyring: Keyring, spec: str) -> int:
    """Serve as one of several processes; the parent passes `spec`."""
    from service.processes.server_process import ProcessSpec, ServerProcess

    process = ServerProcess(ProcessSpec.load(spec))
    _configure_logs(settings, {"process": process.name if process.role == "engine" else process.number})
    try:
        if process.role == "engine":
            return _serve_engine(process.take_share(settings), process)
        return _serve(process.take_share(settings), keyring, process)
    finally:
        process.close()


def _serve_engine(settings: Settings, process: ServerProcess) -> int:
    """Compute for the fronts; the parent has started this process for that."""
    _prepare_torch()
    from service.metrics import Metrics
    from service.serving.engine_server import serve_engine

    metrics = Metrics()
    process.publish(metrics)
    return serve_engine(settings, metrics, process)


def _serve(settings: Settings, keyring: Keyring, process: ServerProcess | None = None) -> int:
    _prepare_torch()
    if process is not None:  # its parent listens, and sends it connections
        return _run_server(settings, keyring, process, [])
    from service.processes.sockets import open_sockets

    # A port in use is said before PyTorch loads.
    with open_sockets(settings.host, settings.port, listening=False) as sockets:
        return _run_server(settings, keyring, None, sockets)


def _run_server(
    settings: Settings, keyring: Keyring, process: ServerProcess | None, sockets: list[socket.socket]
) -> int:
    # Imported here because it loads PyTorch, which `sonde keys` does not need.
    from service.api.app import create_app
    from service.api.server import Server
    from service.api.server import serve as run
    from service.metrics import Metrics, listen
    from service.serving.model_manager import ModelManager

    metrics = Metrics()
    texts = None if process is None else _engine_process_models(settings, metrics, process, lambda e: server.fail(e))
    manager = ModelManager(settings, metrics, on_failure=lambda error: server.fail(error), texts=texts)
    if process is not None:
        process.publish(metrics)
    banner = _banner(settings, keyring)
    announce = banner.show if process is None else process.announcing(banner.text)
    server = Server(create_app(settings, manager, keyring, metrics), settings, manager, announce, process)
    listen(metrics.registry, settings.host, settings.metrics_port)
    return run(server, manager, sockets)


def _engine_process_models(
    settings: Settings, metrics: Metrics, process: ServerProcess, on_failure: Callable[[Exception], None]
) -> TextSource | None:
    """The models of the engine process, for a front; None for a process that loads its own."""
    if process.role != "front":
        return None
    from service.serving.engine_link import EngineLink
    from service.serving.remote_text import RemoteTextSource

    link = EngineLink(lambda: process.tell("connect"), on_failure)
    process.link = lambda: link
    return RemoteTextSource(settings, link, metrics)


# Measured in benchmarks/NOTES.md.
_TORCH_ENVIRONMENT = {
    # Threads wait for each other a hundred times in one forward pass, and by default spin for milliseconds. Where
    # another process (such as a training job) uses the cores too, each wait then costs a time slice.
    "GOMP_SPINCOUNT": "10000",
    # Two caches of compiled kernels, one kernel per shape. Batches have hundreds of shapes; the default of a thousand
    # kernels takes 200 MB.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
}


def _banner(settings: Settings, keyring: Keyring) -> Banner:
    home = f" --home {shlex.quote(str(settings.home))}" if "home" in settings.changed() else ""
    return Banner(keys=keyring.were_made, home=home, colours=takes_colours(sys.stdout))


# The first setting of each group of flags, and the group's title.
_GROUPS = {
    "host": "addresses and processes",
    "model": "models and computing",
    "max_batch_tokens": "limits",
    "database_url": "jobs",
    "default_timeout_s": "time and logs",
}
_OF_JOBS = {"auto_promote", "max_calibration_error", "job_poll_s", "job_attempts", "job_stop_s", "max_trainer_memory"}
_OF_BOTH = {"host", "metrics_port", "home", "device", "dtype", "threads", "database_url", "max_file_bytes", "shared"}
_WORKER = _OF_JOBS | _OF_BOTH | {"job_lease_s", "log_level", "log_format"}
_SERVE = Settings.model_fields.keys() - _OF_JOBS
# Of each command that has settings: what it does, which settings, and examples.
_SERVICES: dict[Callable[[argparse.Namespace], int], tuple[str, Collection[str], list[str]]] = {
    up: (
        "serve models and run fine-tuning jobs on this machine",
        Settings.model_fields.keys(),
        ["sonde up", "sonde up --port 9000 --model ./my-model", "sonde up --host 0.0.0.0 --device cuda"],
    ),
    serve: ("serve models over HTTP", _SERVE, ["sonde serve", "sonde serve --model NAME=./my-model --workers 2"]),
    worker: ("run fine-tuning jobs", _WORKER, ["sonde worker", "sonde worker --database-url postgresql://HOST/sonde"]),
}


def _keyring(settings: Settings, *, made_before: bool = False) -> Keyring:
    """The API keys. Raises ConfigError when there is none and other machines can call."""
    open_without_keys = settings.loopback or settings.insecure
    keyring = Keyring(settings.keys_file, open_without_keys=open_without_keys, made_before=made_before)
    if not keyring.keys and not open_without_keys and not made_before:
        raise ConfigError(
            f"--host {settings.host} is reachable from other machines and there is no API key: make one with"
            " 'sonde keys create --scope infer', or pass --insecure"
        )
    return keyring


def _require_keys_file(settings: Settings, keyring: Keyring) -> None:
    """Raise ConfigError if keys were made here and their file is gone."""
    if keyring.were_made and not settings.keys_file.exists():
        raise ConfigError(
            f"{settings.keys_file} is gone, and keys were made here: restore it, create new keys with 'sonde keys"
            f" create --scope infer', or delete {settings.keys_file.with_suffix('.lock')} to serve without keys"
        )


def _given_flags(parsed: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """The flags that were given, of those settings, for another process."""
    flags: list[str] = []
    for name in names:
        flag, value = f"--{name.replace('_', '-')}", getattr(parsed, name)
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            flags += [f"{flag}={one}" for one in (value if isinstance(value, list) else [value])]
    return flags


def _settings(parsed: argparse.Namespace) -> Settings:
    given = {name: getattr(parsed, name, None) for name in Settings.model_fields}
    return _require_home_directory(Settings.read(given))


def _require_home_directory(settings: Settings) -> Settings:
    """Return the settings. Raises ConfigError if their home is not a directory."""
    try:
        settings.keys_file.stat()
    except FileNotFoundError:
        return settings
    except OSError as error:
        message = f"--home (or {PREFIX}HOME): expected a directory, got {settings.home}: {error.strerror}"
        raise ConfigError(message, param="home") from error
    return settings


def parser() -> argparse.ArgumentParser:
    """The commands and flags of `sonde`."""
    made = argparse.ArgumentParser(prog="sonde", description="An inference microservice for pretrained PyTorch models.")
    made.add_argument("--version", action="version", version=f"sonde {importlib.metadata.version('sonde')}")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for run, (about, names, examples) in _SERVICES.items():
        command = _add_command(commands, run.__name__, about, str(run.__doc__), examples)
        command.usage = f"sonde {run.__name__} [--FLAG VALUE …]"
        _add_settings(command, names)
        command.set_defaults(run=run)
        command.add_argument("--child", action="store_true", help=argparse.SUPPRESS)  # `up` passes it
        if run is serve:
            # The supervisor of --workers passes both.
            command.add_argument("--process-spec", help=argparse.SUPPRESS)
            command.add_argument("--keys-were-made", action="store_true", help=argparse.SUPPRESS)
    example = "sonde config --port 9000"
    shown = _add_command(commands, "config", "print the settings in force", str(config.__doc__), [example])
    shown.usage = "sonde config [--json] [--FLAG VALUE …]"
    shown.add_argument("--json", action="store_true", help="print JSON, for programs")
    _add_settings(shown, Settings.model_fields)
    shown.set_defaults(run=config)
    example = "sonde score live.csv --model ft:sensors:local:pump --timestamp time --plot out.png"
    _add_score(_add_command(commands, "score", "score a CSV with a sensor model", str(score.__doc__), [example]))
    example = "sonde bench --clients 32 --seconds 10"
    load = _add_command(commands, "bench", "load-test a server", str(bench.__doc__), [example])
    add_bench_flags(load)
    load.set_defaults(run=bench)
    for name, about in CLIENT_COMMANDS.items():  # listed here, and run by Typer
        commands.add_parser(name, help=about, add_help=False)
    keys = commands.add_parser("keys", help="create, list and revoke API keys")
    _add_keys(keys.add_subparsers(required=True, metavar="ACTION"))
    return made


def _add_command(actions: Any, name: str, about: str, description: str, examples: Sequence[str]) -> Any:
    epilog = "\n".join(["examples:", *(f"  {example}" for example in examples)])
    shape = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=30)
    return actions.add_parser(name, help=about, description=description, epilog=epilog, formatter_class=shape)


def _add_settings(command: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Add settings as flags, in the groups of `_GROUPS`."""
    group = command.add_argument_group()
    for name, field in Settings.model_fields.items():
        if name in _GROUPS:
            group = command.add_argument_group(_GROUPS[name])
        if name in names:
            _add_flag(group, name, field)


def _add_score(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("file", type=Path, help="a CSV with a header; columns that the model does not read are ignored")
    add("--model", required=True, help="a sensor model that detects anomalies: NAME, NAME:vN, or (with --url) an alias")
    add("--url", help="a running service, like http://127.0.0.1:8000; without it, the registry below --home")
    add("--key", help="the service's API key, where it needs one")
    add("--alpha", type=float, default=0.05, help="the share of normal rows that may be false alarms (default 0.05)")
    add("--timestamp", metavar="COLUMN", help="column of times (ISO 8601 or Unix seconds), for the plot and the output")
    add("--plot", type=Path, help="draw readings, scores and anomalies into a .png or .svg file")
    add("--out", type=Path, help="write each row's score, p-value, verdict and contributions by column as CSV")
    _add_flag(command, "home", Settings.model_fields["home"])
    command.set_defaults(run=score)


def _add_keys(actions: Any) -> None:
    example = "sonde keys create --scope infer --scope train --name chatbot"
    create = _add_command(actions, "create", "create a key", str(create_key.__doc__), [example])
    about = f"{', '.join(SCOPES)}; may be repeated (or commas)"
    create.add_argument("--scope", action="append", required=True, help=about)
    create.add_argument("--name", default="", help="a note for yourself")
    create.set_defaults(run=create_key)
    actions.add_parser("list", help="show keys", description=list_keys.__doc__).set_defaults(run=list_keys)
    revoke = actions.add_parser("revoke", help="revoke a key", description=revoke_key.__doc__)
    revoke.add_argument("id", help="the key's id, as 'list' shows it")
    revoke.set_defaults(run=revoke_key)
    for action in actions.choices.values():
        _add_flag(action, "home", Settings.model_fields["home"])


def _add_flag(command: argparse.ArgumentParser | argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    """Add a setting as a flag, which Settings validates like the variable."""
    default = ", ".join(field.default) if isinstance(field.default, tuple) else str(field.default)
    shown_default = f"default {default}, " if default else ""
    about = f"{field.description} ({shown_default}or ${PREFIX}{name.upper()})".replace("%", "%%")
    kind: dict[str, Any] = {"metavar": name.rpartition("_")[2].upper()}
    if field.annotation is bool:
        kind = {"action": argparse.BooleanOptionalAction, "default": None} if field.default else {}
        kind = kind or {"action": "store_const", "const": True}
    elif typing.get_origin(field.annotation) is tuple:
        kind["action"] = "append"
    elif typing.get_origin(field.annotation) is typing.Literal:
        kind = {"choices": typing.get_args(field.annotation)}
    command.add_argument(f"--{name.replace('_', '-')}", help=about, **kind)


if __name__ == "__main__":
    command()
