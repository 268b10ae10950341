"""`sonde check FILE`: the data checks of a job, without a job and without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.client.job_answers import Report as ReportAnswer
from service.commands.connection import Json
from service.commands.job_options import Columns, Set, Task, note_flags, pairs, values
from service.commands.report_text import show_report
from service.commands.screen import Screen, safe

app = typer.Typer()


@app.command(epilog="Examples: sonde check intents.jsonl  |  sonde check pump.csv --task anomaly --set kind=series")
def check(
    file: Annotated[Path, typer.Argument(help="CSV, JSONL, Parquet, XLSX, or a ZIP of images")],
    task: Task = "classification",
    set_: Set = None,
    column: Columns = None,
    json: Json = False,
) -> None:
    """Check a training file: rows that cannot be read, and what a job's data checks find.

    It needs no service and no model, so checks on embeddings are left to the job. Exit code 1: a job would fail.
    """
    screen = Screen(as_json=json)
    with screen.err.status(safe(f"Checking {file} …")):
        from models.training.file_check import check_file  # takes a second to import

        report = check_file(file, task, values(set_ or []), pairs(column or [], "--column"))
    if json:
        screen.json(report.to_json())
    else:
        show_report(screen, ReportAnswer.model_validate(report.to_json()), title=f"Check of {file}", whole=False)
    if report.status() == "fail":
        note_flags(screen, *(finding.message for finding in report.findings))
        if task == "classification":  # the default, which a table of readings fails in many ways
            screen.note("Checked for classification. For a table of readings: --task anomaly --set kind=series")
        raise typer.Exit(1)
