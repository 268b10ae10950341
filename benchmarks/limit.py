"""The limit of servers: the machine's GEMM rate and the engine's rate in process.

python -m benchmarks.limit [--rows short-32,long-32] [-- flags of sonde serve: --device, --dtype, --threads,
--runners, --max-batch-tokens]

The engine gets requests as it does over HTTP, from the same number of callers.

Prints one line of JSON. `benchmarks.serving` runs it in each round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time

from benchmarks.loads import GEMM_FLOP
from benchmarks.roofline import best_rate
from models.runtime.placement import place
from service.bench.workload import NAMED, Texts
from service.config import Settings
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from service.serving.servable import Caller
from service.serving.text_model import ServedText

_ROWS = {"short-32": "short", "long-32": "long", "mixed-32": "mixed"}
_BATCH, _CALLERS = 32, 4
_WARM_UP_S = 0.5
_PRECISION = {"torch.float32": "fp32", "torch.bfloat16": "bf16"}


def measured(rows: str, flags: list[str]) -> dict[str, dict[str, float]]:
    """Run this as a process: `inputs_per_s` for each row, and `gflops` under `gemm`."""
    command = [sys.executable, "-m", "benchmarks.limit", "--rows", rows, "--", *flags]
    result: dict[str, dict[str, float]] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return result


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(_ROWS))
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("flags", nargs="*")
    chosen = parser.parse_args()
    settings = Settings.read(_flags(chosen.flags) | {"cache_mb": 0})
    placement = place(settings.device, "auto" if settings.dtype == "int8" else settings.dtype)
    precision = "int8" if settings.dtype == "int8" else _PRECISION[str(placement.dtype)]
    rate, way = best_rate(precision, placement.device.type)
    seen: dict[str, dict[str, object]] = {"gemm": {"gflops": rate, "way": way}}
    manager = ModelManager(settings, Metrics())
    manager.open()
    for row in chosen.rows.split(","):
        if row in _ROWS:
            seen[row] = asyncio.run(_speed(manager.find_for("embedding", None), _ROWS[row], chosen.seconds, rate))
    manager.close()
    print(json.dumps(seen))


async def _speed(served: ServedText, lengths: str, seconds: float, gemm_gflops: float) -> dict[str, object]:
    source = Texts(NAMED[lengths], seed=5)

    async def call(client: str, until: float) -> tuple[int, int]:
        texts = tokens = 0
        while time.perf_counter() < until:
            taken = [source.take() for _ in range(_BATCH)]
            await served.rows([text for text, _ in taken], Caller(client), "embedding")
            texts += _BATCH
            tokens += sum(count for _, count in taken)
        return texts, tokens

    async def all_call(seconds: float) -> list[tuple[int, int]]:
        until = time.perf_counter() + seconds
        return await asyncio.gather(*(call(str(number), until) for number in range(_CALLERS)))

    await all_call(_WARM_UP_S)
    began = time.perf_counter()
    done = await all_call(seconds)
    took = time.perf_counter() - began
    texts, tokens = (sum(one) for one in zip(*done, strict=True))
    return {
        "inputs_per_s": texts / took,
        "tokens_per_s": tokens / took,
        "of_gemm": tokens / took * GEMM_FLOP / 1e9 / gemm_gflops,
    }


def _flags(flags: list[str]) -> dict[str, str]:
    """Those of `sonde serve` that tell how it computes; it has others."""
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    for name in ("device", "dtype", "threads", "runners", "max-batch-tokens"):
        parser.add_argument(f"--{name}")
    return vars(parser.parse_known_args(flags)[0])


if __name__ == "__main__":
    main()
