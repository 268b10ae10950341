"""The opener of models: each with its engine, here in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from models.images.model import DescribedImageModel, ImageModel
from models.images.patches import PatchEncoder, PatchFeatures, PatchModel
from models.runtime.device import leave_a_processor
from models.source import ModelSource, locate
from models.text.model import DescribedTextModel
from models.text.tokenization import Tokens
from service.config import Settings
from service.engine.row_engine import RowEngine
from service.serving.engine_factory import EngineFactory
from service.serving.fine_tuned_metadata import UNCHECKED
from service.serving.program_model import DescribedProgram, TensorItem

OpenedText = tuple[DescribedTextModel, RowEngine[Tokens]]


@dataclass(frozen=True, slots=True)
class OpenedImages:
    """A model of images with its engine, and its patch features with theirs, where it has any."""

    model: DescribedImageModel
    engine: RowEngine[Any]
    patches: tuple[PatchFeatures, RowEngine[Any]] | None = None

    @classmethod
    def start(cls, model: ImageModel, engines: EngineFactory, *, alone: bool) -> OpenedImages:
        """Warm a model of this process up, and start its engines."""
        engine = engines.start_images(model, alone=alone)
        if not isinstance(model, PatchEncoder):
            return cls(model, engine)
        patches = PatchModel(model)
        return cls(model, engine, (patches, engines.start_patches(patches)))


@dataclass(frozen=True, slots=True)
class OpenedProgram:
    """An exported program with its engine."""

    program: DescribedProgram
    engine: RowEngine[TensorItem]


class ModelOpener(Protocol):
    """Opens models of texts and images, and programs, with an engine each. Its methods block."""

    # What the service says while an engine of it has failed.
    lost: str

    def measure(self) -> None:
        """Measure what is fast on this machine, where that is not known yet; nothing else should run meanwhile.

        Raises ModelError when there is no such device.
        """
        ...

    def open_configured(self) -> Iterator[OpenedText | OpenedImages | OpenedProgram]:
        """Open the models of `--model`: those that read texts or images in order, then programs. Raises ModelError."""
        ...

    def open_version(self, source: ModelSource) -> OpenedText | OpenedImages:
        """Open the encoder of a fine-tuned model beside models that serve. Raises ModelError."""
        ...

    def open_program(self, source: ModelSource) -> OpenedProgram:
        """Open a program of the registry beside models that serve. Raises ModelError.

        Raises ArtifactError where it does not reproduce the golden tensors beside it.
        """
        ...

    def close(self) -> None:
        """End calls of other threads that still wait."""
        ...


class LocalModelOpener:
    """Opens models in this process."""

    lost = "a device is lost; the service restarts"

    def __init__(
        self,
        settings: Settings,
        engines: EngineFactory,
        located: Iterable[ModelSource] | None = None,
        is_alone: Callable[[], bool] = lambda: True,
    ) -> None:
        """`located` are the models of `--model`, where a thread finds them already.

        `is_alone` says whether models may be checked with all threads, because this process does nothing else.
        """
        self._settings = settings
        self._engines = engines
        self._located = located
        self._is_alone = is_alone

    def measure(self) -> None:
        """Autotune products on a CPU. Raises ModelError."""
        from models.runtime.autotune_cache import autotune_cache
        from models.runtime.placement import place
        from models.runtime.product_autotune import autotune_products

        autotune_cache.keep_in(self._settings.autotune_file)
        if place(self._settings.device, self._settings.dtype).device.type == "cpu":
            autotune_products()

    def open_configured(self) -> Iterator[OpenedText | OpenedImages | OpenedProgram]:
        """Load the models of `--model`. Raises ModelError."""
        from models.loader import open_models, open_programs

        self.measure()
        settings = self._settings
        placed = settings.device, settings.dtype, settings.threads
        sources = map(locate, settings.text_models) if self._located is None else self._located
        for model in open_models(sources, *placed, self._checking):
            if isinstance(model, ImageModel):
                yield OpenedImages.start(model, self._engines, alone=True)
            else:
                yield model, self._engines.start_rows(model)
        kept = settings.compiled_directory if settings.compile else None
        for program in open_programs(settings.programs, *placed, trusted=settings.trust_native, compiled=kept):
            yield OpenedProgram(program, self._engines.start_program(program))

    def open_version(self, source: ModelSource) -> OpenedText | OpenedImages:
        """Load an encoder onto the device of the settings, with a runner's share of the threads."""
        from models.loader import load, load_images
        from models.runtime.placement import place

        placement = place(self._settings.device, self._settings.dtype)
        with self._engines.device(str(placement.device)).sharing():
            model = load_images(source, placement) or load(source, placement)
        if isinstance(model, ImageModel):
            return OpenedImages(model, self._engines.start_images(model, alone=False))
        return model, self._engines.start_rows(model)

    def open_program(self, source: ModelSource) -> OpenedProgram:
        """Load a program with a runner's share of the threads, and reproduce the golden tensors beside it."""
        from models.loader import load_program
        from models.programs.golden_tensors import reproduce
        from models.runtime.placement import place

        placement = place(self._settings.device, "float32")  # its file has the dtypes, so none is chosen
        device = self._engines.device(str(placement.device))
        with device.sharing():
            program = load_program(source, placement)
        with device.computing(alone=False):
            is_checked = reproduce(source.path.parent, program)
        if not is_checked:
            program.describe(notes=(UNCHECKED,))
        return OpenedProgram(program, self._engines.start_program(program))

    def close(self) -> None:
        """Nothing waits."""

    def _checking(self) -> AbstractContextManager[None]:
        return nullcontext() if self._is_alone() else leave_a_processor()
