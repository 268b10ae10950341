"""A job's report on a terminal: the verdict, what needs a look, then the rest in short."""

from __future__ import annotations

from service.client.answers import Finding, Report
from service.commands.screen import STATUS, Screen

_VERDICTS = {
    "ok": "All checks passed.",
    "warn": "Nothing failed, but something needs a look.",
    "fail": "At least one check failed.",
    "skipped": "Nothing could be checked.",
    "not run": "Nothing was checked.",
}
_MOST_ROWS = 10


def show_report(screen: Screen, report: Report, *, title: str, whole: bool = True) -> None:
    """Print the report. `whole`: name stages without a finding, too."""
    screen.line(title, "bold")
    if report.error is not None:
        screen.line(f"The job failed ({report.error.code}): {report.error.message}", "red")
    screen.line(_VERDICTS.get(report.status, report.status), STATUS.get(report.status, ""))
    for rung in report.rungs:
        if not rung.findings and not whole:
            continue
        screen.line("")
        screen.line(f"{rung.rung}: {rung.status}", "bold")
        for finding in rung.findings:
            _show_finding(screen, finding)


def _show_finding(screen: Screen, finding: Finding) -> None:
    screen.line(f"  {finding.status:7} {finding.check}: {finding.message}", STATUS.get(finding.status, ""))
    if finding.status in ("ok", "skipped"):
        return
    if finding.rows:
        more = len(finding.rows) - _MOST_ROWS
        named = ", ".join(map(str, finding.rows[:_MOST_ROWS])) + (f" and {more} more" if more > 0 else "")
        screen.line(f"          rows {named}")
    if finding.remedy:
        screen.line(f"          what to do: {finding.remedy}")
