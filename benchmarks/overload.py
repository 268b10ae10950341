"""10,000 requests at twice the capacity: their statuses, and memory before and after.

python -m benchmarks.overload [--count 10000] [-- flags of sonde serve]
"""

from __future__ import annotations

import argparse
import time

from benchmarks.processes import MODEL, sonde
from service.bench.load import closed_loop, drive, open_loop
from service.bench.report import table
from service.bench.summary import Summary
from service.bench.workload import NAMED, Requests, Texts, parse_mix

_CAPACITY_S = 5.0


def main() -> None:
    """Measure the capacity, offer twice that, and look at statuses, latencies and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("flags", nargs="*", help="passed to sonde serve, after --")
    chosen = parser.parse_args()
    requests = Requests(MODEL, Texts(NAMED["short"]), parse_mix(None, 1, 1))
    with sonde("--max-queued-items", "128", *chosen.flags) as server:
        filled = drive(closed_loop(server.target, requests, clients=64, seconds=_CAPACITY_S))
        capacity = Summary.of(filled, warmup_s=0, until_s=_CAPACITY_S, slo_ms=1000).requests_per_s
        before = server.resident_mb()
        times = [number / capacity / 2 for number in range(chosen.count)]
        offered = drive(open_loop(server.target, requests, times))
        time.sleep(2)
        after = server.resident_mb()
        alive = drive(closed_loop(server.target, requests, clients=1, seconds=1))
    print(f"capacity {capacity:.0f} requests/s")
    print(
        table(
            f"offered: {chosen.count} at {2 * capacity:.0f} a second",
            Summary.of(offered, warmup_s=0, until_s=chosen.count / capacity / 2, slo_ms=1000),
        )
    )
    print(f"memory before {before:.0f} MB, 2 s after {after:.0f} MB, difference {after - before:+.0f} MB")
    print(f"one client afterwards: {sum(sample.good for sample in alive.samples)} of {len(alive.samples)} answered")


if __name__ == "__main__":
    main()
