"""The command line, where everything is put together: `sonde up | serve | worker | score | bench | keys`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic.fields import FieldInfo

from models.base import ModelMetadata
from models.errors import SondeError
from models.runtime import cpu
from service import logs
from service.auth import SCOPES, Keyring
from service.bench.flags import add_flags as add_bench_flags
from service.config import PREFIX, Settings
from service.errors import ConfigError

if TYPE_CHECKING:
    from service.processes.server_process import ServerProcess


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `sonde`; return its exit code: 0, 1 when something failed, 2 when it was asked for wrongly."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parsed = parser().parse_args(given)
    parsed.flags = given[1:]  # what `up` hands on
    try:
        return int(parsed.run(parsed))
    except ConfigError as error:
        print(f"sonde: {error.message}", file=sys.stderr)
        return 2
    except SondeError as error:
        print(f"sonde: {error.message}", file=sys.stderr)
        return 1


def command() -> NoReturn:
    """`main` as a command, and the end of the process.

    Python takes the interpreter down around threads that still run, and PyTorch aborts the process when that befalls
    one which is loading a model. What had to be closed is closed by then, so where threads are left nothing more is
    waited for.
    """
    code = main()
    if threading.active_count() > 1:
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def serve(parsed: argparse.Namespace) -> int:
    """Serve models over HTTP until SIGTERM."""
    settings = _settings(parsed)
    keyring = _keyring(settings)
    if parsed.member is not None:
        return _serve_as_member(settings, keyring, parsed.member)
    logs.configure(settings.log_level)
    if settings.workers > 1:
        return _serve_together(settings, parsed.flags)
    return _serve(_within_quota(settings), keyring)


def up(parsed: argparse.Namespace) -> int:
    """Serve models over HTTP and run fine-tuning jobs, as two processes, until SIGTERM."""
    from service.processes.up import up as run

    settings = _settings(parsed)
    _keyring(settings)  # refused here, before two processes refuse
    logs.configure(settings.log_level)
    return run(settings, parsed.flags)


def worker(parsed: argparse.Namespace) -> int:
    """Run fine-tuning jobs, one at a time, until SIGTERM."""
    from service.jobs.worker import work

    settings = _settings(parsed)
    logs.configure(settings.log_level)
    _prepare_torch()
    return work(_within_quota(settings))


def score(parsed: argparse.Namespace) -> int:
    """Score a CSV's rows by a detector of numbers, and draw or write what it found."""
    from service.score import run

    return run(parsed, _with_home(Settings.read({"home": parsed.home})))


def bench(parsed: argparse.Namespace) -> int:
    """Put load on a server that speaks OpenAI's embeddings, and measure it."""
    from service.bench.command import bench as run

    return run(parsed)


def create_key(parsed: argparse.Namespace) -> int:
    """Make a key and print its secret, once."""
    scopes = [scope.strip() for scope in parsed.scope.split(",")]
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise ConfigError(f"--scope: expected some of {', '.join(SCOPES)}, got {', '.join(unknown)}")
    key, secret = Keyring(_settings(parsed).keys_file).create(
        [scope for scope in SCOPES if scope in scopes], parsed.name
    )
    print(secret)
    print(
        f"{key.id} may {', '.join(key.scopes)}. The line above is the only time that the key itself is shown.",
        file=sys.stderr,
    )
    return 0


def list_keys(parsed: argparse.Namespace) -> int:
    """Print what is known of each key."""
    for key in Keyring(_settings(parsed).keys_file).keys:
        print(f"{key.id}  {','.join(key.scopes):18}  {key.name}")
    return 0


def revoke_key(parsed: argparse.Namespace) -> int:
    """Forget a key; running services notice by themselves."""
    if not Keyring(_settings(parsed).keys_file).revoke(parsed.id):
        raise ConfigError(f"there is no key {parsed.id!r}; 'sonde keys list' shows them")
    return 0


def _within_quota(settings: Settings) -> Settings:
    return settings.within(cpu.quota(), len(cpu.usable_processors()))


def _prepare_torch() -> None:
    """Set what the libraries below PyTorch read when they are loaded, here or in a process that this one starts."""
    for name, value in _TORCH_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _serve_together(settings: Settings, flags: Sequence[str]) -> int:
    """As several processes, of which this one is the parent."""
    from service.processes.supervisor import supervise

    return supervise(settings, flags)


def _serve_as_member(settings: Settings, keyring: Keyring, place: str) -> int:
    """As one of several processes; `place` is what the parent says which."""
    from service.processes.server_process import ProcessSpec, ServerProcess

    member = ServerProcess(ProcessSpec.load(place))
    logs.configure(settings.log_level, {"process": member.number})
    try:
        return _serve(member.settle(settings), keyring, member)
    finally:
        member.close()


def _serve(settings: Settings, keyring: Keyring, member: ServerProcess | None = None) -> int:
    _prepare_torch()
    # Imported here, since it brings PyTorch along, which `sonde keys` can do without.
    from service.api.app import create_app
    from service.api.server import Server
    from service.api.server import serve as run
    from service.metrics import Metrics, listen
    from service.serving.model_manager import ModelManager

    metrics = Metrics()
    manager = ModelManager(settings, metrics, on_failure=lambda error: server.fail(error))
    if member is not None:
        member.publish(metrics)
    announce = _announce if member is None else member.announcing(_greeting)
    server = Server(create_app(settings, manager, keyring, metrics), settings, manager, announce, member)
    listen(metrics.registry, settings.host, settings.metrics_port)
    return run(server, manager)


# Measured in docs/benchmarks.md.
_TORCH_ENVIRONMENT = {
    # Threads wait for each other a hundred times in one forward pass, and by default spin for milliseconds. On cores
    # that others use as well (a training job, say) each wait then costs a time slice.
    "GOMP_SPINCOUNT": "10000",
    # Two caches of compiled kernels, one per shape. Batches have hundreds of shapes, and a thousand of each would be
    # 200 MB.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
}
_EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "embedding": ("/v1/embeddings", {"input": "hello"}),
    "classification": ("/v1/classify", {"input": "hello"}),
    "anomaly": ("/v1/anomaly/score", {"input": "hello"}),
    "forecast": ("/v1/forecast", {"series": [[0.0]]}),
    "rerank": ("/v2/rerank", {"query": "hello", "documents": ["good day", "good night"]}),
}


def _announce(url: str, card: ModelMetadata) -> None:
    print(_greeting(url, card), flush=True)


def _greeting(url: str, card: ModelMetadata) -> str:
    path, body = _EXAMPLES[card.task]
    data = json.dumps({"model": card.name, **body})
    return (
        f"Sonde is ready on {url} (docs: {url}/docs). Try: curl {url}{path} -H 'content-type: application/json' "
        f"-d '{data}'"
    )


def _keyring(settings: Settings) -> Keyring:
    """The keys, which must exist where other machines can call. Raises ConfigError."""
    open_without_keys = settings.loopback or settings.insecure
    keyring = Keyring(settings.keys_file, open_without_keys=open_without_keys)
    if not keyring.keys and not open_without_keys:
        raise ConfigError(
            f"--host {settings.host} is reachable from other machines and there is no API key: make one with"
            " 'sonde keys create --scope infer', or say --insecure"
        )
    return keyring


def _settings(parsed: argparse.Namespace) -> Settings:
    given = {name: getattr(parsed, name, None) for name in Settings.model_fields}
    if given["model"] is not None:
        given["model"] = tuple(given["model"])
    return _with_home(Settings.read(given))


def _with_home(settings: Settings) -> Settings:
    """The settings, if their home is a directory or may become one. Raises ConfigError."""
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
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    abouts = {
        up: "serve models and run fine-tuning jobs on this machine",
        serve: "serve models over HTTP",
        worker: "run fine-tuning jobs",
    }
    for run, about in abouts.items():
        command = commands.add_parser(run.__name__, help=about, description=run.__doc__)
        for setting, field in Settings.model_fields.items():
            _add_flag(command, setting, field)
        command.set_defaults(run=run)
        if run is serve:
            command.add_argument("--member", help=argparse.SUPPRESS)  # what --workers starts its processes with
    command = commands.add_parser("score", help="score a CSV by a detector of numbers", description=score.__doc__)
    _add_score(command)
    load = commands.add_parser("bench", help="put load on a server and measure it", description=bench.__doc__)
    add_bench_flags(load)
    load.set_defaults(run=bench)
    _add_keys(
        commands.add_parser("keys", help="create, list and revoke API keys").add_subparsers(
            required=True, metavar="ACTION"
        )
    )
    return made


def _add_score(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "file", type=Path, help="a CSV with a header; columns that the model does not read are left out"
    )
    command.add_argument(
        "--model", required=True, help="a detector of numbers: a name, name:vN, or (with --url) an alias"
    )
    command.add_argument(
        "--url", help="a running service, like http://127.0.0.1:8000; without it the registry below --home is read"
    )
    command.add_argument("--key", help="the service's API key, where it needs one")
    command.add_argument(
        "--alpha", type=float, default=0.05, help="the share of normal rows that may be called anomalies (default 0.05)"
    )
    command.add_argument(
        "--timestamp",
        metavar="COLUMN",
        help="the column of times (ISO 8601, or numbers since 1970), for the plot and the output",
    )
    command.add_argument(
        "--plot", type=Path, help="draw readings, scores and anomalies: a file that ends in .png or .svg"
    )
    command.add_argument(
        "--out", type=Path, help="write each row's score, p-value, verdict and shares by column as CSV"
    )
    _add_flag(command, "home", Settings.model_fields["home"])
    command.set_defaults(run=score)


def _add_keys(actions: Any) -> None:
    create = actions.add_parser("create", help="make a key", description=create_key.__doc__)
    create.add_argument("--scope", required=True, help=f"comma-separated: {', '.join(SCOPES)}")
    create.add_argument("--name", default="", help="a note for yourself")
    create.set_defaults(run=create_key)
    actions.add_parser("list", help="show keys", description=list_keys.__doc__).set_defaults(run=list_keys)
    revoke = actions.add_parser("revoke", help="forget a key", description=revoke_key.__doc__)
    revoke.add_argument("id", help="the key's id, as 'list' shows it")
    revoke.set_defaults(run=revoke_key)
    for action in actions.choices.values():
        _add_flag(action, "home", Settings.model_fields["home"])


def _add_flag(command: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    """One setting as a flag; what it may be is checked by Settings, so that flags and variables get the same
    messages.
    """
    default = ", ".join(field.default) if isinstance(field.default, tuple) else str(field.default)
    told = f"default {default}, " if default else ""
    about = f"{field.description} ({told}or ${PREFIX}{name.upper()})"
    flag = f"--{name.replace('_', '-')}"
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else None
    if field.annotation is bool and field.default is True:
        command.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=about)
    elif field.annotation is bool:
        command.add_argument(flag, action="store_const", const=True, help=about)
    elif typing.get_origin(field.annotation) in (tuple, types.GenericAlias):
        command.add_argument(flag, action="append", help=about)
    else:
        command.add_argument(flag, choices=choices, help=about)


if __name__ == "__main__":
    command()
