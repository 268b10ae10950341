"""Transformers directories that write the text of an image, as TrOCR does: `VisionEncoderDecoderModel`."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.images.model import DescribedImageModel, ImageNetwork, image_metadata
from models.images.pixels import Pixels
from models.images.processor import ImageProcessor
from models.runtime.placement import Placement
from models.source import ModelSource

# The most tokens of a row. A model may have a lower limit of its own.
_MOST_TOKENS = 128
# Tokens of a line that is as long as it is high: letters are half as wide as high, and a token has about four.
_TOKENS_PER_HEIGHT = 0.5
# Of a row's places for tokens that were not written.
_NONE = -1


@dataclass(frozen=True, slots=True)
class RecognizedText:
    """The text of one image. `confidence` is the geometric mean of its tokens' probabilities.

    `truncated` says that the model had not ended when it had written as many tokens as it may.
    """

    text: str
    confidence: float
    truncated: bool


class RecognizesText(DescribedImageModel, Protocol):
    """A model whose rows are texts, which end with one of the tokens `ends`."""

    ends: tuple[int, ...]

    def prepare_line(self, line: Image.Image) -> Pixels:
        """A line of text for the network."""
        ...

    def read_row(self, row: NDArray[np.float32]) -> RecognizedText:
        """The text of a row."""
        ...


class LineReader:
    """What a recogniser does before and after its network: lines to pixels, and rows to texts."""

    def __init__(self, source: ModelSource, images: ImageProcessor, most_tokens: int, ends: tuple[int, ...]) -> None:
        from transformers import AutoTokenizer

        self.images = images
        self.ends = ends
        self._most_tokens = most_tokens
        with source.loading("a tokenizer"):
            self._tokenizer = AutoTokenizer.from_pretrained(source.path, trust_remote_code=False, local_files_only=True)

    def prepare_line(self, line: Image.Image) -> Pixels:
        """A line of text for the network. Its cost grows with its length, so that lines of one length share a batch."""
        tokens = math.ceil(_TOKENS_PER_HEIGHT * line.width / max(line.height, 1))
        return replace(self.images.prepare(line), steps=min(tokens, self._most_tokens))

    def read_row(self, row: NDArray[np.float32]) -> RecognizedText:
        """The text of a row."""
        tokens, logs = row.reshape(2, -1)
        written = tokens != _NONE
        ids = tokens[written].astype(int).tolist()
        text = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
        confidence = math.exp(float(logs[written].mean())) if ids else 0.0
        return RecognizedText(text, confidence, truncated=not ids or ids[-1] not in self.ends)


class TextRecognizer(ImageNetwork):
    """A vision encoder with a decoder that writes the text token by token, always the most probable one.

    A row has the tokens, then the logarithms of their probabilities: float32 [n, 2 * most tokens].
    """

    def __init__(self, source: ModelSource, placement: Placement) -> None:
        super().__init__(source, placement, "VisionEncoderDecoderModel", "encoder", "decoder", whole_size=True)
        self._generation = _greedy(self._network)
        self._most_tokens = int(self._generation.max_new_tokens)
        self._ends = torch.tensor(self._generation.eos_token_id).flatten()
        self.ends = tuple(self._ends.tolist())
        lines = LineReader(source, self.images, self._most_tokens, self.ends)
        self.prepare_line, self.read_row = lines.prepare_line, lines.read_row
        self.metadata = image_metadata(
            source,
            placement,
            self.images,
            task="ocr",
            architecture=str(self._network.config.decoder.model_type),
            width=2 * self._most_tokens,
        )

    def _rows(self, images: Sequence[Pixels]) -> Tensor:
        record = _Recorder()
        pixels = self._to_tensor(images)
        sequences = self._network.generate(
            pixel_values=pixels, generation_config=self._generation, logits_processor=[record]
        )
        logs = torch.stack(record.steps, dim=1).cpu()
        tokens = sequences[:, -logs.shape[1] :].cpu()
        is_end = torch.isin(tokens, self._ends)
        after_end = is_end.cumsum(dim=1) > is_end.int()
        rows = torch.zeros(len(tokens), 2, self._most_tokens)
        rows[:, 0] = _NONE
        rows[:, 0, : tokens.shape[1]] = tokens.masked_fill(after_end, _NONE).float()
        rows[:, 1, : logs.shape[1]] = logs.masked_fill(after_end, 0.0)
        return rows.flatten(1)


def _greedy(network: Any) -> Any:
    """The model's way to generate, without beams and with a bound."""
    made = copy.deepcopy(network.generation_config)
    positions = getattr(network.config.decoder, "max_position_embeddings", None) or _MOST_TOKENS + 1
    # A length counts the token that the decoder starts with.
    limit = made.max_new_tokens or (made.max_length or positions) - 1
    made.update(num_beams=1, do_sample=False, early_stopping=False, length_penalty=1.0, max_length=None)
    made.max_new_tokens = min(limit, positions - 1, _MOST_TOKENS)
    return made


class _Recorder:
    """A logits processor that keeps the log-probability of the most probable token of each step, float32 [n]."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.steps.append(scores.float().log_softmax(dim=-1).amax(dim=-1))
        return scores
