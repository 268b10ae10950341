"""`sonde train` and `sonde feedback`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.client import Client
from service.client.errors import BadInput
from service.commands.connection import DEFAULT_URL, Json, Key, Model, Url, choose_model, connect
from service.commands.job_options import Columns, Set, Task, pairs, values
from service.commands.screen import Screen, size_text
from service.commands.watch_job import follow, show_outcome

_FEEDBACK = "feedback:"
_SENSORS, _IMAGES, _ARCHIVE = "sensors", "images", ".zip"


app = typer.Typer()


@app.command(
    epilog="Examples: sonde train intents.jsonl --suffix support  |  "
    "sonde train pump.csv --task anomaly --set kind=series --suffix pump  |  "
    "sonde train parts.zip --task anomaly --suffix parts"
)
def train(
    file: Annotated[str, typer.Argument(help="CSV, JSONL or Parquet, a ZIP of images, or feedback:MODEL")],
    task: Task = "classification",
    suffix: Annotated[str | None, typer.Option(help="last part of the new model's name")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="file of rows to judge by; without it, rows are held out")
    ] = None,
    set_: Set = None,
    column: Columns = None,
    seed: Annotated[int | None, typer.Option(help="same seed, same machine, same model")] = None,
    follow_: Annotated[bool, typer.Option("--follow/--no-follow", help="watch until the job has ended")] = True,
    model: Model = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Upload a file, start a job, watch it and print the verdict. Ctrl-C leaves the job running."""
    screen, hyperparameters = Screen(as_json=json), values(set_ or [])
    columns = pairs(column or [], "--column")
    with connect(url, key) as client:
        of_sensors = task == "forecast" or hyperparameters.get("kind") is not None
        of_images = hyperparameters.get("kind") == _IMAGES or file.lower().endswith(_ARCHIVE)
        reads = "image" if of_images else "text"
        base = model or (_SENSORS if of_sensors and not of_images else choose_model(client, "", "embedding", reads))
        job = client.train(
            file if file.startswith(_FEEDBACK) else _upload(screen, client, Path(file)),
            model=base,
            task=task,
            suffix=suffix,
            seed=seed,
            validation_file=None if validation is None else _upload(screen, client, validation),
            hyperparameters=hyperparameters,
            columns=columns,
        )
        screen.note(f"{job.id}: {task} on {job.model}")
        if not follow_:
            screen.json(job) if json else screen.line(job.id)
            return
        show_outcome(screen, client, follow(screen, client, job.id))


@app.command(epilog="Example: sonde feedback 'my card is gone' --correct-label lost --model ft:…:support")
def feedback(
    correct_label: Annotated[str, typer.Option("--correct-label", "-c", help="the label it should have had")],
    model: Annotated[str, typer.Option("--model", "-m", help="the model that answered")],
    text: Annotated[str | None, typer.Argument(help="the text")] = None,
    image: Annotated[Path | None, typer.Option(help="an image's file, in place of a text")] = None,
    label: Annotated[str | None, typer.Option(help="the label it got")] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Tell the right label of a text or an image, for a later `sonde train feedback:MODEL`."""
    screen = Screen(as_json=json)
    with connect(url, key) as client:
        kept = client.feedback(text, model=model, correct_label=correct_label, label=label, image=image)
    if json:
        screen.json(kept)
    else:
        screen.line(f"{kept.id} is kept. Train on it with: sonde train {_FEEDBACK}{model}")


def _upload(screen: Screen, client: Client, path: Path) -> str:
    """The id of the uploaded file. Raises BadInput for what is no file."""
    try:
        with path.open("rb") as file:
            screen.note(f"uploading {path} ({size_text(path.stat().st_size)})")
            return client.upload(file, name=path.name).id
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
