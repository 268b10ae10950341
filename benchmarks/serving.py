"""Requests a second against FastAPI + model.encode: 32 clients, one short text each, alternating rounds in one run.

python -m benchmarks.serving [--rounds 3] [--seconds 8] [--clients 32] [--words 10]
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import AbstractContextManager

from benchmarks.load import Result, closed_loop, embeddings, run
from benchmarks.processes import resident_mb, sonde, uvicorn
from benchmarks.texts import texts


def measure(server: AbstractContextManager[tuple[str, int]], clients: int, seconds: float, words: int, seed: int) -> tuple[Result, float]:
    """One server, warmed up for two seconds and then measured; and its memory afterwards, in MB."""
    bodies = (embeddings([text]) for text in texts(words, seed))
    with server as (url, pid):
        run(lambda: closed_loop(url, bodies, clients=clients, seconds=2))
        return run(lambda: closed_loop(url, bodies, clients=clients, seconds=seconds)), resident_mb(pid)


def main() -> None:
    """Print each round, then medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--words", type=int, default=10)
    chosen = parser.parse_args()
    rates: dict[str, list[float]] = {"sonde": [], "plain": []}
    for number in range(chosen.rounds):
        for name in rates:
            server = sonde() if name == "sonde" else uvicorn("benchmarks.plain:app", 8765)
            result, memory = measure(server, chosen.clients, chosen.seconds, chosen.words, seed=number)
            rates[name].append(result.per_s)
            print(
                f"round {number + 1}  {name:6}  {result.per_s:7.1f} req/s  p50 {1000 * result.percentile(50):6.1f} ms"
                f"  p99 {1000 * result.percentile(99):6.1f} ms  {memory:5.0f} MB  {dict(result.statuses)}"
            )
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"medians: sonde {medians['sonde']:.1f}, plain {medians['plain']:.1f}, ratio {medians['sonde'] / medians['plain']:.2f}")


if __name__ == "__main__":
    main()
