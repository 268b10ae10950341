"""No body within the limit of bytes makes the service silent or large, whatever it holds and whatever its route."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest

from models.registry.registry import Registry
from tests.support import tiny_models
from tests.support.costly_bodies import CostlyBody, costly_bodies
from tests.support.loop_watch import Cost, LoopWatch
from tests.support.sensors import LOAD, RECORDS, publish_detector, publish_forecaster
from tests.support.server import Served, serving

pytestmark = [pytest.mark.slow, pytest.mark.real]
MAX_HELD_S = 0.25
MODELS = {"": "all-MiniLM-L6-v2", "/v1/anomaly/score": RECORDS, "/v1/forecast": LOAD}
TEXTS = "/v1/embeddings"
READINGS = "/v1/anomaly/score"  # of its bodies, those of readings; the others are read as those of texts are
ALIKE = "/v1/forecast"  # reads its body as /v1/anomaly/score does
OTHER_ROUTES = (
    *("/v1/classify", "/v1/rerank", "/v2/rerank", "/embed", "/predict", "/rerank", "/similarity", "/tokenize"),
    *("/v1/tokenize", "/decode", "/v1/feedback", "/v1/fine_tuning/jobs", "/v1/aliases/{alias}"),
    "/v1/files/{file_id}/check",
    *("/v1/models/{model}/promote", "/v1/models/{model}/rollback", "/v1/models/{model}/withdraw"),
    *("/v1/models/{model}/owner", "/v1/models/{model}/held_out", "/v1/detokenize", "/v1/embed", "/v2/embed"),
    *("/api/embed", "/api/embeddings", "/api/show", "/models/{model}/pipeline/feature-extraction"),
    *("/openai/v1/embeddings", "/openai/deployments/{deployment}/embeddings"),
    *("/v1/preprocess", "/v1/detect", "/v1/ocr"),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("costly")
    registry = Registry(home / "models")
    publish_detector(registry, home / "detector")
    publish_forecaster(registry, home / "forecaster")
    model = ("--model", f"{MODELS['']}={tiny_models.encoder(home / 'tiny')}")
    with serving(home, "--default-timeout-s", "5", "--threads", "1", *model) as served:
        yield served


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{served.url}/openapi.json", timeout=60).json()
    return found


@pytest.fixture(scope="module")
def watch(served: Served) -> LoopWatch:
    made = LoopWatch(served.url, served.process.pid)
    made.measure("POST", "/v1/embeddings", b'{"model":"all-MiniLM-L6-v2","input":"warm"}')
    return made


def test_every_route_that_reads_json_is_here(document: dict[str, Any]) -> None:
    assert set(_routes(document)) == {TEXTS, READINGS, ALIKE, *OTHER_ROUTES}


def test_no_body_of_texts_makes_the_service_silent_or_large(document: dict[str, Any], watch: LoopWatch) -> None:
    _require_harmless(watch, _bodies(document, TEXTS))


def test_no_body_of_readings_makes_the_service_silent_or_large(document: dict[str, Any], watch: LoopWatch) -> None:
    _require_harmless(watch, (body for body in _bodies(document, READINGS) if ": " in body.kind))


@pytest.mark.long
@pytest.mark.parametrize("path", [READINGS, ALIKE, *OTHER_ROUTES])
def test_no_body_makes_the_service_silent_or_large(document: dict[str, Any], watch: LoopWatch, path: str) -> None:
    _require_harmless(watch, _bodies(document, path))


def _bodies(document: dict[str, Any], path: str) -> Iterator[CostlyBody]:
    return costly_bodies({**document, "paths": {path: document["paths"][path]}}, MODELS)


def _require_harmless(watch: LoopWatch, bodies: Iterable[CostlyBody]) -> None:
    found = {body.kind: _measure_again(watch, body) for body in bodies}
    assert len(found) > 25
    assert not {kind: cost for kind, cost in found.items() if cost.held_s > MAX_HELD_S}
    assert not {kind: cost for kind, cost in found.items() if cost.peak_bytes > watch.peak_limit_bytes}
    assert not {kind: cost for kind, cost in found.items() if cost.status in {0, 500}}


def _routes(document: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(body.route for body in costly_bodies(document, MODELS, max_bytes=2048)))


def _measure_again(watch: LoopWatch, body: CostlyBody) -> Cost:
    """The least cost of a body; measured up to four times while it is silent, because others use the machine, too."""
    costs: list[Cost] = []
    while len(costs) < 4 and not (costs and costs[-1].held_s <= MAX_HELD_S):
        costs.append(watch.measure(body.method, body.path, body.content))
    return min(costs, key=lambda one: one.held_s)
