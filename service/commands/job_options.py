"""The options that describe a training job: its task, hyperparameters and columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from service.commands.screen import Screen
from service.errors import ConfigError

Task = Annotated[
    Literal["classification", "embedding", "anomaly", "rerank", "forecast"],
    typer.Option("--task", "-t", help="what the model shall do"),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE of a hyperparameter, such as kind=series; may be repeated")
]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="NAME=COLUMN of the file, such as text=question; may be repeated")
]

# How the API's fields in errors are given here.
_FLAGS = {
    "named in `columns`": "Name columns by --column NAME=COLUMN, such as --column text=question",
    "in `timestamp`": "Name the column of times by --set timestamp=COLUMN, and that of machines by --set group=COLUMN",
    "`thousands` in `csv`": """Say how numbers are written by --set 'csv={"decimal": ","}', or {"thousands": ","}""",
    "`csv: {": """Say how the file is written by --set 'csv={"na_values": ["-9999"]}'""",
}


def pairs(given: Sequence[str], flag: str) -> dict[str, str]:
    """NAME=VALUE as a dictionary. Raises ConfigError."""
    for one in given:
        if not all(one.partition("=")):
            raise ConfigError(f"{flag}: expected NAME=VALUE, got {one!r}")
    return {name: value for name, _, value in (one.partition("=") for one in given)}


def note_flags(screen: Screen, *messages: str) -> None:
    """Say which flags are the API's fields that errors propose."""
    for field, advice in _FLAGS.items():
        if any(field in message for message in messages):
            screen.note(advice)


def values(given: Sequence[str]) -> dict[str, object]:
    """Hyperparameters, each value as JSON where it is JSON, else as text."""
    return {name: _value(text) for name, text in pairs(given, "--set").items()}


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
