"""Checks before operators that PyTorch runs unchecked: arguments by which it would read beyond a tensor, or crash.

They were found by calling each operator of the list with random arguments. Most come from a hostile file. Two come from
a caller's values: the offsets of `embedding_bag`, and the integers of a division.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from models.programs.operators import schema_of

Arguments = Mapping[str, Any]
Check = Callable[[Arguments], bool]
_SIGNED = {torch.int8, torch.int16, torch.int32, torch.int64}


def guarded(found: OpOverload) -> Callable[..., Any]:
    """The operator, which raises ValueError for arguments that its check refuses; itself where it has none."""
    schema = schema_of(found)
    name = schema.name.partition("::")[2]
    check = _CHECKS.get(name.removesuffix("_"))
    if check is None:
        return found
    names = [argument.name for argument in schema.arguments]

    @wraps(found, assigned=(), updated=())
    def checked(*arguments: Any, **keywords: Any) -> Any:
        if not check(dict(zip(names, arguments, strict=False)) | keywords):
            raise ValueError(f"{name} was given sizes or values that do not fit each other")
        return found(*arguments, **keywords)

    return checked


def _has_dimensions(given: Arguments) -> bool:
    """Of Fourier transforms: dimensions that the tensor has, counted from the first one."""
    return all(0 <= one < given["self"].dim() for one in given["dim"])


def _fits_channels(given: Arguments) -> bool:
    """Of batch norm: a number for each channel, and statistics unless it takes those of the batch."""
    x = given["input"]
    each = [given.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    has_statistics = all(isinstance(one, Tensor) for one in each[2:])
    return (
        x.dim() >= 2
        and (has_statistics or given.get("training", False) is True)
        and all(one is None or one.shape == (x.shape[1],) for one in each)
    )


def _fits_norm(given: Arguments) -> bool:
    """Of weight norm: a length for each slice."""
    v, g = given["v"], given["g"]
    at = given.get("dim", 0)
    return v.dim() > 0 and at in (0, v.dim() - 1) and g.numel() == v.shape[at]


def _fits_bags(given: Arguments) -> bool:
    """Of bags of embeddings: lists of ids and of the places where bags begin."""
    ids, offsets = given["indices"], given["offsets"]
    return ids.dim() == offsets.dim() == 1 and bool(((offsets >= 0) & (offsets <= len(ids))).all())


def _has_quotients(given: Arguments) -> bool:
    """Of division: no least integer by -1, whose quotient is one too large and stops the process."""
    x, y = given["self"], given["other"]
    if given.get("rounding_mode") != "trunc" or (dtype := torch.result_type(x, y)) not in _SIGNED:
        return True
    return not bool(((x == torch.iinfo(dtype).min) & (y == -1)).any())


def _fits_attention(given: Arguments) -> bool:
    """Of attention: queries, keys and values of the same rows, heads and widths, and a mask for them."""
    query, key, value = given["query"], given["key"], given["value"]
    if not query.dim() == key.dim() == value.dim() == 4 or 0 in (*query.shape, *key.shape, *value.shape):
        return False
    fits = query.shape[0] == key.shape[0] and query.shape[1] % key.shape[1] == 0 and query.shape[3] == key.shape[3]
    return fits and key.shape[:3] == value.shape[:3] and _fits_mask(given.get("attn_mask"), query, key)


def _fits_mask(mask: Tensor | None, query: Tensor, key: Tensor) -> bool:
    if mask is None:
        return True
    scores = (*query.shape[:3], key.shape[2])
    return mask.dim() in (2, 4) and all(
        got in (1, most) for got, most in zip(mask.shape, scores[-mask.dim() :], strict=True)
    )


_CHECKS: dict[str, Check] = {
    **dict.fromkeys(("_fft_c2c", "_fft_c2r", "_fft_r2c"), _has_dimensions),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"), _fits_channels
    ),
    **dict.fromkeys(("div", "divide"), _has_quotients),
    "_weight_norm": _fits_norm,
    "embedding_bag": _fits_bags,
    "_scaled_dot_product_flash_attention_for_cpu": _fits_attention,
}
