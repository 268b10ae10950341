"""Sonde against Infinity and FastAPI with model.encode over HTTP, in alternating rounds.

python -m benchmarks.serving [--rounds 3] [--seconds 6] [--rows short-1,long-32] [--servers sonde,infinity,plain]
[--write [--append]]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks import limit, results
from benchmarks.infinity import VENV, default_flags, installed
from benchmarks.loads import ROWS, Row
from benchmarks.processes import MODEL, Server, infinity, plain, sonde
from service.bench.load import closed_loop, drive
from service.bench.summary import Summary
from service.bench.workload import NAMED, Requests, Texts, parse_mix

_SLO_MS = 100.0


def measure(server: Server, row: Row, seed: int, warmup_s: float, seconds: float) -> dict[str, float]:
    """One load on one server."""
    requests = Requests(MODEL, Texts(NAMED[row.lengths], seed), parse_mix(None, row.batch, 1))
    whole = warmup_s + seconds
    done = drive(closed_loop(server.target, requests, clients=row.clients, seconds=whole))
    summary = Summary.of(done, warmup_s=warmup_s, until_s=whole, slo_ms=_SLO_MS)
    failures = Counter(sample.status for sample in done.samples if not sample.good)
    if failures:
        raise SystemExit(f"{server.url}, {row.about}: {dict(failures)}")
    rates = {
        "inputs_per_s": summary.inputs_per_s,
        "tokens_per_s": summary.tokens_per_s,
        "generator_cores": summary.generator_cores,
    }
    # None where requests take longer than the window; the rates count shares of them.
    latencies = asdict(summary.latency_ms) if summary.latency_ms else {}
    return {**rates, **{f"{name}_ms": value for name, value in latencies.items()}}


def one_round(
    server: AbstractContextManager[Server], rows: list[str], seed: int, warmup_s: float, seconds: float
) -> dict[str, dict[str, float]]:
    """Start a server, measure each load, and stop it; `process` has its start time and memory."""
    with server as ready:
        # Another seed for each row, so that no row's texts are in the cache from an earlier row.
        seen = {
            name: measure(ready, ROWS[name], 100 * seed + place, warmup_s, seconds) for place, name in enumerate(rows)
        }
        return {**seen, "process": {"ready_s": ready.ready_s, "peak_mb": ready.peak_mb()}}


def main() -> None:
    """Print each round as it comes, then medians and ratios."""
    chosen = _arguments()
    theirs = default_flags() if chosen.infinity_flags is None else chosen.infinity_flags.split()
    makers: dict[str, Callable[[], AbstractContextManager[Server]]] = {
        "sonde": partial(sonde, *chosen.flags),
        "infinity": partial(infinity, chosen.infinity, *theirs),
        "plain": plain,
    }
    names = chosen.servers.split(",")
    about: dict[str, object] = {"sonde_flags": chosen.flags}
    if "infinity" in names:
        about |= {"infinity_flags": theirs, "infinity_packages": installed(chosen.infinity)}
    collected = results.Rounds("serving", about, append=chosen.append)
    for _ in range(chosen.rounds):
        number = collected.begin()
        if chosen.limit:
            collected.add("limit", limit.measured(chosen.rows, chosen.flags))
        for name in names:
            seen = one_round(makers[name](), chosen.rows.split(","), number, chosen.warmup_s, chosen.seconds)
            collected.add(name, seen)
            print(f"round {number + 1}  {name:9}  {_line(seen)}", flush=True)
    collected.finish(write=chosen.write)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--warmup-s", type=float, default=2)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--servers", default="sonde,infinity,plain")
    parser.add_argument("--infinity", type=Path, default=VENV, help="its virtual environment (default %(default)s)")
    parser.add_argument("--infinity-flags", help="default: those of benchmarks/infinity.py")
    parser.add_argument(
        "--no-limit", dest="limit", action="store_false", help="leave out the GEMM rate and the engine in process"
    )
    results.add_flags(parser)
    parser.add_argument("flags", nargs="*", help="passed to sonde serve, after --")
    return parser.parse_args()


def _line(seen: dict[str, dict[str, float]]) -> str:
    figures = [f"{name} {values[ROWS[name].figure]:.1f}" for name, values in seen.items() if name in ROWS]
    return "  ".join(
        [*figures, f"ready {seen['process']['ready_s']:.1f} s", f"peak {seen['process']['peak_mb']:.0f} MB"]
    )


if __name__ == "__main__":
    main()
