"""Plots of reports, `sonde score` and `sonde bench`. The first one imports matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["svg", "png"]
TITLES = {
    "series": "Held-out readings, their scores and the alarms",
    "forecast": "Forecasts of the held-out readings",
    "contributions": "Columns to blame for the alarms",
    "horizon": "Error by steps ahead",
    "training": "Loss by epoch",
    "calibration": "Confidence against accuracy",
}
_WIDTH, _PANEL, _MAX_PANELS = 10.0, 1.3, 12
_RED, _BLUE, _GREY = "#c0392b", "#2c6fbb", "#777777"


def available(plots: Mapping[str, Any]) -> list[str]:
    """The plots that a report's `plots` has data for, in the order of TITLES."""
    return [name for name in TITLES if plots.get(name)]


def draw(name: str, plots: Mapping[str, Any], form: Format) -> bytes:
    """Draw one plot of a report's `plots` as a file. Raises KeyError where it has no data."""
    drawings: dict[str, Callable[[Any], Figure]] = {
        "series": series,
        "forecast": forecast,
        "contributions": contributions,
        "horizon": horizon,
        "training": training,
        "calibration": calibration,
    }
    figure = drawings[name](plots[name])
    figure.suptitle(TITLES[name], fontsize=11)
    return render(figure, form)


def series(data: Mapping[str, Any]) -> Figure:
    """Draw readings, and below them scores, thresholds and anomalies.

    `data` has `x` (times, texts or numbers), `columns` (name → readings), `scores`, `threshold` (alpha → score or None)
    and `anomalies` (indices into x). It may have `labels` (0 or 1) and `marks` (name → the anomalies that it is to
    blame for, else all). The readings of several machines follow each other.
    """
    x, marks = _positions(data["x"]), data.get("marks")
    columns = list(data["columns"].items())[:_MAX_PANELS]
    figure = new_figure(_PANEL * (len(columns) + 2))
    grid = figure.subplots(len(columns) + 1, 1, sharex=True, squeeze=False, height_ratios=[*[1.0] * len(columns), 2.0])
    axes: list[Axes] = list(grid[:, 0])
    for axis, (name, readings) in zip(axes, columns, strict=False):
        axis.plot(*_line(x, readings), color=_BLUE, linewidth=0.8)
        axis.set_ylabel(_printable(name), rotation=0, ha="right", va="center", fontsize=8, parse_math=False)
        _mark_anomalies(axis, x, readings, data["anomalies"] if marks is None else marks.get(name, ()))
    marked = "" if marks is None else "; dots are alarms, on the columns to blame"
    axes[0].set_title(f"columns in the units of the file{marked}", loc="left", fontsize=8)
    _shade_labels(axes, x, data.get("labels"))
    _draw_scores(axes[-1], x, data)
    _name_positions(axes[-1], data["x"], x)
    figure.autofmt_xdate()
    return figure


def forecast(data: Mapping[str, Any]) -> Figure:
    """Draw readings and forecasts, one horizon at a time: median and 80 % interval.

    `data` has `x` (times, texts or numbers) and `origins` (indices into x at which forecasts begin). Each of its
    `columns` has `actual` for all of x, and `median`, `low` and `high` from the first origin on.
    """
    x, columns = _positions(data["x"]), list(data["columns"].items())[:_MAX_PANELS]
    figure = new_figure(1.0 + 1.5 * _PANEL * len(columns))
    axes: list[Axes] = list(figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0])
    first = data["origins"][0]
    for axis, (name, known) in zip(axes, columns, strict=True):
        axis.plot(x, known["actual"], color=_GREY, linewidth=0.9, label="actual")
        # One line per forecast: a line from the end of one to the start of the next would look like a forecast.
        for begin, end in zip(data["origins"], [*data["origins"][1:], len(x)], strict=True):
            part, is_first = slice(begin - first, end - first), begin == first
            axis.plot(
                x[begin:end],
                known["median"][part],
                color=_BLUE,
                linewidth=1.0,
                label="median forecast" if is_first else None,
            )
            label = "80 % interval" if is_first else None
            axis.fill_between(
                x[begin:end], known["low"][part], known["high"][part], color=_BLUE, alpha=0.2, linewidth=0, label=label
            )
            axis.axvline(x[begin], color=_GREY, linestyle=":", linewidth=0.7)
        axis.set_ylabel(_printable(name), rotation=0, ha="right", va="center", fontsize=8, parse_math=False)
    axes[0].legend(loc="upper left", fontsize=8)
    axes[0].set_title("columns in the units of the file; dotted lines begin a forecast", loc="left", fontsize=8)
    _name_positions(axes[-1], data["x"], x)
    figure.autofmt_xdate()
    return figure


def horizon(errors: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the mean squared error of each step ahead, of the model and of naive forecasts."""
    figure = new_figure(3.5)
    axis = figure.subplots()
    for (name, steps), color, style in zip(errors.items(), (_BLUE, _GREY, _RED), ("-", "--", ":"), strict=False):
        axis.plot(
            range(1, len(steps) + 1), steps, style, color=color, marker="." if len(steps) == 1 else None, label=name
        )
    axis.set_xlabel("steps ahead")
    axis.set_ylabel("mean squared error (variances)")
    axis.set_ylim(bottom=0)
    axis.legend(loc="upper left", fontsize=8)
    return figure


def contributions(shares: Mapping[str, float]) -> Figure:
    """Draw each column's mean share of the score, the largest on top."""
    ordered = sorted(shares.items(), key=lambda item: item[1])[-3 * _MAX_PANELS :]
    figure = new_figure(1.2 + 0.3 * len(ordered))
    axis = figure.subplots()
    axis.barh(range(len(ordered)), [share for _, share in ordered], color=_BLUE)
    axis.set_yticks(range(len(ordered)), [_printable(name) for name, _ in ordered], parse_math=False)
    axis.set_xlabel("mean share of the score (0 to 1)")
    return figure


def training(curve: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the mean training loss of each epoch, and the validation loss if there is one."""
    figure = new_figure(3.0)
    axis = figure.subplots()
    axis.plot(range(1, len(curve["loss"]) + 1), curve["loss"], color=_BLUE, marker=".", label="training")
    if losses := curve.get("validation"):
        axis.plot(range(len(losses)), losses, color=_RED, marker=".", label="validation")
    axis.legend(fontsize=8)
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss")
    return figure


def calibration(curve: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the accuracy of rows of like confidence with its 95 % interval; a calibrated model is on the diagonal."""
    figure = new_figure(5.0)
    axis = figure.subplots()
    accuracy = curve["accuracy"]
    below = [value - low for value, low in zip(accuracy, curve["low"], strict=True)]
    above = [high - value for value, high in zip(accuracy, curve["high"], strict=True)]
    axis.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=0.9, label="calibrated")
    axis.errorbar(
        curve["confidence"], accuracy, (below, above), fmt="o", color=_BLUE, capsize=3, label="accuracy, 95 % interval"
    )
    for x, y, rows in zip(curve["confidence"], accuracy, curve["rows"], strict=True):
        axis.annotate(f"{rows} rows", (x, y), (6, -11), textcoords="offset points", fontsize=8)
    axis.set(xlim=(0, 1.08), ylim=(0, 1.04), xlabel="mean confidence (0 to 1)", ylabel="share of rows that are right")
    axis.legend(loc="upper left", fontsize=8)
    return figure


def line(points: Sequence[tuple[float, float]], ticks: Mapping[float, str]) -> Figure:
    """Draw a line from (0, 0) on, with the given labels at places of the x axis."""
    figure = new_figure(3.5)
    axis = figure.subplots()
    axis.plot([x for x, _ in points], [y for _, y in points], color=_BLUE, gid="line")
    axis.set_xticks(list(ticks), list(ticks.values()))
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", color="#dddddd")
    return figure


def render(figure: Figure, form: Format) -> bytes:
    """Encode a figure as a file; equal figures give equal bytes."""
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(stream, format=form, metadata=metadata, dpi=80)
    return stream.getvalue()


def new_figure(height: float) -> Figure:
    """An empty figure of the common width, `height` inches high."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "sonde"  # without it, ids inside a file are random
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _line(x: Sequence[Any], values: Sequence[float]) -> tuple[list[Any], list[float]]:
    """The points of a line that is broken where x goes back, as where the readings of the next machine begin."""
    places, heights = list[Any](), list[float]()
    for place, height in zip(x, values, strict=True):
        if places and place < places[-1]:
            places.append(place)
            heights.append(math.nan)
        places.append(place)
        heights.append(height)
    return places, heights


def _draw_scores(axis: Axes, x: Sequence[Any], data: Mapping[str, Any]) -> None:
    axis.plot(*_line(x, data["scores"]), color=_GREY, linewidth=0.8, label="score")
    _mark_anomalies(axis, x, data["scores"], data["anomalies"], label="alarm")
    for style, (alpha, score) in zip(("--", ":", "-."), data["threshold"].items(), strict=False):
        if score is not None:
            axis.axhline(score, color=_RED, linestyle=style, linewidth=0.9, label=f"threshold at alpha {alpha}")
    axis.set_ylabel("score (no unit)")
    # Above the axes, where it hides no peak.
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=5, frameon=False, fontsize=8)


def _mark_anomalies(
    axis: Axes, x: Sequence[Any], values: Sequence[float], found: Sequence[int], label: str | None = None
) -> None:
    label = label if found else None
    axis.plot([x[at] for at in found], [values[at] for at in found], ".", color=_RED, markersize=4, label=label)


def _shade_labels(axes: Sequence[Axes], x: Sequence[Any], labels: Sequence[int] | None) -> None:
    """Shade the readings that the file labels as anomalies."""
    runs = _runs(labels or [])
    for axis in axes:
        for number, (first, last) in enumerate(runs):
            label = "labelled as an anomaly" if axis is axes[-1] and not number else None
            axis.axvspan(x[first], x[last], color=_RED, alpha=0.12, linewidth=0, label=label)


def _runs(labels: Sequence[int]) -> list[tuple[int, int]]:
    """First and last index of each run of ones."""
    edges = [
        at for at in range(len(labels) + 1) if (at < len(labels) and labels[at]) != (at > 0 and bool(labels[at - 1]))
    ]
    return [(first, after - 1) for first, after in zip(edges[::2], edges[1::2], strict=True)]


def _positions(values: Sequence[Any]) -> list[Any]:
    """Parse times and keep numbers; 0, 1, 2, … where a text is not a time."""
    try:
        return [datetime.fromisoformat(value) if isinstance(value, str) else value for value in values]
    except ValueError:
        return list(range(len(values)))


def _name_positions(axis: Axes, values: Sequence[Any], x: Sequence[Any]) -> None:
    """Name the axis; label positions with their texts, where there is room, unless they are times."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator

    is_time = len(x) > 0 and isinstance(x[0], datetime)
    axis.set_xlabel("time" if is_time else "line of the file")
    if is_time:
        locator = AutoDateLocator(tz=x[0].tzinfo)  # type: ignore[no-untyped-call]  # matplotlib has no types here
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=x[0].tzinfo))  # type: ignore[no-untyped-call]
        return
    if list(values[:1]) == list(x[:1]):
        return
    # A dollar sign would start a formula.
    names = [_printable(str(value)).replace("$", r"\$") for value in values]
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.xaxis.set_major_formatter(lambda place, _: names[int(place)] if place in range(len(names)) else "")


def _printable(name: str) -> str:
    """A column's name with printable characters alone, cut to leave room for the plot."""
    return "".join(letter if letter.isprintable() else " " for letter in name)[:24]
