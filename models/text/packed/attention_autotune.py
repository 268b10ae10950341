"""From which size of blocks on attention in bfloat16 pays between rows in float32, measured on this machine.

bfloat16 multiplies faster, but the rows must be rounded first, and the result turned back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from models.runtime.autotune_cache import autotune_cache
from models.runtime.timing import one_thread, time_in_turn
from models.text.packed.attention import NO_SIZE, Attention
from models.text.packed.packed_batch import SHARED, AttentionBlocks
from models.text.packed.torchscript import as_written, script

log = logging.getLogger(__name__)

# Sizes of blocks that are tried, the largest first, each with blocks for so many tokens.
_SIZES, _TOKENS = (256, 128, 96, 64, SHARED), 256
# Each size is timed for so long, or for four turns.
_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class AttentionAutotune:
    """The least size of blocks from which on bfloat16 is faster; `NO_SIZE` where it never is."""

    bfloat16_min_size: Annotated[int, Field(ge=SHARED)]


def autotune_attention(heads: int, width: int) -> int:
    """The least size of blocks from which on attention is faster in bfloat16: kept, or measured.

    `width` is that of all `heads` together. Autotuning that fails leaves float32.
    """
    name = f"attention with {heads} heads of {width // heads} in float32 and bfloat16"
    try:
        tuned = autotune_cache.recall(name, AttentionAutotune, partial(_run, heads, width))
    except (MemoryError, RuntimeError) as error:
        log.warning("%s could not be autotuned, so it stays in float32: %s", name, error)
        return NO_SIZE
    log.info("%s: bfloat16 is faster for blocks of %d tokens on", name, tuned.bfloat16_min_size)
    return tuned.bfloat16_min_size


@torch.inference_mode()
def _run(heads: int, width: int) -> AttentionAutotune:
    ways = {least: script(Attention(heads, least).eval()) for least in (SHARED, NO_SIZE)}
    with one_thread(), as_written():
        faster = takewhile(lambda size: _bfloat16_wins(ways, size, width), _SIZES)
        return AttentionAutotune(min(faster, default=NO_SIZE))


def _bfloat16_wins(ways: Mapping[int, nn.Module], size: int, width: int) -> bool:
    """Whether the way that takes bfloat16 from `SHARED` tokens on is faster for blocks of a size."""
    count = _TOKENS // size
    mask = torch.zeros(count, 1, size, size)
    mask[..., size - 1] = -torch.inf  # as in most batches, blocks have an empty slot
    qkv, blocks = torch.randn(count * size, 3 * width), AttentionBlocks([size], [count], [mask], None, None)
    seconds = time_in_turn({least: partial(attention, qkv, blocks) for least, attention in ways.items()}, _SECONDS)
    return seconds[SHARED] < seconds[NO_SIZE]
