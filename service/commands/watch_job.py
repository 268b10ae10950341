"""A job that a person watches until it has ended."""

from __future__ import annotations

import time

import typer

from service.client import Client
from service.client.job_answers import Job
from service.commands.job_options import note_flags
from service.commands.job_progress import JobProgress
from service.commands.report_text import show_verdict
from service.commands.screen import STATUS, Screen

INTERRUPTED = 130
# A service looks for promoted models each second, and loads a head in less.
_LOAD_S, _POLL_S = 20.0, 0.2


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
        note_flags(screen, job.error.message)
    else:
        screen.line(f"{job.id} is {job.status}", STATUS.get(job.status, ""))
    if job.fine_tuned_model and _was_promoted(job):
        _await_service(screen, client, job.fine_tuned_model)
    screen.note(f"Report: sonde report {job.id}")
    if job.status != "succeeded":
        raise typer.Exit(1)


def _await_service(screen: Screen, client: Client, model: str) -> None:
    """Wait until a promoted model answers, so that the next command finds it."""
    for _ in range(round(_LOAD_S / _POLL_S)):
        if any(one.id == model for one in client.models().data):
            screen.note(f"{model} is in service")
            return
        time.sleep(_POLL_S)
    screen.note(f"{model} is not in service after {_LOAD_S:.0f} s: the log of the service says why", "yellow")


def _was_promoted(job: Job) -> bool:
    return (job.result or {}).get("decision") == "promoted"
