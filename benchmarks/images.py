"""Images over HTTP: against decoding and computing in one process, against a plain server, and beside short texts.

python -m benchmarks.images [--seconds 6] [--text-seconds 12] [--rounds 2]

All with image-default, the two cores of this machine, and JPEGs of 640 x 480 pixels that are all different. Sonde gets
them in both forms: as base64 in JSON, and as the body itself, as the plain server does. Short texts come beside these
images, and beside photographs of 12 megapixels.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import statistics
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import torch
from PIL import Image

from benchmarks.processes import MODEL, Server, plain_images, sonde
from models.images.processor import probe_image
from models.images.reader import ImageLimits
from models.loader import load_images, set_up
from models.runtime.placement import place
from models.source import locate
from service.bench.arrivals import poisson
from service.bench.client import Target
from service.bench.load import Run, closed_loop, drive, open_loop
from service.bench.summary import Summary
from service.bench.workload import NAMED, PreparedRequest, Requests, Texts, parse_mix

NAME = "image-default"
_SIZE, _LARGE_SIZE, _NOISE = (640, 480), (4000, 3000), 12
# Batches in one process are as large as Sonde's: of 1 to 12 images, five were the fastest.
_FILES, _LARGE_FILES, _BATCH = 96, 4, 5
_CLIENTS, _WARM_UP_S = 16, 1.0
_TEXTS_PER_S = 20.0


def photographs(count: int, size: tuple[int, int] = _SIZE, seed: int = 0) -> list[bytes]:
    """JPEGs of smooth colours with noise: 640 x 480 pixels have some 90 KB."""
    chance = np.random.default_rng(seed)
    return [_photograph(number, size, chance) for number in range(count)]


def _photograph(number: int, size: tuple[int, int], chance: np.random.Generator) -> bytes:
    pixels = np.asarray(probe_image(*size, seed=number), dtype=np.int16)
    noisy = np.clip(pixels + chance.normal(0, _NOISE, pixels.shape).astype(np.int16), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def in_process(files: Sequence[bytes], seconds: float) -> float:
    """Images a second by a thread per core that decodes and computes batches."""
    set_up(0)  # keeps freed memory, as a service does
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


def as_json(files: Sequence[bytes]) -> Iterator[PreparedRequest]:
    """Requests of one image each, as base64 in Infinity's form."""
    return as_bodies(
        [
            orjson.dumps(
                {"model": NAME, "modality": "image", "input": [f"data:image/jpeg;base64,{b64encode(one).decode()}"]}
            )
            for one in files
        ]
    )


def as_bodies(bodies: Sequence[bytes]) -> Iterator[PreparedRequest]:
    """Requests of one image each, which have these bodies."""
    return itertools.cycle([PreparedRequest(body, "image", 1, 1) for body in bodies])


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


def compare_rates(ours: Server, plain: Server, files: Sequence[bytes], seconds: float) -> str:
    """Images a second in one process, over HTTP in both forms, and by the plain server."""
    alone = in_process(files, seconds)
    raw_target = Target.of(ours.url, f"/v1/embeddings?model={NAME}", content_type="image/jpeg")
    by_json = images_per_s(ours.target, as_json(files), seconds)
    by_raw = images_per_s(raw_target, as_bodies(files), seconds)
    other = images_per_s(plain.target, as_bodies(files), seconds)
    return (
        f"in process {alone:.1f} images/s, sonde {by_json:.1f} in JSON ({by_json / alone:.0%}) and {by_raw:.1f} raw "
        f"({by_raw / alone:.0%}), plain {other:.1f} (sonde : plain {by_json / other:.2f} and {by_raw / other:.2f})"
    )


def compare_texts(ours: Server, images: Mapping[str, Sequence[bytes]], seconds: float, seed: int) -> str:
    """p99 of short texts, alone and beside images of each kind."""
    idle = text_p99_ms(ours.target, None, seconds, seed)
    parts = [f"texts: p99 {idle:.1f} ms idle"]
    for kind, files in images.items():
        beside = text_p99_ms(ours.target, as_json(files), seconds, seed)
        parts.append(f"{beside:.1f} beside {kind} ({beside / idle:.1f} times)")
    return ", ".join(parts)


def main() -> None:
    """Print each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--text-seconds", type=float, default=12.0)
    chosen = parser.parse_args()
    files, large = photographs(_FILES), photographs(_LARGE_FILES, _LARGE_SIZE)
    for some in (files, large):
        print(f"{len(some)} images of {statistics.mean(map(len, some)) / 1024:.0f} KB")
    kinds = {"images": files, "large photographs": large}
    with sonde("--model", NAME, "--model", MODEL, "--cache-mb", "0") as ours, plain_images() as plain:
        for number in range(chosen.rounds):
            print(f"round {number + 1}: {compare_rates(ours, plain, files, chosen.seconds)}", flush=True)
            print(compare_texts(ours, kinds, chosen.text_seconds, number), flush=True)


if __name__ == "__main__":
    main()
