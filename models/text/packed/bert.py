"""BERT and its relatives without padding: all tokens of a batch in one matrix.

Compared with the general path this saves the padding, and two thirds of the matrix calls for Q, K and V. It also saves
the Python around each layer, which is most of the time of a single short text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import Unsupported
from models.preemption import NO_PREEMPTION, Preemption
from models.text.packed.architectures import ARCHITECTURES, BertShape, read_shape, read_weights
from models.text.packed.attention import Attention
from models.text.packed.linear import Linear, prepare_for_cpu
from models.text.packed.packed_batch import (
    SHARED,
    AttentionBlocks,
    PackedBatch,
    block_of_one,
    masks_in,
    pad_rows,
    pool,
    pool_one,
)
from models.text.packed.relative_positions import add_relative_bias
from models.text.packed.torchscript import as_written, script_alike, script_in_one
from models.text.tokenization import Tokens

# attend, project_up and project_down; preemption is possible between two of them.
_STEPS_PER_LAYER = 3
# Rows, intermediate rows and steps done, as `_EncoderStack` returns them.
_Progress = tuple[Tensor, Tensor, int]


class PackedBert(nn.Module):
    """BERT's encoder, or a relative's, over a packed batch; for inference, without dropout."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.shape = shape
        self.word_embeddings = _Embedding(shape.vocabulary, shape.width)
        self.position_embeddings = _Embedding(shape.positions, shape.width)
        self.norm = nn.LayerNorm(shape.width, shape.eps)
        self.relative_bias = _Embedding(shape.relative_buckets, shape.heads) if shape.relative_buckets else None
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        # In a list, since its modules are this module's already: as a submodule they would be registered twice.
        self._stack = [_EncoderStack(self.word_embeddings, self.position_embeddings, self.norm, self.layers)]
        self.onednn_rows, self.float16_max_rows = range(0), 0
        self._max_alone = 0  # tokens of a text for `embed_one`

    def forward(self, layout: PackedBatch, preempt: Preemption = NO_PREEMPTION) -> Tensor:
        """Token vectors [tokens, d] in the weights' dtype.

        Calls `preempt` between steps while one of its flags is up.
        """
        inputs = self._inputs(layout)
        with as_written():
            started, _ = self._stack[0](*inputs, "mean", *_conditions(preempt))
            return self._finish(started, inputs[-1], preempt)

    def embed(self, layout: PackedBatch, pooling: str, preempt: Preemption = NO_PREEMPTION) -> Tensor:
        """Vectors float32 [texts, d] of a batch, each `pooling` its tokens: mean, first ("cls") or last.

        One call does both, so that the thread wins Python's lock back once.
        """
        inputs = self._inputs(layout)
        with as_written():
            started, vectors = self._stack[0](*inputs, pooling, *_conditions(preempt))
            if self._is_done(started):
                return vectors[: layout.texts]  # type: ignore[no-any-return]  # a module's call is Any
            return layout.pool(self._finish(started, inputs[-1], preempt), pooling)

    def takes_alone(self, batch: Sequence[Tokens]) -> bool:
        """Whether the batch is one text for `embed_one`: a short one without padding tokens, on a CPU."""
        if len(batch) != 1 or batch[0].count > self._max_alone:
            return False
        padding = self.shape.first_position - 1
        return padding < 0 or padding not in batch[0].ids

    def embed_one(self, ids: NDArray[np.int32], pooling: str, preempt: Preemption = NO_PREEMPTION) -> Tensor:
        """Embed a text that the network `takes_alone`, with less Python around the layers than a layout needs.

        `ids` int32 [tokens], `pooling` as in `PackedBatch.pool`. Returns the text's vector float32 [1, d].
        """
        stack, count = self._stack[0], len(ids)
        filled = np.zeros(pad_rows(count, self.onednn_rows), dtype=np.int64)
        filled[:count] = ids
        with as_written():
            first = self.shape.first_position
            started, vector = stack.embed_one(torch.from_numpy(filled), count, first, pooling, *_conditions(preempt))
            if self._is_done(started):
                return vector
            return pool_one(self._finish(started, block_of_one(count), preempt), count, pooling)

    def _inputs(self, layout: PackedBatch) -> tuple[Tensor, Tensor, Tensor, Tensor, AttentionBlocks]:
        """What a pass starts from: ids, positions and owners of tokens, lengths of texts, and blocks."""
        first, bias = self.shape.first_position, self.relative_bias
        positions = layout.positions if first == 0 else layout.positions_from(first)
        blocks = layout.blocks if bias is None else add_relative_bias(bias, layout.blocks)
        return layout.ids, positions, layout.owner, layout.lengths, blocks

    def _is_done(self, progress: _Progress) -> bool:
        return progress[2] == _STEPS_PER_LAYER * self.shape.layers

    def _finish(self, started: _Progress, blocks: AttentionBlocks, preempt: Preemption) -> Tensor:
        """Run the steps that a started pass has left; more urgent work comes before them."""
        while not self._is_done(started):
            preempt()
            started = self._stack[0].resume(*started, blocks, *_conditions(preempt))
        return started[0]

    def placed(self, device: torch.device, dtype: torch.dtype, *, may_round: bool = False) -> Self:
        """Move to a device and dtype, in the form that computes fastest there.

        Where it `may_round`, few rows may be multiplied by weights in float16.
        """
        self.to(device, dtype).eval().requires_grad_(False)
        linear = [layer for layer in self.modules() if isinstance(layer, Linear)]
        if linear:  # else they multiply integers
            self.onednn_rows = prepare_for_cpu(linear, may_round=may_round)
        self.float16_max_rows = max((layer.float16_max_rows for layer in linear), default=0)
        if device.type == "cpu":
            layers = nn.ModuleList(script_alike(self.layers))
            stack = _EncoderStack(self.word_embeddings, self.position_embeddings, self.norm, layers)
            self._stack = [script_in_one(stack.eval(), "embed_one", "resume")]
            room = self.shape.positions - self.shape.first_position
            self._max_alone = SHARED if self.relative_bias is None and room >= SHARED else 0
        return self

    @classmethod
    def load(cls, path: Path, config: dict[str, Any], *, map_words: bool = False) -> PackedBert:
        """Build from a model directory; `map_words` as in `read_weights`.

        Raises Unsupported for anything but a plain encoder of one of ARCHITECTURES.
        """
        shape = read_shape(config)
        weights = path / "model.safetensors"
        if not weights.is_file():
            raise Unsupported("its weights are in several files")
        with torch.device("meta"):
            network = cls(shape)
        names = ARCHITECTURES[config["model_type"]]
        network.load_state_dict(read_weights(weights, names, shape.layers, map_words=map_words), assign=True)
        return network


class _Embedding(nn.Embedding):
    """Draws no random weights, for which PyTorch would import SymPy for two seconds."""

    def reset_parameters(self) -> None:
        """Leave the weights as they are."""


class _EncoderStack(nn.Module):
    """All layers in one call, from token ids to token vectors.

    Ends early when a preemption flag is up.

    One call wins Python's lock back once and not after every layer. Layers then take a tenth less time
    (benchmarks/NOTES.md).
    """

    def __init__(self, words: nn.Embedding, positions: nn.Embedding, norm: nn.Module, layers: nn.ModuleList) -> None:
        super().__init__()
        self.word_embeddings, self.position_embeddings, self.norm = words, positions, norm
        self.layers: Any = layers  # of _Layers; mypy does not know a ModuleList's items
        self.steps_per_layer = _STEPS_PER_LAYER  # TorchScript reads no globals

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        owner: Tensor,
        lengths: Tensor,
        blocks: AttentionBlocks,
        pooling: str,
        flags: list[Tensor],
        threads: int,
    ) -> tuple[tuple[Tensor, Tensor, int], Tensor]:
        """Start a pass of a PackedBatch. Returns what `resume` does, and the vectors once all steps are done."""
        rows: Tensor = self.norm(self.word_embeddings(ids) + self.position_embeddings(positions))
        started = self.resume(rows, rows, 0, masks_in(blocks, rows.dtype), flags, threads)
        return started, pool(started[0], owner, lengths, pooling)

    @torch.jit.export
    def embed_one(
        self, ids: Tensor, count: int, first_position: int, pooling: str, flags: list[Tensor], threads: int
    ) -> tuple[tuple[Tensor, Tensor, int], Tensor]:
        """The same for one text: ids int64 [rows], its `count` tokens and fillers."""
        positions = self.position_embeddings.weight[first_position : first_position + len(ids)]
        rows: Tensor = self.norm(self.word_embeddings(ids) + positions)
        started = self.resume(rows, rows, 0, block_of_one(count), flags, threads)
        return started, pool_one(started[0], count, pooling)

    @torch.jit.export
    def resume(
        self, rows: Tensor, intermediate: Tensor, done: int, blocks: AttentionBlocks, flags: list[Tensor], threads: int
    ) -> tuple[Tensor, Tensor, int]:
        """Run the steps after the first `done`, to the end or until a flag is up.

        Returns the rows [tokens, d], the intermediate rows where the next step needs them, and the steps done.
        """
        first, going = 0, True
        for layer in self.layers:
            if going and done <= first:
                rows = layer.attend(rows, blocks, threads)
                done, going = first + 1, not _any_up(flags)
            if going and done <= first + 1:
                intermediate = layer.project_up(rows, threads)
                done, going = first + 2, not _any_up(flags)
            if going and done <= first + 2:
                rows = layer.project_down(intermediate, rows, threads)
                intermediate = rows
                done, going = first + 3, not _any_up(flags)
            first += self.steps_per_layer
        return rows, intermediate, done


class _Layer(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = Attention(shape.heads)
        self.qkv: nn.Module = Linear(shape.width, 3 * shape.width)
        self.out: nn.Module = Linear(shape.width, shape.width)
        self.attention_norm = nn.LayerNorm(shape.width, shape.eps)
        self.up_proj: nn.Module = Linear(shape.width, shape.intermediate)
        self.down_proj: nn.Module = Linear(shape.intermediate, shape.width)
        self.norm = nn.LayerNorm(shape.width, shape.eps)

    @torch.jit.export
    def attend(self, rows: Tensor, blocks: AttentionBlocks, threads: int) -> Tensor:
        """Self-attention with its residual and norm: [tokens, d] → [tokens, d]."""
        context = self.attention(self.qkv(rows, threads=threads), blocks, threads)
        attended: Tensor = self.attention_norm(self.out(context, "none", rows, threads))
        return attended

    @torch.jit.export
    def project_up(self, rows: Tensor, threads: int) -> Tensor:
        """The feed-forward network's first product and GELU: [tokens, d] → [tokens, intermediate]."""
        intermediate: Tensor = self.up_proj(rows, "gelu", threads=threads)
        return intermediate

    @torch.jit.export
    def project_down(self, intermediate: Tensor, rows: Tensor, threads: int) -> Tensor:
        """Its second product with residual and norm: [tokens, intermediate] → [tokens, d]."""
        projected: Tensor = self.norm(self.down_proj(intermediate, "none", rows, threads))
        return projected


def _conditions(preempt: Preemption) -> tuple[list[Tensor], int]:
    """The flags that end a pass early, and the threads of the calling thread."""
    return [torch.from_numpy(flag) for flag in preempt.flags], torch.get_num_threads()


def _any_up(flags: list[Tensor]) -> bool:
    for flag in flags:  # noqa: SIM110  # TorchScript has no any() of a generator
        if bool(flag):
            return True
    return False
