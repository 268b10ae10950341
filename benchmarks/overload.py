"""10,000 requests at twice the capacity: which statuses come, and whether memory returns to where it was.

python -m benchmarks.overload [--count 10000]
"""

from __future__ import annotations

import argparse
import time

from benchmarks.load import closed_loop, embeddings, open_loop, run
from benchmarks.processes import resident_mb, sonde
from benchmarks.texts import texts


def main() -> None:
    """Measure the capacity, offer twice that, and look at statuses, latencies and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("flags", nargs="*", help="passed to sonde serve, after --")
    chosen = parser.parse_args()
    bodies = (embeddings([text]) for text in texts(10))
    with sonde("--max-queued-items", "128", *chosen.flags) as (url, pid):
        capacity = run(lambda: closed_loop(url, bodies, clients=64, seconds=5)).per_s
        before = resident_mb(pid)
        result = run(lambda: open_loop(url, bodies, per_s=2 * capacity, count=chosen.count))
        time.sleep(2)
        after = resident_mb(pid)
        alive = run(lambda: closed_loop(url, bodies, clients=1, seconds=1))
    print(f"capacity {capacity:.0f} req/s; offered {chosen.count} at {2 * capacity:.0f} req/s: {dict(result.statuses)}")
    print(f"good answers: p50 {1000 * result.percentile(50):.0f} ms, p99 {1000 * result.percentile(99):.0f} ms")
    print(f"memory before {before:.0f} MB, 2 s after {after:.0f} MB, difference {after - before:+.0f} MB; then {dict(alive.statuses)}")


if __name__ == "__main__":
    main()
