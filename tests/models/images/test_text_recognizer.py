"""Text recognisers: the texts that transformers writes, alone and in company, with their confidence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

from models.images.batch_check import OneLineByOne, check_image_batches
from models.images.text_recognizer import TextRecognizer
from models.loader import load_images
from models.preemption import Preemption
from models.runtime.placement import place
from models.source import locate
from tests.support.images import picture
from tests.support.tiny_image_models import text_recognizer

pytestmark = pytest.mark.usefixtures("scaled_by_pillow")

CPU = place("cpu", "float32")
PICTURES = [picture(80, 60, seed) for seed in range(12)]


def opened(path: Path) -> TextRecognizer:
    model = load_images(locate(str(path)), CPU)
    assert isinstance(model, TextRecognizer)
    return model


@pytest.mark.slow
def test_texts_are_those_of_transformers(tmp_path: Path) -> None:
    model = opened(text_recognizer(tmp_path))
    network: Any = VisionEncoderDecoderModel.from_pretrained(tmp_path).eval()
    inputs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(PICTURES, return_tensors="pt")
    made = network.generate(**inputs, num_beams=1, max_length=11, output_logits=True, return_dict_in_generate=True)
    expected = AutoTokenizer.from_pretrained(tmp_path).batch_decode(made.sequences, skip_special_tokens=True)
    logs = network.compute_transition_scores(made.sequences, made.logits, normalize_logits=True)
    read = [model.read_row(row) for row in model.forward([model.prepare_line(image) for image in PICTURES])]
    assert [one.text for one in read] == expected
    assert len(set(expected)) > 3
    lengths = [1 + tokens[1:].tolist().index(3) if 3 in tokens[1:] else 10 for tokens in made.sequences]
    means = [float(row[:length].mean()) for row, length in zip(logs, lengths, strict=True)]
    assert [one.confidence for one in read] == pytest.approx([math.exp(mean) for mean in means], rel=1e-3)
    assert [one.truncated for one in read] == [3 not in tokens[1:] for tokens in made.sequences]
    assert {one.truncated for one in read} == {True, False}
    assert "share batches" in model.metadata.batches


@pytest.mark.slow
def test_a_text_is_the_same_alone(tmp_path: Path) -> None:
    model = opened(text_recognizer(tmp_path))
    items = [model.prepare_line(image) for image in PICTURES]
    alone = np.concatenate([model.forward([item]) for item in items])
    np.testing.assert_allclose(model.forward(items), alone, atol=1e-4)


def test_longer_lines_cost_more(tmp_path: Path) -> None:
    model = opened(text_recognizer(tmp_path))
    short, long, longest = (model.prepare_line(picture(width, 20)).count for width in (20, 200, 8000))
    assert short < long < longest == short - 1 + 10


def test_other_work_gets_its_turn_between_tokens(tmp_path: Path) -> None:
    model = opened(text_recognizer(tmp_path))
    calls = 0

    class Counting:
        flags = ()

        def __call__(self) -> None:
            nonlocal calls
            calls += 1

    preempt: Preemption = Counting()
    model.forward([model.prepare_line(PICTURES[0])], preempt)
    assert calls > 4 + 2 * 2


def test_a_text_ends_where_the_decoder_has_no_more_positions(tmp_path: Path) -> None:
    text_recognizer(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_length": 100_000}))
    assert opened(tmp_path).metadata.width == 2 * 31


def test_texts_that_depend_on_the_batch_are_written_alone(tmp_path: Path) -> None:
    recognizer = TextRecognizer(locate(str(text_recognizer(tmp_path))), CPU)
    alone = recognizer.forward
    recognizer.forward = lambda batch, preempt=None: alone(batch) * len(batch)  # type: ignore[method-assign]
    model = check_image_batches(recognizer)
    assert isinstance(model, OneLineByOne)
    assert model.read_row(model.forward([model.prepare_line(PICTURES[0])])[0]).text


def test_the_signature_has_text_and_confidence(tmp_path: Path) -> None:
    signature = opened(text_recognizer(tmp_path)).metadata.signature()
    assert [output["name"] for output in signature["outputs"]] == ["text", "confidence"]
