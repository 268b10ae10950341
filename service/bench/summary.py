"""Statistics of a run's samples: rates, percentiles, goodput, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from service.bench.load import Run, Sample

PERCENTS = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of good answers in milliseconds, since the requests were due."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency | None:
        """Summarise latencies; None without any."""
        if not seconds:
            return None
        ordered = sorted(1000 * value for value in seconds)
        p50, p90, p95, p99 = (percentile(ordered, percent) for percent in PERCENTS)
        return cls(sum(ordered) / len(ordered), p50, p90, p95, p99, ordered[-1])


@dataclass(frozen=True, slots=True)
class Goodput:
    """Good answers within the service level objective."""

    slo_ms: float
    per_s: float
    share: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A run between its warm-up and the end of the load; all rates are of good answers."""

    seconds: float
    requests: int
    requests_per_s: float
    inputs_per_s: float
    tokens_per_s: float
    latency_ms: Latency | None
    by_kind_ms: dict[str, Latency | None]
    goodput: Goodput
    statuses: dict[str, int]
    late_ms: Latency | None
    generator_cores: float

    @classmethod
    def of(cls, run: Run, *, warmup_s: float, until_s: float, slo_ms: float) -> Summary:
        """Summarise a run between `warmup_s` and `until_s`.

        Latency, goodput and statuses are of requests due in the window, and of earlier ones that failed in it. For the
        rates, an answer counts by the share of its time in the window: with whole answers, the rate of a few long
        requests would jump.
        """
        window = (warmup_s, until_s)
        due = [sample for sample in run.samples if _is_counted(sample, *window)]
        good = [sample for sample in due if sample.good]
        kinds = sorted({sample.kind for sample in due})
        shares = [(sample, _share_within(sample, *window)) for sample in run.samples if sample.good]
        length = until_s - warmup_s
        return cls(
            seconds=length,
            requests=len(due),
            requests_per_s=sum(share for _, share in shares) / length,
            inputs_per_s=sum(sample.inputs * share for sample, share in shares) / length,
            tokens_per_s=sum(sample.tokens * share for sample, share in shares) / length,
            latency_ms=Latency.of([sample.latency_s for sample in good]),
            by_kind_ms={
                kind: Latency.of([sample.latency_s for sample in good if sample.kind == kind]) for kind in kinds
            },
            goodput=_goodput(due, slo_ms, length),
            statuses=dict(Counter(sample.status for sample in due).most_common()),
            late_ms=Latency.of([sample.sent - sample.due for sample in due]),
            generator_cores=run.cpu_s / run.seconds if run.seconds else 0.0,
        )

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != "200")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile of ascending values, interpolated (type 7 of Hyndman & Fan, 1996)."""
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def per_second(run: Run) -> list[int]:
    """Texts with good answers in each second of a run, warm-up included."""
    counts = Counter(int(sample.ended) for sample in run.samples if sample.good for _ in range(sample.inputs))
    return [counts[second] for second in range(int(run.seconds) + 1)]


def _is_counted(sample: Sample, start: float, end: float) -> bool:
    """Whether a request counts: it was due in the window, or was due earlier and failed in it."""
    return start <= sample.due < end or (not sample.good and sample.due < start <= sample.ended)


def _share_within(sample: Sample, start: float, end: float) -> float:
    inside = min(sample.ended, end) - max(sample.sent, start)
    return max(0.0, inside) / (sample.ended - sample.sent)


def _goodput(due: Sequence[Sample], slo_ms: float, seconds: float) -> Goodput:
    within = sum(sample.good and 1000 * sample.latency_s <= slo_ms for sample in due)
    return Goodput(slo_ms, within / seconds, within / len(due) if due else 0.0)
