"""Models that read texts or image files, as BYTES."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from models.programs.contract import Contract, Shaped, TensorSpec
from models.programs.expressions import parse
from service.api.schemas.open_inference import InferParameters
from service.api.tensors.images import ImageEmbeddingTensors
from service.api.tensors.model import TensorCall, TensorOutput
from service.api.tensors.texts import EmbeddingTensors
from service.config import Settings
from service.errors import InvalidRequest
from service.serving.image_model import ServedTextImages

_IMAGE = TensorSpec("image", "bytes", (parse("n"),), optional=True)


class TextImageTensors(EmbeddingTensors):
    """Texts or image files in, vectors of one space out."""

    def __init__(self, served: ServedTextImages, settings: Settings) -> None:
        super().__init__(served, settings)
        self._of_images = ImageEmbeddingTensors(served, settings)

    def check(self, tensors: Mapping[str, Shaped], parameters: InferParameters) -> None:
        """See TensorModel. A request has texts or images."""
        if "image" not in tensors:
            super().check(tensors, parameters)
        elif "text" in tensors:
            raise InvalidRequest.at("image", "expected text or image, got both: send them in two requests")
        else:
            self._of_images.check(tensors, parameters)

    async def infer(self, call: TensorCall) -> TensorOutput:
        """See TensorModel."""
        return await (self._of_images.infer(call) if "image" in call.tensors else super().infer(call))

    def _make_contract(self) -> Contract:
        contract = super()._make_contract()
        return replace(contract, inputs=(*contract.inputs, _IMAGE))
