"""The command line: the server's own commands; `service.commands` has those that call a service."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from models.errors import SondeError
from models.runtime import cpu
from models.source import require_place
from service.auth import Keyring
from service.bench.flags import add_flags as add_bench_flags
from service.commands import CLIENT_COMMANDS
from service.commands.keys import add_keys
from service.config import Settings
from service.errors import ConfigError
from service.flags import add_command, add_flag, add_settings, given_flags, read_settings, require_home_directory
from service.home import prepare_home
from service.printable import printable
from service.serve import configure_logs, prepare_torch, serve_alone, serve_as_process, serve_together
from service.version import VERSION

log = logging.getLogger("sonde")
# "--prot" is 0.83 like "--port"; "--host" is 0.67 like it.
_SIMILAR = 0.8


class _Parser(argparse.ArgumentParser):
    """A command, or an action of one, that refuses an unknown argument with the flag that looks most like it.

    The beginning of a flag is unknown, too: it may be that of a flag which is not for users.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments; none is left over. Raises ConfigError."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            raise self._unknown_argument(unknown[0])
        return parsed, unknown

    def _unknown_argument(self, argument: str) -> ConfigError:
        flags = [flag for flag, action in self._option_string_actions.items() if action.help != argparse.SUPPRESS]
        advice = f"'{self.prog} --help' lists the flags"
        if not argument.startswith("-"):
            example = f", such as --model {argument}" if argument and "--model" in flags else ""
            return ConfigError(f"{argument!r}: expected a flag before it{example}; {advice}")
        name = argument.partition("=")[0]  # the value may be secret
        meant = get_close_matches(name, flags, n=1, cutoff=_SIMILAR)
        return ConfigError(f"{name}: no flag of '{self.prog}'; {f'did you mean {meant[0]}?' if meant else advice}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `sonde`; return its exit code: 0, 1 after a failure, 2 for wrong flags or settings."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if given and given[0] in CLIENT_COMMANDS:
            return _run_client_command(given)
        made = parser()
        if not given:
            made.exit(2, made.format_help())
        parsed = made.parse_args(given)
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
    try:
        code = main()
    except KeyboardInterrupt:  # before a command handles signals, such as while it imports
        code = 128 + signal.SIGINT
    logging.shutdown()
    if threading.active_count() > 1:
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def serve(parsed: argparse.Namespace) -> int:
    """Serve models over HTTP until SIGTERM."""
    settings = read_settings(parsed)
    if parsed.process_spec is not None:
        return serve_as_process(settings, _keyring(settings, made_before=parsed.keys_were_made), parsed.process_spec)
    keyring = _keyring(settings)
    _require_keys_file(settings, keyring)
    _require_models(settings)
    configure_logs(settings)
    prepare_home(settings.home)
    with _logging_the_run(parsed, settings):
        if settings.workers > 1 or settings.fronts:
            # A process that starts later, when the file may be gone, is told that callers need a key.
            flags = given_flags(parsed, _SERVE)
            return serve_together(settings, [*flags, *(["--keys-were-made"] if keyring.were_made else [])])
        return serve_alone(_within_quota(settings), keyring)


def up(parsed: argparse.Namespace) -> int:
    """Serve models over HTTP and run fine-tuning jobs, in two processes, until SIGTERM."""
    from service.processes.up import up as run

    settings = read_settings(parsed)
    _require_keys_file(settings, _keyring(settings))  # one refusal here instead of one from each process
    _require_models(settings)
    configure_logs(settings)
    prepare_home(settings.home)
    with _logging_the_run(parsed, settings):
        return run(settings, given_flags(parsed, _SERVE), given_flags(parsed, _WORKER))


def worker(parsed: argparse.Namespace) -> int:
    """Run fine-tuning jobs, one at a time, until SIGTERM."""
    from service.jobs.worker import work

    settings = read_settings(parsed)
    configure_logs(settings)
    prepare_torch()
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
    from service.score_file import run

    return run(parsed, require_home_directory(Settings.read({"home": parsed.home})))


def bench(parsed: argparse.Namespace) -> int:
    """Load-test a server with OpenAI's embeddings route or the Open Inference Protocol."""
    from service.bench.command import bench as run

    return run(parsed)


def _within_quota(settings: Settings) -> Settings:
    return settings.within(cpu.quota(), len(cpu.usable_processors()))


@contextlib.contextmanager
def _logging_the_run(parsed: argparse.Namespace, settings: Settings) -> Iterator[None]:
    """Log the start and the end of a command; of the processes of `sonde up`, the parent alone does."""
    if parsed.child:
        yield
        return
    log.info("sonde %s %s starts", parsed.run.__name__, VERSION, extra={"settings": settings.changed()})
    yield
    log.info("sonde %s has stopped", parsed.run.__name__)


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


# A busy service takes hundreds of requests in this time.
_KEYS_FRESH_S = 0.01


def _keyring(settings: Settings, *, made_before: bool = False) -> Keyring:
    """The API keys. Raises ConfigError when there is none and other machines can call."""
    open_without_keys = settings.loopback or settings.insecure
    keyring = Keyring(
        settings.keys_file, open_without_keys=open_without_keys, made_before=made_before, fresh_s=_KEYS_FRESH_S
    )
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


def _require_models(settings: Settings) -> None:
    """Raise ModelSourceError for a model that is not there, before seconds go into measuring the machine."""
    for spec in settings.model:
        require_place(spec)


def parser() -> argparse.ArgumentParser:
    """The commands and flags of `sonde`."""
    made = _Parser(prog="sonde", description="An inference microservice for pretrained PyTorch models.")
    made.add_argument("--version", action="version", version=f"sonde {VERSION}")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for run, (about, names, examples) in _SERVICES.items():
        command = add_command(commands, run.__name__, about, str(run.__doc__), examples)
        command.usage = f"sonde {run.__name__} [--FLAG VALUE …]"
        add_settings(command, names)
        command.set_defaults(run=run)
        command.add_argument("--child", action="store_true", help=argparse.SUPPRESS)  # `up` passes it
        if run is serve:
            # The supervisor of --workers passes both.
            command.add_argument("--process-spec", help=argparse.SUPPRESS)
            command.add_argument("--keys-were-made", action="store_true", help=argparse.SUPPRESS)
    example = "sonde config --port 9000"
    shown = add_command(commands, "config", "print the settings in force", str(config.__doc__), [example])
    shown.usage = "sonde config [--json] [--FLAG VALUE …]"
    shown.add_argument("--json", action="store_true", help="print JSON, for programs")
    add_settings(shown, Settings.model_fields)
    shown.set_defaults(run=config)
    example = "sonde score live.csv --model ft:sensors:local:pump --timestamp time --plot out.png"
    _add_score(add_command(commands, "score", "score a CSV with a sensor model", str(score.__doc__), [example]))
    example = "sonde bench --clients 32 --seconds 10"
    load = add_command(commands, "bench", "load-test a server", str(bench.__doc__), [example])
    add_bench_flags(load)
    load.set_defaults(run=bench)
    for name, about in CLIENT_COMMANDS.items():  # listed here, and run by Typer
        commands.add_parser(name, help=about, add_help=False)
    keys = commands.add_parser("keys", help="create, list and revoke API keys")
    add_keys(keys.add_subparsers(required=True, metavar="ACTION"))
    return made


def _add_score(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("file", type=Path, help="a CSV with a header; columns that the model does not read are ignored")
    add("--model", required=True, help="a sensor model that detects anomalies: NAME, NAME:vN, or (with --url) an alias")
    add("--url", help="a running service, like http://127.0.0.1:8000; without it, the registry below --home")
    add("--key", help="the service's API key, where it needs one")
    add("--alpha", type=float, default=0.05, help="the share of normal rows that may be false alarms (default 0.05)")
    add("--timestamp", metavar="COLUMN", help="column of times (ISO 8601 or Unix seconds), for the plot and the output")
    add("--group", metavar="COLUMN", help="column of the machine: each one is scored as a series of its own")
    add(
        "--csv",
        action="append",
        metavar="FIELD=VALUE",
        help="how the CSV is written, where that does not show by itself, like decimal=, or dayfirst=true",
    )
    add("--plot", type=Path, help="draw readings, scores and anomalies into a .png or .svg file")
    add("--out", type=Path, help="write each row's score, p-value, verdict and contributions by column as CSV")
    add_flag(command, "home", Settings.model_fields["home"])
    command.set_defaults(run=score)


if __name__ == "__main__":
    command()
