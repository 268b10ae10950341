"""A job's report as JSON, Markdown or a page with its plots, and each plot by itself."""

from __future__ import annotations

import json
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any, Literal

import orjson

from service import plots
from service.errors import JobNotFound
from service.jobs import paths

ReportFormat = Literal["json", "md", "html"]
MEDIA = {"json": "application/json", "md": "text/markdown; charset=utf-8", "html": "text/html; charset=utf-8"}
_STYLE = (
    "body{font:15px sans-serif;max-width:62em;margin:2em auto;padding:0 1em}"
    "img{max-width:100%}.fail{color:#b00}.warn{color:#a60}"
)


def read_report(home: Path, job: str, form: ReportFormat, path: str) -> bytes:
    """The newest report of an existing job; `path` is its URL path. Raises JobNotFound while there is none."""
    if form == "md":
        return _report_file(home, job, "md") + _markdown_links(_plot_data(home, job), path).encode()
    written = _report_file(home, job, "json")
    content = orjson.loads(written)
    drawn = plots.available(content.get("plots") or {})
    if form == "html":
        return _html_page(job, content, drawn).encode()
    if not drawn:
        return written
    files = {name: f"{path}/plots/{name}.svg" for name in drawn}
    return orjson.dumps({**content, "plot_files": files}, option=orjson.OPT_INDENT_2)


def read_plot(home: Path, job: str, name: str, form: plots.Format) -> bytes:
    """One plot of the newest report.

    Raises JobNotFound without a report, or without that plot.
    """
    data = _plot_data(home, job)
    if name not in plots.available(data):
        drawn = ", ".join(plots.available(data)) or "none"
        raise JobNotFound(f"the report of {job} has no plot {name!r}; it has: {drawn}", param="plot")
    return plots.draw(name, data, form)


def _report_file(home: Path, job: str, suffix: str) -> bytes:
    found = paths.report(home, job, suffix)
    if found is None:
        raise JobNotFound(f"{job} has no report yet", param="fine_tuning_job_id")
    return found.read_bytes()


def _plot_data(home: Path, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_report_file(home, job, "json")).get("plots") or {}
    return found


def _markdown_links(found: dict[str, Any], path: str) -> str:
    lines = [f"![{name}]({path}/plots/{name}.svg)\n" for name in plots.available(found)]
    return "\n".join(["\n## Plots\n", *lines]) if lines else ""


def _html_page(job: str, content: dict[str, Any], drawn: list[str]) -> str:
    """A page that needs no other file.

    Plots are images, so a browser never runs a column's name.
    """
    pictures = [f"<h3>{name}</h3><img alt={name} src='{_data_uri(name, content['plots'])}'>" for name in drawn]
    rungs = [_html_stage(rung) for rung in content["rungs"]]
    title = f"Report of {escape(job)}"
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    return f"{head}<h1>{title}</h1>" + "".join(["<h2>Plots</h2>", *pictures] if pictures else []) + "".join(rungs)


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
