"""`sonde detect | ocr`: objects and texts in images, by a running service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from service.client.answers import Answer, Box
from service.client.errors import ClientError, Refused
from service.commands.connection import DEFAULT_URL, Json, Key, Model, Url, choose_model, connect
from service.commands.screen import Screen

AnswerT = TypeVar("AnswerT", bound=Answer)
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="images: JPEG, PNG, WebP, GIF, BMP or TIFF")]
# What the service calls the image of a request that has no other.
_ONLY_IMAGE = "images[0]"

app = typer.Typer()


@app.command(epilog="Example: sonde detect yard.jpg --threshold 0.7")
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
    with connect(url, key) as client:
        name = choose_model(client, model, "detection")
        _print_each(
            files,
            lambda file: client.detect([file], model=name, threshold=threshold, top_k=top).data,
            lambda found: [(one.label, one.score, one.box) for one in found.objects],
            ("label", "score"),
            as_json=json,
        )


@app.command(epilog="Example: sonde ocr invoice.png")
def ocr(
    files: Files,
    one_line: Annotated[bool, typer.Option("--one-line", help="each image is one line of text")] = False,
    model: Model = "",
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Read the text of images, line by line. `--json` prints an image on each line."""
    with connect(url, key) as client:
        name = choose_model(client, model, "ocr")
        _print_each(
            files,
            lambda file: client.ocr([file], model=name, lines=not one_line).data,
            lambda page: [(one.text, one.confidence, one.box) for one in page.lines],
            ("text", "confidence"),
            as_json=json,
        )


def _print_each(
    files: Sequence[Path],
    ask: Callable[[Path], Sequence[AnswerT]],
    parts_of: Callable[[AnswerT], Iterable[tuple[str, float, Box]]],
    headers: tuple[str, str],
    *,
    as_json: bool,
) -> None:
    """Print what the service finds in each file: a line of JSON, or the parts of all in a table."""
    screen, rows = Screen(as_json=as_json), list[tuple[object, ...]]()
    for file in files:
        [answer] = _ask(ask, file)
        if as_json:
            screen.json({"file": str(file)} | answer.model_dump(mode="json", exclude={"index", "object"}))
        rows += [(file, name, f"{number:.3f}", *_corners(box)) for name, number, box in parts_of(answer)]
    if not as_json:
        screen.table(("file", *headers, *Box.model_fields), rows)


def _ask(ask: Callable[[Path], Sequence[AnswerT]], file: Path) -> Sequence[AnswerT]:
    """What the service finds in a file. Raises ClientError, which names the file and not its place in the request."""
    try:
        return ask(file)
    except Refused as error:
        if error.param != _ONLY_IMAGE:
            raise
        raise ClientError(f"{file}: {error.message.removeprefix(f'{_ONLY_IMAGE}: ')}") from error


def _corners(box: Box) -> list[str]:
    return [f"{corner:.0f}" for corner in (box.xmin, box.ymin, box.xmax, box.ymax)]
