"""What benchmarks saw, kept as JSON in `benchmarks/results/`, and `RESULTS.md` written from it.

python -m benchmarks.results writes the page again from what is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from service.bench.record import processor

FAIRNESS = {
    "idle_p50_ms": "one query at a time, idle, p50 ms",
    "idle_p99_ms": "the same, p99 ms",
    "beside_p50_ms": "beside a bulk client, p50 ms",
    "beside_p99_ms": "the same, p99 ms",
    "bulk_alone_per_s": "bulk alone, texts/s",
    "bulk_beside_per_s": "bulk beside the queries, texts/s",
}
HERE = Path(__file__).parent / "results"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What every benchmark understands."""
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/ and write RESULTS.md again")
    parser.add_argument("--append", action="store_true", help="add rounds to those that are kept already")


def machine() -> dict[str, Any]:
    """Where it was measured."""
    import os
    import platform

    import torch

    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8") if f" {name}" in flags]
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": known,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sentence_transformers": version("sentence-transformers"),
    }


class Rounds:
    """Rounds of one benchmark: for each a mapping from who was measured to what was seen."""

    def __init__(self, name: str, about: dict[str, object], *, append: bool) -> None:
        self._file = HERE / f"{name}.json"
        before = json.loads(self._file.read_text(encoding="utf-8"))["rounds"] if append and self._file.is_file() else []
        self._rounds: list[dict[str, Any]] = before
        self._about = about

    def begin(self) -> int:
        """Start a round; its number, from 0."""
        self._rounds.append({})
        return len(self._rounds) - 1

    def add(self, who: str, seen: Any) -> None:
        """Put what was seen into the round."""
        self._rounds[-1][who] = seen

    def content(self) -> dict[str, Any]:
        """All that is kept."""
        command = f"python -m {'.'.join(Path(sys.argv[0]).with_suffix('').parts[-2:])} {' '.join(sys.argv[1:])}".strip()
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return {"command": command, "date": when, "machine": machine(), "about": self._about, "rounds": self._rounds}

    def finish(self, *, write: bool) -> None:
        """Keep it, where that is wanted."""
        if write:
            HERE.mkdir(exist_ok=True)
            self._file.write_text(json.dumps(self.content(), indent=1) + "\n", encoding="utf-8")


def serving_table(content: dict[str, Any]) -> list[str]:
    """Medians over the rounds, with ratios to the others, as Markdown."""
    from benchmarks.serving import ALWAYS, ROWS

    rounds = content["rounds"]
    who = list(dict.fromkeys(name for seen in rounds for name in seen))
    others = [name for name in who if name != "sonde"]
    lines = ["| | " + " | ".join([*who, *(f"sonde : {name}" for name in others)]) + " |", "|---" * (1 + len(who) + len(others)) + "|"]
    figures = {row: (ROWS[row].about, row, ROWS[row].figure) for row in ROWS}
    figures |= {name: (about, "process", name) for name, about in ALWAYS.items()}
    for about, row, figure in figures.values():
        medians = {name: _median(rounds, name, row, figure) for name in who}
        if not all(math.isnan(value) for value in medians.values()):
            ratios = [medians.get("sonde", math.nan) / medians[name] for name in others]
            cells = [*(_cell(value, ".4g") for value in medians.values()), *(_cell(ratio, ".2f") for ratio in ratios)]
            lines.append("| " + " | ".join([about, *cells]) + " |")
    return lines


def interactive(content: dict[str, Any]) -> list[str]:
    """Medians of `benchmarks.fairness`, and what the issue of fairness asks: p99 beside bulk to idle p99, bulk kept."""
    figures = {name: _median([{"sonde": {"all": seen["sonde"]}} for seen in content["rounds"]], "sonde", "all", name) for name in FAIRNESS}
    lines = ["| | median |", "|---|---|", *(f"| {about} | {figures[name]:.4g} |" for name, about in FAIRNESS.items())]
    ratio = figures["beside_p99_ms"] / figures["idle_p99_ms"]
    kept = figures["bulk_beside_per_s"] / figures["bulk_alone_per_s"]
    return [*lines, f"| p99 beside bulk : idle p99 | {ratio:.2f} |", f"| bulk keeps of its rate | {100 * kept:.0f} % |"]


def roofline(content: dict[str, Any]) -> list[str]:
    """GFLOP/s by way and number of rows, and the bandwidth."""
    seen = content["rounds"][-1]
    counts = next(iter(seen.values()))
    lines = ["| GFLOP/s at so many rows | " + " | ".join(counts) + " |", "|---" * (1 + len(counts)) + "|"]
    lines += [f"| {way} | " + " | ".join(f"{rate:.1f}" for rate in rates.values()) + " |" for way, rates in seen.items() if way != "memory"]
    return [*lines, "", f"Memory: {seen['memory']['gb_s']:.1f} GB/s read and written together in a copy."]


def _median(rounds: list[dict[str, Any]], who: str, row: str, figure: str) -> float:
    """NaN where nobody measured it."""
    values = [seen[who][row][figure] for seen in rounds if who in seen and row in seen[who]]
    return statistics.median(values) if values else math.nan


def _cell(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
