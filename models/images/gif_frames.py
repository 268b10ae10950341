"""The number of frames of a GIF, by its blocks alone: Pillow would set up each frame to count it."""

from __future__ import annotations

_HEADER_BYTES = 13
_EXTENSION, _IMAGE = 0x21, 0x2C
_HAS_COLOURS, _COLOURS = 0x80, 0x07
# Most blocks have 255 bytes, of which 20 MB are 80,000.
_MOST_BLOCKS = 400_000


def count_frames(data: bytes, most: int) -> int | None:
    """The frames of a GIF, at most `most`; those before the first byte that is no block. None for too many blocks."""
    at, frames, left = _HEADER_BYTES + _colours_bytes(data, 10), 0, _MOST_BLOCKS
    while frames < most and at < len(data) and data[at] in (_EXTENSION, _IMAGE):
        is_image = data[at] == _IMAGE
        frames += is_image
        at, left = _skip_blocks(data, at + (11 + _colours_bytes(data, at + 9) if is_image else 2), left - 1)
        if left <= 0:
            return None
    return frames


def _colours_bytes(data: bytes, at: int) -> int:
    """The bytes of the table of colours that the flags at a byte announce."""
    flags = data[at] if at < len(data) else 0
    return 3 << ((flags & _COLOURS) + 1) if flags & _HAS_COLOURS else 0


def _skip_blocks(data: bytes, at: int, left: int) -> tuple[int, int]:
    """Where a chain of at most `left` blocks ends, each with its length before it, and how many are left then."""
    while left > 0 and at < len(data) and data[at]:
        at += data[at] + 1
        left -= 1
    return at + 1, left
