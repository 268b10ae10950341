"""Results of the benchmarks: JSON in `benchmarks/results/`, and `RESULTS.md` made from it.

python -m benchmarks.results writes the page again from what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import tables
from benchmarks.families.tables import choice, families
from benchmarks.plot import bars
from benchmarks.records.report import records
from service.bench.report import processor

HERE = Path(__file__).parent
KEPT = HERE / "results"
PAGE = HERE / "RESULTS.md"
PLOT = HERE / "serving.svg"
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
_INTRODUCTION = (
    ("Written by the benchmarks themselves (`--write`); `make bench` runs them. [NOTES.md](NOTES.md) says what"),
    (
        "they measure. Where others use the machine too, figures drift from round to round: compare those of the same "
        "rounds."
    ),
)
_SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], list[str]]]] = {
    "serving": ("Over HTTP, against others", tables.serving),
    "flags": ("The default and flags set by hand", tables.flags),
    "interactive": ("A single query beside a bulk client", tables.interactive),
    "forward": ("In one process", tables.forward),
    "roofline": ("What the machine can do", tables.roofline),
    "gpu": ("On a GPU", tables.gpu),
    "families": ("Sensor detectors on families of plants", families),
    "choice": ("A configuration chosen without each family", choice),
    "records": ("Detectors of records on kinds of tables", records),
    "scaling": ("Ways to calibrate a classifier", tables.scaling),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What every benchmark understands."""
    parser.add_argument(
        "--write", action="store_true", help="keep the result in benchmarks/results/ and write RESULTS.md again"
    )
    parser.add_argument("--append", action="store_true", help="add rounds to those that are kept already")


class Rounds:
    """Rounds of one benchmark, each a mapping from what was measured to its figures."""

    def __init__(self, name: str, about: dict[str, object], *, append: bool) -> None:
        """Start or `append` rounds. SystemExit where kept ones have other settings or machines."""
        self._name, self._about, self._machine = name, about, machine()
        self._rounds: list[dict[str, Any]] = []
        self._loads: list[float] = []
        self._note = ""
        file = KEPT / f"{name}.json"
        if append and file.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            if (kept["about"], kept["machine"]) != (json.loads(json.dumps(about)), self._machine):
                raise SystemExit(
                    f"{file.name} was measured with other settings or on another machine: leave --append out"
                )
            self._rounds, self._loads, self._note = kept["rounds"], kept["load_averages"], kept["note"]
        self._loads.append(round(os.getloadavg()[0], 1))  # the machine should be idle now

    def begin(self) -> int:
        """Start a round; its number, from 0."""
        self._rounds.append({})
        return len(self._rounds) - 1

    def add(self, name: str, seen: object) -> None:
        """Put what was seen into the round."""
        self._rounds[-1][name] = seen

    def finish(self, *, write: bool) -> None:
        """Print the table; keep everything and write the page, where that is wanted."""
        content = self._content()
        print("\n".join(_SECTIONS[self._name][1](content)))
        if write:
            KEPT.mkdir(exist_ok=True)
            (KEPT / f"{self._name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            write_page()

    def _content(self) -> dict[str, Any]:
        script = Path(sys.argv[0])
        module = script.parent.name if script.stem == "__main__" else script.stem
        command = f"python -m benchmarks.{module} {shlex.join(sys.argv[1:])}".strip()
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        where = {"machine": self._machine, "load_averages": self._loads, "note": self._note, "about": self._about}
        return {"command": command, "date": when, **where, "rounds": self._rounds}


def machine() -> dict[str, Any]:
    """Where it is measured, with which libraries."""
    info = Path("/proc/cpuinfo")
    known = info.read_text(encoding="utf-8") if info.is_file() else ""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": [name for name in _INSTRUCTIONS if f" {name}" in known],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sentence-transformers": version("sentence-transformers"),
    }


def write_page() -> None:
    """`RESULTS.md` and its plot, from all that is kept."""
    lines = ["# Results", "", *_INTRODUCTION, ""]
    for name, (title, table) in _SECTIONS.items():
        file = KEPT / f"{name}.json"
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            lines += [f"## {title}", "", *_where(content), "", *table(content), ""]
            if name == "serving":
                PLOT.write_bytes(bars(tables.serving_medians(content), tables.titles()))
                lines += [f"![texts a second and the limit]({PLOT.name})", ""]
    PAGE.write_text("\n".join(lines), encoding="utf-8")


def _where(content: dict[str, Any]) -> list[str]:
    at = content["machine"]
    where = f"{at['cores']} cores of {at['processor']} ({', '.join(at['instructions'])})" + (
        f", {at['gpu']}" if at["gpu"] else ""
    )
    versions = (
        f"{at['system']}, Python {at['python']}, PyTorch {at['torch']}, sentence-transformers "
        f"{at['sentence-transformers']}"
    )
    about = "; ".join(f"{name.replace('_', ' ')}: {_words(value)}" for name, value in content["about"].items() if value)
    loads = f"Load average before: {_words(content['load_averages']) or 'not kept'}. {content['note']}".rstrip()
    command = f"`{content['command']}`, {content['date']}, {len(content['rounds'])} rounds."
    return [f"{command} {where}; {versions}. {loads} {about}".rstrip()]


def _words(value: object) -> str:
    return " ".join(str(part) for part in value) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    write_page()
