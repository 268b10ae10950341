"""A job's report on a terminal: the verdict, what needs a look, what was chosen, then all checks in short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.client.job_answers import Choice, Confusion, Finding, Metric, Report, ReportedEvent, ReportedEvents
from service.commands.screen import STATUS, Screen

_SUMMARIES = {
    "ok": "All checks passed.",
    "warn": "Nothing failed, but something needs a look.",
    "fail": "At least one check failed.",
    "skipped": "Nothing could be checked.",
    "not run": "Nothing was checked.",
}
_PROBLEMS = ("fail", "warn")
_MOST_ROWS = 10
# A wider matrix does not fit a terminal; the page has it.
_MOST_LABELS = 10


def show_report(screen: Screen, report: Report, *, title: str, whole: bool = True) -> None:
    """Print the report. `whole`: list the stages with all their findings; else with those that need no look."""
    screen.line(title, "bold")
    if report.error is not None:
        screen.line(f"The job failed ({report.error.code}): {report.error.message}", "red")
    show_verdict(screen, report)
    screen.line(_SUMMARIES.get(report.status, report.status), STATUS.get(report.status, ""))
    _show_problems(screen, report)
    _show_choices(screen, report.choices)
    if report.confusion is not None:
        _show_confusion(screen, report.confusion)
    if curve := (report.plots or {}).get("calibration"):
        _show_calibration(screen, curve)
    if report.events is not None:
        _show_events(screen, report.events)
    for rung in report.rungs:
        findings = [one for one in rung.findings if whole or one.status not in _PROBLEMS]
        if findings or whole:
            _heading(screen, f"{rung.title or rung.rung} ({rung.status})")
        for finding in findings:
            screen.line(f"  {finding.status:7} {finding.name}: {finding.message}", STATUS.get(finding.status, ""))


def show_verdict(screen: Screen, report: Report, style: str = "bold") -> None:
    """Print what became of the model and how good it is, then its metrics."""
    for at, line in enumerate(report.verdict):
        screen.line(line, "" if at else style)
    if report.metrics:
        screen.table(("metric", "value", "served before"), map(_metric, report.metrics))


def _metric(metric: Metric) -> tuple[str, str, str]:
    interval = "" if metric.low is None or metric.high is None else f" ({metric.low:.4g} to {metric.high:.4g})"
    before = "" if metric.served_before is None else f"{metric.served_before:.4g}"
    return metric.label, f"{metric.value:.4g}{interval}", before


def _show_problems(screen: Screen, report: Report) -> None:
    problems = [one for rung in report.rungs for one in rung.findings if one.status in _PROBLEMS]
    if problems:
        _heading(screen, "What needs a look")
    for finding in sorted(problems, key=lambda one: one.status):  # fail before warn
        _show_problem(screen, finding)


def _show_problem(screen: Screen, finding: Finding) -> None:
    screen.line(f"  {finding.status:7} {finding.name}: {finding.message}", STATUS.get(finding.status, ""))
    if finding.rows:
        more = len(finding.rows) - _MOST_ROWS
        named = ", ".join(map(str, finding.rows[:_MOST_ROWS])) + (f" and {more} more" if more > 0 else "")
        screen.line(f"          rows {named}")
    if finding.remedy:
        screen.line(f"          what to do: {finding.remedy}")


def _show_choices(screen: Screen, choices: list[Choice]) -> None:
    if choices:
        _heading(screen, "What was chosen")
    for choice in choices:
        screen.line(f"  {choice.what}: {choice.chosen}, because {choice.reason}.")
        for name, figures in choice.candidates.items():
            listed = "; ".join(f"{label} {value:.3f}" for label, value in figures.items() if value is not None)
            screen.line(f"    {name}: {listed or 'not measured'}")


def _show_confusion(screen: Screen, confusion: Confusion) -> None:
    _heading(screen, "What is taken for what")
    if not confusion.pairs:
        screen.line("  No held-out row was taken for another label.")
        return
    for pair in confusion.pairs:
        screen.line(f"  {pair.label!r} was taken for {pair.taken_for!r} in {pair.rows} of its {pair.of} held-out rows.")
        for example in pair.examples:
            screen.line(f"    row {example.line}: {example.text}")
    if len(confusion.labels) <= _MOST_LABELS:
        rows = zip(confusion.labels, confusion.counts, strict=True)
        screen.table(("label \\ predicted", *confusion.labels), ((label, *counts) for label, counts in rows))
    else:
        screen.line("  The page has the confusion matrix: add --open or --html FILE.")


def _show_events(screen: Screen, events: ReportedEvents) -> None:
    some = f": the {len(events.shown)} strangest" if events.found > len(events.shown) else ""
    _heading(screen, f"Events in the held-out readings at alpha {events.alpha:g}: {events.found}{some}")
    if events.shown:
        rows = ((*_event(one), "" if one.labelled is None else ("no", "yes")[one.labelled]) for one in events.shown)
        screen.table(("start", "end", "readings", "severity", "p-value of the peak", "columns", "labelled"), rows)


def _event(one: ReportedEvent) -> tuple[object, ...]:
    return one.start, one.end, one.readings, one.severity, f"{one.p_value:.2g}", ", ".join(one.columns)


def _show_calibration(screen: Screen, curve: Mapping[str, Any]) -> None:
    _heading(screen, "Confidence against accuracy")
    columns = (curve[name] for name in ("confidence", "accuracy", "low", "high", "rows"))
    shown = (
        (f"{confidence:.0%}", f"{accuracy:.0%}", f"{low:.0%} to {high:.0%}", rows)
        for confidence, accuracy, low, high, rows in zip(*columns, strict=True)
    )
    screen.table(("confidence", "right", "95 % interval", "rows"), shown)


def _heading(screen: Screen, text: str) -> None:
    screen.line("")
    screen.line(text, "bold")
