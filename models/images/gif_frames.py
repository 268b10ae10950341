"""The number of frames of a GIF, by its blocks alone: Pillow would set up each frame to count it."""

from __future__ import annotations

_HEADER_BYTES = 13
_EXTENSION, _IMAGE = 0x21, 0x2C
_HAS_COLOURS, _COLOURS = 0x80, 0x07


def count_frames(data: bytes, most: int) -> int:
    """The frames of a GIF, at most `most`; those before the first byte that is no block."""
    at, frames = _HEADER_BYTES + _colours_bytes(data, 10), 0
    while frames < most and at < len(data):
        if data[at] == _EXTENSION:
            at = _skip_blocks(data, at + 2)
        elif data[at] == _IMAGE:
            frames += 1
            at = _skip_blocks(data, at + 11 + _colours_bytes(data, at + 9))
        else:
            break
    return frames


def _colours_bytes(data: bytes, at: int) -> int:
    """The bytes of the table of colours that the flags at a byte announce."""
    flags = data[at] if at < len(data) else 0
    return 3 << ((flags & _COLOURS) + 1) if flags & _HAS_COLOURS else 0


def _skip_blocks(data: bytes, at: int) -> int:
    """Where a chain of blocks ends, each with its length before it."""
    while at < len(data) and data[at]:
        at += data[at] + 1
    return at + 1
