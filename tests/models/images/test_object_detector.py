"""Object detectors: the objects that transformers finds, alone and in company, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from models.errors import ModelSourceError
from models.images.batch_check import OneImageByOne, check_image_batches
from models.images.detections import DetectedObjects
from models.images.model import ImageModel
from models.images.object_detector import ObjectDetector
from models.images.pixels import Pixels
from models.images.reader import ImageLimits
from models.loader import load_images
from models.runtime.placement import place
from models.source import locate
from tests.support.images import encoded, picture
from tests.support.tiny_image_models import LABELS, Detector, image_classifier, object_detector

pytestmark = pytest.mark.usefixtures("scaled_by_pillow")

CPU = place("cpu", "float32")
# Two of one size, and one of another.
PICTURES = [picture(80, 60, 0), picture(40, 60, 1), picture(80, 60, 2)]
ARCHITECTURES: tuple[Detector, ...] = ("detr", "rt-detr", "yolos")


def opened(path: Path) -> ImageModel:
    model = load_images(locate(str(path)), CPU)
    assert model is not None
    return model


def read(model: ImageModel) -> list[Pixels]:
    return [model.images.read(encoded(image), ImageLimits(), "image") for image in PICTURES]


def of_transformers(path: Path) -> list[dict[str, Any]]:
    """Scores, labels and boxes in pixels by transformers alone, best first."""
    network = AutoModelForObjectDetection.from_pretrained(path).eval()
    processor = AutoImageProcessor.from_pretrained(path, backend="pil")
    answers = []
    for image in PICTURES:
        with torch.inference_mode():
            output = network(**processor(image, return_tensors="pt"))
        [found] = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[image.size[::-1]])
        order = found["scores"].argsort(descending=True, stable=True)
        answers.append({name: values[order].numpy() for name, values in found.items()})
    return answers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.slow
def test_objects_are_those_of_transformers(tmp_path: Path, architecture: Detector) -> None:
    model = opened(object_detector(tmp_path, architecture))
    items = read(model)
    expected = of_transformers(tmp_path)
    assert not np.allclose(expected[0]["scores"], expected[1]["scores"], atol=1e-3)
    for item, row, wanted in zip(items, model.forward(items), expected, strict=True):
        found = DetectedObjects.of_row(row, item.size)
        np.testing.assert_allclose(found.scores, wanted["scores"], atol=1e-4)
        np.testing.assert_array_equal(found.labels, wanted["labels"])
        np.testing.assert_allclose(found.boxes, wanted["boxes"], atol=1e-2)
    assert model.metadata.labels == LABELS
    assert "share batches" in model.metadata.batches


def test_the_signature_names_objects_and_sizes_that_vary(tmp_path: Path) -> None:
    signature = opened(object_detector(tmp_path)).metadata.signature()
    assert signature["inputs"][0]["shape"] == ["n", 3, "height", "width"]
    assert [output["shape"] for output in signature["outputs"]] == [["n", 7], ["n", 7], ["n", 7, 4]]


def test_boxes_are_in_the_pixels_that_were_sent(tmp_path: Path) -> None:
    """A JPEG is not decoded smaller than it is."""
    model = opened(object_detector(tmp_path))
    large = model.images.read(encoded(picture(1200, 900), "JPEG"), ImageLimits(), "image")
    assert large.size == (1200, 900)


def test_scores_choose_objects() -> None:
    row = np.array([0.2, 1, 0, 0, 1, 1, 0.9, 0, 0.5, 0.5, 1, 1, 0.5, 2, 0, 0, 0.5, 0.5], np.float32)
    found = DetectedObjects.of_row(row, (200, 100), threshold=0.2)
    assert found.labels.tolist() == [0, 2]
    assert found.boxes.tolist() == [[100, 50, 200, 100], [0, 0, 100, 50]]
    assert DetectedObjects.of_row(row, (200, 100), most=1).labels.tolist() == [0]
    assert DetectedObjects.of_row(row, (200, 100), threshold=0.9).scores.size == 0


@pytest.mark.parametrize("in_another_order", [True, False])
def test_only_the_order_of_objects_may_depend_on_the_batch(tmp_path: Path, in_another_order: bool) -> None:
    detector = ObjectDetector(locate(str(object_detector(tmp_path))), CPU)
    alone = detector.forward

    def together(batch: Any, preempt: Any = None) -> Any:
        rows = alone(batch).reshape(len(batch), -1, 6)
        changed = rows[:, ::-1] if in_another_order else rows * [0.9, 1, 1, 1, 1, 1]
        return (rows if len(batch) == 1 else changed).reshape(len(batch), -1).astype(np.float32)

    detector.forward = together  # type: ignore[method-assign]
    assert isinstance(check_image_batches(detector), OneImageByOne) is not in_another_order


def test_a_processor_without_boxes_is_refused(tmp_path: Path) -> None:
    object_detector(tmp_path / "detector")
    image_classifier(tmp_path / "other")
    config = (tmp_path / "other" / "preprocessor_config.json").read_text()
    (tmp_path / "detector" / "preprocessor_config.json").write_text(config)
    with pytest.raises(ModelSourceError, match="reads boxes, got ViTImageProcessor"):
        opened(tmp_path / "detector")


def test_a_detector_without_a_processor_is_named(tmp_path: Path) -> None:
    object_detector(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelSourceError, match=r"an object detector without preprocessor_config\.json"):
        locate(str(tmp_path))
