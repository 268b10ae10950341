"""`sonde score FILE --model NAME`: score a CSV's rows by a service or a local model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from pydantic import ValidationError

from models.counted import counted
from models.sensors.missing import MAX_MISSING
from models.sensors.model import AnomalyModel, Readings, SensorKind, lasting_threshold
from models.sensors.timestamps import to_iso
from models.training.csv_options import CsvOptions
from models.training.data.table import ColumnRoles, Table, read_table
from models.training.errors import TrainingDataError
from service.api.readings import first_disorder, order_error
from service.client import Client
from service.client.errors import UnexpectedAnswer
from service.client.pieces import score_in_pieces
from service.config import Settings
from service.errors import InvalidRequest, ModelNotFound, WrongTask
from service.printable import printable
from service.score_output import ScoredRows, draw, each_stream, event_lines, summary, write

_TIMEOUT_S = 120.0


class Scorer(Protocol):
    """A source of scores."""

    @property
    def kind(self) -> SensorKind: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def window(self) -> int: ...

    def score(self, table: Table, alpha: float) -> ScoredRows:
        """Score all rows."""
        ...


def run(parsed: argparse.Namespace, settings: Settings) -> int:
    """Score a file, write plot and output, and print a summary. Raises SondeError."""
    if parsed.plot is not None and parsed.plot.suffix not in {".png", ".svg"}:
        raise InvalidRequest(f"--plot: expected a file that ends in .png or .svg, got {parsed.plot.name}")
    if not 1e-6 <= parsed.alpha < 1:
        raise InvalidRequest(f"--alpha: expected 0.000001 to below 1, got {parsed.alpha:g}")
    for flag, path in (("--plot", parsed.plot), ("--out", parsed.out)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise InvalidRequest(f"{flag}: expected a file in a directory that exists, got {path}")
    with _open_scorer(parsed, settings) as scorer:
        return _score_file(scorer, parsed)


@contextmanager
def _open_scorer(parsed: argparse.Namespace, settings: Settings) -> Iterator[Scorer]:
    """A model of a running service where there is `--url`, else one of the home. Raises SondeError."""
    if not parsed.url:
        yield _LocalModel(settings, parsed.model)
        return
    with Client(parsed.url, parsed.key, timeout_s=_TIMEOUT_S) as client:
        yield _RemoteModel(client, parsed.model)


def _score_file(scorer: Scorer, parsed: argparse.Namespace) -> int:
    csv = csv_options(parsed.csv or [])
    table = read(parsed.file, ColumnRoles(scorer.columns, parsed.timestamp, parsed.group, csv=csv))
    found = _score_streams(scorer, table, parsed) if scorer.kind == "series" else scorer.score(table, parsed.alpha)
    if parsed.out is not None:
        with _naming_flag("--out", parsed.out):
            write(parsed.out, table, found, scorer.columns, parsed.alpha)
    if parsed.plot is not None:
        with _naming_flag("--plot", parsed.plot):
            window = scorer.window if scorer.kind == "series" else None
            draw(parsed.plot, table, found, scorer.columns, parsed.alpha, window)
    lines = summary(table, found, parsed.alpha)
    if scorer.kind == "series":
        lines += event_lines(table, found, scorer.window, parsed.alpha)
    print(*map(printable, lines), sep="\n")
    return 0


def _score_streams(scorer: Scorer, table: Table, parsed: argparse.Namespace) -> ScoredRows:
    """Score each group as a stream of its own; threshold and drift are the last one's."""
    scores, p_values, shares = np.zeros(len(table)), np.ones(len(table)), np.zeros(table.readings.shape)
    for _, rows in each_stream(table):
        times = None if table.times is None else table.times[rows]
        stream = Table(table.columns, table.readings[rows], table.lines[rows], times)
        _require_order(stream, parsed.file.name, parsed.timestamp)
        found = scorer.score(stream, parsed.alpha)
        scores[rows], p_values[rows], shares[rows] = found.scores, found.p_values, found.shares
    return replace(found, scores=scores, p_values=p_values, shares=shares)


def read(path: Path, roles: ColumnRoles) -> Table:
    """Read a CSV's columns, as a training job does. Raises InvalidRequest naming line and column of a wrong value."""
    try:
        try:
            return read_table(path, roles, param=path.name, max_rows=sys.maxsize)
        except TrainingDataError as error:
            if error.code != "wrong_type" or error.column is None or error.column != roles.timestamp:
                raise
            print(printable(f"{path.name}: {error.message}; rows are named by their lines"), file=sys.stderr)
            return read_table(path, replace(roles, timestamp=None), param=path.name, max_rows=sys.maxsize)
    except TrainingDataError as error:
        where = "" if error.message.startswith(path.name) else f"{path.name}, "
        raise InvalidRequest(f"{where}{error.message}", param="file") from error
    except OSError as error:
        raise InvalidRequest(f"{path.name} cannot be read: {error}", param="file") from error


def csv_options(given: Sequence[str]) -> CsvOptions:
    """The options of `--csv FIELD=VALUE`; values of `na_values` are separated by commas. Raises InvalidRequest."""
    fields: dict[str, object] = {}
    for one in given:
        name, _, value = one.partition("=")
        fields[name] = [part for part in value.split(",") if part] if name == "na_values" else value
    try:
        return CsvOptions.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        known = ", ".join(CsvOptions.model_fields)
        raise InvalidRequest(f"--csv {first['loc'][0]}: {first['msg']}; the fields are {known}") from error


def _require_order(table: Table, name: str, column: str) -> None:
    """Refuse a series that a service would refuse."""
    if table.times is not None and (at := first_disorder(table.times)) is not None:
        why = order_error(table.times[at], table.times[at - 1], f"the one on line {table.lines[at - 1]}")
        raise InvalidRequest(f"{name}, line {table.lines[at]}, {column}: {why}", param="file")


class _LocalModel:
    """A version in the local registry, loaded into this process."""

    def __init__(self, settings: Settings, name: str) -> None:
        from models.registry.artifact import verify
        from models.registry.names import parse_name
        from models.registry.registry import Registry
        from models.sensors.serialization import load_sensor

        registry = Registry(settings.registry_directory)
        bare, version = parse_name(registry.aliases().get(name, name))
        current = registry.current(bare) if version is None else None
        if version is None and current is None:
            raise ModelNotFound(f"{bare} has no version in service below {settings.home}", param="model")
        path = registry.path(bare, version if current is None else current.version)  # type: ignore[arg-type]  # one of them is set
        manifest = verify(path)
        if manifest.task != "anomaly" or manifest.encoder != "none":
            raise WrongTask(f"{name} is not a sensor model that detects anomalies", param="model")
        self._sensor = cast(AnomalyModel, load_sensor(path))
        self.kind, self.columns, self.window = self._sensor.kind, self._sensor.columns, self._sensor.window

    def score(self, table: Table, alpha: float) -> ScoredRows:
        """See Scorer."""
        _require_window(table, self.window)
        _require_values(table)
        scored = self._sensor.score(table.readings, times=table.times, contributions=True)
        shares = (
            np.zeros(table.readings.shape) if scored.contributions is None else scored.contributions.astype(np.float64)
        )
        drift = None if scored.drift is None else scored.drift.detected
        threshold = lasting_threshold(self._sensor, alpha)
        return ScoredRows(
            scored.scores.astype(np.float64), scored.p_values, shares, threshold, self._sensor.calibrated_on, drift
        )


class _RemoteModel:
    """A model of a running service."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name
        about = client.model(name)
        if about.task != "anomaly" or "kind" not in about.signature:
            raise WrongTask(f"{name} is not a sensor model that detects anomalies", param="model")
        self._signature = about.signature
        self.kind: SensorKind = about.signature["kind"]
        self.columns = tuple(about.signature["inputs"][0]["columns"])
        self.window: int = about.signature["window"]

    def score(self, table: Table, alpha: float) -> ScoredRows:
        """See Scorer."""
        _require_window(table, self.window)
        times = None if table.times is None else [to_iso(seconds) for seconds in table.times.tolist()]
        readings = _to_json(table.readings)
        scored = score_in_pieces(self._client, self._name, self._signature, readings, alpha=alpha, timestamps=times)
        answers = list(scored)
        rows, last = [item for answer in answers for item in answer.data], answers[-1]
        if len(rows) != len(table):
            raise UnexpectedAnswer(f"expected {len(table)} scores, one a reading, got {len(rows)}")
        shares = [[(item.contributions or {}).get(column, 0.0) for column in self.columns] for item in rows]
        return ScoredRows(
            np.array([item.score for item in rows]),
            np.array([item.p_value for item in rows]),
            np.array(shares),
            last.threshold,
            last.reference.count,
            None if last.drift is None else last.drift.detected,
        )


def _to_json(readings: Readings) -> list[list[float | None]]:
    """Rows [n, d] with None where a reading is missing."""
    missing = np.isnan(readings)
    return [
        [None if absent else value for value, absent in zip(row, lacks, strict=True)]
        for row, lacks in zip(readings.tolist(), missing.tolist(), strict=True)
    ]


def _require_window(table: Table, window: int) -> None:
    if len(table.readings) < window:
        raise InvalidRequest(
            f"the file has {counted(len(table.readings), 'row')}, the model needs at least {window}", param="file"
        )


def _require_values(table: Table) -> None:
    """Refuse a file that lacks more values than a service takes."""
    share = np.isnan(table.readings).mean()
    if share > MAX_MISSING:
        message = f"{share:.0%} of the values are missing, the model takes at most {MAX_MISSING:.0%}"
        raise InvalidRequest(message, param="file")


@contextmanager
def _naming_flag(flag: str, path: Path) -> Iterator[None]:
    """Turn errors of writing a file into InvalidRequest that names the flag."""
    try:
        yield
    except OSError as error:
        raise InvalidRequest(f"{flag} {path}: {error.strerror}") from error
