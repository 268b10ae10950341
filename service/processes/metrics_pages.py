"""The metrics of several processes as one: each keeps a page on a board, and whoever is asked adds the pages up.

prometheus_client's own multiprocess mode can neither remove a series (of a model that is gone) nor ask a function
for a gauge.
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

from service.metrics import TOGETHER

log = logging.getLogger(__name__)

_REFRESH_S = 1.0
_PATIENCE_S = 2.0
_OURS = "sonde_"


class MetricsPage:
    """What one process has counted, as a file that is renewed every second and whenever somebody asks, by a thread
    of its own.

    The next process of the same name goes on from what the file says, so that nothing that was counted is lost: of a
    process that is killed, what happened after its last renewal. Whatever has been shown to anybody has been written
    before.
    """

    def __init__(self, board: Path, name: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._registry = registry
        self._file, self._socket = _paths(board, name)
        self._before = _counted(_load(self._file.read_bytes())) if self._file.exists() else []
        self._write()
        self._socket.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._socket))
        self._listener.listen()
        self._listener.settimeout(_REFRESH_S)
        self._closed = False
        self._thread = threading.Thread(target=self._keep, name="metrics-page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write it for the last time."""
        self._closed = True
        if (waking := _ask(self._socket)) is not None:
            waking.close()
        self._thread.join()
        self._listener.close()
        self._write()

    def _keep(self) -> None:
        while not self._closed:
            try:
                asking, _ = self._listener.accept()
            except TimeoutError:
                self._write()
                continue
            with asking:
                if not self._closed:
                    self._answer(asking)

    def _answer(self, asking: socket.socket) -> None:
        content = self._write()
        asking.settimeout(_PATIENCE_S)
        try:
            asking.sendall(content)
        except OSError as error:
            log.warning("metrics were asked for and not taken: %s", error)

    def _write(self) -> bytes:
        content = _dump(total([_labelled(self._registry.collect(), self._name), self._before]))
        new = self._file.with_suffix(".new")
        try:
            new.write_bytes(content)
            new.replace(self._file)
        except OSError as error:  # a full disk: those who ask get their answer all the same
            log.warning("the page of metrics cannot be kept: %s", error)
        return content


class MetricsAggregator(Collector):
    """All pages together. What a process that is gone had counted still counts; its gauges do not."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> list[Metric]:
        """The sum of all processes, as it is now. Blocks for some milliseconds."""
        names = sorted(path.stem for path in self._directory.glob("*.json"))
        # All are asked before any is heard, so that they write side by side.
        asked = [(name, _ask(_paths(self._directory, name)[1])) for name in names]
        return total([_answer_of(asking) or self._left_by(name) for name, asking in asked])

    def registry(self) -> CollectorRegistry:
        """A registry of nothing else."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def _left_by(self, name: str) -> list[Metric]:
        return _counted(_load(_paths(self._directory, name)[0].read_bytes()))


def total(pages: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Pages as one: values of the same series are added up, but for those of which TOGETHER says otherwise."""
    metrics: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for metric in (metric for page in pages for metric in page):
        metrics.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
        series = values.setdefault(metric.name, {})
        for sample in metric.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            series[key] = _together(sample.name)(series[key], sample.value) if key in series else sample.value
    for name, metric in metrics.items():
        for (sample_name, labels), value in values[name].items():
            metric.add_sample(sample_name, dict(labels), value)
    return list(metrics.values())


def _together(sample: str) -> Callable[[float, float], float]:
    return min if sample.endswith("_created") else TOGETHER.get(sample, operator.add)


def _labelled(metrics: Iterable[Metric], process: str) -> Iterable[Metric]:
    """With the process's name on what describes the process itself: nobody wants the sum of two start times."""
    for metric in metrics:
        if not metric.name.startswith(_OURS):
            metric.samples = [
                sample._replace(labels={**sample.labels, "process": process}) for sample in metric.samples
            ]
        yield metric


def _counted(metrics: Iterable[Metric]) -> list[Metric]:
    """What stays true of a process that is gone."""
    return [metric for metric in metrics if metric.type in {"counter", "histogram"} and metric.name.startswith(_OURS)]


def _paths(board: Path, name: str) -> tuple[Path, Path]:
    return board / f"{name}.json", board / f"{name}.socket"


def _ask(path: Path) -> socket.socket | None:
    """A connection to who keeps a page; None when it is gone."""
    asking = socket.socket(socket.AF_UNIX)
    asking.settimeout(_PATIENCE_S)
    try:
        asking.connect(str(path))
    except OSError:
        asking.close()
        return None
    return asking


def _answer_of(asking: socket.socket | None) -> list[Metric] | None:
    """The page; None when its keeper is gone, or ends now."""
    if asking is None:
        return None
    with asking:
        try:
            with asking.makefile("rb") as stream:
                return _load(stream.read())
        except (OSError, ValueError):
            return None


def _dump(metrics: Iterable[Metric]) -> bytes:
    return json.dumps(
        [
            (
                metric.name,
                metric.documentation,
                metric.type,
                [(one.name, one.labels, one.value) for one in metric.samples],
            )
            for metric in metrics
        ]
    ).encode()


def _load(content: bytes) -> list[Metric]:
    metrics = []
    for name, documentation, kind, samples in json.loads(content):
        metric = Metric(name, documentation, kind)
        for sample in samples:
            metric.add_sample(*sample)
        metrics.append(metric)
    return metrics
