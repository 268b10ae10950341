"""What a service prints when it is ready: an address, its models, and a command that works."""

from __future__ import annotations

import json
import shlex

import pytest

from models.metadata import ModelMetadata, Task
from service.banner import Banner
from tests.fakes.model import FakeModel

URL = "http://127.0.0.1:8000"


def metadata(name: str = "m", task: Task = "embedding") -> ModelMetadata:
    return FakeModel(name, task=task).metadata


def lines(banner: Banner, *models: ModelMetadata) -> list[str]:
    return banner.text(URL, models or [metadata()]).split("\n")


def test_the_first_line_has_the_address_between_spaces() -> None:
    first = lines(Banner(keys=False))[0]
    assert first == f"Sonde is ready on {URL} (console: {URL}/console, docs: {URL}/docs)"
    coloured = lines(Banner(keys=False, colours=True))[0]
    assert coloured == f"\x1b[1;32m{first}\x1b[0m"


@pytest.mark.parametrize(
    ("task", "path"), [("embedding", "/v1/embeddings"), ("classification", "/v1/classify"), ("rerank", "/v2/rerank")]
)
def test_a_command_calls_the_first_model(task: Task, path: str) -> None:
    [command] = [line for line in lines(Banner(keys=False), metadata("it's", task), metadata("b")) if "curl" in line]
    words = shlex.split(command)
    assert words[:3] == ["try", "curl", f"{URL}{path}"]
    assert json.loads(words[-1])["model"] == "it's"
    assert "authorization" not in command


def test_with_keys_the_command_has_the_header_and_a_line_says_how_to_get_a_key() -> None:
    said = lines(Banner(keys=True, home=" --home /srv/x"))
    assert any('-H "authorization: Bearer $SONDE_API_KEY"' in line for line in said if "curl" in line)
    assert any("sonde keys create --scope infer --home /srv/x" in line for line in said)


def test_every_model_has_a_line_until_there_are_many() -> None:
    said = lines(Banner(keys=False), *(metadata(f"m{number}") for number in range(11)))
    assert [line.split()[1] for line in said if line.startswith("  serves")] == [f"m{number}" for number in range(8)]
    assert f"  and 3 more: GET {URL}/v1/models" in said
    assert said[1].split()[2:] == ["embedding", "cpu", "float32"]


@pytest.mark.parametrize("colours", [True, False])
def test_a_models_name_cannot_control_the_terminal(*, colours: bool) -> None:
    said = lines(Banner(keys=True, home="\x1b[2J", colours=colours), metadata("a\x1b[2J\r\nb"))
    assert all(line.isprintable() for line in said[1:])
    assert len(said) == 5
