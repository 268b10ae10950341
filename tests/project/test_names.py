"""One name for one thing: no class has another's name, in the service or in the models."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENT = "service/client/"
# Answers that the client reads as the service writes them, so that both have one name.
SHARED_WITH_CLIENT = {
    *("Box", "Choice", "ConfusedPair", "Confusion", "DetectedObject", "Drift", "Example", "Finding", "Forecast"),
    *("InService", "Job", "JobError", "JobEvent", "LabelScore", "Metric", "Moment", "Report", "ReportedEvent"),
    *("ReportedEvents", "Version"),
}
# The same two lines, which packages of two layers do not import from each other.
TWICE = {"_Fields"}
_CLASS = re.compile(r"^ *class (\w+)[:(\[]", re.MULTILINE)


@cache
def class_names(*folders: str) -> dict[str, list[str]]:
    """The places of each class, by its name."""
    places = defaultdict(list)
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for found in _CLASS.finditer(text):
            line = text.count("\n", 0, found.start(1)) + 1
            places[found[1]].append(f"{path.relative_to(ROOT)}:{line}")
    return places


def test_no_class_has_the_name_of_another() -> None:
    twice = {}
    for name, places in class_names("service", "models").items():
        own = [place for place in places if not place.startswith(CLIENT)]
        if len(places) > 1 and name not in TWICE and not (name in SHARED_WITH_CLIENT and len(own) == 1):
            twice[name] = places
    assert twice == {}


def test_what_is_excepted_is_there_twice() -> None:
    names = class_names("service", "models")
    assert {name for name in SHARED_WITH_CLIENT | TWICE if len(names[name]) < 2} == set()
