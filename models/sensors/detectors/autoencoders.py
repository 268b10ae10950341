"""Networks that reconstruct normal readings and fail to reconstruct others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from models.sensors.detectors.detector import pieces, windows
from models.sensors.detectors.folded_network import as_products
from models.sensors.detectors.network import MAX_UNITS, NetworkDetector

_ROWS_AT_ONCE = 512
_SMALLEST = 1e-4
WINDOW = 32
# The error counts for this many last readings of a window; the others are context.
_SCORED_ROWS = 8


class Autoencoder(NetworkDetector):
    """A network that maps examples [n, …] to themselves.

    `scored_part` selects the part [n, d, …] that counts.

    The score is the root of the mean squared error, each column in units of its usual error.
    """

    network: nn.Sequential
    scored_part: nn.Module
    usual: Tensor

    def __init__(self, columns: int, window: int = 1, *, seed: int = 0) -> None:
        super().__init__(columns, window, seed=seed)
        self.register_buffer("usual", torch.ones(columns, dtype=torch.float64))

    def build(self) -> nn.Sequential:
        """Affine layers with GELUs between them."""
        raise NotImplementedError

    def build_exact(self) -> nn.Module:
        """The network and `scored_part` as matrix products; results are rows."""
        shape = self.examples(self.usual.new_zeros(self.window, self.columns)).shape[1:]
        return as_products(nn.Sequential(*self.network, self.scored_part), shape)

    def fit(self, runs: Sequence[Tensor]) -> Self:
        """Train on every window of every run, then measure the usual error of each column."""
        self.learn(runs)
        with torch.no_grad():
            self.usual = torch.cat([self._errors(run) for run in runs]).mean(dim=0).sqrt().clamp(min=_SMALLEST)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Scores [n] of the last n of readings [n + window - 1, d]."""
        return self.contributions(x).mean(dim=1).sqrt()

    def contributions(self, x: Tensor) -> Tensor:
        """Squared errors in units of the usual ones, by column [n, d]."""
        return self._errors(x) / self.usual.square()

    def _errors(self, x: Tensor) -> Tensor:
        """Squared errors [n, d]; what clipping removes from a reading counts in full."""
        beyond = (x.abs() - MAX_UNITS).clamp(min=0)
        parts = [self._squares(batch.double()) for batch in pieces(self.examples(x), _ROWS_AT_ONCE)]
        errors = torch.cat(parts) if parts else x.new_zeros(0, x.shape[1])
        return errors + beyond[len(x) - len(errors) :].square()

    def _squares(self, batch: Tensor) -> Tensor:
        """Mean squared errors of the scored part of examples [n, …], by column [n, d]."""
        errors: Tensor = self.exact(batch) - self.scored_part(batch).flatten(1)
        return errors.reshape(len(errors), self.columns, -1).square().mean(dim=2)


class RecordAutoencoder(Autoencoder):
    """A multilayer perceptron with a narrow middle, for single records: d → h → h/4 → h → d."""

    kind = "autoencoder"

    def __init__(self, columns: int, *, seed: int = 0) -> None:
        super().__init__(columns, seed=seed)
        self.scored_part = nn.Identity()

    def build(self) -> nn.Sequential:
        """A middle of about half the columns, so that the network cannot copy its input."""
        d, wide, narrow = self.columns, min(max(4 * self.columns, 16), 128), max(self.columns // 2, 1)
        return nn.Sequential(
            nn.Linear(d, wide),
            nn.GELU(),
            nn.Linear(wide, narrow),
            nn.Linear(narrow, wide),
            nn.GELU(),
            nn.Linear(wide, d),
        )

    def examples(self, x: Tensor) -> Tensor:
        """Clipped rows, [n, d]."""
        return x.clamp(-MAX_UNITS, MAX_UNITS).float()


class ConvAutoencoder(Autoencoder):
    """A 1-D convolutional autoencoder of 32 readings, scored by its error on the last 8."""

    kind = "conv"

    def __init__(self, columns: int, *, seed: int = 0) -> None:
        super().__init__(columns, WINDOW, seed=seed)
        self.scored_part = _LastReadings()

    def build(self) -> nn.Sequential:
        """Two strided convolutions down to a sixteenth of the values (at least 4), two back up."""
        wide, narrow, steps = 16, 8, WINDOW // 4
        code = max(self.columns * WINDOW // 16, 4)
        return nn.Sequential(
            nn.Conv1d(self.columns, wide, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv1d(wide, narrow, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(narrow * steps, code),
            nn.Linear(code, narrow * steps),
            nn.Unflatten(1, (narrow, steps)),
            nn.GELU(),
            nn.ConvTranspose1d(narrow, wide, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose1d(wide, self.columns, 4, stride=2, padding=1),
        )

    def examples(self, x: Tensor) -> Tensor:
        """Clipped windows, [n, d, 32]."""
        return windows(x.clamp(-MAX_UNITS, MAX_UNITS).float(), self.window).transpose(1, 2)


class _LastReadings(nn.Module):
    """The last 8 readings of windows."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, d, 32] to [n, d, 8]."""
        return x[:, :, -_SCORED_ROWS:]
