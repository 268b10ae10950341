"""Texts to vectors without HTTP: Sonde, sentence-transformers, torch.compile, ONNX Runtime, OpenVINO.

python -m benchmarks.forward [--rounds 3] [--backends packed-float32,encode] [--threads N] [--device cuda] [--write
[--append]]

Each backend has a process of its own, since threads and freed memory of one slow down another. They take turns.
ONNX Runtime and OpenVINO need the environment that benchmarks.rivals makes; name them with --backends.
"""

from __future__ import annotations

import argparse
import time
import typing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from multiprocessing import get_context

import torch

from benchmarks import results, rivals
from benchmarks.roofline import best_rate
from models.loader import load
from models.runtime.device_names import DeviceName, DtypeName
from models.runtime.malloc import keep_freed_memory
from models.runtime.placement import place
from models.source import locate
from models.text.encoder import Encoder
from models.text.model import TextModel
from models.text.tokenization import Tokens
from service.bench.workload import NAMED, Texts

MODEL = "all-MiniLM-L6-v2"
# Texts of a pass. On a GPU sixteen times as many.
COUNTS = {"short": 384, "long": 64, "mixed": 64}
_GPU_TIMES = 16
_BATCH_TOKENS = {"cpu": 512, "cuda": 16_384}
_PRECISION = {"float32": "fp32", "bfloat16": "bf16", "int8": "int8"}
Encode = Callable[[list[str]], object]


def backends(device: DeviceName) -> dict[str, Callable[[], Encode]]:
    """All backends, made on demand; the packed path comes in every dtype, "auto" as a service would choose it."""
    kind = "cuda" if device == "cuda" else "cpu"
    return {
        **{f"packed-{dtype}": partial(in_process, device, dtype) for dtype in typing.get_args(DtypeName)},
        "general": lambda: _batched(Encoder(locate(MODEL), place(device)), kind),
        "encode": lambda: _encode(device, compiled=False),
        "compiled": lambda: _encode(device, compiled=True),
        **{name: partial(rivals.rival, name, MODEL) for name in rivals.NAMES},
    }


def in_process(device: DeviceName, dtype: DtypeName) -> Encode:
    """Sonde's model as a service would load it, in batches of the engine's size."""
    placement = place(device, dtype)
    return _batched(load(locate(MODEL), placement), "cuda" if placement.device.type == "cuda" else "cpu")


def default_backends(device: DeviceName) -> list[str]:
    """Those that need no other libraries; bfloat16 only as the choice of "auto"."""
    return [name for name in backends(device) if name not in ("packed-bfloat16", *rivals.NAMES)]


def texts_of(lengths: str, device: DeviceName) -> tuple[list[str], int]:
    """The texts of one pass and their tokens."""
    source = Texts(NAMED[lengths], seed=7)
    taken = [source.take() for _ in range(COUNTS[lengths] * (_GPU_TIMES if device == "cuda" else 1))]
    return [text for text, _ in taken], sum(tokens for _, tokens in taken)


def timed(encode: Encode, lengths: str, device: DeviceName) -> dict[str, float]:
    """Texts and tokens a second of one pass, tokenizing included."""
    texts, tokens = texts_of(lengths, device)
    began = time.perf_counter()
    encode(texts)
    took = time.perf_counter() - began
    return {"texts_per_s": len(texts) / took, "tokens_per_s": tokens / took}


def one_text_ms(encode: Encode, count: int = 60) -> float:
    """Median milliseconds of a single short text."""
    source = Texts(NAMED["short"], seed=8)
    taken = []
    for _ in range(count):
        text = source.take()[0]
        began = time.perf_counter()
        encode([text])
        taken.append(1000 * (time.perf_counter() - began))
    return sorted(taken)[count // 2]


def own_process(threads: int) -> ProcessPoolExecutor:
    """A process for one backend, which it keeps from round to round."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(threads,))


def _begin(threads: int) -> None:
    keep_freed_memory()  # as the service does
    if threads:
        torch.set_num_threads(threads)


@torch.inference_mode()
def measure(name: str, device: DeviceName) -> dict[str, dict[str, float]]:
    """A round of a backend, in the process that calls this."""
    encode = _warm_backend(name, device)
    return {**{lengths: timed(encode, lengths, device) for lengths in COUNTS}, "single": {"ms": one_text_ms(encode)}}


@cache
def _warm_backend(name: str, device: DeviceName) -> Encode:
    encode = backends(device)[name]()
    for lengths in COUNTS:
        encode(texts_of(lengths, device)[0])
    return encode


def main() -> None:
    """Print each round, then medians and shares of the machine's rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backends", help="comma-separated (default: all that make sense here)")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    results.add_flags(parser)
    chosen = parser.parse_args()
    _begin(chosen.threads)
    names = chosen.backends.split(",") if chosen.backends else default_backends(chosen.device)
    precisions = {name: precision_of(name, chosen.device) for name in names}
    about: dict[str, object] = {"device": chosen.device, "threads": torch.get_num_threads(), "precisions": precisions}
    collected = results.Rounds("forward", about, append=chosen.append)
    with ExitStack() as stack:
        processes = {name: stack.enter_context(own_process(chosen.threads)) for name in names}
        for _ in range(chosen.rounds):
            number = collected.begin()
            limits = {kind: best_rate(kind, chosen.device)[0] for kind in sorted(set(precisions.values()))}
            collected.add("limit", limits)
            for name, process in processes.items():
                seen = process.submit(measure, name, chosen.device).result()
                collected.add(name, seen)
                print(f"round {number + 1}  {name:19} {_line(seen)}", flush=True)
    collected.finish(write=chosen.write)


def _line(seen: dict[str, dict[str, float]]) -> str:
    rates = "  ".join(f"{lengths} {seen[lengths]['texts_per_s']:.1f} texts/s" for lengths in COUNTS)
    return f"{rates}  one {seen['single']['ms']:.2f} ms"


def precision_of(backend: str, device: DeviceName) -> str:
    """fp32, bf16 or int8: what a backend's matrices are of."""
    named = backend.rpartition("-")[2]
    return _PRECISION[named if named in _PRECISION else place(device).dtype_name]


def _batched(model: TextModel, kind: str) -> Encode:
    def encode(texts: list[str]) -> object:
        return [model.forward(batch) for batch in batches(model.text.encode(texts), _BATCH_TOKENS[kind])]

    return encode


def batches(items: Sequence[Tokens], budget: int) -> Iterator[list[Tokens]]:
    """As they come, each batch within the engine's default of tokens."""
    batch: list[Tokens] = []
    used = 0
    for item in items:
        if batch and used + item.count > budget:
            yield batch
            batch, used = [], 0
        batch.append(item)
        used += item.count
    yield batch


def _encode(device: DeviceName, *, compiled: bool) -> Encode:
    from sentence_transformers import SentenceTransformer

    placement = place(device)
    model = SentenceTransformer(str(locate(MODEL).path), device=placement.device.type).to(placement.dtype)
    if compiled:
        model[0].auto_model.compile(dynamic=True)
    return lambda texts: model.encode(texts, show_progress_bar=False, convert_to_numpy=placement.dtype == torch.float32)


if __name__ == "__main__":
    main()
