"""The engine factory: starts the engines of models on shared devices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from models.images.model import ImageItem, ImageModel
from models.images.patches import PatchModel
from models.images.processor import probe_image
from models.metadata import ModelMetadata
from models.programs.program import Program
from models.runtime.device import ComputeDevice, compute_threads
from models.runtime.placement import allocated_bytes
from models.text.model import TextModel
from service.config import Settings
from service.engine.cache import RowCache
from service.engine.engine import Engine
from service.engine.runner import Backend
from service.engine.scheduler import BatchLimits
from service.metrics import Metrics
from service.serving.program_model import ProgramBackend, TensorItem, loop_tokens
from service.serving.sensor_model import ReadingsBackend, ReadingsItem

_CPU_BATCH_TOKENS = 512
# An image has 196 tokens in most networks, and five convolve faster than two.
_CPU_IMAGE_BATCH_TOKENS = 1024
_GPU_BATCH_TOKENS = 16_384
# A decoder reads all its weights for each token that it writes, for one line or for many.
_OCR_FACTOR = 8
# The default takes no more runners than this.
_MAX_DEFAULT_RUNNERS = 4
_WARM_UP_IMAGES = (1, 2)


class EngineFactory:
    """Starts engines as the settings say. They share devices; models of texts and images share a row cache."""

    def __init__(self, settings: Settings, metrics: Metrics, on_failure: Callable[[Exception], None]) -> None:
        self._settings = settings
        self._metrics = metrics
        self._on_failure = on_failure
        self._devices: dict[str, ComputeDevice] = {}
        self._cache = RowCache(settings.cache_mb * 2**20)
        metrics.cache_bytes.set_function(lambda: self._cache.bytes)

    def start_rows(self, model: TextModel | ImageModel) -> Engine[Any]:
        """Start the engine of a model whose rows are cached, and which is warm: texts are by the check at load."""
        metadata = model.metadata
        self._metrics.one_by_one.labels(metadata.name).set(metadata.one_by_one)
        return self._start(metadata, model, metadata.width, self._cache, prepares=self._decodes_in_runners(metadata))

    def start_images(self, model: ImageModel, *, alone: bool) -> Engine[ImageItem]:
        """Warm a model of images up and start its engine. `alone`: no other model computes meanwhile."""
        blank = model.images.prepare(probe_image(64, 64))
        for items in _WARM_UP_IMAGES:
            with self.device(model.metadata.device).computing(alone=alone):
                model.forward([blank] * items)
        return self.start_rows(model)

    def start_patches(self, model: PatchModel) -> Engine[ImageItem]:
        """Start the engine of an encoder's patch features, whose rows are too large for the cache."""
        return self._start(model.metadata, model, model.metadata.width, RowCache(0))

    def start_sensor(self, metadata: ModelMetadata) -> Engine[ReadingsItem[Any]]:
        """Start the engine of a sensor model."""
        return self._start(metadata, ReadingsBackend(), 1, RowCache(0))

    def start_program(self, program: Program) -> Engine[TensorItem]:
        """Start the engine of an exported program, which the check at load has warmed up."""
        metadata = program.metadata
        self._metrics.one_by_one.labels(metadata.name).set(metadata.one_by_one)
        return self._start(metadata, ProgramBackend(program), 1, RowCache(0), loop_tokens(program))

    def device(self, name: str) -> ComputeDevice:
        """The device that all engines on `name` share."""
        if name not in self._devices:
            self._devices[name] = self._cpu() if name.startswith("cpu") else ComputeDevice()
            self._metrics.device_memory.labels(name).set_function(partial(allocated_bytes, torch.device(name)))
        return self._devices[name]

    def limits(self, metadata: ModelMetadata) -> BatchLimits:
        """The limits of a model's batches."""
        return BatchLimits(
            self._settings.max_batch_tokens or _default_tokens(metadata),
            self._settings.max_batch_items,
            pads=metadata.pads,
        )

    def _decodes_in_runners(self, metadata: ModelMetadata) -> bool:
        """Whether runners decode images: where each has a processor, other threads would only take it from them.

        Where a runner has several, or a GPU, these must not wait for its decoding.
        """
        return metadata.device.startswith("cpu") and self.device(metadata.device).share == 1

    def _start(
        self,
        metadata: ModelMetadata,
        backend: Backend[Any],
        width: int,
        cache: RowCache,
        loop_tokens: int = 0,
        *,
        prepares: bool = False,
    ) -> Engine[Any]:
        engine: Engine[Any] = Engine(
            metadata.name,
            metadata.version,
            backend,
            width,
            limits=self.limits(metadata),
            cache=cache,
            metrics=self._metrics,
            device=self.device(metadata.device),
            on_failure=self._on_failure,
            loop_tokens=loop_tokens,
            prepares=prepares,
        )
        engine.start()
        return engine

    def _cpu(self) -> ComputeDevice:
        threads = torch.get_num_threads()
        runners = self._settings.runners or min(threads, _MAX_DEFAULT_RUNNERS)
        # With threads of its own, a short batch would take them from all runners, which wait for each of theirs.
        return ComputeDevice(runners, threads, compute_threads, admits_short=runners >= threads)


def _default_tokens(metadata: ModelMetadata) -> int:
    """Tokens of one batch where none are set."""
    is_cpu = metadata.device.startswith("cpu")
    if metadata.task == "ocr":
        return _OCR_FACTOR * (_CPU_BATCH_TOKENS if is_cpu else _GPU_BATCH_TOKENS)
    if is_cpu:
        return _CPU_BATCH_TOKENS if metadata.image is None else _CPU_IMAGE_BATCH_TOKENS
    return _GPU_BATCH_TOKENS
