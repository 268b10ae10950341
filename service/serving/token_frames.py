"""Tokens as frames to the engine, and back."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.text.tokenization import Tokens
from service.engine.frames import Submit, header
from service.engine.request import Request


def submission(model: str, request: Request, items: Sequence[Tokens], *, more: bool = False) -> Submit:
    """The frame that submits tokens of a request to the engine's `model`."""
    typed = any(item.types is not None for item in items)
    return Submit(
        *header(model, request, more=more),
        b"".join(item.ids.tobytes() for item in items),
        _int32([item.count for item in items]),
        _int32([item.prompt_tokens for item in items]),
        b"".join(_types(item).tobytes() for item in items) if typed else b"",
    )


def tokens_of(frame: Submit) -> list[Tokens]:
    """The tokens of a submission. Raises ValueError where its parts do not fit each other."""
    ids, lengths, prompts = (_array(part) for part in (frame.ids, frame.lengths, frame.prompt_tokens))
    types = _array(frame.types) if frame.types else None
    if len(lengths) != len(prompts) or lengths.sum() != len(ids) or (lengths < 0).any() or not len(lengths):
        raise ValueError(f"{len(lengths)} lengths with a sum of {lengths.sum()} for {len(ids)} ids")
    if types is not None and len(types) != len(ids):
        raise ValueError(f"{len(types)} token types for {len(ids)} ids")
    tokens, start = [], 0
    for length, prompt_tokens in zip(lengths.tolist(), prompts.tolist(), strict=True):
        stop = start + length
        own_types = None if types is None else types[start:stop]
        tokens.append(Tokens(ids[start:stop], length, own_types, prompt_tokens))
        start = stop
    return tokens


def _int32(values: list[int]) -> bytes:
    return struct.pack(f"={len(values)}i", *values)


def _array(part: bytes) -> NDArray[np.int32]:
    return np.frombuffer(bytearray(part), dtype=np.int32)  # writable, as PyTorch wants it


def _types(item: Tokens) -> NDArray[np.int32]:
    return item.types if item.types is not None else np.zeros(item.count, dtype=np.int32)
