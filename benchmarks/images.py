"""Images over HTTP: against decoding and computing in one process, against a plain server, and beside short texts.

python -m benchmarks.images [--seconds 6] [--rounds 2]

All with image-default, the two cores of this machine, and JPEGs of 640 x 480 pixels that are all different.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import statistics
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import torch
from PIL import Image

from benchmarks.processes import MODEL, plain_images, sonde
from models.images.processor import probe_image
from models.images.reader import ImageLimits
from models.loader import load_images
from models.runtime.placement import place
from models.source import locate
from service.bench.arrivals import poisson
from service.bench.client import Target
from service.bench.load import Run, closed_loop, drive, open_loop
from service.bench.summary import Summary
from service.bench.workload import NAMED, PreparedRequest, Requests, Texts, parse_mix

NAME = "image-default"
_SIZE, _NOISE = (640, 480), 12
_FILES, _BATCH = 96, 8
_CLIENTS, _WARM_UP_S = 16, 1.0
_TEXTS_PER_S = 20.0


def photographs(count: int, seed: int = 0) -> list[bytes]:
    """JPEGs of smooth colours with noise, of some 90 KB each."""
    chance = np.random.default_rng(seed)
    return [_photograph(number, chance) for number in range(count)]


def _photograph(number: int, chance: np.random.Generator) -> bytes:
    pixels = np.asarray(probe_image(*_SIZE, seed=number), dtype=np.int16)
    noisy = np.clip(pixels + chance.normal(0, _NOISE, pixels.shape).astype(np.int16), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def in_process(files: Sequence[bytes], seconds: float) -> float:
    """Images a second by a thread per core that decodes and computes batches."""
    encoder: Any = load_images(locate(NAME), place("cpu", "auto"))
    limits = ImageLimits()
    until = [0.0]

    def work(offset: int) -> int:
        torch.set_num_threads(1)
        done = 0
        batches = itertools.cycle(range(offset, len(files) - _BATCH + 1, _BATCH))
        while time.perf_counter() < until[0]:
            at = next(batches)
            encoder.forward([encoder.images.read(one, limits, "image") for one in files[at : at + _BATCH]])
            done += _BATCH
        return done

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        workers = range(torch.get_num_threads())
        for length in (_WARM_UP_S, seconds):
            began = time.perf_counter()
            until[0] = began + length
            done = sum(pool.map(work, workers))
            took = time.perf_counter() - began
    return done / took


def sent_to_sonde(files: Sequence[bytes]) -> Iterator[PreparedRequest]:
    """Requests of one image each, in Infinity's form."""
    made = [
        orjson.dumps(
            {"model": NAME, "modality": "image", "input": [f"data:image/jpeg;base64,{b64encode(one).decode()}"]}
        )
        for one in files
    ]
    return itertools.cycle([PreparedRequest(body, "image", 1, 1) for body in made])


def measured(run: Run, seconds: float) -> Summary:
    """The summary of a load without its warm-up. SystemExit where an answer is an error."""
    summary = Summary.of(run, warmup_s=_WARM_UP_S, until_s=_WARM_UP_S + seconds, slo_ms=1000)
    if summary.failed:
        raise SystemExit(f"answers were errors: {summary.statuses}")
    return summary


def images_per_s(target: Target, requests: Iterator[PreparedRequest], seconds: float) -> float:
    """Closed load of images."""
    load_of_images = closed_loop(target, requests, clients=_CLIENTS, seconds=_WARM_UP_S + seconds)
    return measured(drive(load_of_images), seconds).requests_per_s


def text_p99_ms(target: Target, images: Iterator[PreparedRequest] | None, seconds: float, seed: int) -> float:
    """The slowest short text but 1 %, of 20 a second at random times, alone or beside images."""

    async def both() -> Run:
        texts = Requests(MODEL, Texts(NAMED["short"], seed), parse_mix(None, 1, 1))
        times = list(poisson(_TEXTS_PER_S, _WARM_UP_S + seconds, seed))
        if images is None:
            return await open_loop(target, texts, times)
        stream = closed_loop(target, images, clients=4, seconds=_WARM_UP_S + seconds)
        run, _ = await asyncio.gather(open_loop(target, texts, times), stream)
        return run

    latency = measured(drive(both()), seconds).latency_ms
    return latency.p99 if latency else float("nan")


def main() -> None:
    """Print each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0)
    chosen = parser.parse_args()
    files = photographs(_FILES)
    print(f"{len(files)} images of {statistics.mean(map(len, files)) / 1024:.0f} KB")
    raw = itertools.cycle([PreparedRequest(one, "image", 1, 1) for one in files])
    with sonde("--model", NAME, "--model", MODEL, "--cache-mb", "0") as ours, plain_images() as plain:
        for number in range(chosen.rounds):
            alone = in_process(files, chosen.seconds)
            rate = images_per_s(ours.target, sent_to_sonde(files), chosen.seconds)
            other = images_per_s(plain.target, raw, chosen.seconds)
            print(
                f"round {number + 1}: in process {alone:.1f} images/s, sonde {rate:.1f} ({rate / alone:.0%}), "
                f"plain {other:.1f} (sonde : plain {rate / other:.2f})",
                flush=True,
            )
            idle = text_p99_ms(ours.target, None, chosen.seconds, 2 * number)
            beside = text_p99_ms(ours.target, sent_to_sonde(files), chosen.seconds, 2 * number + 1)
            print(
                f"texts: p99 {idle:.1f} ms idle, {beside:.1f} ms beside images ({beside / idle:.1f} times)", flush=True
            )


if __name__ == "__main__":
    main()
