"""Sonde on a GPU against sentence-transformers in fp16, the matrix rate, and over HTTP.

python -m benchmarks.gpu [--rounds 3] [--generators 4] [--device cuda] [--write] [-- flags of sonde serve, such as
--workers 8]

With `--device cpu` everything runs, in float32 and with few texts, to see that it works; its figures then say nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import results
from benchmarks.forward import MODEL, in_process
from benchmarks.loads import GEMM_FLOP
from benchmarks.processes import sonde
from benchmarks.roofline import best_rate
from models.runtime.device_names import DeviceName
from models.source import locate
from service.bench.workload import Texts, between

_TEXTS = {"cuda": {"short": 32_768, "256 tokens": 4_096}, "cpu": {"short": 128, "256 tokens": 8}}
_WORDS = {"short": 10, "256 tokens": 254}
_PRECISION = {"cuda": ("bf16", torch.float16), "cpu": ("fp32", torch.float32)}
_ENCODE_BATCH = {"cuda": 1024, "cpu": 32}
_BULK = {"cuda": 512, "cpu": 16}


def main() -> None:
    """Print and keep each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--generators", type=int, default=4, help="load generators, a process each (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=6)
    results.add_flags(parser)
    parser.add_argument("flags", nargs="*", help="passed to sonde serve, after --")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no CUDA device; --device cpu runs the same code without meaning")
    about: dict[str, object] = {"device": chosen.device, "generators": chosen.generators, "sonde_flags": chosen.flags}
    collected = results.Rounds("gpu", about, append=chosen.append)
    ours = in_process(chosen.device, "bfloat16" if chosen.device == "cuda" else "float32")
    theirs = encode(chosen.device)
    for number in range(chosen.rounds):
        collected.begin()
        seen = compared(ours, theirs, chosen.device)
        seen["HTTP, short texts/s in bulk"] = through_http(chosen)
        collected.add("gpu", seen)
        print(f"round {number + 1}  " + "  ".join(f"{name} {value:.4g}" for name, value in seen.items()), flush=True)
    collected.finish(write=chosen.write)


def compared(
    ours: Callable[[list[str]], object], theirs: Callable[[list[str]], object], device: DeviceName
) -> dict[str, float]:
    """Tokens a second of both, their ratio, and the share of the matrix rate at 256 tokens."""
    kind = "cuda" if device == "cuda" else "cpu"
    seen: dict[str, float] = {}
    for name, count in _TEXTS[kind].items():
        for name_of_run, run in (("sonde", ours), ("encode", theirs)):
            seen[f"{name_of_run}, {name}, tokens/s"] = tokens_per_s(run, _WORDS[name], count)
    rate = best_rate(_PRECISION[kind][0], kind, rows=16_384 if kind == "cuda" else 512)[0]
    seen["sonde : encode, short"] = seen["sonde, short, tokens/s"] / seen["encode, short, tokens/s"]
    seen[f"matrix rate, {_PRECISION[kind][0]}, TFLOP/s"] = rate / 1000
    seen["sonde's share of it at 256 tokens"] = seen["sonde, 256 tokens, tokens/s"] * GEMM_FLOP / 1e9 / rate
    return seen


def tokens_per_s(run: Callable[[list[str]], object], words: int, count: int) -> float:
    """Of one pass, tokenizing included, after one of an eighth to warm up."""
    source = Texts(between(words, words), seed=3)
    run([source.take()[0] for _ in range(max(1, count // 8))])
    texts = [source.take()[0] for _ in range(count)]
    began = time.perf_counter()
    run(texts)
    return count * (words + 2) / (time.perf_counter() - began)


def encode(device: str) -> Callable[[list[str]], object]:
    """sentence-transformers as its users call it, in fp16 on a GPU."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(locate(MODEL).path), device=device).to(_PRECISION[device][1])
    return lambda texts: model.encode(texts, batch_size=_ENCODE_BATCH[device], show_progress_bar=False)


def through_http(chosen: argparse.Namespace) -> float:
    """Short texts a second in bulk requests, base64, of all `sonde bench` processes at once."""
    with sonde("--device", chosen.device, *chosen.flags) as server, tempfile.TemporaryDirectory() as place:
        files = [Path(place) / f"{number}.json" for number in range(chosen.generators)]
        command = [
            sys.executable,
            "-m",
            "service.cli",
            "bench",
            "--url",
            server.url,
            "--short",
            "--batch",
            str(_BULK[chosen.device]),
            "--clients",
            "4",
        ]
        command += ["--encoding-format", "base64", "--seconds", str(chosen.seconds), "--json"]
        loads = [
            subprocess.Popen([*command, str(file), "--seed", str(number)], stdout=subprocess.DEVNULL)
            for number, file in enumerate(files)
        ]
        codes = [load.wait() for load in loads]
        if any(codes):
            raise SystemExit("a load generator failed; its message is above")
        return sum(float(json.loads(file.read_text(encoding="utf-8"))["summary"]["inputs_per_s"]) for file in files)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
