"""Models of images: the rows that transformers gives, alone and in company, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoTokenizer
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from models.errors import ModelError, ModelSourceError
from models.images.batch_check import OneImageByOne, check_image_batches
from models.images.encoder import ImageEncoder
from models.images.model import ImageItem, ImageModel
from models.images.processor import ImageProcessor
from models.images.reader import ImageLimits
from models.images.text_image_encoder import TextImageEncoder
from models.kinds import image_kind, require_served_kind
from models.loader import load, load_images
from models.runtime.placement import place
from models.source import locate
from tests.support.images import encoded, picture
from tests.support.tiny_image_models import (
    LABELS,
    ImageArchitecture,
    image_classifier,
    image_encoder,
    text_image_encoder,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("scaled_by_pillow")]

CPU = place("cpu", "float32")
PICTURES = [picture(80, 60, seed) for seed in range(3)]
ARCHITECTURES: tuple[ImageArchitecture, ...] = ("vit", "convnext", "resnet", "dinov2", "efficientnet")


def opened(path: Path) -> ImageModel:
    model = load_images(locate(str(path)), CPU)
    assert model is not None
    return model


def rows(model: ImageModel) -> NDArray[np.float32]:
    items: list[ImageItem] = [model.images.read(encoded(image), ImageLimits(), "image") for image in PICTURES]
    return model.forward(items)


def of_transformers(path: Path, auto_class: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    network = auto_class.from_pretrained(path).eval()
    return network, AutoImageProcessor.from_pretrained(path, backend="pil")(PICTURES, return_tensors="pt")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_those_of_transformers(tmp_path: Path, architecture: ImageArchitecture) -> None:
    model = opened(image_classifier(tmp_path, architecture))
    network, inputs = of_transformers(tmp_path, AutoModelForImageClassification)
    with torch.inference_mode():
        expected = network(**inputs).logits.numpy()
    assert model.metadata.labels == LABELS
    assert "share batches" in model.metadata.batches
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(rows(model), expected, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_vectors_are_those_of_the_pooler(tmp_path: Path, architecture: ImageArchitecture) -> None:
    model = opened(image_encoder(tmp_path, architecture))
    network, inputs = of_transformers(tmp_path, AutoModel)
    with torch.inference_mode():
        expected = network(**inputs).pooler_output.flatten(1).numpy()
    assert model.metadata.width == expected.shape[1]
    np.testing.assert_allclose(rows(model), expected, atol=1e-4)


def test_without_a_pooler_the_first_token_counts(tmp_path: Path) -> None:
    """As in a body that was taken out of a classifier."""
    image_classifier(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["ViTModel"]}))
    network, inputs = of_transformers(tmp_path, AutoModel)
    with torch.inference_mode():
        expected = network(**inputs).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(rows(opened(tmp_path)), expected, atol=1e-4)


@pytest.mark.parametrize("architecture", ["clip", "siglip"])
def test_texts_and_images_share_a_space(tmp_path: Path, architecture: Any) -> None:
    text_image_encoder(tmp_path, architecture)
    model = cast(TextImageEncoder, opened(tmp_path))
    network, inputs = of_transformers(tmp_path, AutoModel)
    texts = ["a cat", "two cards on the table"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    padding: dict[str, Any] = (
        {"padding": "max_length", "max_length": 24} if architecture == "siglip" else {"padding": True}
    )
    read = tokenizer(texts, return_tensors="pt", **padding)
    kept = ["input_ids"] if architecture == "siglip" else ["input_ids", "attention_mask"]
    with torch.inference_mode():
        of_images = network.get_image_features(**inputs).pooler_output.numpy()
        of_texts = network.get_text_features(**{name: read[name] for name in kept}).pooler_output.numpy()
    np.testing.assert_allclose(rows(model), of_images, atol=1e-4)
    np.testing.assert_allclose(model.forward(model.text.encode(texts)), of_texts, atol=1e-4)
    mixed = model.forward([*model.text.encode(texts), model.images.prepare(PICTURES[0])])
    np.testing.assert_allclose(mixed, np.concatenate([of_texts, of_images[:1]]), atol=1e-4)
    assert [item["name"] for item in model.metadata.signature()["inputs"]] == ["text", "token_ids", "image"]


@pytest.mark.parametrize("saved_anew", [False, True])
def test_the_clip_of_sentence_transformers_is_served(tmp_path: Path, saved_anew: bool) -> None:
    """As its old versions save it, in a folder of its own, and as the new ones do."""
    from sentence_transformers import SentenceTransformer

    text_image_encoder(tmp_path / "old" / "0_CLIPModel")
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (tmp_path / "old" / "modules.json").write_text(json.dumps([module]))
    reference = SentenceTransformer(str(tmp_path / "old"), device="cpu")
    reference.save(str(tmp_path / "new"))
    model = cast(TextImageEncoder, opened(tmp_path / ("new" if saved_anew else "old")))
    texts = ["a cat", "two cards on the table"]
    np.testing.assert_allclose(rows(model), reference.encode(PICTURES), atol=1e-4)
    np.testing.assert_allclose(model.forward(model.text.encode(texts)), reference.encode(texts), atol=1e-4)


def test_modules_that_change_vectors_of_images_are_refused(tmp_path: Path) -> None:
    text_image_encoder(tmp_path)
    kinds = ("CLIPModel", "Dense")
    modules = [{"idx": at, "path": "", "type": f"sentence_transformers.models.{kind}"} for at, kind in enumerate(kinds)]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert image_kind(tmp_path) is None
    with pytest.raises(ModelSourceError, match="further modules change"):
        require_served_kind(tmp_path)
    modules[0]["path"] = "../elsewhere"
    (tmp_path / "modules.json").write_text(json.dumps(modules[:1]))
    with pytest.raises(ModelSourceError, match="a folder within the directory"):
        locate(str(tmp_path))


def test_a_model_whose_rows_depend_on_the_batch_computes_one_by_one(tmp_path: Path) -> None:
    encoder = ImageEncoder(locate(str(image_encoder(tmp_path))), CPU)
    alone = encoder.forward
    encoder.forward = lambda batch, preempt=None: alone(batch) * len(batch)  # type: ignore[method-assign]
    model = check_image_batches(encoder)
    assert isinstance(model, OneImageByOne)
    assert model.metadata.one_by_one
    np.testing.assert_allclose(
        rows(model), np.concatenate([alone([one]) for one in map(encoder.images.prepare, PICTURES)]), atol=1e-5
    )


class BrighterProcessor(ViTImageProcessorPil):  # type: ignore[misc]  # it is Any
    """A processor that does more than it says."""

    def normalize(self, *arguments: Any, **options: Any) -> NDArray[np.float32]:
        brighter: NDArray[np.float32] = super().normalize(*arguments, **options) + 1
        return brighter


def test_a_processor_that_does_more_is_refused() -> None:
    with pytest.raises(ModelSourceError, match=r"vit: expected a processor .*, got BrighterProcessor, which does more"):
        ImageProcessor(BrighterProcessor(size={"height": 32, "width": 32}), "vit")


def test_the_offset_of_efficientnets_processor_is_followed(tmp_path: Path) -> None:
    image_classifier(tmp_path, "efficientnet")
    settings = tmp_path / "preprocessor_config.json"
    about = json.loads(settings.read_text()) | {"rescale_factor": 1 / 127.5, "rescale_offset": True}
    settings.write_text(json.dumps(about))
    model = opened(tmp_path)
    network, inputs = of_transformers(tmp_path, AutoModelForImageClassification)
    assert inputs["pixel_values"].min() < -1
    with torch.inference_mode():
        np.testing.assert_allclose(rows(model), network(**inputs).logits.numpy(), atol=1e-4)


def test_other_kinds_are_named(tmp_path: Path) -> None:
    image_classifier(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["ViTForMaskedImageModeling"]}))
    with pytest.raises(ModelSourceError, match="got a model that restores images"):
        locate(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelSourceError, match=r"without preprocessor_config\.json"):
        locate(str(tmp_path))


def test_where_texts_are_needed_images_are_refused(tmp_path: Path) -> None:
    source = locate(str(image_encoder(tmp_path)))
    with pytest.raises(ModelSourceError, match="expected a model of texts"):
        load(source, CPU)
    with pytest.raises(ModelError, match="this reads images"):
        load_images(source, place("cpu", "int8"))
