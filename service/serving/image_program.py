"""An exported program whose input is an image: it reads tensors, and images as its description states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from models.images.pixels import Pixels
from models.images.reader import ImageLimits
from models.images.stated_processor import stated_processor
from models.programs.contract import Described
from models.programs.tensors import TORCH_DTYPES, HostTensor
from service.engine.row_engine import RowEngine
from service.serving.image_model import ImageOutput, ReadsImages
from service.serving.model_opener import OpenedProgram
from service.serving.program_model import DescribedProgram, ServedProgram, Tensors, cost_in_tokens
from service.serving.servable import Caller, ServingContext
from service.serving.unread_image import Encoded


class ServedImageProgram(ServedProgram, ReadsImages):
    """A program that reads tensors and images."""

    reads = "tensors and images"

    def __init__(
        self, program: DescribedProgram, engine: RowEngine[Any], context: ServingContext, limits: ImageLimits
    ) -> None:
        super().__init__(program, engine, context)
        if self.description.preprocess is None:
            raise ValueError(f"{program.metadata.name}: its description says nothing of images")
        self.images = stated_processor(self.description.preprocess)
        self.image_limits = limits

    async def image_rows(
        self, images: Sequence[Encoded], caller: Caller, task: str, name: Callable[[int], str]
    ) -> ImageOutput:
        """See ReadsImages. Raises TensorError for more images than the contract allows at once, too."""
        shapes = self._describe(len(images))
        self._contract.check(shapes)
        cost = cost_in_tokens(shapes)
        self._require_room(cost, name(0))
        with self._admission.admit(len(images), cost, lambda: self.engine.tokens_per_s):
            pixels, decoded_s = await self._read_all(images, caller, task, name)
            made = await self._compute(self._cut(await self.run_in_pool(lambda: self._to_tensors(pixels))), caller)
        return ImageOutput(
            inputs=made.inputs,
            token_count=made.token_count,
            tokenize_s=decoded_s,
            queue_s=made.queue_s,
            inference_s=made.inference_s,
            values=self.description.rows_of(made.tensors),
            tokens=pixels,
        )

    def _describe(self, images: int) -> dict[str, Described]:
        """The input that a number of images becomes."""
        [spec], signature = self._contract.inputs, self.images.signature
        return {spec.name: Described(spec.dtype, (images, 3, signature.height, signature.width))}

    def _to_tensors(self, pixels: Sequence[Pixels]) -> Tensors:
        [spec] = self._contract.inputs
        values = self.images.normalize(torch.from_numpy(np.stack([one.values for one in pixels])))
        return {spec.name: HostTensor.of(values.to(TORCH_DTYPES[spec.dtype]))}


def serve_program(opened: OpenedProgram, context: ServingContext, limits: ImageLimits) -> ServedProgram:
    """A program in service, which may read images as well."""
    if opened.program.description.preprocess is None:
        return ServedProgram(opened.program, opened.engine, context)
    return ServedImageProgram(opened.program, opened.engine, context, limits)
