"""`sonde export MODULE:FUNCTION OUT`: an exported program of a PyTorch module, checked by running it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.commands.connection import Json
from service.commands.screen import Screen


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog="Example: sonde export my_model:make net.pt2  |  sonde serve --model net.pt2")(export)


def export(
    entry: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="a function in a module of this directory")],
    out: Annotated[Path, typer.Argument(help="the file to write, which ends in .pt2")],
    fixed_batch: Annotated[
        bool, typer.Option("--fixed-batch", help="keep the size of the example's batch: for modules that need it")
    ] = False,
    json: Json = False,
) -> None:
    """Make a .pt2 of a PyTorch module, read it back as `sonde serve` does, and compare what it computes.

    The function returns the module and its example inputs, as a tuple or by name. A third item may be the
    `dynamic_shapes` of torch.export; without it, the first dimension of all tensors is the batch.
    """
    from models.programs.export import export_program  # loads PyTorch

    screen = Screen(as_json=json)
    program = export_program(entry, out, fixed_batch=fixed_batch)
    contract = program.contract
    if json:
        screen.json({"file": str(out), "batches": program.metadata.batches, **contract.signature()})
        return
    specs = [("input", spec) for spec in contract.inputs] + [("output", spec) for spec in contract.outputs]
    shapes = [str(contract.shape_of(spec)).replace("'", "") for _, spec in specs]
    screen.table(
        ("", "name", "dtype", "shape"),
        [(kind, spec.name, spec.dtype, shape) for (kind, spec), shape in zip(specs, shapes, strict=True)],
    )
    screen.note(f"{out}: it computes what the module does; {program.metadata.batches}")
