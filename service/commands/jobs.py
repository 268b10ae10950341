"""`sonde jobs` and `sonde report`."""

from __future__ import annotations

import tempfile
import webbrowser
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from service.client import Client
from service.client.errors import BadInput
from service.client.job_answers import Job
from service.commands.connection import DEFAULT_URL, Json, Key, Url, connect
from service.commands.report_text import show_report
from service.commands.screen import Screen
from service.commands.watch_job import follow, show_outcome
from service.errors import ConfigError


class JobAction(StrEnum):
    """A change of a job."""

    cancel = "cancel"
    pause = "pause"
    resume = "resume"


app = typer.Typer()


@app.command(epilog="Examples: sonde jobs  |  sonde jobs ftjob-1 --follow  |  sonde jobs ftjob-1 cancel")
def jobs(
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="a job; without it, all are listed")] = None,
    action: Annotated[JobAction | None, typer.Argument(help="what to do with it")] = None,
    follow_: Annotated[bool, typer.Option("--follow", help="watch the job until it has ended")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="jobs to list")] = 20,
    after: Annotated[str | None, typer.Option(help="list the jobs before this one")] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """List jobs, or show, watch, cancel, pause or resume one."""
    screen = Screen(as_json=json)
    if follow_ and job is None:
        raise ConfigError("--follow: expected the id of a job, which 'sonde jobs' lists")
    with connect(url, key) as client:
        if job is None:
            page = client.jobs(limit=limit, after=after)
            if json:
                screen.json(page)
                return
            screen.table(("id", "status", "base", "created", "model"), map(_row, page.data))
            if page.has_more:
                screen.note(f"more: sonde jobs --after {page.data[-1].id}")
            return
        found = client.job(job) if action is None else getattr(client, action)(job)
        if follow_:
            show_outcome(screen, client, follow(screen, client, job))
        elif json:
            screen.json(found)
        else:
            _show(screen, found)


@app.command(epilog="Examples: sonde report  |  sonde report ftjob-1 --open")
def report(
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="the job; by default the newest")] = None,
    html: Annotated[Path | None, typer.Option(help="write the report as a page into this file")] = None,
    open_: Annotated[bool, typer.Option("--open", help="open the page in a browser")] = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
    json: Json = False,
) -> None:
    """Show a job's report: the verdict, and what each check found."""
    screen = Screen(as_json=json)
    with connect(url, key) as client:
        job = job or _newest(client)
        if html is not None or open_:
            path = _write(client.report_page(job), html, job)
            screen.note(f"written to {path}")
            if open_ and not webbrowser.open(path.absolute().as_uri()):
                screen.note("no browser was found here", "yellow")
        elif json:
            screen.json(client.report(job))
        else:
            found = client.report(job)
            show_report(screen, found, title=found.title or f"Report of {job}")


def _newest(client: Client) -> str:
    """The id of the newest job. Raises BadInput where there is none."""
    jobs = client.jobs(limit=1).data
    if not jobs:
        raise BadInput("there is no job yet; 'sonde train FILE' starts one")
    return jobs[0].id


def _write(page: str, asked: Path | None, job: str) -> Path:
    """Write the page to the file asked for, else to a new temporary one. Raises BadInput."""
    try:
        path = asked or Path(tempfile.mkdtemp(prefix="sonde-")) / "report.html"
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--html {asked or job}: {error.strerror}") from error
    return path


def _row(job: Job) -> tuple[str, ...]:
    return job.id, _status(job), job.model, _time(job.created_at), job.fine_tuned_model or ""


def _show(screen: Screen, job: Job) -> None:
    fields = {
        "status": _status(job),
        "base": job.model,
        "model": job.fine_tuned_model,
        "created": _time(job.created_at),
        "finished": None if job.finished_at is None else _time(job.finished_at),
        "waiting": job.waiting,
        "error": None if job.error is None else f"{job.error.message} ({job.error.code})",
        "decision": None if job.result is None else f"{job.result.get('decision')}: {job.result.get('why')}",
    }
    screen.table((job.id, ""), [(name, value) for name, value in fields.items() if value])


def _status(job: Job) -> str:
    return "paused" if job.paused else job.status


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
