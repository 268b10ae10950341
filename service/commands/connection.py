"""The options of every command that calls a service, and the client made from them."""

from __future__ import annotations

from typing import Annotated

import typer

from service.client import Client
from service.client.answers import Model as ModelAnswer
from service.client.errors import ClientError
from service.commands.screen import Screen
from service.errors import ConfigError

Url = Annotated[str, typer.Option(envvar="SONDE_URL", help="address of the service", rich_help_panel="connection")]
Key = Annotated[
    str, typer.Option(envvar="SONDE_API_KEY", help="API key, where the service needs one", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
Model = Annotated[str, typer.Option("--model", "-m", help="model in service; without it, the first that does the task")]
# What a task needs in place of a model of its own.
_WITHOUT_TRAINING = {"classification": "name labels with --label", "anomaly": "give normal texts with --reference"}
DEFAULT_URL = "http://127.0.0.1:8000"


def connect(url: str, key: str) -> Client:
    """A client of the service. Raises ConfigError for what is no address."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url (or SONDE_URL): expected an address like {DEFAULT_URL}, got {url!r}")
    return Client(url, key or None, on_wait=lambda wait: Screen(as_json=False).note(f"sonde: {wait}"))


def choose_model(client: Client, given: str, task: str, reads: str = "", *, programs: bool = False) -> str:
    """The model that was given, or the first in service that does the task; with `reads`, with this input alone.

    It is an exported program, whose signature has dimensions, where `programs` says so, and another model elsewhere.

    Raises ClientError where none does.
    """
    if given:
        return given
    for model in client.models().data:
        is_program = "dimensions" in model.signature
        if model.task == task and is_program == programs and (not reads or _reads(model, reads)):
            return model.id
    inputs = " by an exported program" if programs else f" of {reads}s" if reads else ""
    without = f"{_WITHOUT_TRAINING[task]}, " if task in _WITHOUT_TRAINING and not programs else ""
    raise ClientError(
        f"no model for {task}{inputs} is in service: {without}give --model, or start one with 'sonde up --model …'"
    )


def _reads(model: ModelAnswer, name: str) -> bool:
    """Whether a model has this input, and reads no images beside texts."""
    inputs = [one["name"] for one in model.signature["inputs"]]
    return inputs[0] == name and ("image" in inputs) == (name == "image")
