"""The default beside flags set by hand, over HTTP and on each instruction set.

python -m benchmarks.flags [--instructions avx2] [--ways float32,threads-1] [--rounds 1] [--seconds 3]
[--write [--append]]

In a round the servers are up together. Each load is measured on one after another, and each begins with the next.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from benchmarks import results
from benchmarks.loads import FLAG_ROWS
from benchmarks.processes import Server, sonde
from benchmarks.serving import measure

DEFAULT = "default"
WAYS: dict[str, tuple[str, ...]] = {
    "float32": ("--dtype", "float32"),
    "bfloat16": ("--dtype", "bfloat16"),
    "threads-1": ("--threads", "1"),
    "runners-1": ("--runners", "1"),
    "tokens-1024": ("--max-batch-tokens", "1024"),
    "workers-2": ("--workers", "2", "--threads", "1"),
}
# With these variables a processor computes like an older one.
INSTRUCTIONS: dict[str, dict[str, str]] = {
    "native": {},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}


def one_round(instructions: str, ways: list[str], number: int, warmup_s: float, seconds: float) -> dict[str, object]:
    """The loads on the default and on each of the `ways`, in turn: figures by server and load."""
    seen: dict[str, dict[str, object]] = {}
    with ExitStack() as stack:
        flags = {DEFAULT: (), **{way: WAYS[way] for way in ways}}
        servers: dict[str, Server] = {
            way: stack.enter_context(sonde(*given, environment=INSTRUCTIONS[instructions]))
            for way, given in flags.items()
        }
        for place, (name, row) in enumerate(FLAG_ROWS.items()):
            first = (number + place) % len(servers)
            for way in [*list(servers)[first:], *list(servers)[:first]]:
                figures = measure(servers[way], row, 100 * number + place, warmup_s, seconds)
                seen.setdefault(way, {})[name] = figures
                print(f"{instructions:7} {way:10} {name:9} {figures[row.figure]:.1f}", flush=True)
    return dict(seen)


def main() -> None:
    """Print each figure, then the default's ratio to each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instructions", choices=list(INSTRUCTIONS), default="native")
    parser.add_argument("--ways", default=",".join(WAYS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--warmup-s", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=3)
    results.add_flags(parser)
    chosen = parser.parse_args()
    collected = results.Rounds("flags", {"seconds a load": chosen.seconds}, append=chosen.append)
    for _ in range(chosen.rounds):
        number = collected.begin()
        ways = chosen.ways.split(",")
        collected.add(
            chosen.instructions, one_round(chosen.instructions, ways, number, chosen.warmup_s, chosen.seconds)
        )
    collected.finish(write=chosen.write)


if __name__ == "__main__":
    main()
