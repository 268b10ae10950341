"""Twice the load that a server can take: it answers as many as before, and refuses the others at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.bench.client import Target
from service.bench.load import Run, closed_loop, drive, open_loop
from service.bench.summary import Summary, percentile
from service.bench.workload import NAMED, Requests, Texts, parse_mix
from tests.campaign.conftest import Figure
from tests.support.server import serving
from tests.support.size import Size

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.real]

MODEL = "all-MiniLM-L6-v2"
WARMUP_S = 1.0
SLO_MS = 1000
TEXTS = 8
# With one thread for the model, the generator of the load has a core of its own. 16 requests of 8 texts wait.
FLAGS = ("--threads", "1", "--cache-mb", "0", "--max-queued-items", "128")


def test_goodput_and_refusals_at_twice_the_capacity(tmp_path: Path, size: Size, figure: Figure) -> None:
    seconds = size.of(5.0, 60.0)
    with serving(tmp_path, *FLAGS) as served:
        target = Target.of(served.url)
        requests = Requests(MODEL, Texts(NAMED["short"]), parse_mix(None, TEXTS, TEXTS), encoding_format="base64")
        before = _capacity(target, requests, seconds)
        times = [number / before / 2 for number in range(int(2 * before * (seconds + WARMUP_S)))]
        offered = drive(open_loop(target, requests, times))
        capacity = min(before, _capacity(target, requests, seconds))  # where others use the processor, it changes
    seen = _summary(offered, seconds)
    refused = sorted(1000 * (one.ended - one.sent) for one in offered.samples if one.status == "429")
    assert refused, f"no request was refused: {seen.statuses}"
    goodput, p99_ms = seen.requests_per_s / capacity, percentile(refused, 99)
    figure(f"goodput {100 * goodput:.0f} % of {capacity:.0f} requests/s, refusals' p99 {p99_ms:.0f} ms")
    assert set(seen.statuses) == {"200", "429"}
    # The suite's other tests take the processor, too.
    assert goodput >= size.of(0.5, 0.9)
    assert p99_ms <= size.of(1000, 50)


def _capacity(target: Target, requests: Requests, seconds: float) -> float:
    """Requests a second that eight clients get answered."""
    return _summary(drive(closed_loop(target, requests, clients=8, seconds=seconds + WARMUP_S)), seconds).requests_per_s


def _summary(run: Run, seconds: float) -> Summary:
    return Summary.of(run, warmup_s=WARMUP_S, until_s=WARMUP_S + seconds, slo_ms=SLO_MS)
