"""A summary for a terminal."""

from __future__ import annotations

from service.bench.measure import Latency, Summary

_BUSY_CORES = 0.8


def table(title: str, summary: Summary) -> str:
    """Lines of at most 100 characters, without a newline at the end."""
    good = summary.goodput
    lines = [
        title,
        f"  {summary.requests} requests due in {summary.seconds:.1f} s: {_statuses(summary)}",
        f"  {summary.requests_per_s:10.1f} requests/s {summary.inputs_per_s:12.1f} texts/s {summary.tokens_per_s:14.0f} tokens/s",
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
            f"  the generator used {summary.generator_cores:.2f} cores of its one: it may be what was measured; see 'sonde bench --ceiling'"
        )
    if summary.failed:
        said.append(f"  {summary.failed} of {summary.requests} requests failed; percentiles are of the good answers alone")
    return said


def _row(name: str, latency: Latency | None) -> str:
    if latency is None:
        return f"  {name:24}{'no good answer':>18}"
    values = (latency.mean, latency.p50, latency.p90, latency.p95, latency.p99, latency.max)
    return f"  {name:24}" + "".join(f"{value:9.1f}" for value in values)


def _statuses(summary: Summary) -> str:
    return ", ".join(f"{count} with {status}" for status, count in summary.statuses.items()) or "none"
