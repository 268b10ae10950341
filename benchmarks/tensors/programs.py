"""Tokens a second of MiniLM as an exported program over HTTP, beside the module in one process, both in float32.

python -m benchmarks.tensors.programs [--rounds 3] [--seconds 3] [--clients 4]

The module computes batches of the same size, by one thread for each core: by two threads at once, and by one after
another with all cores. The faster way counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.tensors.servers import serving_program
from benchmarks.tensors.text_encoder import TextEncoder
from service.bench.client import Target
from service.bench.load import closed_loop, drive
from service.bench.summary import Summary
from service.bench.tensor_workload import TensorInput, TensorRequests, encode_raw
from service.bench.workload import NAMED, Texts

_SIZES = ((1, 16), (8, 32), (16, 64))
_MODEL = "minilm"
_WARM_UP_S = 0.5


def in_process(module: TextEncoder, size: tuple[int, int], seconds: float, *, at_once: int) -> float:
    """Tokens a second of the module, by `at_once` threads that share the cores."""
    ids = torch.ones(size, dtype=torch.long)
    threads = torch.get_num_threads()

    def work(until: float) -> int:
        torch.set_num_threads(max(threads // at_once, 1))
        done = 0
        with torch.inference_mode():
            while time.perf_counter() < until:
                module(ids)
                done += ids.numel()
        return done

    with ThreadPoolExecutor(at_once) as pool:
        for length in (_WARM_UP_S, seconds):
            began = time.perf_counter()
            done = sum(pool.map(work, [began + length] * at_once))
            took = time.perf_counter() - began
    torch.set_num_threads(threads)
    return done / took


def over_http(url: str, size: tuple[int, int], seconds: float, clients: int) -> float:
    """Tokens a second of the program. SystemExit where an answer is an error."""
    requests = TensorRequests([TensorInput("ids", "INT64", size)], Texts(NAMED["short"]), encode_raw)
    target = Target.of(url, f"/v2/models/{_MODEL}/infer", sends_embeddings=False)
    whole = _WARM_UP_S + seconds
    load = drive(closed_loop(target, requests, clients=clients, seconds=whole))
    summary = Summary.of(load, warmup_s=_WARM_UP_S, until_s=whole, slo_ms=100)
    if summary.failed:
        raise SystemExit(f"{size}: {summary.statuses}")
    return summary.requests_per_s * size[0] * size[1]


def main() -> None:
    """Print the medians of the rounds for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=4)
    chosen = parser.parse_args()
    module = TextEncoder()
    row = {"name": "ids", "datatype": "INT64", "shape": [1, 2], "data": [1, 1]}
    flags = ("--cache-mb", "0", "--dtype", "float32")
    entry, cores = "benchmarks.tensors.text_encoder:make", torch.get_num_threads()
    with serving_program(_MODEL, entry, row, *flags, threads=cores) as url:
        for size in _SIZES:
            rounds = [
                (
                    in_process(module, size, chosen.seconds, at_once=1),
                    in_process(module, size, chosen.seconds, at_once=torch.get_num_threads()),
                    over_http(url, size, chosen.seconds, chosen.clients),
                )
                for _ in range(chosen.rounds)
            ]
            one, many, http = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratio = statistics.median(found / max(first, second) for first, second, found in rounds)
            print(
                f"{size[0]:3} of {size[1]:3} tokens: module {one:7.0f} and {many:7.0f} tokens/s, "
                f"program over HTTP {http:7.0f}, {ratio:.2f} of the faster"
            )


if __name__ == "__main__":
    main()
