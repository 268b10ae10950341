"""`sonde models`: models in service, and the versions of a trained one."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from service.client import Client
from service.client.answers import Answer, InService, Version
from service.commands.connection import DEFAULT_URL, Json, Key, Url, connect
from service.commands.screen import Screen
from service.errors import ConfigError


class VersionAction(StrEnum):
    """What to do with a trained model."""

    versions = "versions"
    promote = "promote"
    rollback = "rollback"
    delete = "delete"


app = typer.Typer()


@app.command(epilog="Examples: sonde models  |  sonde models ft:all-MiniLM-L6-v2:local:support promote --version 2")
def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="a model; without it, all in service")] = None,
    action: Annotated[VersionAction | None, typer.Argument(help="of a trained model")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="the version to promote")] = None,
    why: Annotated[str, typer.Option(help="a reason, for the model's history")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="delete without a question")] = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """List the models in service, or show, promote, roll back or delete one."""
    screen = Screen(as_json=json)
    if action is VersionAction.promote and version is None:
        raise ConfigError("promote: expected --version N, which 'sonde models NAME versions' lists")
    if action is VersionAction.delete and not yes:
        _require_consent(str(name))
    with connect(url, key) as client:
        if name is None:
            _list(screen, client)
        elif action is VersionAction.versions:
            _versions(screen, client, name)
        else:
            _show(screen, _apply(client, name, action, version, why))


def _apply(client: Client, name: str, action: VersionAction | None, version: int | None, why: str) -> Answer:
    if action is VersionAction.promote and version is not None:
        return client.promote(name, version, why=why)
    if action is VersionAction.rollback:
        return client.rollback(name, why=why)
    return client.delete_model(name) if action is VersionAction.delete else client.model(name)


def _require_consent(name: str) -> None:
    """Ask on a terminal. Raises ConfigError elsewhere, and typer.Abort after another answer than yes."""
    if not sys.stdin.isatty():
        raise ConfigError(f"delete: expected --yes to delete {name} without a question")
    typer.confirm(f"Delete {name} for good?", abort=True, err=True)


def _list(screen: Screen, client: Client) -> None:
    page = client.models()
    if screen.as_json:
        screen.json(page)
    else:
        header = ("model", "task", "version", "device", "dtype")
        screen.table(header, [(one.id, one.task, one.version, one.device, one.dtype) for one in page.data])


def _versions(screen: Screen, client: Client, name: str) -> None:
    page = client.versions(name)
    if screen.as_json:
        screen.json(page)
    else:
        screen.table(("version", "in service", "metrics"), map(_version_row, page.data))


def _version_row(version: Version) -> tuple[object, ...]:
    labels = version.metric_labels
    metrics = "  ".join(f"{labels.get(name, name)} {value:.4g}" for name, value in version.metrics.items())
    return version.id, "yes" if version.in_service else "", version.error or metrics


def _show(screen: Screen, answer: Answer) -> None:
    if screen.as_json:
        screen.json(answer)
    else:
        fields = answer.model_dump(mode="json", exclude={"object"})
        screen.table(("", ""), [(name, value) for name, value in fields.items() if value not in (None, "", [], {})])
        if isinstance(answer, InService):
            screen.note(_describe_move(answer))


def _describe_move(now: InService) -> str:
    """Where the next rollback leads, because one after another goes back and forth between two versions."""
    if now.previous is None:
        return f"{now.model}: version {now.version} is in service; none served before it"
    return f"{now.model}: version {now.version} is in service; {now.previous} served before, and rollback leads to it"
