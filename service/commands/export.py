"""`sonde export MODULE:FUNCTION OUT`: an exported program of a PyTorch module, checked by running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.commands.connection import Json
from service.commands.screen import Screen

if TYPE_CHECKING:
    from models.programs.contract import Contract  # loads PyTorch

Task = Literal["inference", "classification", "embedding", "anomaly"]
Scores = Literal["logits", "probabilities"]


app = typer.Typer()


@app.command(
    epilog="Example: sonde export my_model:make net.pt2 --task classification --labels labels.json --scores logits"
)
def export(
    entry: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="a function in a module of this directory")],
    out: Annotated[Path, typer.Argument(help="the file to write, which ends in .pt2")],
    fixed_batch: Annotated[
        bool, typer.Option("--fixed-batch", help="keep the size of the example's batch: for modules that need it")
    ] = False,
    task: Annotated[Task, typer.Option(help="what it does, so that the task's route takes its inputs")] = "inference",
    labels: Annotated[
        Path | None, typer.Option(help="of a classifier: a JSON file with a list of names, one for each column")
    ] = None,
    scores: Annotated[Scores | None, typer.Option(help="of a classifier: what its output has")] = None,
    output: Annotated[str | None, typer.Option(help="the output with the task's rows, where there are several")] = None,
    normal: Annotated[
        Path | None, typer.Option(help="of a detector: a .npy file of normal inputs [n, …], whose scores calibrate it")
    ] = None,
    preprocess: Annotated[
        Path | None, typer.Option(help="a JSON file that says how images become the input: height, width, mean, std, …")
    ] = None,
    json: Json = False,
) -> None:
    """Make a .pt2 of a PyTorch module, read it back as `sonde serve` does, and compare what it computes.

    The function returns the module and its example inputs, as a tuple or by name. A third item may be the
    `dynamic_shapes` of torch.export; without it, the first dimension of all tensors is the batch.

    With a task, the file OUT.sonde.json beside it describes what /v1/classify, /v1/embeddings or /v1/anomaly/score
    need to know.
    """
    from models.images.stated_processor import require_preprocessing  # loads PyTorch
    from models.programs.description import Description, Preprocessing, read_part
    from models.programs.export import export_program

    screen = Screen(as_json=json)
    description = Description(
        task=task,
        output=output,
        labels=() if labels is None else read_part(labels, tuple[str, ...]),
        scores=scores,
        preprocess=None if preprocess is None else read_part(preprocess, Preprocessing),
    )
    require_preprocessing(description.preprocess, str(preprocess))
    program = export_program(entry, out, fixed_batch=fixed_batch, description=description, normal=normal)
    if json:
        screen.json({"file": str(out), "batches": program.metadata.batches, **program.contract.signature()})
        return
    _show_contract(screen, program.contract)
    screen.note(f"{out}: it computes what the module does; {program.metadata.batches}")


def _show_contract(screen: Screen, contract: Contract) -> None:
    specs = [("input", spec) for spec in contract.inputs] + [("output", spec) for spec in contract.outputs]
    shapes = [str(contract.shape_of(spec)).replace("'", "") for _, spec in specs]
    screen.table(
        ("", "name", "dtype", "shape"),
        [(kind, spec.name, spec.dtype, shape) for (kind, spec), shape in zip(specs, shapes, strict=True)],
    )
