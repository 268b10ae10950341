"""The Typer application of the commands that call a running service."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import typer
from typer.core import TyperGroup
from typer.main import get_group

from service.client.errors import ClientError, Unauthorized
from service.commands import check, export, images, inference, jobs, register, registry, training

_KEY_PROBLEMS = ("invalid_api_key", "expired_api_key")


def run(arguments: Sequence[str]) -> int:
    """Run a command; return its exit code. Raises SystemExit for wrong usage, and SondeError."""
    try:
        _commands()(args=list(arguments), prog_name="sonde")
    except SystemExit as ended:  # Typer ends every command so
        if ended.code == 2:
            raise
        return int(ended.code or 0)
    except OSError as error:  # such as a full disk below the output; Typer ends with 1 where a pipe is closed
        raise ClientError(f"{error.filename or 'the output'}: {error.strerror or error}") from error
    except Unauthorized as error:
        if error.code in _KEY_PROBLEMS:
            raise ClientError(f"{error.message.partition(':')[0]}: give a key with --key or SONDE_API_KEY") from error
        raise
    return 0


@cache
def _commands() -> TyperGroup:
    """All commands, which take longer to build than most take to run."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    for module in (inference, images, check, export, register, training, jobs, registry):
        app.add_typer(module.app)
    return get_group(app)
