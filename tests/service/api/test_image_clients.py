"""Hugging Face's client, unchanged, against a real server of image models; transformers' pipelines are the truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForObjectDetection,
    AutoTokenizer,
    ObjectDetectionPipeline,
    VisionEncoderDecoderModel,
    ZeroShotImageClassificationPipeline,
)

from tests.support.images import encoded, picture
from tests.support.pages import draw_page
from tests.support.server import Served, serving
from tests.support.tiny_image_models import (
    LABELS,
    image_classifier,
    object_detector,
    text_image_encoder,
    text_recognizer,
)

pytestmark = [pytest.mark.real, pytest.mark.slow]

PICTURE: Image.Image = picture(80, 60)
DATA = encoded(PICTURE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models of images, one of each kind."""
    root = tmp_path_factory.mktemp("models")
    image_classifier(root / "vit")
    object_detector(root / "detr")
    text_image_encoder(root / "clip")
    text_recognizer(root / "trocr")
    return root


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    flags = [flag for path in sorted(folder.iterdir()) for flag in ("--model", f"{path.name}={path}")]
    with serving(folder.parent, "--device", "cpu", "--dtype", "float32", *flags) as running:
        yield running


def test_labels_of_the_request_have_the_scores_of_the_pipeline(served: Served, folder: Path) -> None:
    pipeline = ZeroShotImageClassificationPipeline(
        model=AutoModel.from_pretrained(folder / "clip").eval(),
        image_processor=AutoImageProcessor.from_pretrained(folder / "clip", backend="pil"),
        tokenizer=AutoTokenizer.from_pretrained(folder / "clip"),
    )
    labels = ["cat", "card", "table"]
    for template in (None, "the {} on the table"):
        more = {} if template is None else {"hypothesis_template": template}
        expected = {one["label"]: one["score"] for one in pipeline(PICTURE, candidate_labels=labels, **more)}
        found = client(served, "clip").zero_shot_image_classification(DATA, labels, **more)
        assert {one.label: one.score for one in found} == pytest.approx(expected, abs=1e-3)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_texts_are_those_of_the_network(served: Served, folder: Path) -> None:
    network: Any = VisionEncoderDecoderModel.from_pretrained(folder / "trocr").eval()
    inputs = AutoImageProcessor.from_pretrained(folder / "trocr", backend="pil")([PICTURE], return_tensors="pt")
    ids = network.generate(**inputs, num_beams=1, max_length=11)
    [expected] = AutoTokenizer.from_pretrained(folder / "trocr").batch_decode(ids, skip_special_tokens=True)
    assert client(served, "trocr").image_to_text(DATA).generated_text == expected != ""


def test_a_page_is_read_line_by_line(served: Served) -> None:
    page = draw_page(0, width=500, height=300)
    response = httpx.post(f"{served.url}/v1/ocr", content=encoded(page.image), headers={"content-type": "image/png"})
    [read] = response.raise_for_status().json()["data"]
    assert len(read["lines"]) == len(page.lines)
    assert all(line["text"] and 0 < line["confidence"] <= 1 for line in read["lines"])


def client(served: Served, model: str) -> InferenceClient:
    return InferenceClient(model=f"{served.url}/models/{model}")


def test_images_are_classified(served: Served) -> None:
    assert {one.label for one in client(served, "vit").image_classification(DATA)} == set(LABELS)


@pytest.mark.parametrize("threshold", [None, 0.1])
def test_objects_are_those_of_the_pipeline(served: Served, folder: Path, threshold: float | None) -> None:
    network: Any = AutoModelForObjectDetection.from_pretrained(folder / "detr").eval()
    processor = AutoImageProcessor.from_pretrained(folder / "detr", backend="pil")
    pipeline = ObjectDetectionPipeline(model=network, image_processor=processor)
    expected = sorted(pipeline(PICTURE, threshold=threshold or 0.5), key=lambda one: -one["score"])
    found = client(served, "detr").object_detection(DATA, threshold=threshold)
    assert expected or threshold is None
    assert [one.label for one in found] == [one["label"] for one in expected]
    for one, wanted in zip(found, expected, strict=True):
        assert one.score == pytest.approx(wanted["score"], abs=1e-4)
        assert vars(one.box) == pytest.approx(wanted["box"], abs=1)
