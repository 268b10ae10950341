"""Fronts read images and the engine computes them: the same rows as in one process, for each kind of model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from models.errors import ModelSourceError
from models.images.model import ImageItem, ImageModel
from models.images.patches import PatchEncoder, PatchModel
from models.images.pixels import Pixels
from models.images.reader import ImageLimits
from models.images.text_recognizer import RecognizesText, TextRecognizer
from models.loader import load_images
from models.runtime.placement import place
from models.source import ModelSource, locate
from service.engine.frames import SubmitImages
from service.engine.request import Request
from service.engine.row_engine import RowEngine
from service.metrics import Metrics
from service.serving.engine_factory import EngineFactory
from service.serving.image_frames import image_submission, images_of
from service.serving.model_opener import LocalModelOpener, OpenedImages
from service.serving.remote_models import RemoteModelOpener
from tests.service.serving.test_remote_models import Bench, rows, until
from tests.support.images import encoded, picture
from tests.support.tiny_image_models import (
    image_classifier,
    image_encoder,
    object_detector,
    text_image_encoder,
    text_recognizer,
)

pytestmark = pytest.mark.slow

MAKE: dict[str, Callable[[Path], Any]] = {
    "classifier": image_classifier,
    "encoder": image_encoder,
    "clip": text_image_encoder,
    "objects": object_detector,
    "reader": text_recognizer,
}
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny model of each kind, as `--model` has them."""
    directory = tmp_path_factory.mktemp("models")
    return [f"{name}={make(directory / name)}" for name, make in MAKE.items()]


@pytest.fixture(scope="module")
def here(specs: list[str]) -> list[ImageModel]:
    """The same models, loaded here."""
    loaded = [load_images(locate(spec), place("cpu", "float32")) for spec in specs]
    return [model for model in loaded if model is not None]


class ImageBench(Bench):
    """An engine of real models."""

    def __init__(self, specs: Sequence[str]) -> None:
        super().__init__(model=list(specs), dtype="float32")
        engines = EngineFactory(self.settings, Metrics(), self.failures.append)
        self.source = cast(Any, LocalModelOpener(self.settings, engines))
        self.server = self._new_server()

    async def remote(self) -> RemoteModelOpener:
        """What a front opens models by."""
        link = self.link()
        await self.connect(link)
        return RemoteModelOpener(self.settings, link, self.metrics)


async def computed(engine: RowEngine[Any], items: Sequence[ImageItem]) -> np.ndarray[Any, Any]:
    return await rows(engine.submit(items))


def test_each_kind_gives_the_rows_that_it_gives_in_one_process(specs: list[str], here: list[ImageModel]) -> None:
    async def compare(local: ImageModel, remote: OpenedImages) -> None:
        model, data = remote.model, [encoded(picture(80, 60, seed)) for seed in range(3)]
        assert model.metadata == local.metadata
        assert model.images.signature == local.images.signature
        pixels = [model.images.read(one, ImageLimits(), "image") for one in data]
        expected = [local.images.read(one, ImageLimits(), "image") for one in data]
        assert [(one.key, one.size) for one in pixels] == [(one.key, one.size) for one in expected]
        np.testing.assert_allclose(await computed(remote.engine, pixels), local.forward(expected), atol=1e-5)
        if local.metadata.max_tokens:
            texts = cast(Any, model).text.encode(["a photo of a cat", "a dog"])
            np.testing.assert_allclose(await computed(remote.engine, texts), local.forward(texts), atol=1e-5)
        if local.metadata.task == "ocr":
            await compare_lines(cast(TextRecognizer, local), cast(RecognizesText, model), remote.engine)
        assert (remote.patches is not None) is isinstance(local, PatchEncoder)
        if remote.patches is not None:
            patches, of_local = remote.patches[0], PatchModel(cast(PatchEncoder, local))
            assert patches.metadata.label != model.metadata.label
            found = patches.unflatten(await computed(remote.patches[1], pixels))
            np.testing.assert_allclose(found, of_local.unflatten(of_local.forward(expected)), atol=1e-5)

    async def compare_lines(local: TextRecognizer, model: RecognizesText, engine: RowEngine[Any]) -> None:
        lines = [model.prepare_line(picture(width, 32)) for width in (64, 300)]
        assert [line.count for line in lines] == [local.prepare_line(picture(width, 32)).count for width in (64, 300)]
        found = [model.read_row(row) for row in await computed(engine, lines)]
        expected = [local.read_row(row) for row in local.forward(lines)]
        assert [one.text for one in found] == [one.text for one in expected]
        assert [one.truncated for one in found] == [one.truncated for one in expected]

    async def main() -> None:
        bench = ImageBench(specs)
        bench.server.start()
        front = await bench.remote()
        opened = await asyncio.wait_for(asyncio.to_thread(lambda: list(front.open_configured())), TIMEOUT_S)
        for name, local, remote in zip(MAKE, here, opened, strict=True):
            assert isinstance(remote, OpenedImages)
            assert remote.model.metadata.name == name
            await compare(local, remote)
        await bench.server.close()

    asyncio.run(main())


def test_a_version_has_its_own_encoder_in_the_engine(specs: list[str], here: list[ImageModel]) -> None:
    """It has no patch features: heads on it read its vectors."""
    path, pixels = locate(specs[1]).path, here[1].images.prepare(picture(80, 60))

    async def main() -> None:
        bench = ImageBench(specs[:1])
        bench.server.start()
        front = await bench.remote()
        source = ModelSource("tuned", path, "trained", "abc")
        opened = await asyncio.wait_for(asyncio.to_thread(front.open_version, source), TIMEOUT_S)
        assert isinstance(opened, OpenedImages)
        assert opened.model.metadata.label == "tuned:abc"
        assert opened.patches is None
        np.testing.assert_allclose(await computed(opened.engine, [pixels]), here[1].forward([pixels]), atol=1e-5)
        opened.engine.close()
        await asyncio.wait_for(until(lambda: bench.server.find("tuned:abc") is None), TIMEOUT_S)
        await bench.server.close()

    asyncio.run(main())


def test_a_version_whose_processor_cannot_be_read_leaves_the_engine(
    specs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: ModelSource) -> None:
        raise ModelSourceError("no processor")

    monkeypatch.setattr("models.loader.read_processor", fail)

    async def main() -> None:
        bench = ImageBench(specs[:1])
        bench.source.open_configured = lambda: iter(())  # type: ignore[method-assign]
        bench.server.start()
        front = await bench.remote()
        source = ModelSource("tuned", locate(specs[1]).path, "trained", "abc")
        with pytest.raises(ModelSourceError, match="no processor"):
            await asyncio.wait_for(asyncio.to_thread(front.open_version, source), TIMEOUT_S)
        await asyncio.wait_for(until(lambda: bench.server.find("tuned:abc") is None), 10)
        await bench.server.close()

    asyncio.run(main())


def a_submission() -> SubmitImages:
    items = [Pixels(np.full((3, 4, 5), 7, np.uint8), steps=2), Pixels(np.zeros((3, 2, 2), np.uint8))]
    return image_submission("model", Request(items, 1), items)


def test_images_travel_in_parts_of_some_megabytes(specs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[tuple[int, bool]] = []

    def note(frame: SubmitImages) -> list[Pixels]:
        submitted.append((len(frame.steps) // 4, frame.more))
        return images_of(frame)

    monkeypatch.setattr("service.serving.front_connection.images_of", note)

    async def main() -> None:
        bench = ImageBench(specs[1:2])
        bench.server.start()
        front = await bench.remote()
        [opened] = await asyncio.wait_for(asyncio.to_thread(lambda: list(front.open_configured())), TIMEOUT_S)
        assert isinstance(opened, OpenedImages)
        pixels = [opened.model.images.prepare(picture(80, 60, seed)) for seed in range(5)]
        whole = await computed(opened.engine, pixels)
        monkeypatch.setattr("service.serving.remote_models._PART_BYTES", 2 * pixels[0].values.nbytes)
        np.testing.assert_allclose(await computed(opened.engine, pixels[::-1]), whole[::-1], atol=1e-5)
        assert submitted == [(5, False), (2, True), (2, True), (1, False)]
        await bench.server.close()

    asyncio.run(main())


def test_images_come_back_as_they_were() -> None:
    first, second = images_of(a_submission())
    assert (first.values.shape, first.steps, first.values.tolist()) == ((3, 4, 5), 2, [[[7] * 5] * 4] * 3)
    assert (second.values.shape, second.steps, int(second.values.sum())) == ((3, 2, 2), 0, 0)


@pytest.mark.parametrize("field", ["pixels", "heights", "widths", "steps"])
def test_parts_that_do_not_fit_are_refused(field: str) -> None:
    frame = a_submission()
    for part in (b"", getattr(frame, field)[:-4], getattr(frame, field) + b"\0\0\0\1"):
        setattr(frame, field, part)
        with pytest.raises(ValueError, match="images"):
            images_of(frame)


def test_sizes_that_overflow_are_refused() -> None:
    sizes = np.array([2**31 - 1, 2**31 - 1], np.int32).tobytes()
    frame = a_submission()
    frame.heights = frame.widths = sizes
    with pytest.raises(ValueError, match="images of"):
        images_of(frame)
    frame.heights = np.array([-4, 2], np.int32).tobytes()
    with pytest.raises(ValueError, match="heights"):
        images_of(frame)
