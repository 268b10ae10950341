"""A job that a person watches until it has ended."""

from __future__ import annotations

import typer

from service.client import Client
from service.client.answers import Job
from service.commands.job_progress import JobProgress
from service.commands.report_text import show_verdict
from service.commands.screen import STATUS, Screen

INTERRUPTED = 130


def follow(screen: Screen, client: Client, job_id: str) -> Job:
    """Show a job's events, then return it. Ctrl-C leaves it running, says how to come back, and exits."""
    job = client.job(job_id)
    if job.waiting:
        screen.note(f"waiting: {job.waiting}", "yellow")
    try:
        with JobProgress(screen, job_id) as progress:
            for event in client.follow(job_id):
                progress.show(event)
    except KeyboardInterrupt:
        screen.note(f"{job_id} goes on. Come back with: sonde jobs {job_id} --follow")
        screen.note(f"To end it: sonde jobs {job_id} cancel")
        raise typer.Exit(INTERRUPTED) from None
    return client.job(job_id)


def show_outcome(screen: Screen, client: Client, job: Job) -> None:
    """Print the verdict of a job that has ended, and what to do next. Exits with 1 unless it has succeeded."""
    if screen.as_json:
        screen.json(job)
    elif job.status == "succeeded":
        show_verdict(screen, client.report(job.id), "green" if _was_promoted(job) else "yellow")
    elif job.error is not None:
        screen.line(f"{job.id} failed ({job.error.code}): {job.error.message}", "red")
    else:
        screen.line(f"{job.id} is {job.status}", STATUS.get(job.status, ""))
    if not screen.as_json:
        screen.note(f"Report: sonde report {job.id}")
    if job.status != "succeeded":
        raise typer.Exit(1)


def _was_promoted(job: Job) -> bool:
    return (job.result or {}).get("decision") == "promoted"
