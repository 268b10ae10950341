"""Twice the load that a server can take: it answers as many as before, and refuses the others at once."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.bench.client import Target
from service.bench.load import Run, closed_loop, drive, open_loop
from service.bench.summary import Summary, percentile
from service.bench.workload import NAMED, Requests, Texts, parse_mix
from tests.campaign.conftest import Figure
from tests.support.server import Served, serving
from tests.support.size import Size

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.real]

MODEL = "all-MiniLM-L6-v2"
WARMUP_S = 1.0
SLO_MS = 1000
TEXTS = 8
# With one thread for the model, the generator of the load has a core of its own. 16 requests of 8 texts wait.
FLAGS = ("--threads", "1", "--cache-mb", "0", "--max-queued-items", "128")


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests answered: a second, and a second of the server's CPU time."""

    per_s: float
    per_cpu_s: float

    @classmethod
    def of(cls, served: Served, load: Coroutine[Any, Any, Run], seconds: float) -> tuple[Rate, Run]:
        """The rate under a load, whose warm-up does not count, and the load's samples."""
        server = psutil.Process(served.process.pid)
        began = server.cpu_times()
        run = drive(load)
        ended = server.cpu_times()
        seen = Summary.of(run, warmup_s=WARMUP_S, until_s=WARMUP_S + seconds, slo_ms=SLO_MS)
        cpu_s = ended.user + ended.system - began.user - began.system
        return cls(seen.requests_per_s, sum(one.good for one in run.samples) / cpu_s), run


def test_goodput_and_refusals_at_twice_the_capacity(
    tmp_path: Path, pytestconfig: pytest.Config, size: Size, figure: Figure
) -> None:
    seconds = pytestconfig.getoption("--seconds") or size.of(5.0, 60.0)
    with serving(tmp_path, *FLAGS) as served:
        target = Target.of(served.url)
        requests = Requests(MODEL, Texts(NAMED["short"]), parse_mix(None, TEXTS, TEXTS), encoding_format="base64")

        def capacity() -> Rate:
            return Rate.of(served, closed_loop(target, requests, clients=8, seconds=seconds + WARMUP_S), seconds)[0]

        before = capacity()
        times = [number / before.per_s / 2 for number in range(int(2 * before.per_s * (seconds + WARMUP_S)))]
        offered, run = Rate.of(served, open_loop(target, requests, times), seconds)
        after = capacity()
    refused = sorted(1000 * (one.ended - one.sent) for one in run.samples if one.status == "429")
    assert {one.status for one in run.samples} == {"200", "429"}
    possible = min(before.per_s, after.per_s)  # where others use the processor, it changes
    goodput, a_cpu_second = offered.per_s / possible, offered.per_cpu_s / min(before.per_cpu_s, after.per_cpu_s)
    p50_ms, p99_ms = percentile(refused, 50), percentile(refused, 99)
    figure(
        f"goodput {100 * goodput:.0f} % of {possible:.0f} requests/s, {100 * a_cpu_second:.0f} % a "
        f"second of CPU time; refusals' p99 {p99_ms:.0f} ms"
    )
    # The suite's other tests take the processor, too, but they change neither its use a request nor the median.
    assert a_cpu_second >= 0.8
    assert p50_ms <= 50
    if size.full:
        assert goodput >= 0.9
        assert p99_ms <= 50
