"""Markdown tables of results: medians over the rounds, ratios, shares of the limit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.loads import ALWAYS, FLAG_ROWS, GEMM_FLOP, ROWS

Content = dict[str, Any]
_QUERIES = {
    "idle_p50_ms": "idle, p50 ms",
    "idle_p99_ms": "idle, p99 ms",
    "beside_p50_ms": "beside a bulk client, p50 ms",
    "beside_p99_ms": "beside a bulk client, p99 ms",
    "bulk_beside_per_s": "bulk beside them, texts/s",
}
_LENGTHS = ("short", "long", "mixed")


def median(rounds: list[Content], *path: str) -> float:
    """Over the rounds that have a figure at a path of names; NaN where none has."""
    values = [value for seen in rounds if (value := _at(seen, path)) is not None]
    return statistics.median(values) if values else math.nan


def most(rounds: list[Content], *path: str) -> float:
    """The maximum over the rounds, for limits, which other load only lowers; NaN if none."""
    return max((value for seen in rounds if (value := _at(seen, path)) is not None), default=math.nan)


def serving(content: Content) -> list[str]:
    """A line per load, a column per server, Sonde's ratios to the others, and the limit."""
    medians = serving_medians(content)
    servers = [name for name in medians if name != "limit"]
    others = [name for name in servers if name != "sonde"]
    rows = [
        [
            _figure(row),
            *(form(medians[name].get(row, math.nan), ".4g") for name in servers),
            *_ratios(medians, row, others),
        ]
        for row in [*ROWS, *ALWAYS]
        if any(row in medians[name] for name in servers)
    ]
    return [
        *table(["", *servers, *(f"sonde : {name}" for name in others)], rows),
        *_limit(content, medians.get("sonde", {})),
    ]


def serving_medians(content: Content) -> dict[str, dict[str, float]]:
    """For each server (and `limit`), each row's figure that is compared."""
    rounds = content["rounds"]
    places = {row: (row, load.figure) for row, load in ROWS.items()} | {name: ("process", name) for name in ALWAYS}
    medians = {}
    for server in dict.fromkeys(name for seen in rounds for name in seen):
        values = {row: median(rounds, server, *place) for row, place in places.items()}
        medians[server] = {row: value for row, value in values.items() if not math.isnan(value)}
    return medians


def titles() -> dict[str, str]:
    """What the rows with a rate are called."""
    return {row: load.about for row, load in ROWS.items() if load.figure == "inputs_per_s"}


def flags(content: Content) -> list[str]:
    """For each instruction set and load the default's rate, and its ratios to flags set by hand in the same rounds."""
    rounds = content["rounds"]
    ways = list(dict.fromkeys(way for seen in rounds for by_way in seen.values() for way in by_way))[1:]
    rows = []
    for instructions in dict.fromkeys(name for seen in rounds for name in seen):
        for name, load in FLAG_ROWS.items():
            rate = median(rounds, instructions, "default", name, load.figure)
            ratios = [_default_to(rounds, instructions, way, name) for way in ways]
            rows.append([instructions, load.about, form(rate, ".4g"), *(form(ratio, ".2f") for ratio in ratios)])
    return table(["instructions", "load", "default", *(f"default : {way}" for way in ways)], rows)


def _default_to(rounds: list[Content], instructions: str, way: str, row: str) -> float:
    """The median over the rounds of the default's rate to that of a way; NaN where it was not measured."""
    figure = FLAG_ROWS[row].figure
    pairs = [tuple(_at(seen, (instructions, name, row, figure)) for name in ("default", way)) for seen in rounds]
    ratios = [default / other for default, other in pairs if default is not None and other is not None]
    return statistics.median(ratios) if ratios else math.nan


def interactive(content: Content) -> list[str]:
    """Latencies of queries, one by one and as they arrive, and the rate that bulk keeps."""
    rounds, ways = content["rounds"], {"": "one at a time", "arriving_": f"{content['about']['rate']:g} a second"}
    figures = {way: {name: median(rounds, "sonde", f"{way}{name}") for name in _QUERIES} for way in ways}
    alone = median(rounds, "sonde", "bulk_alone_per_s")
    rows = [[about, *(form(seen[name], ".4g") for seen in figures.values())] for name, about in _QUERIES.items()]
    rows.append(["bulk alone, texts/s", *[form(alone, ".4g")] * len(ways)])
    rows.append(
        [
            "p99 beside bulk : idle p99",
            *(form(seen["beside_p99_ms"] / seen["idle_p99_ms"], ".2f") for seen in figures.values()),
        ]
    )
    rows.append(
        [
            "what bulk keeps of its rate",
            *(f"{100 * seen['bulk_beside_per_s'] / alone:.0f} %" for seen in figures.values()),
        ]
    )
    return table(["short queries", *ways.values()], rows)


def forward(content: Content) -> list[str]:
    """Texts a second by backend, the share of the GEMM rate, mixed against uniform lengths."""
    rounds, precisions = content["rounds"], content["about"]["precisions"]
    rows = []
    for name, precision in precisions.items():
        tokens = {lengths: median(rounds, name, lengths, "tokens_per_s") for lengths in _LENGTHS}
        rate = most(rounds, "limit", precision)
        share = 100 * tokens["long"] * GEMM_FLOP / 1e9 / rate
        cells = [form(median(rounds, name, lengths, "texts_per_s"), ".1f") for lengths in _LENGTHS]
        cells += [
            f"{tokens['long']:.0f}",
            f"{share:.0f} % of {rate:.0f} {precision}",
            f"{tokens['mixed'] / tokens['long']:.2f}",
        ]
        rows.append([name, *cells, form(median(rounds, name, "single", "ms"), ".2f")])
    heading = [
        *(f"{lengths}, texts/s" for lengths in _LENGTHS),
        "tokens/s, long",
        "of GFLOP/s",
        "mixed : long in tokens/s",
        "one short, ms",
    ]
    return table(["", *heading], rows)


def roofline(content: Content) -> list[str]:
    """GFLOP/s by way and number of rows, and the bandwidth."""
    rounds = content["rounds"]
    counts = list(next(iter(rounds[0].values())))
    rows = [
        [way, *(form(median(rounds, way, count), ".1f") for count in counts)] for way in rounds[0] if way != "memory"
    ]
    memory = median(rounds, "memory", "gb_s")
    return [
        *table(["GFLOP/s by rows", *counts], rows),
        "",
        f"Memory: {memory:.1f} GB/s read and written together in a copy.",
    ]


def scaling(content: Content) -> list[str]:
    """Log-likelihood, calibration error and accuracy of each way to calibrate, and how often it led out of fold."""
    ways = ("temperature", "vector", "dirichlet")
    rows = [
        [
            name,
            *(", ".join(f"{seen[f'{way} {key}']:.3f}" for key in ("nll", "ece", "accuracy")) for way in ways),
            *(f"{seen[f'{way} won']:.0%}" for way in ways[1:]),
        ]
        for name, seen in content["rounds"][0].items()
    ]
    heading = [f"{way}: NLL, calibration error, accuracy" for way in ways]
    return table(["Rows", *heading, "vector led", "dirichlet led"], rows)


def gpu(content: Content) -> list[str]:
    """What `benchmarks.gpu` saw, by name."""
    rounds = content["rounds"]
    rows = [[name, form(median(rounds, "gpu", name), ".4g")] for name in rounds[0]["gpu"]]
    return table(["", "median"], rows)


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rows)]


def form(value: float, spec: str) -> str:
    """A number, or nothing for NaN."""
    return "" if math.isnan(value) else format(value, spec)


def _form_of(figures: dict[str, float], row: str) -> str:
    return form(figures.get(row, math.nan), ".4g")


def _figure(row: str) -> str:
    return ROWS[row].about if row in ROWS else ALWAYS[row]


def _ratios(medians: dict[str, dict[str, float]], row: str, others: list[str]) -> list[str]:
    ours = medians.get("sonde", {}).get(row, math.nan)
    return [form(ours / medians[name].get(row, math.nan), ".2f") for name in others]


def _limit(content: Content, ours: dict[str, float]) -> list[str]:
    """Bulk over HTTP against the engine in process and the GEMM rate of the same rounds."""
    rounds = content["rounds"]
    rate = most(rounds, "limit", "gemm", "gflops")
    rows = []
    for row in (row for row in ROWS if not math.isnan(median(rounds, "limit", row, "inputs_per_s"))):
        inside = median(rounds, "limit", row, "inputs_per_s")
        share = median(rounds, "sonde", row, "tokens_per_s") * GEMM_FLOP / 1e9 / rate
        rows.append(
            [
                ROWS[row].about,
                form(inside, ".4g"),
                f"{100 * ours.get(row, math.nan) / inside:.0f} %",
                f"{100 * share:.0f} %",
            ]
        )
    if not rows:
        return []
    return [
        "",
        *table(["", "engine in process", "HTTP reaches of that", f"of the GEMM rate, {rate:.0f} GFLOP/s"], rows),
    ]


def _at(seen: Content, path: Sequence[str]) -> float | None:
    place: Any = seen
    for name in path:
        if not isinstance(place, dict) or name not in place:
            return None
        place = place[name]
    return float(place)
