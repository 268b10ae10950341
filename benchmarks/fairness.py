"""A single short query's latency, idle and while a bulk client sends 256 long texts at a time without pause, and what bulk loses by it.

python -m benchmarks.fairness [--rounds 3] [--seconds 10] [--bulk 256] [--write [--append]] [-- flags of sonde serve]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from collections.abc import Iterator

from benchmarks import results
from benchmarks.processes import MODEL, Server, sonde
from service.bench.lengths import NAMED, Lengths
from service.bench.loops import Run, closed_loop, drive
from service.bench.measure import Latency, Summary
from service.bench.requests import Request, Requests, parse_mix
from service.bench.texts import Texts

_SETTLE_S = 1.0


def main() -> None:
    """Print each round, then the ratio of the median p99s and the share of its rate that bulk keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--bulk", type=int, default=256)
    results.add_flags(parser)
    parser.add_argument("flags", nargs="*", help="passed to sonde serve, after --")
    chosen = parser.parse_args()
    queries, bulk = _requests(NAMED["short"], 1), _made_beforehand(_requests(NAMED["long"], chosen.bulk))
    collected = results.Rounds("interactive", {"bulk": chosen.bulk, "sonde_flags": chosen.flags}, append=chosen.append)
    with sonde("--cache-mb", "0", *chosen.flags) as server:
        drive(closed_loop(server.target, queries, clients=1, seconds=_SETTLE_S))
        for _ in range(chosen.rounds):
            number = collected.begin()
            seen = one_round(server, queries, bulk, chosen.seconds)
            collected.add("sonde", seen)
            print(f"round {number + 1}  " + "  ".join(f"{name} {value:.1f}" for name, value in seen.items()), flush=True)
    collected.finish(write=chosen.write)


def one_round(server: Server, queries: Iterator[Request], bulk: Iterator[Request], seconds: float) -> dict[str, float]:
    """Queries alone, bulk alone, and both: p50 and p99 in milliseconds, bulk in texts a second."""
    alone = _latency(drive(closed_loop(server.target, queries, clients=1, seconds=seconds)))
    bulk_alone = _rate(drive(closed_loop(server.target, bulk, clients=1, seconds=seconds)), seconds)
    beside, bulk_beside = drive(_both(server, queries, bulk, seconds))
    both = _latency(beside)
    return {
        "idle_p50_ms": alone.p50,
        "idle_p99_ms": alone.p99,
        "beside_p50_ms": both.p50,
        "beside_p99_ms": both.p99,
        "bulk_alone_per_s": bulk_alone,
        "bulk_beside_per_s": _rate(bulk_beside, seconds),
    }


async def _both(server: Server, queries: Iterator[Request], bulk: Iterator[Request], seconds: float) -> tuple[Run, Run]:
    """The bulk client's run, and from a second after its start until it ends that of queries one after another."""
    sender = asyncio.create_task(closed_loop(server.target, bulk, clients=1, seconds=seconds + _SETTLE_S))
    await asyncio.sleep(_SETTLE_S)
    beside = await closed_loop(server.target, queries, clients=1, seconds=seconds)
    return beside, await sender


def _requests(lengths: Lengths, batch: int) -> Requests:
    return Requests(MODEL, Texts(lengths, seed=batch), parse_mix(None, batch, 1), encoding_format="base64" if batch > 1 else None)


def _made_beforehand(requests: Requests) -> Iterator[Request]:
    """Four different ones in turn, so that making them costs nothing while queries are timed."""
    return itertools.cycle(list(itertools.islice(requests, 4)))


def _latency(run: Run) -> Latency:
    latency = Latency.of([sample.latency_s for sample in run.samples if sample.good])
    if latency is None:
        raise SystemExit("no query was answered")
    return latency


def _rate(run: Run, seconds: float) -> float:
    return Summary.of(run, warmup_s=0, until_s=seconds, slo_ms=100).inputs_per_s


if __name__ == "__main__":
    main()
