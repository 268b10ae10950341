"""The limit beside the servers: the machine's GEMM rate, and the engine's own texts a second in process, in a process of its own.

python -m benchmarks.limit [--rows short-32,long-32] [-- flags of sonde serve: --dtype, --device and --threads]

Prints one line of JSON. `benchmarks.serving` runs it in each round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.forward import in_process
from benchmarks.loads import GEMM_FLOP
from benchmarks.roofline import best_rate
from models.device import place
from service.bench.lengths import NAMED
from service.bench.texts import Texts

_ROWS = {"short-32": "short", "long-32": "long", "mixed-32": "mixed"}
_BATCH = 32
_PRECISION = {"torch.float32": "fp32", "torch.bfloat16": "bf16"}


def measured(rows: str, flags: list[str]) -> dict[str, dict[str, float]]:
    """Run this in a process of its own: for each row `inputs_per_s`, and under `gemm` the machine's `gflops`."""
    command = [sys.executable, "-m", "benchmarks.limit", "--rows", rows, "--", *flags]
    result: dict[str, dict[str, float]] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(_ROWS))
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("flags", nargs="*")
    chosen = parser.parse_args()
    settings = _settings(chosen.flags)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    placement = place(settings.device, "auto" if settings.dtype == "int8" else settings.dtype)
    precision = "int8" if settings.dtype == "int8" else _PRECISION[str(placement.dtype)]
    encode = in_process(settings.device, settings.dtype)
    rate, way = best_rate(precision, placement.device.type)
    seen: dict[str, dict[str, object]] = {"gemm": {"gflops": rate, "way": way}}
    for row in chosen.rows.split(","):
        if row in _ROWS:
            seen[row] = _speed(encode, _ROWS[row], chosen.seconds, rate)
    print(json.dumps(seen))


def _speed(encode: Callable[[list[str]], object], lengths: str, seconds: float, gemm_gflops: float) -> dict[str, object]:
    source = Texts(NAMED[lengths], seed=5)
    encode([source.take()[0] for _ in range(_BATCH)])
    began, texts, tokens = time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds:
        taken = [source.take() for _ in range(_BATCH)]
        encode([text for text, _ in taken])
        texts += _BATCH
        tokens += sum(count for _, count in taken)
    took = time.perf_counter() - began
    return {"inputs_per_s": texts / took, "tokens_per_s": tokens / took, "of_gemm": tokens / took * GEMM_FLOP / 1e9 / gemm_gflops}


def _settings(flags: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_known_args(flags)[0]


if __name__ == "__main__":
    with torch.inference_mode():
        main()
