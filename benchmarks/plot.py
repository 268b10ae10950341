"""A plot of what servers reach, as SVG."""

from __future__ import annotations

import html

_WIDTH, _LEFT, _BAR, _GAP = 760, 330, 16, 14
_COLOURS = ("#0a66c2", "#d9822b", "#8a8a8a", "#4a9c5d")


def bars(medians: dict[str, dict[str, float]], titles: dict[str, str]) -> str:
    """One group a load, one bar a server, each group to the scale of its longest; `limit` is drawn as a line across."""
    who = [name for name in medians if name != "limit"]
    lines, y = [], 10
    for row, title in titles.items():
        values = {name: medians[name][row] for name in medians if row in medians[name]}
        if not values:
            continue
        scale = (_WIDTH - _LEFT - 90) / max(values.values())
        lines.append(f"<text x='{_LEFT - 10}' y='{y + 12}' text-anchor='end'>{html.escape(title)}</text>")
        top = y
        for name in (name for name in who if name in values):
            lines.append(
                _bar(y, values[name] * scale, _COLOURS[who.index(name) % len(_COLOURS)], f"{values[name]:.4g} {name}")
            )
            y += _BAR
        if "limit" in values:
            x = _LEFT + values["limit"] * scale
            lines.append(f"<path d='M{x:.1f} {top - 3}V{y + 3}' stroke='#c00' stroke-dasharray='4 2'/>")
        y += _GAP
    if any("limit" in medians and row in medians["limit"] for row in titles):
        lines.append(
            f"<text x='{_LEFT}' y='{y + 4}' fill='#c00'>dashed: Sonde's engine in process, without HTTP</text>"
        )
        y += 14
    style = "<style>text{font:12px sans-serif}</style><rect width='100%' height='100%' fill='white'/>"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {y + 6}' width='{_WIDTH}'>{style}\n"
        + "\n".join(lines)
        + "\n</svg>\n"
    )


def _bar(y: int, length: float, colour: str, label: str) -> str:
    text = f"<text x='{_LEFT + length + 6:.1f}' y='{y + 12}'>{html.escape(label)}</text>"
    return f"<rect x='{_LEFT}' y='{y + 1}' width='{length:.1f}' height='{_BAR - 2}' fill='{colour}'/>{text}"
