"""The blocks that attention works on: the slots of each text, and the masks between texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from models.runtime.placement import has_amx
from models.text.packed import packed_batch
from models.text.packed.attention import Attention
from models.text.packed.packed_batch import (
    AMX_TILE,
    EXACT,
    ONE_SIZE,
    SHARED,
    TILE,
    AttentionBlocks,
    PackedBatch,
    masks_in,
    pad_rows,
    tile_of,
)
from models.text.tokenization import Tokens

CPU = torch.device("cpu")
TILES = [TILE, AMX_TILE, ONE_SIZE, EXACT]
LENGTHS = st.lists(st.integers(1, SHARED) | st.integers(1, 80), min_size=1, max_size=14)


def lay_out(*lengths: int, fillers: int = 0, tile: int = TILE) -> AttentionBlocks:
    """Blocks of texts of so many tokens."""
    return AttentionBlocks.of(np.array(lengths, dtype=np.int64), fillers, tile, CPU)


def owners(one: AttentionBlocks, *lengths: int) -> list[torch.Tensor]:
    """For each size the text of each slot of each block, int64 [blocks, size], -1 for empty slots."""
    rows = sum(lengths)
    total = sum(size * count for size, count in zip(one.sizes, one.counts, strict=True))
    found = torch.full((total,), -1)
    found[one.slot_of_row[:rows] if one.slot_of_row is not None else torch.arange(rows)] = torch.arange(
        len(lengths)
    ).repeat_interleave(torch.tensor(lengths))
    parts = torch.split(found, [size * count for size, count in zip(one.sizes, one.counts, strict=True)])
    return [part.view(-1, size) for part, size in zip(parts, one.sizes, strict=True)]


@pytest.mark.parametrize(
    ("lengths", "tile", "expected"),
    [
        ([7], TILE, {7: 1}),  # one text is its own block
        ([200], TILE, {200: 1}),
        ([7], AMX_TILE, {7: 1}),
        ([200], AMX_TILE, {208: 1}),  # but for AMX, where attention of other lengths takes much longer
        ([10, 10, 10], TILE, {32: 1}),  # short ones share
        ([16, 16], TILE, {32: 1}),  # to the brim
        ([16, 16, 1], TILE, {32: 2}),
        ([12] * 5, AMX_TILE, {32: 3}),
        ([48, 48], TILE, {64: 2}),
        ([48, 48], AMX_TILE, {48: 2}),
        ([49, 3, 3], TILE, {32: 1, 64: 1}),  # each size by itself
        ([200, 3, 40, 33], TILE, {32: 1, 64: 2, 224: 1}),
        ([200, 3, 40, 33], AMX_TILE, {32: 1, 48: 2, 208: 1}),
        ([200, 3, 40, 33], ONE_SIZE, {224: 2}),  # on a GPU all as long as the longest, which others share
        ([200], ONE_SIZE, {200: 1}),
    ],
)
def test_texts_lie_in_blocks_of_a_few_sizes(lengths: list[int], tile: int, expected: dict[int, int]) -> None:
    one = lay_out(*lengths, tile=tile)
    assert dict(zip(one.sizes, one.counts, strict=True)) == expected


@pytest.mark.parametrize("lengths", [[7], [64, 64], [32, 64, 96, 96]])
def test_full_blocks_in_order_need_neither_slots_nor_mask(lengths: list[int]) -> None:
    one = lay_out(*lengths)
    assert (one.row_of_slot, one.slot_of_row, set(one.masks)) == (None, None, {None})


def test_runs_of_texts_of_one_length_need_neither_slots_nor_mask() -> None:
    one = lay_out(120, 120, 40, 120, tile=EXACT)
    assert (one.sizes, one.counts) == ([120, 40, 120], [2, 1, 1])
    assert (one.row_of_slot, one.slot_of_row, set(one.masks)) == (None, None, {None})


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([9, 12, 10, 13] * 4, [SHARED]),
        ([7, 40], [SHARED, 2 * TILE]),  # 23.5 rows a run
        ([8, 40], [8, 40]),
    ],
)
def test_texts_in_runs_of_few_rows_share_blocks(lengths: list[int], sizes: list[int]) -> None:
    assert lay_out(*lengths, tile=EXACT).sizes == sizes


def test_attention_of_all_blocks_is_bfloat16_where_one_is_long_enough() -> None:
    qkv, blocks = torch.randn(48, 3 * 8), lay_out(40, 8, tile=EXACT)
    by_bfloat16, by_float32 = (Attention(2, least)(qkv, blocks) for least in (40, 41))
    assert torch.equal(by_bfloat16, by_bfloat16.bfloat16().float())
    torch.testing.assert_close(by_bfloat16, by_float32, atol=2e-2, rtol=2e-2)
    assert not torch.equal(by_bfloat16, by_float32)


def test_fillers_of_a_single_text_have_no_slots() -> None:
    one = lay_out(3, fillers=1)
    assert (one.sizes, one.counts, one.masks, one.row_of_slot, one.slot_of_row) == ([3], [1], [None], None, None)


def test_full_blocks_in_another_order_need_slots_alone() -> None:
    one = lay_out(64, 32)
    assert one.masks == [None, None]
    assert one.slot_of_row is not None
    assert one.slot_of_row.tolist() == [*range(32, 96), *range(32)]


@given(LENGTHS, st.sampled_from(TILES), st.integers(0, 3))
@pytest.mark.slow
def test_every_text_lies_in_one_piece_in_one_block(lengths: list[int], tile: int, fillers: int) -> None:
    found = [
        block.tolist() for size in owners(lay_out(*lengths, tile=tile, fillers=fillers), *lengths) for block in size
    ]
    for text, length in enumerate(lengths):
        (block,) = [block for block in found if text in block]
        start = block.index(text)
        assert block[start : start + length] == [text] * length
        assert block.count(text) == length


@settings(deadline=None)
@given(LENGTHS, st.sampled_from(TILES), st.integers(0, 3))
@pytest.mark.slow
def test_rows_of_slots_and_slots_of_rows_are_inverse(lengths: list[int], tile: int, fillers: int) -> None:
    one = lay_out(*lengths, tile=tile, fillers=fillers)
    rows = torch.arange(2.0 * sum(lengths)).view(-1, 2)
    if one.row_of_slot is None or one.slot_of_row is None:
        assert one.row_of_slot is one.slot_of_row
        assert sum(size * count for size, count in zip(one.sizes, one.counts, strict=True)) == len(rows)
        return
    blocked = rows[one.row_of_slot]
    assert len(blocked) == sum(size * count for size, count in zip(one.sizes, one.counts, strict=True))
    assert torch.equal(blocked[one.slot_of_row][: len(rows)], rows)
    assert len(one.slot_of_row) == len(rows) + fillers
    assert one.slot_of_row[len(rows) :].tolist() == [0] * fillers


@settings(deadline=None)
@given(LENGTHS, st.sampled_from(TILES))
@pytest.mark.slow
def test_attention_stays_within_a_text(lengths: list[int], tile: int) -> None:
    one = lay_out(*lengths, tile=tile)
    for owned, mask in zip(owners(one, *lengths), one.masks, strict=True):
        same = owned[:, None, :, None] == owned[:, None, None, :]
        assert torch.equal(
            torch.zeros(same.shape) if mask is None else mask, torch.zeros(same.shape).masked_fill(~same, -torch.inf)
        )
        assert bool(same.any(dim=-1).all()), "a slot that sees nothing would give NaN"


def test_a_pass_gets_masks_in_its_dtype() -> None:
    one = masks_in(lay_out(2, 3, 64), torch.bfloat16)
    mask, none = one.masks
    assert mask is not None
    assert (mask.dtype, none, one.sizes, one.counts) == (torch.bfloat16, None, [32, 64], [1, 1])


def test_a_layout_for_a_cpu_needs_no_operation_of_pytorch() -> None:
    batch = [Tokens(np.full(length, 7, dtype=np.int32), length) for length in (2, 3, 12, 40, 33)]
    with _Operations() as operations:
        layout = PackedBatch.of(batch, CPU, range(1, 2**62))
    assert operations.seen == {"aten.lift_fresh.default"}, "others let go of Python's lock; this is `from_numpy`"
    assert layout.blocks.masks[0] is not None


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch has no types here
    """Notes each operation of PyTorch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("capabilities", "kernels", "tile"),
    [({"amx_bf16": True}, "AVX512", AMX_TILE), ({}, "AVX512", TILE), ({}, "AVX2", EXACT), ({}, "DEFAULT", TILE)],
)
def test_sizes_are_what_the_processor_likes(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], kernels: str, tile: int
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kernels)
    monkeypatch.setattr(packed_batch, "has_amx", has_amx.__wrapped__)  # which keeps its first answer
    assert tile_of(CPU) == tile
    assert tile_of(torch.device("cuda")) == ONE_SIZE


@pytest.mark.parametrize(
    ("rows", "size"),
    [(1, 2), (2, 2), (13, 14), (32, 32), (33, 36), (64, 64), (65, 72), (250, 256), (257, 288), (480, 480), (513, 576)],
)
def test_rows_are_padded_to_one_of_eight_sizes_from_each_power_of_two_to_the_next(rows: int, size: int) -> None:
    assert pad_rows(rows, range(1, 1001)) == size


@given(st.integers(1, 5000), st.integers(1, 30), st.integers(0, 5000))
def test_what_onednn_does_not_multiply_is_not_padded(rows: int, least: int, most: int) -> None:
    size = pad_rows(rows, range(least, most + 1))
    assert size == rows or least <= rows < size <= min(most, rows + max(1, rows // 8))
    assert pad_rows(size, range(least, most + 1)) == size
