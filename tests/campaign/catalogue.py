"""The checks of the campaign: what each demands, and the tests that it runs."""

from __future__ import annotations

from dataclasses import dataclass

JOBS = "tests/service/jobs"
DEATHS = f"{JOBS}/test_worker_deaths.py"


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its aim, its tests as pytest names them, and the guard without which it was seen to fail."""

    name: str
    aim: str
    tests: tuple[str, ...]
    guard: str = ""


def _of(name: str, aim: str, guard: str = "", *tests: str) -> Check:
    """A check with a file of its own, and perhaps tests of other files."""
    return Check(name, aim, (f"tests/campaign/test_{name.replace('-', '_')}.py", *tests), guard)


CHECKS = (
    _of("deadlines", "requests that expire in the queue: no forward pass"),
    _of("hang-ups", "1,000 callers hang up: no work, place or socket is left"),
    _of("poison", "1 text of 32 that fails the model fails alone"),
    _of("out-of-memory", "every tenth batch runs out of memory: ≥ 99 % of requests answered"),
    _of("soak", "2 h of all kinds of requests: memory grows by ≤ 50 MB"),
)
