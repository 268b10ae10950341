"""Reports of a run: JSON for other programs, a summary for a terminal, an HTML page with SVG within it."""

from __future__ import annotations

import dataclasses
import html
import math
import platform
from pathlib import Path
from typing import Any

import orjson

from service.bench.load import Run
from service.bench.summary import Latency, Summary, per_second, percentile
from service.errors import ConfigError


def record(settings: dict[str, Any], started: str, summary: Summary, run: Run) -> dict[str, Any]:
    """What was asked for, on which machine, and what came of it. Latencies are in milliseconds."""
    return {
        "started": started,
        "machine": {"platform": platform.platform(), "processor": processor(), "python": platform.python_version()},
        "settings": settings,
        "summary": dataclasses.asdict(summary),
        "texts_each_second": per_second(run),
    }


def write(file: Path, content: bytes, flag: str) -> None:
    """Write a report. Raises ConfigError where that cannot be done."""
    try:
        file.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"{flag} {file}: {error.strerror}") from error


def as_json(recorded: dict[str, Any]) -> bytes:
    """Indented, with a newline at the end."""
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
    """Lines of at most 100 characters, without a newline at the end."""
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
    """What a reader must know before believing the figures."""
    said = []
    if summary.generator_cores > _BUSY_CORES:
        said.append(
            f"  the generator used {summary.generator_cores:.2f} cores of its one: it may be what was measured; see "
            f"'sonde bench --ceiling'"
        )
    if summary.failed:
        said.append(
            f"  {summary.failed} of {summary.requests} requests failed; percentiles are of the good answers alone"
        )
    return said


def _row(name: str, latency: Latency | None) -> str:
    if latency is None:
        return f"  {name:24}{'no good answer':>18}"
    values = (latency.mean, latency.p50, latency.p90, latency.p95, latency.p99, latency.max)
    return f"  {name:24}" + "".join(f"{value:9.1f}" for value in values)


def _statuses(summary: Summary) -> str:
    return ", ".join(f"{count} with {status}" for status, count in summary.statuses.items()) or "none"


_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 260, 60, 34
_PERCENTS = (0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99)
_STYLE = (
    "body{font:15px sans-serif;max-width:780px;margin:2em "
    "auto;color:#222}table{border-collapse:collapse}td,th{padding:3px 12px;text-align:right;"
    "border-bottom:1px solid #ddd}svg text{font:11px sans-serif;fill:#555}"
)


def page(title: str, recorded: dict[str, Any], run: Run) -> str:
    """The whole page; it needs nothing from elsewhere."""
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
    return (
        "<table>"
        + "".join(f"<tr><th>{html.escape(name)}</th><td>{value}</td></tr>" for name, value in rows.items())
        + "</table>"
    )


def _percentile_plot(latencies: list[float]) -> str:
    """Percentiles on an axis that gives each further nine the same room, as HdrHistogram draws them."""
    if not latencies:
        return "<p>No good answer.</p>"
    shown = [percent for percent in _PERCENTS if percent < 100 * (1 - 0.5 / len(latencies))]
    points = [(-math.log10(1 - percent / 100), percentile(latencies, percent)) for percent in shown]
    ticks = [
        (x, f"{percent:g}")
        for (x, _), percent in zip(points, shown, strict=True)
        if percent in (0, 50, 90, 99, 99.9, 99.99)
    ]
    return _line_plot(points, ticks)


def _rate_plot(rates: list[int]) -> str:
    whole = rates[:-1]  # the last second is not a whole one
    if len(whole) < 2:
        return "<p>Too short a run to draw.</p>"
    step = max(1, len(whole) // 10)
    return _line_plot(
        [(float(i), float(rate)) for i, rate in enumerate(whole)],
        [(float(i), str(i)) for i in range(0, len(whole), step)],
    )


def _line_plot(points: list[tuple[float, float]], ticks: list[tuple[float, str]]) -> str:
    right = max(x for x, _ in points) or 1.0
    top = max(y for _, y in points) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x / right * (_WIDTH - _LEFT - 10), _HEIGHT - _BOTTOM - y / top * (_HEIGHT - _BOTTOM - 16)

    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    lines = [f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}'>"]
    for share in (0.0, 0.5, 1.0):
        x, y = place(0, share * top)
        text = f"<text x='{x - 6:.1f}' y='{y + 4:.1f}' text-anchor='end'>{share * top:.4g}</text>"
        lines.append(f"<path d='M{x:.1f} {y:.1f}H{_WIDTH - 10}' stroke='#ddd'/>{text}")
    for at, label in ticks:
        x, y = place(at, 0)
        lines.append(f"<text x='{x:.1f}' y='{y + 16:.1f}' text-anchor='middle'>{label}</text>")
    lines.append(f"<polyline points='{path}' fill='none' stroke='#0a66c2' stroke-width='2'/></svg>")
    return "\n".join(lines)
