"""Readings a second over HTTP: `python -m benchmarks.readings`, without contributions.

A real detector, fitted here to noise and put into a registry, behind a real `sonde serve`; clients on the same machine.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from models.registry.artifact import Golden, Manifest
from models.registry.registry import Registry
from models.sensors.fitting import fit_sensor
from models.sensors.model import SensorKind
from models.sensors.serialization import describe, save_sensor
from service.bench.client import Target
from service.bench.load import closed_loop, drive
from service.bench.summary import Summary
from service.bench.workload import PreparedRequest

_WARM_UP_S = 1.0
NAME = "ft:sensors:local:bench-{}"


def publish(registry: Registry, kind: SensorKind, detector: str, columns: int) -> str:
    """Put a detector of noise in service; return its name."""
    name = NAME.format(f"{kind}-{detector}")
    readings = np.random.default_rng(0).standard_normal((10_000, columns))
    sensor = fit_sensor(kind, detector, tuple(f"c{number}" for number in range(columns)), [readings])
    with tempfile.TemporaryDirectory() as staged:
        save_sensor(sensor, Path(staged))
        about = describe(sensor)
        manifest = Manifest(
            name, 1, "anomaly", "sensors", "1", "none", (), {}, Golden((), (), 0.0), 0, "", 0, sensor=about
        )
        registry.publish(name, Path(staged), lambda version: manifest)
    registry.promote(name, 1, by="benchmark", why="")
    return name


def bodies(name: str, kind: SensorKind, rows: int, columns: int, missing: float = 0.0) -> Iterator[PreparedRequest]:
    """Requests of `rows` rows, each different; a share `missing` of the values is null."""
    numbers = np.random.default_rng(1)
    field = "records" if kind == "records" else "series"

    def readings() -> list[list[float | None]]:
        values = numbers.standard_normal((rows, columns)).round(4).astype(object)
        values[numbers.random((rows, columns)) < missing] = None
        return list(values.tolist())

    made = [orjson.dumps({"model": name, field: readings()}) for _ in range(8)]
    return itertools.cycle([PreparedRequest(body, "readings", rows, rows) for body in made])


def main() -> None:
    """Print rows a second for records and series, for requests of several sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=1, help="the median round is printed")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000], help="rows of a request")
    parser.add_argument("--records", nargs="*", default=["pca"], help="detectors of records")
    parser.add_argument("--series", nargs="*", default=["level"], help="detectors of series")
    parser.add_argument("--missing", type=float, nargs="+", default=[0.0], help="shares of values that are null")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        registry = Registry(Path(home) / "models")
        detectors: list[tuple[SensorKind, str]] = [("records", name) for name in parsed.records]
        detectors += [("series", name) for name in parsed.series]
        models = [(kind, name, publish(registry, kind, name, parsed.columns)) for kind, name in detectors]
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--home", home],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split("ready on ")[1].split(" ")[0]
            for (kind, detector, name), rows in itertools.product(models, parsed.sizes):
                sent = {share: bodies(name, kind, rows, parsed.columns, share) for share in parsed.missing}
                results: dict[float, list[Summary]] = {share: [] for share in sent}
                for _ in range(parsed.rounds):  # of each share in turn, since the machine's speed varies
                    for share, requests in sent.items():
                        results[share].append(_measured(url, requests, parsed.clients, parsed.seconds))
                for share, measured in results.items():
                    lacks = f", {share:.0%} null" if share else ""
                    print(f"{kind} ({detector}), {rows} rows a request{lacks}: {_said(measured)}", flush=True)
        finally:
            process.terminate()
            process.wait(30)


def _measured(url: str, sent: Iterator[PreparedRequest], clients: int, seconds: float) -> Summary:
    target = Target.of(url, "/v1/anomaly/score")
    run = drive(closed_loop(target, sent, clients=clients, seconds=_WARM_UP_S + seconds))
    return Summary.of(run, warmup_s=_WARM_UP_S, until_s=_WARM_UP_S + seconds, slo_ms=1000)


def _said(rounds: list[Summary]) -> str:
    summary = sorted(rounds, key=lambda one: one.inputs_per_s)[len(rounds) // 2]
    wrong = {status: count for status, count in summary.statuses.items() if status != "200"}
    latency = f"p50 {summary.latency_ms.p50:.1f} ms" if summary.latency_ms else "no good answer"
    return f"{summary.inputs_per_s:,.0f} rows/s, {latency}" + (f", statuses {wrong}" if wrong else "")


if __name__ == "__main__":
    main()
