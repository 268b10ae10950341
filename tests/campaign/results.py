"""Results of the campaign: JSON beside this file, and the table in `docs/reliability.md` made from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.campaign.catalogue import CHECKS

KEPT = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- campaign -->\n", "<!-- end of campaign -->"


@dataclass(frozen=True, slots=True)
class Result:
    """What a check measured, and when; `size` is "full" or "quick", and "for N s"."""

    passed: bool
    figure: str
    size: str
    seconds: float
    date: str
    load_average: float


def keep(results: dict[str, Result]) -> None:
    """Add results to those that are kept, and write the table anew."""
    kept = read()
    kept.update(results)
    content = {name: asdict(result) for name, result in sorted(kept.items())}
    KEPT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_page(kept)


def read() -> dict[str, Result]:
    """The results that are kept, by the names of their checks."""
    if not KEPT.is_file():
        return {}
    return {name: Result(**one) for name, one in json.loads(KEPT.read_text(encoding="utf-8")).items()}


def write_page(results: dict[str, Result]) -> None:
    """Put the table of results between the marks of the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    PAGE.write_text(f"{before}{_BEGIN}\n{table(results)}\n\n{_END}{after}", encoding="utf-8")


def table(results: dict[str, Result]) -> str:
    """A line a check, in Markdown."""
    lines = ["| Check | Aim | Figure | Size | Fails without |", "|---|---|---|---|---|"]
    for check in CHECKS:
        result = results.get(check.name)
        figure = "not run yet" if result is None else result.figure if result.passed else f"**failed**: {result.figure}"
        size = "" if result is None else f"{result.size}, {result.date}"
        lines.append(f"| {check.name} | {check.aim} | {figure} | {size} | {check.guard or 'not tried'} |")
    return "\n".join(lines)
