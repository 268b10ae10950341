"""Networks from contexts float32 [n, d, context] to forecasts [n, d, horizon].

They read a context less its last value and add that value to their output. So a series that drifts is forecast from
its current level (Zeng et al.: Are Transformers Effective for Time Series Forecasting?, 2023).
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from torch import Tensor, nn

from models.sensors.forecasting.windows import Windows

ForecastKind = Literal["linear", "patch"]
_PATCH_WIDTH = 64


class LinearForecast(nn.Module):
    """NLinear (Zeng et al., 2023): one linear map for all columns (`maps` 1), or one for each (`maps` d)."""

    kind = "linear"

    def __init__(self, context: int, horizon: int, maps: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(maps, context, horizon))

    def forward(self, x: Tensor) -> Tensor:
        """Forecasts [n, d, horizon] of contexts [n, d, context]."""
        last = x[..., -1:]
        return torch.einsum("ndc,mch->ndh" if len(self.weight) == 1 else "ndc,dch->ndh", x - last, self.weight) + last

    def settings(self) -> dict[str, int]:
        """The number of maps."""
        return {"maps": len(self.weight)}

    @classmethod
    def fitted(cls, moments: WindowProducts, strength: float) -> Self:
        """Solve the ridge regression, with a penalty of `strength` times the inputs' mean square."""
        maps, context, horizon = moments.cross.shape
        made = cls(context, horizon, maps)
        level = moments.square.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12)
        ridge = strength * level[:, None, None] * torch.eye(context, dtype=torch.float64)
        made.weight.data = torch.linalg.solve(moments.square + ridge, moments.cross).float()
        return made


class WindowProducts:
    """`square` float64 [maps, context, context] and `cross` [maps, context, horizon].

    `square` sums products of inputs; `cross` sums products of inputs and targets.
    """

    def __init__(self, square: Tensor, cross: Tensor) -> None:
        self.square, self.cross = square, cross

    @classmethod
    def of(cls, windows: Windows) -> WindowProducts:
        """Sums for each column, of contexts and targets less the context's last value."""
        columns = windows.series.shape[1]
        square = torch.zeros(columns, windows.context, windows.context, dtype=torch.float64)
        cross = torch.zeros(columns, windows.context, windows.horizon, dtype=torch.float64)
        for x, y in windows.batches():
            last = x[..., -1:]
            a, b = ((part - last).double().transpose(0, 1) for part in (x, y))
            square += a.transpose(1, 2) @ a
            cross += a.transpose(1, 2) @ b
        return cls(square, cross)

    def pooled(self) -> WindowProducts:
        """The sums over all columns."""
        return WindowProducts(self.square.sum(dim=0, keepdim=True), self.cross.sum(dim=0, keepdim=True))


class PatchForecast(nn.Module):
    """A small network on patches: NLinear's map plus a mixer.

    Patches of `patch` steps are embedded (Nie et al.: A Time Series is Worth 64 Words, 2023) and mixed across patches
    and across features (Chen et al.: TSMixer, 2023). One linear layer, initialised to zero, reads them. `maps` is the
    linear part's.
    """

    kind = "patch"

    def __init__(
        self, context: int, horizon: int, patch: int, maps: int = 1, width: int = _PATCH_WIDTH, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.patch = patch
        patches = context // patch
        self.linear = LinearForecast(context, horizon, maps)
        self.embed = nn.Linear(patch, width)
        self.across = nn.Linear(patches, patches)
        self.within = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(patches * width, horizon)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Forecasts [n, d, horizon] of contexts [n, d, context]."""
        last = x[..., -1:]
        spread = (x - last).square().mean(dim=-1, keepdim=True).sqrt() + 1e-3
        recent = ((x - last) / spread)[..., -(x.shape[-1] // self.patch) * self.patch :]
        tokens = self.embed(torch.unflatten(recent, -1, (-1, self.patch)))
        tokens = tokens + nn.functional.gelu(self.across(tokens.transpose(-1, -2))).transpose(-1, -2)
        tokens = tokens + self.within(tokens)
        change: Tensor = self.head(self.dropout(tokens.flatten(-2)))
        straight: Tensor = self.linear(x)
        return straight + spread * change

    def settings(self) -> dict[str, int]:
        """The length of a patch and the number of maps."""
        return {"patch": self.patch, "maps": self.linear.settings()["maps"]}


def build_model(
    kind: ForecastKind, context: int, horizon: int, settings: dict[str, int]
) -> LinearForecast | PatchForecast:
    """A network of a kind with the settings that it was saved with, to load weights into."""
    network = LinearForecast if kind == "linear" else PatchForecast
    return network(context, horizon, **settings)
