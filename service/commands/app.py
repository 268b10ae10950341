"""The Typer application of the commands that call a running service."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from service.commands import check, inference, jobs, registry, training


def run(arguments: Sequence[str]) -> int:
    """Run a command; return its exit code. Raises SystemExit for wrong usage, and SondeError."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    for module in (inference, check, training, jobs, registry):
        module.add_to(app)
    try:
        app(args=list(arguments), prog_name="sonde")
    except SystemExit as ended:  # Typer ends every command so
        if ended.code == 2:
            raise
        return int(ended.code or 0)
    return 0
