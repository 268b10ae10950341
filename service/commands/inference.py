"""`sonde embed | classify | anomaly | forecast | rerank`: inference on a running service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from models.counted import counted
from service.client import Client
from service.client.answers import Model as ServedModel
from service.client.answers import Score, Scores
from service.client.errors import BadInput
from service.client.pieces import score_in_pieces
from service.commands.connection import DEFAULT_URL, Json, Key, Model, Url, choose_model, connect
from service.commands.inputs import Readings, read_readings, read_texts
from service.commands.pieces import Given, Rows, Tensors
from service.commands.screen import Screen

_SHOWN_NUMBERS = 4

Texts = Annotated[list[str] | None, typer.Argument(help="texts; without any, --file or standard input")]
File = Annotated[
    Path | None, typer.Option("--file", "-f", help="CSV, JSONL, or a text on each line; - is standard input")
]
Column = Annotated[str, typer.Option(help="of CSV and JSONL, the column of texts")]
Timestamp = Annotated[str | None, typer.Option(help="column of times: ISO 8601 or Unix seconds")]


app = typer.Typer()


@app.command(epilog="Example: sonde embed 'Where is my card?'")
def embed(
    texts: Texts = None,
    file: File = None,
    column: Column = "text",
    rows: Rows = None,
    inputs: Tensors = None,
    model: Model = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Turn texts into vectors, or a program's rows. `--json` prints all numbers, a text or row on each line."""
    given, screen = Given(texts or [], file, column, rows, inputs), Screen(as_json=json)
    shown: list[tuple[object, ...]] = []
    with connect(url, key) as client:
        name = choose_model(client, model, "embedding", programs=given.of_programs)
        for piece in given.pieces(client, name):
            for item in client.embed(**piece.arguments, model=name).data:
                about = piece.about(item.index)
                if json:
                    screen.json(about | {"embedding": item.embedding, "truncated": item.truncated})
                else:
                    first = ", ".join(f"{number:.4f}" for number in item.embedding[:_SHOWN_NUMBERS])
                    shown.append((*about.values(), f"[{first}, …]", len(item.embedding)))
    if not json:
        screen.table((given.header, "vector", "dimensions"), shown)


@app.command(epilog="Example: sonde classify 'my card is gone' --label lost --label refund")
def classify(
    texts: Texts = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="NAME, or NAME=DESCRIPTION; may be repeated")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="labels to show of each text")] = 1,
    file: File = None,
    column: Column = "text",
    rows: Rows = None,
    inputs: Tensors = None,
    model: Model = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Label texts, with labels of your own or those of a trained model; or a program's rows, with its labels."""
    given, screen, labels = Given(texts or [], file, column, rows, inputs), Screen(as_json=json), _labels(label or [])
    shown: list[tuple[object, ...]] = []
    with connect(url, key) as client:
        task = "embedding" if labels else "classification"
        name = choose_model(client, model, task, programs=given.of_programs)
        for piece in given.pieces(client, name):
            for item in client.classify(**piece.arguments, model=name, labels=labels, top_k=top).data:
                about = piece.about(item.index)
                if json:
                    screen.json(about | item.model_dump(mode="json", exclude={"index", "object"}))
                best = [(one.label, f"{one.score:.3f}") for one in item.labels]
                scope = "out of scope" if item.out_of_scope else ""
                shown += [(*about.values(), *best[0], scope), *(("", *one, scope) for one in best[1:])]
    if not json:
        screen.table((given.header, "label", "score", ""), shown)


@app.command(epilog="Example: sonde anomaly --model ft:sensors:local:pump --file live.csv --timestamp time")
def anomaly(
    texts: Texts = None,
    reference: Annotated[Path | None, typer.Option(help="of an encoder: file of normal texts, 20 or more")] = None,
    alpha: Annotated[float, typer.Option(help="the accepted share of false alarms")] = 0.05,
    timestamp: Timestamp = None,
    file: File = None,
    column: Column = "text",
    rows: Rows = None,
    inputs: Tensors = None,
    model: Model = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Find unusual texts, unusual readings in a CSV, or unusual rows of a program.

    Readings need --model and --file.
    """
    given, screen = Given(texts or [], file, column, rows, inputs), Screen(as_json=json)
    with connect(url, key) as client:
        name = choose_model(client, model, "embedding" if reference else "anomaly", programs=given.of_programs)
        served = client.model(name)
        if "kind" in served.signature and not given.of_programs:
            _anomalous_readings(screen, client, name, served, _require_file(file), timestamp, alpha)
            return
        normal = None if reference is None else read_texts([], reference, column)
        shown, last = [], None
        for piece in given.pieces(client, name):
            last = client.anomaly(**piece.arguments, model=name, reference=normal, alpha=alpha)
            for item in last.data:
                about = piece.about(item.index)
                if json:
                    screen.json(about | item.model_dump(mode="json", exclude={"index", "object"}))
                shown.append((*about.values(), *_verdict(item)))
    if not json:
        screen.table((given.header, "score", "p-value", ""), shown)
    _warn(screen, last)


@app.command(epilog="Example: sonde forecast --model ft:sensors:local:load --file load.csv --horizon 24")
def forecast(
    file: File = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="steps; without it, the model's maximum")] = None,
    timestamp: Timestamp = None,
    model: Model = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Forecast the next steps of a series in a CSV."""
    screen = Screen(as_json=json)
    with connect(url, key) as client:
        served = client.model(choose_model(client, model, "forecast"))
        readings = read_readings(_require_file(file), _columns(served), timestamp)
        made = client.forecast(
            readings.rows, model=served.id, columns=_columns(served), timestamps=_times(readings), horizon=horizon
        )
    if json:
        screen.json(made)
        return
    levels = sorted(made.quantiles, key=float)
    parts = [made.mean, *(made.quantiles[level] for level in levels)]
    header = ["step", *(f"{name} {part}" for name in made.columns for part in ("mean", *levels))]
    rows = [
        [
            made.timestamps[step] if made.timestamps else step + 1,
            *(f"{part[step][at]:.4g}" for at in range(len(made.columns)) for part in parts),
        ]
        for step in range(len(made.mean))
    ]
    screen.table(header, rows)
    for warning in made.warnings:
        screen.note(warning, "yellow")


@app.command(epilog="Example: sonde rerank 'lost card' 'Call us to block it.' 'We open at nine.'")
def rerank(
    query: Annotated[str, typer.Argument(help="what is searched for")],
    documents: Annotated[
        list[str] | None, typer.Argument(help="documents; without any, --file or standard input")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="documents to show")] = None,
    file: File = None,
    column: Column = "text",
    model: Model = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Sort documents by relevance to a query."""
    given, screen = read_texts(documents or [], file, column), Screen(as_json=json)
    with connect(url, key) as client:
        name = model or _first_of(client, ("rerank", "embedding"))
        results = client.rerank(query, given, model=name, top_n=top).results
    if json:
        for item in results:
            screen.json({"index": item.index, "relevance_score": item.relevance_score, "document": given[item.index]})
    else:
        screen.table(("score", "document"), [(f"{item.relevance_score:.3f}", given[item.index]) for item in results])


def _first_of(client: Client, tasks: Sequence[str]) -> str:
    served = {model.task for model in client.models().data}
    return choose_model(client, "", next((task for task in tasks if task in served), tasks[-1]))


def _labels(given: Sequence[str]) -> dict[str, str] | list[str] | None:
    """Names, with descriptions where one has any."""
    if not any("=" in label for label in given):
        return list(given) or None
    return {name: about or name for name, _, about in (label.partition("=") for label in given)}


def _anomalous_readings(
    screen: Screen, client: Client, name: str, served: ServedModel, file: Path, timestamp: str | None, alpha: float
) -> None:
    """Score a file of readings; show the anomalies, or as JSON all rows."""
    columns = _columns(served)
    readings = read_readings(file, columns, timestamp)
    rows: list[tuple[object, ...]] = []
    number, last = 0, None
    times, signature = _times(readings), served.signature
    pieces = score_in_pieces(client, name, signature, readings.rows, alpha=alpha, columns=columns, timestamps=times)
    for last in pieces:
        for item in last.data:
            about = {"line": readings.lines[number]} | readings.time_at(number)
            number += 1
            if screen.as_json:
                screen.json(about | item.model_dump(mode="json", exclude={"index", "object", "nearest", "truncated"}))
            elif item.is_anomaly:
                rows.append((*about.values(), *_verdict(item), _blamed(item)))
    if rows:
        screen.table(("line", *readings.time_at(0), "score", "p-value", "", "column"), rows)
    if not screen.as_json:
        screen.line(f"{counted(number, 'row')}, {counted(len(rows), 'anomaly', 'anomalies')} at alpha {alpha:g}")
    _warn(screen, last)


def _blamed(item: Score) -> str:
    shares = item.contributions or {}
    worst = max(shares, key=lambda name: shares[name], default="")
    return f"{worst} {shares[worst]:.0%}" if worst else ""


def _verdict(item: Score) -> tuple[str, str, str]:
    return f"{item.score:.3f}", f"{item.p_value:.4f}", "anomaly" if item.is_anomaly else ""


def _warn(screen: Screen, last: Scores | None) -> None:
    """Say what limits the answer, and whether the detector still fits."""
    for warning in last.warnings if last else []:
        screen.note(warning, "yellow")
    if last and last.drift and last.drift.detected:
        screen.note("drift: the readings have changed since the training; the detector no longer fits", "yellow")


def _columns(served: ServedModel) -> list[str]:
    """The columns that a sensor model reads. Raises BadInput for a model of texts."""
    columns = served.signature["inputs"][0].get("columns")
    if not columns:
        raise BadInput(f"{served.id} reads texts: give a model of readings with --model")
    return list(columns)


def _times(readings: Readings) -> list[str | float] | None:
    """The times as the service takes them: Unix seconds as numbers."""
    return None if readings.times is None else [_as_number(time) for time in readings.times]


def _as_number(time: str) -> str | float:
    try:
        return time if len(time) in (8, 10) and time.isdecimal() and time.startswith(("19", "20")) else float(time)
    except ValueError:
        return time


def _require_file(file: Path | None) -> Path:
    if file is None:
        raise BadInput("expected --file: a CSV or JSONL file of readings")
    return file
