"""The debug ladder's report: findings on five rungs, as JSON for programs and as Markdown to be read aloud."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import orjson

from models.training.errors import CheckFailed

Rung = Literal["data", "forward", "loss", "gradient", "outcome"]
Status = Literal["ok", "warn", "fail"]
RUNGS: tuple[Rung, ...] = get_args(Rung)
MAX_ROWS_NAMED = 50
_TITLES: dict[Rung, str] = {
    "data": "Data: can these rows teach anything?",
    "forward": "Forward: does the model answer sensibly?",
    "loss": "Loss: does it measure what is wanted?",
    "gradient": "Gradient: does every weight learn?",
    "outcome": "Outcome: is the result better than what is there?",
}
# What a caller would change when a rung fails, as OpenAI's `error.param` names it.
_PARAMS: dict[Rung, str] = {
    "data": "training_file",
    "forward": "model",
    "loss": "hyperparameters",
    "gradient": "hyperparameters",
    "outcome": "training_file",
}
# What begins a tag, or the place of a link or image, in Markdown.
_ACTIVE = re.compile(r"<(?=[A-Za-z/!?])|(?<=\])\(")
_MARKS: dict[Status, str] = {"ok": "fine", "warn": "look at this", "fail": "stop"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one rung: what was measured against what, which rows (lines of the file) it is about, and what to
    do.
    """

    rung: Rung
    check: str
    status: Status
    value: float | str | None
    threshold: float | str | None
    message: str
    remedy: str
    rows: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        rung: Rung,
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
        return cls(rung, check, status, value, threshold, message, kept, named_rows(rows))


class Report:
    """Findings in the order of the rungs; what was not run is said too. `plots` is what a job on numbers has to be
    drawn.
    """

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self.findings: list[Finding] = list(findings)
        self.plots: dict[str, Any] | None = None

    def add(self, finding: Finding) -> None:
        """Append one finding."""
        self.findings.append(finding)

    def extend(self, findings: Iterable[Finding]) -> None:
        """Append findings."""
        self.findings.extend(findings)

    def of(self, rung: Rung) -> list[Finding]:
        """The findings of a rung, worst first, else as they came."""
        order = ("fail", "warn", "ok")
        return sorted(
            (finding for finding in self.findings if finding.rung == rung),
            key=lambda finding: order.index(finding.status),
        )

    def status(self, rung: Rung | None = None) -> Status | Literal["not run"]:
        """The worst status of a rung, or of all of them."""
        found = {finding.status for finding in self.findings if rung in (None, finding.rung)}
        return next((status for status in ("fail", "warn", "ok") if status in found), "not run")

    def raise_if_failed(self, rung: Rung) -> None:
        """Raise LadderError for a failed rung; its code is the first failed check's name, its message says what to
        do.
        """
        failed = [finding for finding in self.of(rung) if finding.status == "fail"]
        if failed:
            others = f" ({len(failed) - 1} more checks failed; see the report)" if len(failed) > 1 else ""
            raise CheckFailed(failed[0].check, f"{failed[0].message} {failed[0].remedy}{others}".strip(), _PARAMS[rung])

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON: `{"status", "rungs": [{"rung", "status", "findings": […]}]}`; numbers that JSON lacks
        become text.
        """
        rungs = [
            {"rung": rung, "status": self.status(rung), "findings": [_plain(finding) for finding in self.of(rung)]}
            for rung in RUNGS
        ]
        plots = {} if self.plots is None else {"plots": self.plots}
        return {"object": "fine_tuning.report", "status": self.status(), "rungs": rungs} | plots

    def to_bytes(self) -> bytes:
        """`to_json`, encoded: the content of report.json."""
        return orjson.dumps(self.to_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def to_markdown(self) -> str:
        """The rungs in order: what was found in sentences, then what to do; short enough to be read aloud."""
        lines = ["# Debug ladder", "", self._summary(), ""]
        for number, rung in enumerate(RUNGS, start=1):
            lines += [f"## {number}. {_TITLES[rung]}", "", *(self._section(rung) or ["Not run."]), ""]
        return "\n".join(lines)

    def _summary(self) -> str:
        status = self.status()
        if status == "not run":
            return "Nothing was checked."
        troubles = [rung for rung in RUNGS if self.status(rung) in ("warn", "fail")]
        if not troubles:
            return f"All {_checks(len(self.findings))} passed."
        verdict = "At least one check failed." if status == "fail" else "Nothing failed, but something needs a look."
        return f"{verdict} Start with the first rung that is not fine: {troubles[0]}."

    def _section(self, rung: Rung) -> list[str]:
        findings = self.of(rung)
        lines: list[str] = []
        for finding in findings:
            if finding.status != "ok":
                lines += [
                    f"- **{_MARKS[finding.status]}**: {finding.check}. {_inert(finding.message)}",
                    *_details(finding),
                ]
        fine = [finding for finding in findings if finding.status == "ok"]
        return [*lines, *(f"- {_MARKS['ok']}: {finding.check}. {_inert(finding.message)}" for finding in fine)]


def _details(finding: Finding) -> list[str]:
    lines = []
    if finding.rows:
        named = ", ".join(str(row) for row in finding.rows[:10])
        more = f" and {len(finding.rows) - 10} more" if len(finding.rows) > 10 else ""
        lines.append(f"  Rows {named}{more}.")
    if finding.remedy:
        lines.append(f"  What to do: {_inert(finding.remedy)}")
    return lines


def _inert(text: str) -> str:
    """A message for Markdown: labels and columns of the file in it become neither tags, links nor lines of their
    own.
    """
    return _ACTIVE.sub(r"\\\g<0>", " ".join(text.splitlines()))


def _plain(finding: Finding) -> dict[str, Any]:
    data = asdict(finding)
    data["rows"] = list(finding.rows)
    for name in ("value", "threshold"):
        number = data[name]
        if isinstance(number, float) and not math.isfinite(number):
            data[name] = str(number)
    return data


def _checks(count: int) -> str:
    return "1 check" if count == 1 else f"{count} checks"


def named_rows(rows: Iterable[int]) -> tuple[int, ...]:
    """At most `MAX_ROWS_NAMED` different rows, in order: enough to look at, not a copy of the file."""
    return tuple(sorted({int(row) for row in rows})[:MAX_ROWS_NAMED])
