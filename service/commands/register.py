"""`sonde register FILE NAME`: an exported program as a version of a name in a home's registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.commands.connection import Json
from service.commands.screen import Screen
from service.config import Settings
from service.home import prepare_home

app = typer.Typer()


@app.command(epilog="Example: sonde register net.pt2 net --promote  |  sonde models ft:program:local:net versions")
def register(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a .pt2, with its description beside it")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="the last part of its name: ft:program:local:NAME")],
    promote: Annotated[bool, typer.Option("--promote", help="put the version in service")] = False,
    why: Annotated[str, typer.Option(help="a reason, for the model's history")] = "",
    home: Annotated[Path | None, typer.Option(help="the service's directory, as for 'sonde up'")] = None,
    json: Json = False,
) -> None:
    """Publish a program as a new version, with inputs that a service computes again before it takes the version.

    It reads the file as 'sonde serve' does and writes to the registry below the home; a service there notices it.
    """
    from models.loader import load_program  # loads PyTorch
    from models.programs.registration import BY, register
    from models.registry.registry import Registry
    from models.runtime.placement import place
    from models.source import locate_program

    settings = Settings.read({"home": home})
    prepare_home(settings.home)
    registry = Registry(settings.registry_directory)
    program = load_program(locate_program(f"{name}={file}"), place("cpu", "float32"))
    full_name, version = register(registry, settings.registry_directory, program, file, settings.org, name)
    if promote:
        registry.promote(full_name, version, by=BY, why=why)
    found = registry.manifest(full_name, version).hyperparameters
    about = {"model": full_name, "version": version, "in_service": promote, "batches": found["batches"]}
    screen = Screen(as_json=json)
    if json:
        screen.json(about)
    else:
        screen.table(("", ""), about.items())
    if found["without_golden"]:
        screen.note(f"without golden inputs, so a service cannot check it: {found['without_golden']}", "yellow")
