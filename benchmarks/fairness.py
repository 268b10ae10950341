"""A single short query's latency, idle and while a bulk client sends 1,024 long texts at a time without pause.

python -m benchmarks.fairness [--rounds 3] [--seconds 10] [--bulk 1024] [--words 110]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
from collections.abc import Iterator

from benchmarks.load import Connection, Result, closed_loop, embeddings, run
from benchmarks.processes import sonde
from benchmarks.texts import texts


def bulk_bodies(size: int, words: int) -> Iterator[bytes]:
    """Requests of `size` long texts each; four different ones in turn, made beforehand so that making them costs nothing now."""
    source = texts(words, seed=99)
    made = [embeddings(list(itertools.islice(source, size)), encoding_format="base64") for _ in range(4)]
    return itertools.cycle(made)


async def beside_bulk(url: str, bodies: Iterator[bytes], bulk: Iterator[bytes], seconds: float) -> tuple[Result, int]:
    """Queries one after another while the bulk client never pauses; and how many bulk requests were answered."""
    connection, answered = Connection(url, "/v1/embeddings"), 0

    async def send_bulk() -> None:
        nonlocal answered
        while True:
            status, _ = await connection.post(next(bulk))
            answered += status == 200

    sender = asyncio.create_task(send_bulk())
    await asyncio.sleep(1)
    result = await closed_loop(url, bodies, clients=1, seconds=seconds)
    sender.cancel()
    connection.close()
    return result, answered


def main() -> None:
    """Print each round, then the ratio of the median p99s."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--bulk", type=int, default=1024)
    parser.add_argument("--words", type=int, default=110)
    parser.add_argument("flags", nargs="*", help="passed to sonde serve, after --")
    chosen = parser.parse_args()
    idle, busy = [], []
    bulk = bulk_bodies(chosen.bulk, chosen.words)
    bodies = (embeddings([text]) for text in texts(10, seed=1))
    with sonde("--cache-mb", "0", *chosen.flags) as (url, _):
        for number in range(chosen.rounds):
            alone = run(lambda: closed_loop(url, bodies, clients=1, seconds=chosen.seconds))
            beside, answered = asyncio.run(beside_bulk(url, bodies, bulk, chosen.seconds))
            idle.append(alone.percentile(99))
            busy.append(beside.percentile(99))
            print(
                f"round {number + 1}  idle p50 {1000 * alone.percentile(50):.1f} p99 {1000 * idle[-1]:.1f} ms"
                f"   beside bulk p50 {1000 * beside.percentile(50):.1f} p99 {1000 * busy[-1]:.1f} ms"
                f"   bulk {answered} requests of {chosen.bulk}"
            )
    print(
        f"median p99: idle {1000 * statistics.median(idle):.1f} ms, beside bulk {1000 * statistics.median(busy):.1f} ms, "
        f"ratio {statistics.median(busy) / statistics.median(idle):.2f}"
    )


if __name__ == "__main__":
    main()
