"""Latency of short queries, idle and beside a bulk client with 256 long texts a request.

python -m benchmarks.fairness [--rounds 3] [--seconds 10] [--bulk 256] [--rate 20] [--write [--append]] [-- flags of
sonde serve]

Queries come one at a time without pause, and then as those of independent callers, `--rate` a second: the former
alone take a good part of the machine, of which no scheduler can give bulk anything back.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from benchmarks import results
from benchmarks.processes import MODEL, Server, sonde
from service.bench.arrivals import poisson
from service.bench.load import Run, closed_loop, drive, open_loop
from service.bench.summary import Latency, Summary
from service.bench.workload import NAMED, Lengths, PreparedRequest, Requests, Texts, parse_mix

_SETTLE_S = 1.0
# Sends queries for a number of seconds.
Querying = Callable[[Server, float], Coroutine[Any, Any, Run]]


def main() -> None:
    """Print each round, then the ratio of median p99s and the share of its rate bulk keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--bulk", type=int, default=256)
    parser.add_argument("--rate", type=float, default=20)
    results.add_flags(parser)
    parser.add_argument("flags", nargs="*", help="passed to sonde serve, after --")
    chosen = parser.parse_args()
    queries, bulk = _requests(NAMED["short"], 1), _made_beforehand(_requests(NAMED["long"], chosen.bulk))
    about = {"bulk": chosen.bulk, "rate": chosen.rate, "sonde_flags": chosen.flags}
    collected = results.Rounds("interactive", about, append=chosen.append)
    ways = {"": one_by_one(queries), "arriving_": arriving(queries, chosen.rate)}
    with sonde("--cache-mb", "0", *chosen.flags) as server:
        drive(closed_loop(server.target, queries, clients=1, seconds=_SETTLE_S))
        for _ in range(chosen.rounds):
            number = collected.begin()
            seen = one_round(server, ways, bulk, chosen.seconds)
            collected.add("sonde", seen)
            print(
                f"round {number + 1}  " + "  ".join(f"{name} {value:.1f}" for name, value in seen.items()), flush=True
            )
    collected.finish(write=chosen.write)


def one_by_one(queries: Iterator[PreparedRequest]) -> Querying:
    """A client that sends a query after each answer."""
    return lambda server, seconds: closed_loop(server.target, queries, clients=1, seconds=seconds)


def arriving(queries: Iterator[PreparedRequest], rate: float) -> Querying:
    """Independent callers at a mean rate a second; latency counts from when a query was due."""
    return lambda server, seconds: open_loop(server.target, queries, poisson(rate, seconds))


def one_round(
    server: Server, ways: dict[str, Querying], bulk: Iterator[PreparedRequest], seconds: float
) -> dict[str, float]:
    """Measure bulk alone, and for each way of querying the queries alone and both together.

    Returns p50 and p99 in milliseconds, and bulk in texts a second.
    """
    seen = {"bulk_alone_per_s": _rate(drive(closed_loop(server.target, bulk, clients=1, seconds=seconds)), seconds)}
    for way, queries in ways.items():
        idle = _latency(drive(queries(server, seconds)))
        run, bulk_beside = drive(_both(server, queries, bulk, seconds))
        beside = _latency(run)
        seen |= {f"{way}idle_p50_ms": idle.p50, f"{way}idle_p99_ms": idle.p99}
        seen |= {f"{way}beside_p50_ms": beside.p50, f"{way}beside_p99_ms": beside.p99}
        seen[f"{way}bulk_beside_per_s"] = _rate(bulk_beside, seconds)
    return seen


async def _both(server: Server, queries: Querying, bulk: Iterator[PreparedRequest], seconds: float) -> tuple[Run, Run]:
    """Run queries and a bulk client, which begins a second earlier and ends with them."""
    sender = asyncio.create_task(closed_loop(server.target, bulk, clients=1, seconds=seconds + _SETTLE_S))
    await asyncio.sleep(_SETTLE_S)
    beside = await queries(server, seconds)
    return beside, await sender


def _requests(lengths: Lengths, batch: int) -> Requests:
    return Requests(
        MODEL, Texts(lengths, seed=batch), parse_mix(None, batch, 1), encoding_format="base64" if batch > 1 else None
    )


def _made_beforehand(requests: Requests) -> Iterator[PreparedRequest]:
    """Four requests in turn, made beforehand so that making them costs queries no time."""
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
