"""The report of a job's checks, in five stages. Its JSON calls the stages `rungs`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import orjson
from pydantic import TypeAdapter

from models.counted import counted
from models.training.confusion import Confusion
from models.training.errors import CheckFailed
from models.training.report_labels import STAGE_TITLES, check_label
from models.training.reported_events import ReportedEvents

Stage = Literal["data", "forward", "loss", "gradient", "outcome"]
Status = Literal["ok", "warn", "fail", "skipped"]
STAGES: tuple[Stage, ...] = get_args(Stage)
MAX_ROWS_NAMED = 50
# What a client would change when a check fails, as OpenAI's `error.param` names it.
_PARAMS: dict[Stage, str] = {
    "data": "training_file",
    "forward": "model",
    "loss": "hyperparameters",
    "gradient": "hyperparameters",
    "outcome": "training_file",
}
_CONFUSION: TypeAdapter[Confusion | None] = TypeAdapter(Confusion | None)
_EVENTS: TypeAdapter[ReportedEvents | None] = TypeAdapter(ReportedEvents | None)
_WORST_FIRST: tuple[Status, ...] = ("fail", "warn", "ok", "skipped")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `rows` are lines of the file, `remedy` is what to do.

    `subject` names the part that was checked, where a job checks several: a network, a head.
    """

    stage: Stage
    check: str
    status: Status
    value: float | str | None
    threshold: float | str | None
    message: str
    remedy: str
    rows: tuple[int, ...] = ()
    subject: str = ""

    @property
    def name(self) -> str:
        """The check in words, and the part that it is about."""
        return check_label(self.check) + (f" ({self.subject})" if self.subject else "")

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON; numbers that JSON lacks become text."""
        data = asdict(self)
        stage = data.pop("stage")
        for name in ("value", "threshold"):
            if isinstance(data[name], float) and not math.isfinite(data[name]):
                data[name] = str(data[name])
        return {"rung": stage, "label": check_label(self.check)} | data | {"rows": list(self.rows)}

    @classmethod
    def from_json(cls, stage: Stage, data: Mapping[str, Any]) -> Finding:
        """The finding of `to_json`, or of an older report, which lacks some keys."""
        check, message, remedy, subject = (
            str(data.get(name) or "") for name in ("check", "message", "remedy", "subject")
        )
        value, threshold, rows = data.get("value"), data.get("threshold"), tuple(data.get("rows") or ())
        return cls(stage, check, data["status"], value, threshold, message, remedy, rows, subject)

    @classmethod
    def of(
        cls,
        stage: Stage,
        check: str,
        status: Status,
        value: float | str | None,
        threshold: float | str | None,
        message: str,
        remedy: str = "",
        rows: Iterable[int] = (),
    ) -> Finding:
        """Build a finding; one that is ok carries no remedy, and `named_rows` bounds the rows."""
        kept = "" if status == "ok" else remedy
        return cls(stage, check, status, value, threshold, message, kept, named_rows(rows))


@dataclass(frozen=True, slots=True)
class Choice:
    """What a job chose, and why; `candidates` have the figures that decided, by name and label."""

    what: str
    chosen: str
    reason: str
    candidates: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def figures(self) -> Iterator[tuple[str, str]]:
        """Each candidate with its figures as text."""
        for name, figures in self.candidates.items():
            listed = "; ".join(f"{label} {value:.3f}" for label, value in figures.items() if value is not None)
            yield name, listed or "not measured"


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a data URI, with a caption; those of one title stand together."""

    title: str
    caption: str
    image: str


class Report:
    """Findings by stage, and what was chosen.

    `confusion` is that of a classifier on held-out rows, and `events` are what a detector finds in held-out readings.
    `pictures` show what a detector finds in images.
    `plots` has the data of the plots, by name.
    """

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self.findings: list[Finding] = list(findings)
        self.choices: list[Choice] = []
        self.confusion: Confusion | None = None
        self.events: ReportedEvents | None = None
        self.plots: dict[str, Any] | None = None
        self.pictures: tuple[Picture, ...] = ()

    def add(self, finding: Finding) -> None:
        """Append one finding."""
        self.findings.append(finding)

    def extend(self, findings: Iterable[Finding]) -> None:
        """Append findings."""
        self.findings.extend(findings)

    def of(self, stage: Stage) -> list[Finding]:
        """The findings of a stage, worst first, else as they came."""
        found = [finding for finding in self.findings if finding.stage == stage]
        return sorted(found, key=lambda finding: _WORST_FIRST.index(finding.status))

    def status(self, stage: Stage | None = None) -> Status | Literal["not run"]:
        """The worst status of a stage, or of all of them."""
        found = {finding.status for finding in self.findings if stage in (None, finding.stage)}
        return next((status for status in _WORST_FIRST if status in found), "not run")

    def raise_if_failed(self, stage: Stage) -> None:
        """Raise CheckFailed, with the first failed check as code, for a failed stage."""
        failed = [finding for finding in self.of(stage) if finding.status == "fail"]
        if failed:
            first, more = failed[0], len(failed) - 1
            others = f" ({counted(more, 'more check')} failed; see the report)" if more else ""
            subject = f"{first.subject}: " if first.subject else ""
            message = f"{subject}{first.message} {first.remedy}{others}".strip()
            raise CheckFailed(first.check, message, _PARAMS[stage])

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON: `{"status", "choices": […], "rungs": [{"rung", "status", "findings": […]}]}`."""
        rungs = [
            {
                "rung": stage,
                "title": STAGE_TITLES[stage],
                "status": self.status(stage),
                "findings": [finding.to_json() for finding in self.of(stage)],
            }
            for stage in STAGES
        ]
        chosen = {"choices": [asdict(choice) for choice in self.choices]}
        confusion = {} if self.confusion is None else {"confusion": self.confusion.to_json()}
        events = {} if self.events is None else {"events": asdict(self.events)}
        plots = {} if self.plots is None else {"plots": self.plots}
        data = {"object": "fine_tuning.report", "status": self.status(), **chosen, "rungs": rungs}
        pictures = {"pictures": [asdict(one) for one in self.pictures]} if self.pictures else {}
        return data | confusion | events | plots | pictures

    def to_bytes(self) -> bytes:
        """`to_json`, encoded: the content of report.json."""
        return orjson.dumps(self.to_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Report:
        """The report of `to_json`, or of an older version."""
        rungs = content.get("rungs") or []
        report = cls(Finding.from_json(rung["rung"], one) for rung in rungs for one in rung["findings"])
        report.choices = [Choice(**choice) for choice in content.get("choices") or []]
        report.confusion = _CONFUSION.validate_python(content.get("confusion"))
        report.events = _EVENTS.validate_python(content.get("events"))
        report.plots = content.get("plots")
        report.pictures = tuple(Picture(**one) for one in content.get("pictures") or ())
        return report

    def problems(self) -> list[Finding]:
        """The findings that failed or need a look: failures first, else by stage."""
        found = [finding for stage in STAGES for finding in self.of(stage) if finding.status in ("warn", "fail")]
        return sorted(found, key=lambda finding: _WORST_FIRST.index(finding.status))

    def summary(self) -> str:
        """How the checks went, in one sentence or two."""
        status = self.status()
        if status == "not run":
            return "Nothing was checked."
        skipped = sum(finding.status == "skipped" for finding in self.findings)
        others = f" {skipped} could not run." if skipped else ""
        ran, wrong = len(self.findings) - skipped, len(self.problems())
        if not wrong:
            return f"All {counted(ran, 'check')} that ran passed.{others}"
        failed = sum(finding.status == "fail" for finding in self.findings)
        verdict = (
            f"{counted(failed, 'check')} failed"
            if failed
            else f"Nothing failed, but {wrong} of {counted(ran, 'check')} need a look"
        )
        return f"{verdict}.{others}"


def with_subject(subject: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, with the name of the part that they are about."""
    for finding in findings:
        yield replace(finding, subject=subject)


def named_rows(rows: Iterable[int]) -> tuple[int, ...]:
    """At most `MAX_ROWS_NAMED` different rows, in order: a sample, not the file."""
    return tuple(sorted({int(row) for row in rows})[:MAX_ROWS_NAMED])
