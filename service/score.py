"""`sonde score FILE --model NAME`: score a CSV's rows by a service or a local model."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from models.sensors.base import AnomalyModel, Readings, Scored, SensorKind, lasting_threshold
from models.sensors.events import EventRules, EventTracker
from models.sensors.missing import count_missing
from models.sensors.timestamps import to_iso
from models.training.csv_options import CsvOptions
from models.training.data.table import ColumnRoles, Table, read_table
from models.training.errors import TrainingDataError
from service.api.readings import first_disorder, order_error
from service.config import Settings
from service.errors import InvalidRequest, ModelNotFound, RequestError, WrongTask
from service.printable import printable

_MAX_EVENTS = 50
# Rows and values of one request, well below a service's default limits: as JSON a value has up to 26 bytes.
_MAX_ROWS = 10_000
_MAX_VALUES = 200_000
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Scores [n], p-values [n] and shares by column [n, d] of a table's rows.

    `calibrated_on` counts the normal readings behind the p-values. `threshold` is None where they are too few for
    alpha, or where it moves with each row. `drift`, as of the last row, is None where it is unknown.
    """

    scores: NDArray[np.float64]
    p_values: NDArray[np.float64]
    shares: NDArray[np.float64]
    threshold: float | None
    calibrated_on: int
    drift: bool | None


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
    scorer: Scorer = (
        _RemoteModel(parsed.url, parsed.model, parsed.key) if parsed.url else _LocalModel(settings, parsed.model)
    )
    table = read(parsed.file, scorer.columns, parsed.timestamp, csv_options(parsed.csv or []))
    if scorer.kind == "series":
        _require_order(table, parsed.file.name, parsed.timestamp)
    found = scorer.score(table, parsed.alpha)
    if parsed.out is not None:
        with _naming_flag("--out", parsed.out):
            _write(parsed.out, table, found, scorer.columns, parsed.alpha)
    if parsed.plot is not None:
        with _naming_flag("--plot", parsed.plot):
            _draw(parsed.plot, table, found, scorer.columns, parsed.alpha)
    lines = _summary(table, found, parsed.alpha)
    if scorer.kind == "series":
        lines += _event_lines(table, found, scorer.window, parsed.alpha)
    print(*map(printable, lines), sep="\n")
    return 0


def read(path: Path, columns: Sequence[str], timestamp: str | None, csv: CsvOptions) -> Table:
    """Read a CSV's columns, as a training job does. Raises InvalidRequest naming line and column of a wrong value."""
    try:
        try:
            return read_table(
                path, ColumnRoles(tuple(columns), timestamp, csv=csv), param=path.name, max_rows=sys.maxsize
            )
        except TrainingDataError as error:
            if error.code != "wrong_type" or error.column != timestamp:
                raise
            print(printable(f"{path.name}: {error.message}; rows are named by their lines"), file=sys.stderr)
            return read_table(path, ColumnRoles(tuple(columns), csv=csv), param=path.name, max_rows=sys.maxsize)
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
        scored = self._sensor.score(table.readings, contributions=True)
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

    def __init__(self, url: str, name: str, key: str | None) -> None:
        self._url, self._name, self._key = url.rstrip("/"), name, key
        about = self._call(f"/v1/models/{quote(name, safe='')}")
        if not (isinstance(about, dict) and isinstance(about.get("signature"), dict)):
            raise RequestError(f"{self._url} is not a Sonde service: expected a model with its signature")
        self._signature = about["signature"]
        if about["task"] != "anomaly" or "kind" not in self._signature:
            raise WrongTask(f"{name} is not a sensor model that detects anomalies", param="model")
        self.kind: SensorKind = self._signature["kind"]
        self.columns = tuple(self._signature["inputs"][0]["columns"])
        self.window: int = self._signature["window"]

    def score(self, table: Table, alpha: float) -> ScoredRows:
        """See Scorer."""
        _require_window(table, self.window)
        answers = list(self._answers(_to_json(table.readings), alpha))
        rows = [item for answer in answers for item in answer["data"]]
        shares = [[item["contributions"][column] for column in self.columns] for item in rows]
        scores, p_values = (np.array([item[name] for item in rows]) for name in ("score", "p_value"))
        drift, count = answers[-1]["drift"], answers[-1]["reference"]["count"]
        return ScoredRows(
            scores,
            p_values,
            np.array(shares),
            answers[-1]["threshold"],
            count,
            None if drift is None else drift["detected"],
        )

    def _answers(self, rows: list[list[float | None]], alpha: float) -> Iterator[Any]:
        """Send the rows in several requests; a series continues from the state of the one before."""
        records = self.kind == "records"
        state, step = None, rows_per_request(len(self.columns), self.window)
        for at in range(0, len(rows), step):
            body = {
                "model": self._name,
                "alpha": alpha,
                "contributions": True,
                "records" if records else "series": rows[at : at + step],
            }
            answer = self._call("/v1/anomaly/score", body if records else {**body, "state": state})
            state = answer["state"]
            yield answer

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"content-type": "application/json"} | ({"x-api-key": self._key} if self._key else {})
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self._url + path, data, headers)  # noqa: S310  # the address that the user gave
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RequestError(f"{self._url}{path}: {_service_error(error)}") from error
        except (OSError, ValueError, HTTPException) as error:
            raise RequestError(f"{self._url} does not answer: {error}") from error


def rows_per_request(columns: int, window: int) -> int:
    """Rows of one request; a series must begin with at least a window."""
    return max(min(_MAX_ROWS, _MAX_VALUES // columns), window)


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
            f"the file has {len(table.readings)} rows, the model needs at least {window}", param="file"
        )


def _service_error(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {error.code}"


@contextmanager
def _naming_flag(flag: str, path: Path) -> Iterator[None]:
    """Turn errors of writing a file into InvalidRequest that names the flag."""
    try:
        yield
    except OSError as error:
        raise InvalidRequest(f"{flag} {path}: {error.strerror}") from error


def _write(path: Path, table: Table, found: ScoredRows, columns: Sequence[str], alpha: float) -> None:
    times = _places(table) if table.times is not None else [""] * len(table.lines)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["line", "timestamp", "score", "p_value", "is_anomaly", *(f"contribution_{column}" for column in columns)]
        )
        for place, line in enumerate(table.lines.tolist()):
            p_value = float(found.p_values[place])
            shares = [round(float(share), 6) for share in found.shares[place]]
            writer.writerow([line, times[place], float(found.scores[place]), p_value, int(p_value <= alpha), *shares])


def _draw(path: Path, table: Table, found: ScoredRows, columns: Sequence[str], alpha: float) -> None:
    from models.training.sensors.report_plots import highest_of_stretches
    from service import plots

    kept = highest_of_stretches(found.scores).tolist()
    order = np.argsort(-found.shares[found.p_values <= alpha].sum(axis=0), kind="stable").tolist()
    data = {
        "x": [_places(table)[at] for at in kept],
        "columns": {columns[column]: table.readings[kept, column].tolist() for column in order},
        "scores": found.scores[kept].tolist(),
        "threshold": {f"{alpha:g}": found.threshold},
        "anomalies": [place for place, at in enumerate(kept) if found.p_values[at] <= alpha],
    }
    path.write_bytes(plots.render(plots.series(data), "png" if path.suffix == ".png" else "svg"))


def _places(table: Table) -> list[str] | list[int]:
    """Each row's time in ISO 8601, or its line where there are no times."""
    if table.times is None:
        lines: list[int] = table.lines.tolist()
        return lines
    return [to_iso(seconds) for seconds in table.times.tolist()]


def _event_lines(table: Table, found: ScoredRows, window: int, alpha: float) -> list[str]:
    """A table of events: from when to when, how long, how strange, and the columns to blame."""
    scored = Scored(found.scores.astype(np.float32), found.p_values, found.shares.astype(np.float32), None, {})
    events = EventTracker().update(scored, EventRules(alpha, gap=window))
    if not events:
        return []
    places = [str(place) for place in _places(table)]
    rows = [("start", "end", "readings", "severity", "p-value of the peak", "columns")]
    for event in events[:_MAX_EVENTS]:
        blamed = ", ".join(f"{name} {share:.0%}" for name, share in event.blamed(table.columns)[:3])
        end = "open" if event.open else places[event.end.row]
        severity = event.severity(alpha, found.calibrated_on)
        start, peak = places[event.start.row], f"{event.peak_p_value:.2g}"
        rows.append((start, end, str(event.readings), severity, peak, blamed))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    more = [f"and {len(events) - _MAX_EVENTS} more"] if len(events) > _MAX_EVENTS else []
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return ["", f"{len(events)} events", *shown, *more]


def _summary(table: Table, found: ScoredRows, alpha: float) -> list[str]:
    """The lines for the terminal. A column's name may come from another person's file."""
    columns, anomalous = table.columns, found.p_values <= alpha
    share = 100 * float(anomalous.mean())
    lines = [f"read as: {', '.join(table.read_as)}"] if table.read_as else []
    lines += [f"{name}: {n} values are missing" for name, n in count_missing(table.readings, columns).items()]
    lines += [f"{len(anomalous)} rows, {int(anomalous.sum())} anomalies at alpha {alpha:g} ({share:.1f} %)"]
    if anomalous.any():
        shares = found.shares[anomalous].mean(axis=0)
        largest = np.argsort(-shares, kind="stable")[:3].tolist()
        named = ", ".join(f"{columns[column]} {100 * shares[column]:.0f} %" for column in largest)
        lines.append(f"columns with the largest contribution: {named}")
    if 1 / (1 + found.calibrated_on) > alpha:
        lines.append(f"the model was calibrated on too few normal readings for alpha {alpha:g}")
    if found.drift:
        lines.append("drift: these readings have changed since the training; see docs/guides/sensors.md")
    return lines
