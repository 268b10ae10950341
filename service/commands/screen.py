"""What a command prints: tables for a person, lines for a pipe, JSON for a program.

Labels, names and messages may come from other people. Every text passes `printable`, so none controls the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.printable import printable

STATUS = {"ok": "green", "warn": "yellow", "fail": "red", "succeeded": "green", "failed": "red", "cancelled": "yellow"}


class Screen:
    """Results on standard output, messages on standard error. rich leaves out colours for `NO_COLOR`, and in a pipe."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.err = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, stderr=True)

    def json(self, content: object) -> None:
        """A document on one line."""
        plain = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
        sys.stdout.write(printable(json.dumps(plain, ensure_ascii=False)) + "\n")

    def line(self, text: str, style: str = "") -> None:
        """A line on standard output."""
        self.out.print(safe(text, style))

    def note(self, text: str, style: str = "") -> None:
        """A line on standard error, which is no part of the result."""
        self.err.print(safe(text, style))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Columns on a terminal, cells between tabs elsewhere."""
        if not self.out.is_terminal:
            for row in (header, *rows):
                sys.stdout.write("\t".join(printable(str(cell)) for cell in row) + "\n")
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in header:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(safe(str(cell), STATUS.get(str(cell), "")) for cell in row))
        self.out.print(table, soft_wrap=False)


def safe(text: str, style: str = "") -> Text:
    """A text that rich prints as it is, without control characters."""
    return Text(printable(text), style)


def size_text(size: int) -> str:
    """A number of bytes as people read it, such as 4.2 kB."""
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"
