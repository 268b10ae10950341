"""A job that a person watches until it has ended."""

from __future__ import annotations

import typer

from models.training.report_labels import metric_label
from service.client import Client
from service.client.answers import Job
from service.commands.job_progress import JobProgress
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


def show_outcome(screen: Screen, job: Job) -> None:
    """Print the verdict of a job that has ended, and what to do next. Exits with 1 unless it has succeeded."""
    if screen.as_json:
        screen.json(job)
    else:
        _show_verdict(screen, job)
    if job.status != "succeeded":
        raise typer.Exit(1)


def _show_verdict(screen: Screen, job: Job) -> None:
    if job.error is not None:
        screen.line(f"{job.id} failed ({job.error.code}): {job.error.message}", "red")
    elif job.result is None:
        screen.line(f"{job.id} is {job.status}", STATUS.get(job.status, ""))
    else:
        decision = str(job.result.get("decision"))
        screen.line(f"{job.fine_tuned_model} was {decision}: {job.result.get('why')}", _DECISIONS.get(decision, ""))
        metrics = job.result.get("metrics") or {}
        task = str((job.method or {}).get("supervised", {}).get("task", ""))
        table = [(metric_label(name, task), f"{value:.4g}") for name, value in metrics.items()]
        screen.table(("metric", "value"), table)
    screen.note(f"Report: sonde report {job.id}")


_DECISIONS = {"promoted": "green", "held": "yellow"}
