"""A job's report as JSON, Markdown or a page with its plots, and each plot by itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import orjson

from models.training.report import Report
from models.training.report_markdown import escape, to_markdown
from service import plots
from service.api.report_page import report_page
from service.api.report_summary import ReportSummary
from service.errors import JobNotFound
from service.jobs import paths
from service.jobs.records import Job

ReportFormat = Literal["json", "md", "html"]
MEDIA = {"json": "application/json", "md": "text/markdown; charset=utf-8", "html": "text/html; charset=utf-8"}


def read_report(home: Path, job: Job, form: ReportFormat, path: str) -> bytes:
    """The newest report of a job; `path` is its URL path. That of a failed job begins with the reason.

    Raises JobNotFound while there is none.
    """
    report = _report(home, job)
    summary = ReportSummary.of(job, report)
    if form == "md":
        return (to_markdown(report, summary.title, _head(job, summary)) + _plot_links(report, path)).encode()
    if form == "html":
        return report_page(summary, report, _failure(job)).encode()
    return orjson.dumps(_to_json(job, summary, report, path), option=orjson.OPT_INDENT_2)


def read_plot(home: Path, job: str, name: str, form: plots.Format) -> bytes:
    """One plot of the newest report.

    Raises JobNotFound without a report, or without that plot.
    """
    data = _json_file(home, job).get("plots") or {}
    if name not in plots.available(data):
        drawn = ", ".join(plots.available(data)) or "none"
        raise JobNotFound(f"the report of {job} has no plot {name!r}; it has: {drawn}", param="plot")
    return plots.draw(name, data, form)


def _report(home: Path, job: Job) -> Report:
    """The report of the training process; one without findings where the job failed before."""
    if job.error_code is not None and paths.report(home, job.id, "json") is None:
        return Report()
    return Report.from_json(_json_file(home, job.id))


def _json_file(home: Path, job: str) -> dict[str, Any]:
    found = paths.report(home, job, "json")
    if found is None:
        raise JobNotFound(f"{job} has no report yet", param="fine_tuning_job_id")
    content: dict[str, Any] = orjson.loads(found.read_bytes())
    return content


def _to_json(job: Job, summary: ReportSummary, report: Report, path: str) -> dict[str, Any]:
    """The report with `error` first where the job failed, then the summary."""
    error = {"error": {"code": job.error_code, "message": job.error_message, "param": job.error_param}}
    drawn = {name: f"{path}/plots/{name}.svg" for name in plots.available(report.plots or {})}
    head = {
        "title": summary.title,
        "job": job.id,
        "model": job.fine_tuned_model,
        "verdict": list(summary.verdict),
        "metrics": [asdict(one) for one in summary.metrics],
    }
    return (error if job.error_code else {}) | head | report.to_json() | ({"plot_files": drawn} if drawn else {})


def _failure(job: Job) -> str | None:
    return None if job.error_code is None else f"({job.error_code}): {job.error_message or ''}"


def _head(job: Job, summary: ReportSummary) -> str:
    """The reason of a failure, the verdict and the metrics, as Markdown."""
    failure = _failure(job)
    lines = [f"**The job failed** {escape(failure)}"] if failure else []
    lines += map(escape, summary.verdict)
    if summary.metrics:
        rows = (f"| {one.label} | {one.text} | {_number(one.served_before)} |" for one in summary.metrics)
        lines.append("\n".join(["| Metric | This model | Served before |", "|---|---|---|", *rows]))
    return "\n\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _plot_links(report: Report, path: str) -> str:
    names = plots.available(report.plots or {})
    lines = [f"![{plots.TITLES[name]}]({path}/plots/{name}.svg)\n" for name in names]
    return "\n".join(["\n## Plots\n", *lines]) if lines else ""
