"""A report as Markdown: what needs a look, what was chosen, then all five checks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from models.training.confusion import ConfusedPair, Confusion
from models.training.report import STAGES, Choice, Finding, Report
from models.training.report_labels import STAGE_TITLES, STATUS_WORDS
from models.training.reported_events import ReportedEvents

MAX_ROWS_SHOWN = 10
NOTHING_CONFUSED = "No held-out row was taken for another label."
# What begins a tag, or the target of a link or image, in Markdown.
_ACTIVE = re.compile(r"<(?=[A-Za-z/!?])|(?<=\])\(")


def to_markdown(report: Report, title: str = "Five checks", head: str = "") -> str:
    """The report as a document; `head` follows its title and ends with a line of its own."""
    return "\n".join([f"# {title}", "", *([head, ""] if head else []), report.summary(), "", *_sections(report)])


def _sections(report: Report) -> Iterator[str]:
    if problems := report.problems():
        yield from ("## What needs a look", "")
        for finding in problems:
            yield from _problem(finding)
        yield ""
    if report.choices:
        yield from ("## What was chosen", "")
        for choice in report.choices:
            yield from _choice(choice)
        yield ""
    if report.confusion is not None:
        yield from _confusion(report.confusion)
    if report.events is not None:
        yield from _events(report.events)
    for title, group in groupby(report.pictures, key=lambda one: one.title):
        yield from (f"## {escape(title)}", "", *(f"- {escape(one.caption)}" for one in group), "")
    for number, stage in enumerate(STAGES, start=1):
        found = [f"- {STATUS_WORDS[one.status]}: {escape(one.name)}. {escape(one.message)}" for one in report.of(stage)]
        yield from (f"## {number}. {STAGE_TITLES[stage]}", "", *(found or ["Not run."]), "")


def rows_text(rows: tuple[int, ...]) -> str:
    """The first rows by number."""
    more = len(rows) - MAX_ROWS_SHOWN
    return ", ".join(map(str, rows[:MAX_ROWS_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _problem(finding: Finding) -> Iterator[str]:
    yield f"- **{STATUS_WORDS[finding.status]}**: {escape(finding.name)}. {escape(finding.message)}"
    if finding.rows:
        yield f"  Rows {rows_text(finding.rows)}."
    if finding.remedy:
        yield f"  What to do: {escape(finding.remedy)}"


def _choice(choice: Choice) -> Iterator[str]:
    yield f"- {choice.what}: **{escape(choice.chosen)}**, because {escape(choice.reason)}."
    yield from (f"  - {escape(name)}: {figures}" for name, figures in choice.figures())


def _confusion(confusion: Confusion) -> Iterator[str]:
    yield from ("## What is taken for what", "")
    for pair in confusion.pairs:
        yield f"- {escape(pair_text(pair))}"
        yield from (f"  - row {one.line}: {escape(one.text)}" for one in pair.examples)
    if not confusion.pairs:
        yield NOTHING_CONFUSED
    yield ""


def _events(events: ReportedEvents) -> Iterator[str]:
    yield from (f"## {events.title}", "")
    if events.shown:
        header, *rows = events.table()
        yield from (_table_row(header), _table_row(["---"] * len(header)), *map(_table_row, rows), "")


def _table_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(escape(cell).replace('|', '&#124;') for cell in cells)} |"


def pair_text(pair: ConfusedPair) -> str:
    """A confused pair in one sentence."""
    return f"{pair.label!r} was taken for {pair.taken_for!r} in {pair.rows} of its {pair.of} held-out rows."


def escape(text: str) -> str:
    """A message for Markdown; labels in it become neither tags, links nor lines."""
    return _ACTIVE.sub(r"\\\g<0>", " ".join(text.splitlines()))
