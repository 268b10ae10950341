"""A small network as few matrix products in float64: quicker than its convolutions, and an example gives the same in
any company.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_UNITS_AT_ONCE = 512


def as_products(network: nn.Sequential, shape: Sequence[int]) -> nn.Sequential:
    """The same function of examples [n, *shape], as float64 rows [n, m] of float64 examples.

    All that lies between two GELUs, convolutions too, is affine, hence one product with a matrix. In float32 what an
    example gives depends in the last digits on how many others are computed with it; in float64 that is beyond the
    digits of a float32 score.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    stretch, like = (
        nn.Sequential(),
        torch.zeros(1, *shape, dtype=torch.float64, device=next(network.parameters()).device),
    )
    for layer in copy.deepcopy(network).double():
        if isinstance(layer, nn.GELU):
            layers += [_product(stretch, like), _Gelu()]
            stretch, like = nn.Sequential(), stretch(like)
        else:
            stretch.append(layer)
    return nn.Sequential(*layers, _product(stretch, like)).requires_grad_(requires_grad=False)


class _Gelu(nn.Module):
    """GELU in float32, which gives the same for the same number wherever it stands; in float64 it takes 25 times as
    long.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Rows [n, m] to rows [n, m], float64."""
        return functional.gelu(x.float()).double()


def _product(affine: nn.Sequential, like: Tensor) -> nn.Linear:
    """One product for layers that are affine together; its columns are what they make of examples `like` this with a
    single 1.
    """
    bias = affine(torch.zeros_like(like)).flatten()
    product = nn.Linear(like.numel(), len(bias), dtype=like.dtype, device=like.device)
    product.bias.copy_(bias)
    for start in range(0, like.numel(), _UNITS_AT_ONCE):
        units = torch.zeros(
            min(_UNITS_AT_ONCE, like.numel() - start), like.numel(), dtype=like.dtype, device=like.device
        )
        units.diagonal(start).fill_(1.0)
        product.weight[:, start : start + len(units)] = (affine(units.reshape(-1, *like.shape[1:])).flatten(1) - bias).T
    return product
