"""No body within the limit of bytes makes the service silent or large, whatever it holds and whatever its route."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from models.registry.registry import Registry
from tests.support.costly_bodies import CostlyBody, costly_bodies
from tests.support.loop_watch import Cost, LoopWatch
from tests.support.sensors import LOAD, RECORDS, publish_detector, publish_forecaster
from tests.support.server import Served, serving

pytestmark = [pytest.mark.slow, pytest.mark.real]
MAX_HELD_S = 0.25


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("costly")
    registry = Registry(home / "models")
    publish_detector(registry, home / "detector")
    publish_forecaster(registry, home / "forecaster")
    with serving(home, "--default-timeout-s", "5", "--threads", "1") as served:
        yield served


def test_no_body_makes_the_service_silent_or_large(served: Served) -> None:
    document = httpx.get(f"{served.url}/openapi.json").json()
    models = {"": "all-MiniLM-L6-v2", "/v1/anomaly/score": RECORDS, "/v1/forecast": LOAD}
    watch = LoopWatch(served.url, served.process.pid)
    watch.measure("POST", "/v1/embeddings", b'{"model":"all-MiniLM-L6-v2","input":"warm"}')
    found = {
        (body.method, body.path, body.kind): _measure_twice(watch, body) for body in costly_bodies(document, models)
    }
    slow = {name: cost for name, cost in found.items() if cost.held_s > MAX_HELD_S}
    large = {name: cost for name, cost in found.items() if cost.peak_bytes > watch.peak_limit_bytes}
    assert len({path for _, path, _ in found}) >= 17
    assert not slow
    assert not large
    assert not {name: cost for name, cost in found.items() if cost.status in {0, 500}}


def _measure_twice(watch: LoopWatch, body: CostlyBody) -> Cost:
    """The cost of a body; measured again where it was silent, because others use the machine, too."""
    cost = watch.measure(body.method, body.path, body.content)
    if cost.held_s <= MAX_HELD_S:
        return cost
    return min(cost, watch.measure(body.method, body.path, body.content), key=lambda one: one.held_s)
