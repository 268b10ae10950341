"""`sonde detect | ocr`: objects and texts in images, by a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.client.answers import Box
from service.commands.connection import DEFAULT_URL, Json, Key, Model, Url, choose_model, connect
from service.commands.screen import Screen

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="images: JPEG, PNG, WebP, GIF, BMP or TIFF")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command(epilog="Example: sonde detect yard.jpg --threshold 0.7")(detect)
    app.command(epilog="Example: sonde ocr invoice.png")(ocr)


def detect(
    files: Files,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="show objects with a score above it")] = 0.5,
    top: Annotated[int | None, typer.Option(min=1, help="objects to show of each image")] = None,
    model: Model = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Find objects in images. `--json` prints an image on each line."""
    screen, rows = Screen(as_json=json), list[tuple[object, ...]]()
    with connect(url, key) as client:
        name = choose_model(client, model, "detection")
        for file in files:
            [found] = client.detect([file], model=name, threshold=threshold, top_k=top).data
            if json:
                screen.json({"file": str(file)} | found.model_dump(mode="json", exclude={"index", "object"}))
            rows += [(file, one.label, f"{one.score:.3f}", *_corners(one.box)) for one in found.objects]
    if not json:
        screen.table(("file", "label", "score", *Box.model_fields), rows)


def ocr(
    files: Files,
    one_line: Annotated[bool, typer.Option("--one-line", help="each image is one line of text")] = False,
    model: Model = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Read the text of images, line by line. `--json` prints an image on each line."""
    screen, rows = Screen(as_json=json), list[tuple[object, ...]]()
    with connect(url, key) as client:
        name = choose_model(client, model, "ocr")
        for file in files:
            [page] = client.ocr([file], model=name, lines=not one_line).data
            if json:
                screen.json({"file": str(file)} | page.model_dump(mode="json", exclude={"index", "object"}))
            rows += [(file, one.text, f"{one.confidence:.3f}", *_corners(one.box)) for one in page.lines]
    if not json:
        screen.table(("file", "text", "confidence", *Box.model_fields), rows)


def _corners(box: Box) -> list[str]:
    return [f"{corner:.0f}" for corner in (box.xmin, box.ymin, box.xmax, box.ymax)]
