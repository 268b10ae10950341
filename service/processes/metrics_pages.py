"""Metrics of several processes as one: each keeps a page, and a scrape adds them up.

prometheus_client's own multiprocess mode can neither remove a series (of a model out of service) nor read a gauge from
a function.
"""

from __future__ import annotations

import json
import logging
import operator
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from service.metrics import MERGED_BY

log = logging.getLogger(__name__)

_REFRESH_S = 1.0
_TIMEOUT_S = 2.0
_PREFIX = "sonde_"


class MetricsPage:
    """The metrics of one process in a file; a thread writes it every second and per scrape.

    The next process of the same name continues from the file's counts. A killed process loses only what it counted
    after its last write; every count that a scrape has shown is in the file.
    """

    def __init__(self, directory: Path, name: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._registry = registry
        self._file, self._socket = _paths(directory, name)
        self._predecessors = _lasting(_load(self._file.read_bytes())) if self._file.exists() else []
        self._write()
        self._socket.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._socket))
        self._listener.listen()
        self._listener.settimeout(_REFRESH_S)
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="metrics-page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the page for the last time."""
        self._closed = True
        if (wakeup := _connect(self._socket)) is not None:
            wakeup.close()
        self._thread.join()
        self._listener.close()
        self._write()

    def _serve(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                self._write()
                continue
            with connection:
                if not self._closed:
                    self._send_page(connection)

    def _send_page(self, connection: socket.socket) -> None:
        content = self._write()
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.sendall(content)
        except OSError as error:
            log.warning("a scraping process did not read the metrics page: %s", error)

    def _write(self) -> bytes:
        content = _dump(total([_with_process_label(self._registry.collect(), self._name), self._predecessors]))
        new = self._file.with_suffix(".new")
        try:
            new.write_bytes(content)
            new.replace(self._file)
        except OSError as error:  # on a full disk, scrapes still get an answer
            log.warning("the metrics page cannot be written: %s", error)
        return content


class MetricsAggregator(Collector):
    """All pages added up. The counts of a process that has ended stay; its gauges go."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> list[Metric]:
        """The sum of all processes as of now. Blocks for some milliseconds."""
        names = sorted(path.stem for path in self._directory.glob("*.json"))
        # Connect to all before reading any, so that they write their pages in parallel.
        connections = [(name, _connect(_paths(self._directory, name)[1])) for name in names]
        return total([_receive_page(connection) or self._last_page(name) for name, connection in connections])

    def registry(self) -> CollectorRegistry:
        """A registry with this collector alone."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def _last_page(self, name: str) -> list[Metric]:
        return _lasting(_load(_paths(self._directory, name)[0].read_bytes()))


def total(pages: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Merge pages: values of the same series are added up, or merged as MERGED_BY says."""
    metrics: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for metric in (metric for page in pages for metric in page):
        metrics.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
        series = values.setdefault(metric.name, {})
        for sample in metric.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            series[key] = _merge_of(sample.name)(series[key], sample.value) if key in series else sample.value
    for name, metric in metrics.items():
        for (sample_name, labels), value in values[name].items():
            metric.add_sample(sample_name, dict(labels), value)
    return list(metrics.values())


def _merge_of(sample: str) -> Callable[[float, float], float]:
    return MERGED_BY.get(sample, operator.add)


def _with_process_label(metrics: Iterable[Metric], process: str) -> Iterable[Metric]:
    """Label Python's own metrics with the process: the sum of two start times means nothing."""
    for metric in metrics:
        if not metric.name.startswith(_PREFIX):
            metric.samples = [one._replace(labels={**one.labels, "process": process}) for one in metric.samples]
        yield metric


def _lasting(metrics: Iterable[Metric]) -> list[Metric]:
    """The metrics that stay true after their process has ended."""
    return [metric for metric in metrics if metric.type in {"counter", "histogram"} and metric.name.startswith(_PREFIX)]


def _paths(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}.json", directory / f"{name}.socket"


def _connect(path: Path) -> socket.socket | None:
    """Connect to the process of a page; None when it has ended."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_TIMEOUT_S)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _receive_page(connection: socket.socket | None) -> list[Metric] | None:
    """Read a page; None when its process has ended, or ends now."""
    if connection is None:
        return None
    with connection:
        try:
            with connection.makefile("rb") as stream:
                return _load(stream.read())
        except (OSError, ValueError):
            return None


def _dump(metrics: Iterable[Metric]) -> bytes:
    def encoded(metric: Metric) -> tuple[object, ...]:
        samples = [(sample.name, sample.labels, sample.value) for sample in metric.samples]
        return metric.name, metric.documentation, metric.type, samples

    return json.dumps([encoded(metric) for metric in metrics]).encode()


def _load(content: bytes) -> list[Metric]:
    metrics = []
    for name, documentation, kind, samples in json.loads(content):
        metric = Metric(name, documentation, kind)
        for sample in samples:
            metric.add_sample(*sample)
        metrics.append(metric)
    return metrics
