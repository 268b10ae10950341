"""The OpenAPI document and the service agree: every documented status, no undocumented one, for whatever the schema
allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from service.api.app import create_app
from service.auth import Keyring
from service.config import Settings
from service.metrics import Metrics
from service.serving.model_manager import ModelManager
from tests.fakes.model import FakeModel
from tests.fakes.sensor import FakeForecaster, FakeSensor
from tests.support.app import MakeApp
from tests.support.sensors import LOAD, PUMP, RECORDS, with_sensors
from tests.support.size import Size

pytestmark = pytest.mark.slow

# Half of the bodies name a model that does what the route is for; the others meet the 404.
_MODELS = {"/v1/forecast": LOAD, "/predict": "intents", "/rerank": "cross", "/v2/rerank": "cross"}
# What no schema can say, since it is up to the model; a 422 about anything else is a disagreement.
_UP_TO_THE_MODEL = (
    "dimensions: fake has 16",
    "output_dimension: fake has 16",
    "fake has no prompt",
    "; models that do ",
    "images: none here",
    "programs that do ",
    "numbers as rows[0] has",
    "goes with images",
    "with images; start one",
    "give it labels",
    "give it a reference",
    "token ids must be 0 to",
    "tokens, the limit is",
    "output_dimension: ",
    "token ids, which may be of another vocabulary",
    "which is the same: give one of them",
)
_UP_TO_THE_READINGS = (
    "give exactly one of",
    "goes with series",
    "was trained on what is normal",
    "contributions: are of columns",
    "reads texts, not readings",
    "reads records",
    "reads series",
    "expected 2 numbers",
    "column is missing",
    "no such column",
    "needs at least",
    "readings at least",
    "objects or lists throughout",
    "timestamps",
    "state: ",
    "forecasts at most",
)
# A schema describes base64, and neither its padding nor what an image is.
_UP_TO_THE_IMAGE = ('"message":"image: expected ',)
_UP_TO_THE_JOB = (
    "unknown for task",
    "of readings begins with",
    "give hyperparameters either",
    "expected a name that ends in",
    "got an empty file",
    "expires_after[",
    "there is no feedback on",
    "no job has a key like",
)
_ROUNDS = settings(deadline=None, suppress_health_check=list(HealthCheck))


def _operations() -> list[tuple[str, str, GenerationMode]]:
    """Every documented path and method, done right and, where anything can be done wrong, done wrong."""
    some = Settings.read({})
    metrics = Metrics()
    paths: dict[str, Any] = create_app(some, ModelManager(some, metrics), Keyring(some.keys_file), metrics).openapi()[
        "paths"
    ]
    found = [(path, method, about) for path, methods in paths.items() for method, about in methods.items()]
    right = [(path, method, GenerationMode.POSITIVE) for path, method, _ in found]
    return right + [
        (path, method, GenerationMode.NEGATIVE)
        for path, method, about in found
        if {"requestBody", "parameters"} & set(about)
    ]


@pytest.fixture
def application(make_app: MakeApp) -> FastAPI:
    """An application with a model of each kind."""
    encoder = FakeModel("fake", prompts={"query": "w1 "})
    classifier = FakeModel("intents", task="classification", labels=("yes", "no"))
    numbers = (PUMP, FakeSensor("series")), (RECORDS, FakeSensor()), (LOAD, FakeForecaster())
    return with_sensors(make_app(encoder, classifier, FakeModel("cross", task="rerank")), *numbers)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> OpenApiSchema:
    """What every application says of itself; reading it takes longer than most tests here."""
    some = Settings.read({"home": tmp_path_factory.mktemp("home"), "host": "testserver"})
    metrics = Metrics()
    app = create_app(some, ModelManager(some, metrics), Keyring(some.keys_file), metrics)
    loaded = schemathesis.openapi.from_dict(app.openapi())
    loaded.app = app
    return loaded


@pytest.fixture
def secret(application: FastAPI) -> str:
    """A key; as soon as it exists, every request needs one."""
    return Keyring(application.state.settings.keys_file).create(["admin"])[1]


def _name_a_model(case: Case[Any], path: str) -> None:
    name = case.body.get("model") if isinstance(case.body, dict) else None
    if isinstance(case.body, dict) and isinstance(name, str) and len(name) in range(1, 256, 2):
        number = RECORDS if case.body.get("records") else PUMP if case.body.get("series") else "fake"
        case.body["model"] = number if path == "/v1/anomaly/score" else _MODELS.get(path, "fake")


@pytest.mark.parametrize(("path", "method", "mode"), _operations())
def test_the_service_does_as_its_document_says(
    application: FastAPI,
    document: OpenApiSchema,
    secret: str,
    size: Size,
    record_property: Callable[[str, object], None],
    path: str,
    method: str,
    mode: GenerationMode,
) -> None:
    cases = 0
    key = {"X-API-Key": secret, "Authorization": f"Bearer {secret}"}
    operation = document[path][method]
    document.app = operation.app = application

    @settings(_ROUNDS, max_examples=size.of(3, 120), derandomize=not size.full)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case[Any]) -> None:
        nonlocal cases
        cases += 1
        _name_a_model(case, path)
        answer = case.call(headers=key)
        excluded: list[Any] = []
        if answer.status_code in {415, 422} and any(
            reason in answer.text
            for reason in _UP_TO_THE_MODEL + _UP_TO_THE_READINGS + _UP_TO_THE_IMAGE + _UP_TO_THE_JOB
        ):
            excluded.append(positive_data_acceptance)
        if answer.status_code == 504 and "X-Request-Timeout-Ms" in case.headers:
            excluded.append(not_a_server_error)
        if mode is GenerationMode.NEGATIVE and key.keys() & case.headers.keys():
            excluded.append(
                negative_data_rejection
            )  # what was wrong may be the key, and a good one was sent in its place
        case.validate_response(answer, headers=key, excluded_checks=excluded)

    check()
    record_property("cases", cases)
