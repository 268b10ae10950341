"""What `sonde score` gives of a scored file: a CSV, a plot, and a summary with a table of events."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.counted import counted
from models.sensors.events import Event, EventRules, EventTracker
from models.sensors.missing import count_missing
from models.sensors.model import Scored
from models.sensors.timestamps import to_iso
from models.training.data.table import Table

_MAX_EVENTS = 50


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


def write(path: Path, table: Table, found: ScoredRows, columns: Sequence[str], alpha: float) -> None:
    """Write each row's score, p-value, verdict and shares by column as CSV."""
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


def draw(path: Path, table: Table, found: ScoredRows, columns: Sequence[str], alpha: float, window: int | None) -> None:
    """Draw readings, scores and anomalies into a file that ends in .png or .svg; `window` is that of a series."""
    from models.training.sensors.report_plots import highest_of_stretches
    from service import plots

    machines = np.concatenate([rows for _, rows in each_stream(table)])
    kept = machines[highest_of_stretches(found.scores[machines])].tolist()
    places = _places(table)
    order = np.argsort(-found.shares[found.p_values <= alpha].sum(axis=0), kind="stable").tolist()
    data = {
        "x": [places[at] for at in kept],
        "columns": {columns[column]: table.readings[kept, column].tolist() for column in order},
        "scores": found.scores[kept].tolist(),
        "threshold": {f"{alpha:g}": found.threshold},
        "anomalies": [place for place, at in enumerate(kept) if found.p_values[at] <= alpha],
        "marks": _marks(table, found, kept, window, alpha),
    }
    path.write_bytes(plots.render(plots.series(data), "png" if path.suffix == ".png" else "svg"))


def _marks(
    table: Table, found: ScoredRows, kept: Sequence[int], window: int | None, alpha: float
) -> dict[str, list[int]] | None:
    """By column, the anomalies (indices into `kept`) of the events for which it is to blame; None for records."""
    if window is None:
        return None
    marks: dict[str, list[int]] = {}
    for _, rows, event in _all_events(table, found, window, alpha):
        own = set(rows[event.start.row : event.end.row + 1].tolist())
        inside = [place for place, at in enumerate(kept) if at in own and found.p_values[at] <= alpha]
        for column in event.main_columns(table.columns):
            marks.setdefault(column, []).extend(inside)
    return marks


def _places(table: Table) -> list[str] | list[int]:
    """Each row's time in ISO 8601 and the file's zone, or its line where there are no times."""
    if table.times is None:
        lines: list[int] = table.lines.tolist()
        return lines
    return [to_iso(seconds, table.zone) for seconds in table.times.tolist()]


def event_lines(table: Table, found: ScoredRows, window: int, alpha: float) -> list[str]:
    """A table of events: from when to when, how long, how strange, and the columns to blame."""
    places = [str(place) for place in _places(table)]
    order = (table.lines if table.times is None else table.times).tolist()
    events = _all_events(table, found, window, alpha)
    if not events:
        return []
    lines = [("", "start", "end", "readings", "severity", "p-value of the peak", "columns")]
    for name, rows, event in sorted(events, key=lambda one: order[one[1][one[2].start.row]])[:_MAX_EVENTS]:
        blamed = ", ".join(f"{column} {share:.0%}" for column, share in event.blamed(table.columns)[:3])
        end = "open" if event.open else places[rows[event.end.row]]
        start, peak = places[rows[event.start.row]], f"{event.peak_p_value:.2g}"
        severity = event.severity(alpha, found.calibrated_on)
        lines.append((name, start, end, str(event.readings), severity, peak, blamed))
    kept = range(0 if table.groups is not None else 1, len(lines[0]))
    widths = {column: max(len(line[column]) for line in lines) for column in kept}
    shown = ["  ".join(line[column].ljust(widths[column]) for column in kept).rstrip() for line in lines]
    more = [f"and {len(events) - _MAX_EVENTS} more"] if len(events) > _MAX_EVENTS else []
    return ["", counted(len(events), "event"), *shown, *more]


def each_stream(table: Table) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The name and rows of each group, in the order of the file; all rows where there are no groups."""
    if table.groups is None:
        yield "", np.arange(len(table))
        return
    names = np.array(table.groups)
    for name in dict.fromkeys(table.groups):
        yield name, np.flatnonzero(names == name)


def _all_events(
    table: Table, found: ScoredRows, window: int, alpha: float
) -> list[tuple[str, NDArray[np.int64], Event]]:
    return [one for name, rows in each_stream(table) for one in _events(name, rows, found, window, alpha)]


def _events(
    name: str, rows: NDArray[np.int64], found: ScoredRows, window: int, alpha: float
) -> list[tuple[str, NDArray[np.int64], Event]]:
    shares = found.shares[rows].astype(np.float32)
    scored = Scored(found.scores[rows].astype(np.float32), found.p_values[rows], shares, None, {})
    return [(name, rows, event) for event in EventTracker().update(scored, EventRules(alpha, gap=window))]


def summary(table: Table, found: ScoredRows, alpha: float) -> list[str]:
    """The lines for the terminal. A column's name may come from another person's file."""
    columns, anomalous = table.columns, found.p_values <= alpha
    share = 100 * float(anomalous.mean())
    lines = [f"read as: {', '.join(table.read_as)}"] if table.read_as else []
    lines += [
        f"{name}: {counted(n, 'value is', 'values are')} missing"
        for name, n in count_missing(table.readings, columns).items()
    ]
    found_some = counted(int(anomalous.sum()), "anomaly", "anomalies")
    lines.append(f"{counted(len(anomalous), 'row')}, {found_some} at alpha {alpha:g} ({share:.1f} %)")
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
