"""The weights of a program: raw tensors of its archive, read within their bounds."""

from __future__ import annotations

import math
import re

import msgspec
import torch

from models.errors import ModelSourceError
from models.programs.archive import Archive
from models.programs.schema import Payload, Payloads, Size, TensorMeta

_PART = re.compile(r"(weight|tensor)_[0-9]{1,9}", re.ASCII)
_MAX_CONFIG_BYTES = 128 << 20
_MAX_DIMENSIONS = 64
# A tensor that repeats its storage, as expand() makes it, may take more bytes than the file has.
_MAX_REPEATED_BYTES = 64 << 20
_STRIDED = 7
# torch.export's numbers of dtypes.
DTYPES: dict[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}


def read_weights(archive: Archive) -> dict[str, torch.Tensor]:
    """Parameters, buffers and constants by their names in the module."""
    storages: dict[str, torch.Tensor] = {}
    tensors: dict[str, torch.Tensor] = {}
    for kind in ("weights", "constants"):
        folder = f"data/{kind}/"
        config = archive.read(f"{folder}model_{kind}_config.json", _MAX_CONFIG_BYTES)
        for name, payload in msgspec.json.decode(config, type=Payloads).config.items():
            tensors[name] = _read_tensor(archive, folder, name, payload, storages)
    return tensors


def dtype_of(meta: TensorMeta) -> torch.dtype:
    """The dtype of a tensor. Raises ValueError for one that is not supported."""
    if meta.dtype not in DTYPES:
        raise ValueError(f"expected a dtype of PyTorch's common ones, got torch.export's number {meta.dtype}")
    return DTYPES[meta.dtype]


def _read_tensor(
    archive: Archive, folder: str, name: str, payload: Payload, storages: dict[str, torch.Tensor]
) -> torch.Tensor:
    meta = payload.tensor_meta
    if payload.use_pickle or meta is None or not _PART.fullmatch(payload.path_name):
        raise archive.unsafe(f"{folder}: {name[:80]!r} is a pickle or an object, which can run code")
    part, dtype = folder + payload.path_name, dtype_of(meta)
    if meta.layout != _STRIDED:
        raise archive.error(f"{name[:80]}: expected a dense tensor, got torch.export's layout {meta.layout}")
    key = f"{part} {dtype}"
    if key not in storages:
        storages[key] = _read_storage(archive, part, dtype)
    sizes, strides, offset = _numbers(meta.sizes), _numbers(meta.strides), _numbers([meta.storage_offset])[0]
    _require_within(archive, name, storages[key], sizes, strides, offset)
    return torch.as_strided(storages[key], sizes, strides, offset)


def _read_storage(archive: Archive, part: str, dtype: torch.dtype) -> torch.Tensor:
    content = bytearray(archive.read(part))
    if len(content) % dtype.itemsize:
        raise archive.error(f"{part}: expected whole values of {dtype}, got {len(content):,} bytes")
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _numbers(sizes: list[Size]) -> list[int]:
    numbers = [size.value for size in sizes]
    if not all(isinstance(number, int) and 0 <= number < 2**62 for number in numbers):
        raise ValueError("expected the sizes of weights as numbers that are not negative")
    return numbers


def _require_within(
    archive: Archive, name: str, storage: torch.Tensor, sizes: list[int], strides: list[int], offset: int
) -> None:
    """Raise ModelSourceError for a tensor that reaches beyond its storage, or repeats it too often."""
    if len(sizes) != len(strides) or len(sizes) > _MAX_DIMENSIONS:
        raise archive.error(f"{name[:80]}: expected a stride for each of at most {_MAX_DIMENSIONS} dimensions")
    count, held = math.prod(sizes), storage.numel()
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) if count else 0
    if count and last >= held:
        raise _range_error(archive, name, f"its last value is at {last:,}", f"its part has {held:,}")
    if count * storage.itemsize > max(held * storage.itemsize, _MAX_REPEATED_BYTES):
        raise _range_error(archive, name, f"it declares {count:,} values", f"its part has {held:,}")


def _range_error(archive: Archive, name: str, found: str, held: str) -> ModelSourceError:
    return archive.error(f"{name[:80]}: expected a tensor within its part of the file, {found} and {held}")
