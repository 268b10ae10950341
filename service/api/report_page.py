"""A job's report as a page that needs no other file.

Plots are images, so a browser never runs a column's name.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from typing import Any

from models.training.confusion import ConfusedPair, Confusion
from models.training.report import STAGES, Choice, Finding, Picture, Report, Stage
from models.training.report_labels import STAGE_TITLES, STATUS_WORDS
from models.training.report_markdown import NOTHING_CONFUSED, pair_text, rows_text
from models.training.reported_events import ReportedEvents
from service import plots
from service.api.report_summary import Metric, ReportSummary

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color-scheme:light dark}"
    "img{max-width:100%;background:#fff}figure{margin:1em 0}table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #8884}"
    ".wide{overflow-x:auto}.matrix td{text-align:center;font-variant-numeric:tabular-nums}"
    ".pictures{display:flex;flex-wrap:wrap;gap:1em}.pictures figure{margin:0;max-width:14em;overflow-wrap:anywhere}"
    ".fail{color:light-dark(#b00020,#ff8a80)}.warn{color:light-dark(#8a5300,#ffb74d)}"
)


def report_page(summary: ReportSummary, report: Report, reason: str | None) -> str:
    """The page; `reason` is why the job failed."""
    title = escape(summary.title)
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    failure = f"<p class=fail><b>The job failed</b> {escape(reason)}</p>" if reason else ""
    verdict = "".join(f"<p>{escape(line)}</p>" for line in summary.verdict)
    parts = (
        _metrics(summary.metrics),
        _problems(report.problems()),
        _choices(report.choices),
        _confusion(report.confusion),
        _events(report.events),
        _pictures(report.pictures),
        _plots(report.plots),
    )
    stages = "".join(_stage(report, stage) for stage in STAGES)
    body = f"<h1>{title}</h1>{failure}{verdict}<p>{escape(report.summary())}</p>{''.join(map(''.join, parts))}"
    return f"{head}{body}<h2>All checks</h2>{stages}"


def _metrics(metrics: tuple[Metric, ...]) -> Iterator[str]:
    if not metrics:
        return
    compared = any(one.served_before is not None for one in metrics)
    yield from ("<h2>Metrics</h2><table><tr><th>Metric<th>This model", "<th>Served before" if compared else "")
    for one in metrics:
        before = "" if one.served_before is None else f"{one.served_before:.4g}"
        yield f"<tr><td>{escape(one.label)}<td>{one.text}" + (f"<td>{before}" if compared else "")
    yield "</table>"


def _problems(problems: Iterable[Finding]) -> Iterator[str]:
    items = [_finding(one) for one in problems]
    if items:
        yield f"<h2>What needs a look</h2><ul>{''.join(items)}</ul>"


def _choices(choices: Iterable[Choice]) -> Iterator[str]:
    items = [_choice(one) for one in choices]
    if items:
        yield f"<h2>What was chosen</h2><ul>{''.join(items)}</ul>"


def _choice(choice: Choice) -> str:
    figures = "".join(f"<li>{escape(name)}: {escape(figures)}" for name, figures in choice.figures())
    reason = f"<b>{escape(choice.chosen)}</b>, because {escape(choice.reason)}."
    return f"<li>{escape(choice.what)}: {reason}" + (f"<ul>{figures}</ul>" if figures else "")


def _confusion(confusion: Confusion | None) -> Iterator[str]:
    """The worst pairs with examples, and the matrix folded: it may be wide."""
    if confusion is None:
        return
    yield "<h2>What is taken for what</h2>"
    yield f"<ul>{''.join(map(_pair, confusion.pairs))}</ul>" if confusion.pairs else f"<p>{NOTHING_CONFUSED}"
    yield "<details><summary>Confusion matrix: rows of a label by the label that was predicted</summary>"
    if confusion.left_out:
        yield f"<p>The {len(confusion.labels)} labels that were confused most; {confusion.left_out} more are left out."
    yield "<div class=wide><table class=matrix><tr><th>"
    yield from (f"<th>{escape(label)}" for label in confusion.labels)
    for label, counts in zip(confusion.labels, confusion.counts, strict=True):
        yield f"<tr><th>{escape(label)}"
        most = max(*counts, 1)
        yield from (f"<td style='{_shade(count / most)}'>{count or ''}" for count in counts)
    yield "</table></div></details>"


def _pair(pair: ConfusedPair) -> str:
    examples = "".join(
        f"<li>row {one.line}: {escape(one.text)}{_image(one.picture, one.text)}" for one in pair.examples
    )
    return f"<li>{escape(pair_text(pair))}<ul>{examples}</ul>"


def _image(uri: str | None, name: str) -> str:
    """An image of the report's own; a data URI of an image runs nothing."""
    if uri is None or not uri.startswith("data:image/"):
        return ""
    return f"<br><img alt='{escape(name)}' src='{escape(uri)}'>"


def _pictures(pictures: Iterable[Picture]) -> Iterator[str]:
    for title, group in groupby(pictures, key=lambda one: one.title):
        yield f"<h2>{escape(title)}</h2><div class=pictures>"
        for one in group:
            yield f"<figure>{_image(one.image, one.caption)}<figcaption>{escape(one.caption)}</figcaption></figure>"
        yield "</div>"


def _shade(share: float) -> str:
    return f"background:rgb(44 111 187/{60 * share:.0f}%)"


def _events(events: ReportedEvents | None) -> Iterator[str]:
    if events is None:
        return
    yield f"<h2>{escape(events.title)}</h2>"
    if events.shown:
        header, *rows = events.table()
        yield "<div class=wide><table><tr>" + "".join(f"<th>{escape(cell)}" for cell in header)
        yield from ("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
        yield "</table></div>"


def _plots(found: dict[str, Any] | None) -> Iterator[str]:
    for number, name in enumerate(plots.available(found or {})):
        title, picture = escape(plots.TITLES[name]), plots.draw(name, found or {}, "svg")
        uri = f"data:image/svg+xml;base64,{b64encode(picture).decode()}"
        yield ("" if number else "<h2>Plots</h2>") + f"<figure><img alt='{title}' src='{uri}'></figure>"


def _stage(report: Report, stage: Stage) -> str:
    """A stage, folded: its problems stand above."""
    items = "".join(_finding(one) for one in report.of(stage)) or "<li>Not run."
    title = f"{escape(STAGE_TITLES[stage])} <b>{STATUS_WORDS[report.status(stage)]}</b>"
    return f"<details><summary>{title}</summary><ul>{items}</ul></details>"


def _finding(finding: Finding) -> str:
    text = f"<li class={finding.status}><b>{escape(finding.name)}</b>. {escape(finding.message)}"
    if finding.status in ("ok", "skipped"):
        return text
    rows = f" Rows {rows_text(finding.rows)}." if finding.rows else ""
    remedy = f" <em>What to do: {escape(finding.remedy)}</em>" if finding.remedy else ""
    return text + rows + remedy
