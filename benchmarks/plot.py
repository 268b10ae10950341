"""The plot of the servers' throughput, as SVG."""

from __future__ import annotations

from service import plots

_COLOURS = ("#0a66c2", "#d9822b", "#8a8a8a", "#4a9c5d")
_BAR = 0.8


def bars(medians: dict[str, dict[str, float]], titles: dict[str, str]) -> bytes:
    """One group per load, one bar per server, each group to the scale of its longest bar.

    The dashed line across a group is the limit: Sonde's engine in process, without HTTP.
    """
    servers = [name for name in medians if name != "limit"]
    figure = plots.new_figure(0.5 + 0.25 * (len(servers) + 1) * len(titles))
    axis = figure.subplots()
    y, middles = 0.0, dict[str, float]()
    for row, title in titles.items():
        values = {name: medians[name][row] for name in medians if row in medians[name]}
        if not values:
            continue
        longest, top = max(values.values()), y
        for name in (name for name in servers if name in values):
            colour = _COLOURS[servers.index(name) % len(_COLOURS)]
            axis.barh(y, values[name] / longest, _BAR, color=colour, gid=f"bar {row} {name}")
            axis.text(values[name] / longest + 0.01, y, f"{values[name]:.4g} {name}", va="center", parse_math=False)
            y += 1
        if "limit" in values:
            axis.vlines(values["limit"] / longest, top - 0.5, y - 0.5, "#c00", "dashed", gid=f"limit {row}")
        middles[title] = (top + y - 1) / 2
        y += 1
    axis.set_yticks(list(middles.values()), list(middles), parse_math=False)
    axis.set_xticks([])
    axis.set_xlim(0, 1.25)
    axis.invert_yaxis()
    if any(row in medians.get("limit", {}) for row in titles):
        axis.set_xlabel("dashed: Sonde's engine in process, without HTTP")
    return plots.render(figure, "svg")
