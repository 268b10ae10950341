"""What a job on numbers found, and what `sonde score` did, as pictures. matplotlib is imported with the first of
them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["svg", "png"]
NAMES = ("series", "forecast", "contributions", "horizon", "training")
_WIDTH, _PANEL, _MOST_PANELS = 10.0, 1.3, 12
_RED, _BLUE, _GREY = "#c0392b", "#2c6fbb", "#777777"


def available(plots: Mapping[str, Any]) -> list[str]:
    """Which of `NAMES` a report's `plots` has the data for."""
    return [name for name in NAMES if plots.get(name)]


def draw(name: str, plots: Mapping[str, Any], form: Format) -> bytes:
    """One plot of a report's `plots` as a file. KeyError where there is no data for it."""
    drawings: dict[str, Callable[[Any], Figure]] = {
        "series": series,
        "forecast": forecast,
        "contributions": contributions,
        "horizon": horizon,
        "training": training,
    }
    return written(drawings[name](plots[name]), form)


def series(data: Mapping[str, Any]) -> Figure:
    """Readings, and below them their scores, thresholds, and what is an anomaly.

    `data` has `x` (times, texts or numbers), `columns` (name → readings), `scores`, `threshold` (alpha → score or
    None), `anomalies` (indices into x), and perhaps `labels` (0 or 1).
    """
    x = _places(data["x"])
    columns = list(data["columns"].items())[:_MOST_PANELS]
    figure = _figure(_PANEL * (len(columns) + 2))
    grid = figure.subplots(len(columns) + 1, 1, sharex=True, squeeze=False, height_ratios=[*[1.0] * len(columns), 2.0])
    axes: list[Axes] = list(grid[:, 0])
    for axis, (name, readings) in zip(axes, columns, strict=False):
        axis.plot(x, readings, color=_BLUE, linewidth=0.8)
        axis.set_ylabel(_plain(name), rotation=0, ha="right", va="center", fontsize=8, parse_math=False)
        _mark(axis, x, readings, data["anomalies"])
    _scores(axes[-1], x, data)
    _labelled(axes, x, data.get("labels"))
    _name_places(axes[-1], data["x"], x)
    figure.autofmt_xdate()
    return figure


def forecast(data: Mapping[str, Any]) -> Figure:
    """What came, and what was forecast of it a horizon at a time: the median and the 80 % interval.

    `data` has `x` (times, texts or numbers), `origins` (indices into x at which forecasts begin), and `columns`
    (name → `actual` for all of x; `median`, `low` and `high` from the first origin on).
    """
    x, columns = _places(data["x"]), list(data["columns"].items())[:_MOST_PANELS]
    figure = _figure(1.0 + 1.5 * _PANEL * len(columns))
    axes: list[Axes] = list(figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0])
    first = data["origins"][0]
    for axis, (name, known) in zip(axes, columns, strict=True):
        axis.plot(x, known["actual"], color=_GREY, linewidth=0.9, label="actual")
        # Each forecast by itself: a line from the end of one to the beginning of the next would be nobody's forecast.
        for begin, end in zip(data["origins"], [*data["origins"][1:], len(x)], strict=True):
            part, told = slice(begin - first, end - first), begin == first
            axis.plot(
                x[begin:end],
                known["median"][part],
                color=_BLUE,
                linewidth=1.0,
                label="median forecast" if told else None,
            )
            label = "80 % interval" if told else None
            axis.fill_between(
                x[begin:end], known["low"][part], known["high"][part], color=_BLUE, alpha=0.2, linewidth=0, label=label
            )
            axis.axvline(x[begin], color=_GREY, linestyle=":", linewidth=0.7)
        axis.set_ylabel(_plain(name), rotation=0, ha="right", va="center", fontsize=8, parse_math=False)
    axes[0].legend(loc="upper left", fontsize=8)
    _name_places(axes[-1], data["x"], x)
    figure.autofmt_xdate()
    return figure


def horizon(errors: Mapping[str, Sequence[float]]) -> Figure:
    """The mean squared error of each step ahead: the model's (first), and those of naive forecasts."""
    figure = _figure(3.5)
    axis = figure.subplots()
    for (name, steps), color, style in zip(errors.items(), (_BLUE, _GREY, _RED), ("-", "--", ":"), strict=False):
        axis.plot(
            range(1, len(steps) + 1), steps, style, color=color, marker="." if len(steps) == 1 else None, label=name
        )
    axis.set_xlabel("steps ahead")
    axis.set_ylabel("mean squared error")
    axis.set_ylim(bottom=0)
    axis.legend(loc="upper left", fontsize=8)
    return figure


def contributions(shares: Mapping[str, float]) -> Figure:
    """Each column's mean share of the score, the largest on top."""
    ordered = sorted(shares.items(), key=lambda item: item[1])[-3 * _MOST_PANELS :]
    figure = _figure(1.2 + 0.3 * len(ordered))
    axis = figure.subplots()
    axis.barh(range(len(ordered)), [share for _, share in ordered], color=_BLUE)
    axis.set_yticks(range(len(ordered)), [_plain(name) for name, _ in ordered], parse_math=False)
    axis.set_xlabel("mean share of the score")
    return figure


def training(curve: Mapping[str, Sequence[float]]) -> Figure:
    """The mean loss of each epoch, and the error on the `validation` part before the first and after each, where
    there was one.
    """
    figure = _figure(3.0)
    axis = figure.subplots()
    axis.plot(range(1, len(curve["loss"]) + 1), curve["loss"], color=_BLUE, marker=".", label="training")
    if judged := curve.get("validation"):
        axis.plot(range(len(judged)), judged, color=_RED, marker=".", label="validation")
        axis.legend(fontsize=8)
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss")
    return figure


def written(figure: Figure, form: Format) -> bytes:
    """A figure as the bytes of a file; equal figures give equal bytes."""
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(stream, format=form, metadata=metadata, dpi=80)
    return stream.getvalue()


def _figure(height: float) -> Figure:
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "sonde"  # the ids inside a file are random without it
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _scores(axis: Axes, x: Sequence[Any], data: Mapping[str, Any]) -> None:
    axis.plot(x, data["scores"], color=_GREY, linewidth=0.8)
    _mark(axis, x, data["scores"], data["anomalies"])
    for style, (alpha, score) in zip(("--", ":", "-."), data["threshold"].items(), strict=False):
        if score is not None:
            axis.axhline(score, color=_RED, linestyle=style, linewidth=0.9, label=f"threshold at alpha {alpha}")
    axis.set_ylabel("score")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper left", fontsize=8)


def _mark(axis: Axes, x: Sequence[Any], values: Sequence[float], found: Sequence[int]) -> None:
    axis.plot([x[at] for at in found], [values[at] for at in found], ".", color=_RED, markersize=4)


def _labelled(axes: Sequence[Axes], x: Sequence[Any], labels: Sequence[int] | None) -> None:
    """Shade what the file says is an anomaly."""
    runs = _runs(labels or [])
    for axis in axes:
        for first, last in runs:
            axis.axvspan(x[first], x[last], color=_RED, alpha=0.12, linewidth=0)


def _runs(labels: Sequence[int]) -> list[tuple[int, int]]:
    """First and last index of each run of ones."""
    edges = [
        at for at in range(len(labels) + 1) if (at < len(labels) and labels[at]) != (at > 0 and bool(labels[at - 1]))
    ]
    return [(first, after - 1) for first, after in zip(edges[::2], edges[1::2], strict=True)]


def _places(values: Sequence[Any]) -> list[Any]:
    """Times and numbers as they are; 0, 1, 2, … where a text is no time."""
    try:
        return [datetime.fromisoformat(value) if isinstance(value, str) else value for value in values]
    except ValueError:
        return list(range(len(values)))


def _name_places(axis: Axes, values: Sequence[Any], x: Sequence[Any]) -> None:
    """Write texts that are no times below the places that stand for them, as many as there is room for."""
    from matplotlib.ticker import MaxNLocator

    if list(values[:1]) == list(x[:1]) or isinstance(x[0], datetime):
        return
    # A dollar would begin a formula.
    names = [_plain(str(value)).replace("$", r"\$") for value in values]
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.xaxis.set_major_formatter(lambda place, _: names[int(place)] if place in range(len(names)) else "")


def _plain(name: str) -> str:
    """A column's name that a font can draw, of a length that leaves room for the plot."""
    return "".join(letter if letter.isprintable() else " " for letter in name)[:24]
