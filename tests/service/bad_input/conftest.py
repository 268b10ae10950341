"""A service of one model of each kind that reads images or tensors."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.service.bad_input.running import Running
from tests.support.described_programs import described
from tests.support.programs import program_path
from tests.support.server import free_port, serving
from tests.support.tiny_image_models import (
    image_classifier,
    image_encoder,
    object_detector,
    text_image_encoder,
    text_recognizer,
)


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pytest.importorskip("grpc")
    folder = tmp_path_factory.mktemp("models")
    models = [
        f"vit={image_classifier(folder / 'vit')}",
        f"dino={image_encoder(folder / 'dino')}",
        f"clip={text_image_encoder(folder / 'clip')}",
        f"detr={object_detector(folder / 'detr')}",
        f"trocr={text_recognizer(folder / 'trocr')}",
        f"mlp={program_path('mlp')}",
        *(described(folder, name) for name in ("classes", "vectors", "strange", "pictures", "defects")),
    ]
    port = free_port()
    flags = [flag for model in models for flag in ("--model", model)]
    with (
        serving(folder, "--cache-mb", "0", "--device", "cpu", "--grpc-port", str(port), *flags) as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        yield Running(http, port, served.process.pid)
