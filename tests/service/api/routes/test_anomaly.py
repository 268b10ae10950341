"""Anomaly scores over HTTP: what is strange beside the reference that came along."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.fakes.model import FakeModel
from tests.support.app import MakeApp

REFERENCE = [f"my card is lost please help w{number}" for number in range(30)]


def score(client: TestClient, **body: object) -> Any:
    answer = client.post(
        "/v1/anomaly/score", json={"model": "fake", "input": ["my card is lost"], "reference": REFERENCE, **body}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_strange_texts_are_told_from_normal_ones(client: TestClient) -> None:
    answer = score(client, input=["my card is lost please help w40", "pizza rain weather"])
    normal, strange = answer["data"]
    assert (normal["is_anomaly"], strange["is_anomaly"]) == (False, True)
    assert strange["score"] > answer["threshold"] > normal["score"]
    assert strange["p_value"] == pytest.approx(1 / 31)
    assert (answer["alpha"], answer["reference"]["count"], answer["warnings"]) == (0.05, 30, [])


def test_the_nearest_reference_texts_explain_a_score(client: TestClient) -> None:
    [item] = score(client, input="my card is lost please help w7")["data"]
    assert item["nearest"][0] == {"index": 7, "similarity": pytest.approx(1, abs=1e-5)}
    assert len(item["nearest"]) == 3
    similarities = [near["similarity"] for near in item["nearest"]]
    assert similarities == sorted(similarities, reverse=True)


def test_a_verdict_and_the_threshold_agree(client: TestClient) -> None:
    texts = ["my card is lost", "card", "help my order please", "pizza", "w3 w4", "my card is lost please"]
    for alpha in (0.04, 0.1, 0.3):
        answer = score(client, input=texts, alpha=alpha)
        assert [item["is_anomaly"] for item in answer["data"]] == [
            item["score"] >= answer["threshold"] for item in answer["data"]
        ]


def test_a_reference_too_small_for_alpha_says_so(client: TestClient) -> None:
    answer = score(client, input="pizza", reference=REFERENCE[:5])
    assert answer["data"][0]["is_anomaly"] is False
    assert answer["threshold"] is None
    assert "send at least 19 texts" in answer["warnings"][0]


def test_the_reference_is_computed_once(make_app: MakeApp) -> None:
    model = FakeModel("fake")
    client = TestClient(make_app(model))
    first = score(client)
    assert first["reference"]["cached"] is False
    before = len(model.batches)
    again = score(client, input="pizza")
    assert again["reference"]["cached"] is True
    assert sum(len(batch) for batch in model.batches[before:]) == 1
    assert again["usage"]["total_tokens"] == 3
    assert score(client, reference=REFERENCE[::-1])["reference"]["cached"] is False, "other positions for `nearest`"


def test_cut_reference_texts_are_counted(client: TestClient) -> None:
    answer = client.post(
        "/v1/anomaly/score", json={"model": "fake", "input": "a", "reference": ["w1 " * 40, "w2", "w3"]}
    )
    assert answer.json()["reference"]["truncated"] == 1
    assert answer.headers["x-sonde-truncated"] == "1"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"reference": ["one"]}, "reference"),
        ({"reference": ["one", ""]}, "reference[1]"),
        ({"reference": "one"}, "reference"),
        ({"reference": ["w1 " * 40, "b"], "truncate": False}, "reference[0]"),
        ({"input": "w1 " * 40, "truncate": False}, "input"),
        ({"reference": ["w"] * 41}, "reference"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": 1}, "alpha"),
        ({"alpha": 1e-9}, "alpha"),
        ({"input": []}, "input"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_name(make_app: MakeApp, change: dict[str, Any], param: str) -> None:
    client = TestClient(make_app(max_inputs=40))
    answer = client.post(
        "/v1/anomaly/score", json={"model": "fake", "input": "hello", "reference": REFERENCE, **change}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
