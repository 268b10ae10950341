"""The number of strips or tiles of a TIFF, by its first directory alone: Pillow would make an object of each."""

from __future__ import annotations

import struct

# By the first bytes: how numbers are stored, where the first directory begins, and its entries of tag, type and count.
_LAYOUTS = {
    b"II*\0": ("<", "L", 4, "H", "HHL", 12),
    b"MM\0*": (">", "L", 4, "H", "HHL", 12),
    b"II+\0": ("<", "Q", 8, "Q", "HHQ", 20),
    b"MM\0+": (">", "Q", 8, "Q", "HHQ", 20),
}
# Of strips and of tiles.
_OFFSETS = {273, 324}


def count_strips(data: bytes) -> int:
    """The strips or tiles that the first directory states; 0 for what is no TIFF, or ends before."""
    layout = _LAYOUTS.get(data[:4])
    if layout is None:
        return 0
    order, pointer, at, number, entry, entry_bytes = layout
    try:
        (begin,) = struct.unpack_from(order + pointer, data, at)
        (entries,) = struct.unpack_from(order + number, data, begin)
        begin += struct.calcsize(order + number)
        most = min(entries, (len(data) - begin) // entry_bytes)
        found = [struct.unpack_from(order + entry, data, begin + at * entry_bytes) for at in range(most)]
    except struct.error:
        return 0
    return max((count for tag, _, count in found if tag in _OFFSETS), default=0)
