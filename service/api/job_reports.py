"""A job's report as JSON, Markdown or a page with its plots, and each plot by itself."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any, Literal

import orjson

from models.training.report import Report
from models.training.report import escape as escape_markdown
from service import plots
from service.errors import JobNotFound
from service.jobs import paths
from service.jobs.records import Job

ReportFormat = Literal["json", "md", "html"]
MEDIA = {"json": "application/json", "md": "text/markdown; charset=utf-8", "html": "text/html; charset=utf-8"}
_STYLE = (
    "body{font:15px sans-serif;max-width:62em;margin:2em auto;padding:0 1em}"
    "img{max-width:100%}.fail{color:#b00}.warn{color:#a60}"
)


def read_report(home: Path, job: Job, form: ReportFormat, path: str) -> bytes:
    """The newest report of a job; `path` is its URL path. That of a failed job begins with the reason.

    Raises JobNotFound while there is none.
    """
    content = _content(home, job)
    found = content.get("plots") or {}
    drawn = plots.available(found)
    if form == "md":
        return (_failure_and_checks(home, job) + _markdown_links(found, path)).encode()
    if form == "html":
        return _html_page(job, content, drawn).encode()
    files = {"plot_files": {name: f"{path}/plots/{name}.svg" for name in drawn}} if drawn else {}
    return orjson.dumps(content | files, option=orjson.OPT_INDENT_2)


def _content(home: Path, job: Job) -> dict[str, Any]:
    """The report as plain data, `error` first where the job failed."""
    if job.error_code is None:
        return _json_file(home, job.id)
    checks = _json_file(home, job.id) if paths.report(home, job.id, "json") else Report().to_json()
    return {"error": {"code": job.error_code, "message": job.error_message, "param": job.error_param}} | checks


def _failure_and_checks(home: Path, job: Job) -> str:
    """The report as Markdown, with the reason of a failure below its title."""
    if job.error_code is None:
        return _report_file(home, job.id, "md").decode()
    written = paths.report(home, job.id, "md")
    title, _, checks = (written.read_text(encoding="utf-8") if written else Report().to_markdown()).partition("\n")
    return f"{title}\n\n**The job failed** ({job.error_code}): {escape_markdown(job.error_message or '')}\n{checks}"


def read_plot(home: Path, job: str, name: str, form: plots.Format) -> bytes:
    """One plot of the newest report.

    Raises JobNotFound without a report, or without that plot.
    """
    data = _json_file(home, job).get("plots") or {}
    if name not in plots.available(data):
        drawn = ", ".join(plots.available(data)) or "none"
        raise JobNotFound(f"the report of {job} has no plot {name!r}; it has: {drawn}", param="plot")
    return plots.draw(name, data, form)


def _report_file(home: Path, job: str, suffix: str) -> bytes:
    found = paths.report(home, job, suffix)
    if found is None:
        raise JobNotFound(f"{job} has no report yet", param="fine_tuning_job_id")
    return found.read_bytes()


def _json_file(home: Path, job: str) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads(_report_file(home, job, "json"))
    return content


def _markdown_links(found: dict[str, Any], path: str) -> str:
    lines = [f"![{name}]({path}/plots/{name}.svg)\n" for name in plots.available(found)]
    return "\n".join(["\n## Plots\n", *lines]) if lines else ""


def _html_page(job: Job, content: dict[str, Any], drawn: list[str]) -> str:
    """A page that needs no other file.

    Plots are images, so a browser never runs a column's name.
    """
    pictures = [f"<h3>{name}</h3><img alt={name} src='{_data_uri(name, content['plots'])}'>" for name in drawn]
    rungs = [_html_stage(rung) for rung in content["rungs"]]
    title = f"Report of {escape(job.id)}"
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    reason = f"<p class=fail><b>The job failed</b> ({escape(job.error_code or '')}): {escape(job.error_message or '')}"
    parts = [f"{head}<h1>{title}</h1>", reason if job.error_code else "", *(["<h2>Plots</h2>"] if pictures else [])]
    return "".join([*parts, *pictures, *rungs])


def _html_stage(rung: dict[str, Any]) -> str:
    lines = [_html_finding(finding) for finding in rung["findings"]]
    return f"<h2>{escape(rung['rung'])}: {escape(rung['status'])}</h2><ul>{''.join(lines) or '<li>Not run.'}</ul>"


def _html_finding(finding: dict[str, Any]) -> str:
    status, check, message = (escape(finding[name]) for name in ("status", "check", "message"))
    advises = finding["remedy"] and finding["status"] != "ok"
    remedy = f" <em>What to do: {escape(finding['remedy'])}</em>" if advises else ""
    return f"<li class={status}><b>{check}</b>. {message}{remedy}"


def _data_uri(name: str, found: dict[str, Any]) -> str:
    return f"data:image/svg+xml;base64,{b64encode(plots.draw(name, found, 'svg')).decode()}"
