"""The report of a job's checks, in five stages: JSON for programs, Markdown for people.

Its JSON calls the five stages `rungs`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import orjson

from models.training.errors import CheckFailed

Stage = Literal["data", "forward", "loss", "gradient", "outcome"]
Status = Literal["ok", "warn", "fail", "skipped"]
STAGES: tuple[Stage, ...] = get_args(Stage)
MAX_ROWS_NAMED = 50
_MAX_ROWS_SHOWN = 10
_TITLES: dict[Stage, str] = {
    "data": "Data: can these rows teach anything?",
    "forward": "Forward: does the model answer sensibly?",
    "loss": "Loss: does it measure what is wanted?",
    "gradient": "Gradient: does every weight learn?",
    "outcome": "Outcome: is the result better than what is there?",
}
# What a client would change when a check fails, as OpenAI's `error.param` names it.
_PARAMS: dict[Stage, str] = {
    "data": "training_file",
    "forward": "model",
    "loss": "hyperparameters",
    "gradient": "hyperparameters",
    "outcome": "training_file",
}
# What begins a tag, or the target of a link or image, in Markdown.
_ACTIVE = re.compile(r"<(?=[A-Za-z/!?])|(?<=\])\(")
_MARKS: dict[Status, str] = {"ok": "fine", "warn": "look at this", "fail": "stop", "skipped": "skipped"}
_WORST_FIRST: tuple[Status, ...] = ("fail", "warn", "ok", "skipped")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `rows` are lines of the file, `remedy` is what to do."""

    stage: Stage
    check: str
    status: Status
    value: float | str | None
    threshold: float | str | None
    message: str
    remedy: str
    rows: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON; numbers that JSON lacks become text."""
        data = asdict(self)
        stage = data.pop("stage")
        for name in ("value", "threshold"):
            if isinstance(data[name], float) and not math.isfinite(data[name]):
                data[name] = str(data[name])
        return {"rung": stage} | data | {"rows": list(self.rows)}

    def to_markdown(self) -> list[str]:
        """Lines of a list; with rows and remedy, unless all is fine."""
        lines = [f"{self.check}. {escape(self.message)}"]
        if self.status in ("ok", "skipped"):
            return [f"- {_MARKS[self.status]}: {lines[0]}"]
        lines[0] = f"- **{_MARKS[self.status]}**: {lines[0]}"
        if self.rows:
            named, more = ", ".join(map(str, self.rows[:_MAX_ROWS_SHOWN])), len(self.rows) - _MAX_ROWS_SHOWN
            lines.append(f"  Rows {named}" + (f" and {more} more." if more > 0 else "."))
        if self.remedy:
            lines.append(f"  What to do: {escape(self.remedy)}")
        return lines

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


class Report:
    """Findings by stage; `plots` are those of a job on readings."""

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self.findings: list[Finding] = list(findings)
        self.plots: dict[str, Any] | None = None

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
            others = f" ({more} more checks failed; see the report)" if more else ""
            raise CheckFailed(first.check, f"{first.message} {first.remedy}{others}".strip(), _PARAMS[stage])

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON: `{"status", "rungs": [{"rung", "status", "findings": […]}]}`."""
        rungs = [
            {"rung": stage, "status": self.status(stage), "findings": [finding.to_json() for finding in self.of(stage)]}
            for stage in STAGES
        ]
        plots = {} if self.plots is None else {"plots": self.plots}
        return {"object": "fine_tuning.report", "status": self.status(), "rungs": rungs} | plots

    def to_bytes(self) -> bytes:
        """`to_json`, encoded: the content of report.json."""
        return orjson.dumps(self.to_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def to_markdown(self) -> str:
        """The stages in order: what was found, then what to do; short enough to be read aloud."""
        lines = ["# Five checks", "", self._summary(), ""]
        for number, stage in enumerate(STAGES, start=1):
            section = [line for finding in self.of(stage) for line in finding.to_markdown()]
            lines += [f"## {number}. {_TITLES[stage]}", "", *(section or ["Not run."]), ""]
        return "\n".join(lines)

    def _summary(self) -> str:
        status = self.status()
        if status == "not run":
            return "Nothing was checked."
        first = next((stage for stage in STAGES if self.status(stage) in ("warn", "fail")), None)
        if first is None:
            skipped = sum(finding.status == "skipped" for finding in self.findings)
            passed = len(self.findings) - skipped
            others = f" {skipped} could not run." if skipped else ""
            return f"All {passed} check{'' if passed == 1 else 's'} that ran passed.{others}"
        verdict = "At least one check failed." if status == "fail" else "Nothing failed, but something needs a look."
        return f"{verdict} Start with the first check that did not pass: {first}."


def named_rows(rows: Iterable[int]) -> tuple[int, ...]:
    """At most `MAX_ROWS_NAMED` different rows, in order: a sample, not the file."""
    return tuple(sorted({int(row) for row in rows})[:MAX_ROWS_NAMED])


def escape(text: str) -> str:
    """A message for Markdown; labels in it become neither tags, links nor lines."""
    return _ACTIVE.sub(r"\\\g<0>", " ".join(text.splitlines()))
