"""Reports of a run: JSON for programs, a table for a terminal, an HTML page with plots."""

from __future__ import annotations

import dataclasses
import html
import math
import platform
from base64 import b64encode
from pathlib import Path
from typing import Any

import orjson

from service import plots
from service.bench.load import Run
from service.bench.summary import Latency, Summary, per_second, percentile
from service.errors import ConfigError


def record(settings: dict[str, Any], started: str, summary: Summary, run: Run) -> dict[str, Any]:
    """The settings, the machine and the results of a run. Latencies are in milliseconds."""
    return {
        "started": started,
        "machine": {"platform": platform.platform(), "processor": processor(), "python": platform.python_version()},
        "settings": settings,
        "summary": dataclasses.asdict(summary),
        "texts_each_second": per_second(run),
    }


def write(file: Path, content: bytes, flag: str) -> None:
    """Write a report. Raises ConfigError when the file cannot be written."""
    try:
        file.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"{flag} {file}: {error.strerror}") from error


def as_json(recorded: dict[str, Any]) -> bytes:
    """Encode a record as indented JSON with a newline at the end."""
    return orjson.dumps(recorded, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def processor() -> str:
    """The processor's name as the system knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


_BUSY_CORES = 0.8


def table(title: str, summary: Summary) -> str:
    """A run as lines of at most 100 characters, without a newline at the end."""
    good = summary.goodput
    lines = [
        title,
        f"  {summary.requests} requests due in {summary.seconds:.1f} s: {_statuses(summary)}",
        (
            f"  {summary.requests_per_s:10.1f} requests/s {summary.inputs_per_s:12.1f} texts/s "
            f"{summary.tokens_per_s:14.0f} tokens/s"
        ),
        f"  {good.per_s:10.1f} requests/s within {good.slo_ms:g} ms ({100 * good.share:.1f} % of those due)",
        f"  {'latency, ms':24}{'mean':>9}{'p50':>9}{'p90':>9}{'p95':>9}{'p99':>9}{'max':>9}",
        _row("all good answers", summary.latency_ms),
    ]
    if len(summary.by_kind_ms) > 1:
        lines += [_row(kind, latency) for kind, latency in summary.by_kind_ms.items()]
    if summary.late_ms is not None and summary.late_ms.max > 0:
        lines.append(_row("of which sent late", summary.late_ms))
    return "\n".join(lines)


def warnings(summary: Summary) -> list[str]:
    """Warnings to read before the figures."""
    found = []
    if summary.generator_cores > _BUSY_CORES:
        found.append(
            f"  the generator used {summary.generator_cores:.2f} cores of its one: the run may have measured the "
            f"generator; see 'sonde bench --ceiling'"
        )
    if summary.failed:
        found.append(f"  {summary.failed} of {summary.requests} requests failed; percentiles are of good answers only")
    return found


def _row(name: str, latency: Latency | None) -> str:
    if latency is None:
        return f"  {name:24}{'no good answer':>18}"
    values = (latency.mean, latency.p50, latency.p90, latency.p95, latency.p99, latency.max)
    return f"  {name:24}" + "".join(f"{value:9.1f}" for value in values)


def _statuses(summary: Summary) -> str:
    return ", ".join(f"{count} with {status}" for status, count in summary.statuses.items()) or "none"


_PERCENTS = (0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99)
_LABELLED_PERCENTS = {0, 50, 90, 99, 99.9, 99.99}
_STYLE = (
    "body{font:15px sans-serif;max-width:780px;margin:2em auto;color:#222}img{width:100%}"
    "table{border-collapse:collapse}td,th{padding:3px 12px;text-align:right;border-bottom:1px solid #ddd}"
)


def page(title: str, recorded: dict[str, Any], run: Run) -> str:
    """The HTML page of a run; it needs no other file."""
    warmup_s = float(recorded["settings"]["warmup_s"])
    latencies = sorted(1000 * sample.latency_s for sample in run.samples if sample.good and sample.due >= warmup_s)
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>sonde bench</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(recorded['started'])}, {html.escape(recorded['machine']['processor'])}</p>",
        _figures(recorded["summary"]),
        "<h2>Latency by percentile, ms</h2>",
        _percentile_plot(latencies),
        "<h2>Texts answered each second, warm-up included</h2>",
        _rate_plot(per_second(run)),
    ]
    return "\n".join(parts) + "\n"


def _figures(summary: dict[str, Any]) -> str:
    rows = {
        "requests/s": f"{summary['requests_per_s']:.1f}",
        "texts/s": f"{summary['inputs_per_s']:.1f}",
        "tokens/s": f"{summary['tokens_per_s']:.0f}",
        f"requests/s within {summary['goodput']['slo_ms']:g} ms": f"{summary['goodput']['per_s']:.1f}",
        **{f"latency {name}, ms": f"{value:.1f}" for name, value in (summary["latency_ms"] or {}).items()},
        **{f"status {status}": str(count) for status, count in summary["statuses"].items()},
        "cores the generator used": f"{summary['generator_cores']:.2f}",
    }
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{value}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"


def _percentile_plot(latencies: list[float]) -> str:
    """Percentiles on an axis with equal room for each further nine, as HdrHistogram draws."""
    if not latencies:
        return "<p>No good answer.</p>"
    shown = [percent for percent in _PERCENTS if percent < 100 * (1 - 0.5 / len(latencies))]
    points = {percent: (-math.log10(1 - percent / 100), percentile(latencies, percent)) for percent in shown}
    ticks = {x: f"{percent:g}" for percent, (x, _) in points.items() if percent in _LABELLED_PERCENTS}
    return _line_plot(list(points.values()), ticks)


def _rate_plot(rates: list[int]) -> str:
    whole_seconds = rates[:-1]
    if len(whole_seconds) < 2:
        return "<p>Too short a run to draw.</p>"
    ticks = {float(at): str(at) for at in range(0, len(whole_seconds), max(1, len(whole_seconds) // 10))}
    return _line_plot([(float(at), float(rate)) for at, rate in enumerate(whole_seconds)], ticks)


def _line_plot(points: list[tuple[float, float]], ticks: dict[float, str]) -> str:
    image = b64encode(plots.render(plots.line(points, ticks), "svg")).decode()
    return f"<img src='data:image/svg+xml;base64,{image}'>"
