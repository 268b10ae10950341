"""Gradient checks: does every weight that should learn, learn, and no other?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.counted import counted
from models.training.checks.loss import UNUSED
from models.training.checks.wording import name_first
from models.training.report import Finding, Status

WATCHED_STEPS = 10
LARGE_NORM = 1e3
EXPLODED_NORM = 1e6
# A step of 1e-4 to 1e-2 is usual; beyond ten times that is a warning.
SLOW, FAST, WILD = 1e-5, 1e-1, 2e-1
_finding = partial(Finding.of, "gradient")


@dataclass(slots=True)
class _ParameterRecord:
    """One parameter's record: steps with bad gradients, the largest norm, and changes."""

    missing: int = 0
    zero: int = 0
    broken: int = 0
    largest: float = 0.0
    moved: bool = False
    ratio: float = 0.0

    def add_gradient(self, grad: Tensor | None) -> float:
        """Record one gradient and return its squared norm (0 where it is missing or not finite)."""
        if grad is None:
            self.missing += 1
            return 0.0
        norm = float(grad.float().norm())
        if not math.isfinite(norm):
            self.broken += 1
            return 0.0
        self.zero += norm == 0
        self.largest = max(self.largest, norm)
        return norm * norm

    def add_change(self, before: Tensor, now: Tensor, *, with_ratio: bool) -> None:
        """Record one step's change of the weights."""
        # NaN differs from itself: a weight that became NaN has moved.
        self.moved |= not torch.equal(now, before)
        size = float(before.float().norm())
        if with_ratio and now.ndim >= 2 and size > 0:
            self.ratio = max(self.ratio, float((now - before).float().norm()) / size)


class GradientMonitor:
    """Watches a model's first optimizer steps for parameters that do not learn.

    Around each step: `with monitor.step(): optimizer.step()`, or `before()` (after backward, before clipping) and
    `after()` (before zero_grad). After `steps` steps it does nothing and frees its copies. Memory: one copy of the
    trainable weights during a step, and one of the frozen weights throughout.

    Args:
        model: the model to watch.
        optimizer: the optimizer of its parameters.
        steps: how many steps to watch.
        expected: patterns of parameters that must learn.
        unused: patterns of parameters that may have no gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        steps: int = WATCHED_STEPS,
        expected: Sequence[str] = (),
        unused: Sequence[str] = UNUSED,
    ) -> None:
        named = list(model.named_parameters())
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        self._trainable = {name: parameter for name, parameter in named if parameter.requires_grad}
        self._frozen = {
            name: (parameter, parameter.detach().clone()) for name, parameter in named if not parameter.requires_grad
        }
        self._outside = [name for name, parameter in self._trainable.items() if id(parameter) not in held]
        self._frozen_inside = [name for name, (parameter, _) in self._frozen.items() if id(parameter) in held]
        self._frozen_expected = [name for name in self._frozen if _matches(name, expected)]
        self._unused = unused
        self._records = {name: _ParameterRecord() for name in self._trainable}
        self._from_zero = {name for name, parameter in self._trainable.items() if not bool(parameter.detach().any())}
        self._copies: dict[str, Tensor] = {}
        self._frozen_moved: list[str] = []
        self._norms: list[float] = []
        self.steps, self.seen = steps, 0

    @property
    def active(self) -> bool:
        """Whether the monitor still watches steps."""
        return self.seen < self.steps

    @contextmanager
    def step(self) -> Iterator[None]:
        """Watch the optimizer step in the body."""
        self.before()
        yield
        self.after()

    @torch.no_grad()
    def before(self) -> None:
        """Record the gradients and copy the weights, after backward and before the update."""
        if not self.active:
            return
        squares = sum(self._records[name].add_gradient(weights.grad) for name, weights in self._trainable.items())
        self._norms.append(math.sqrt(squares))
        self._copies = {name: weights.detach().clone() for name, weights in self._trainable.items()}

    @torch.no_grad()
    def after(self) -> None:
        """Compare the weights with their copies."""
        if not self.active:
            return
        self.seen += 1
        for name, before in self._copies.items():
            now = self._trainable[name].detach()
            self._records[name].add_change(before, now, with_ratio=name not in self._from_zero)
        self._copies = {}
        if not self.active:
            self._compare_frozen()
            self._frozen = {}

    def _compare_frozen(self) -> None:
        for name, (now, before) in self._frozen.items():
            if name not in self._frozen_moved and not torch.equal(now.detach(), before):
                self._frozen_moved.append(name)

    def findings(self) -> Iterator[Finding]:
        """The findings of the steps watched so far, at least one."""
        if not self._trainable:
            remedy = "Unfreeze the parameters that are to learn."
            yield _finding("trainable", "fail", 0.0, 1.0, "No parameter is trainable.", remedy)
            return
        if self.seen == 0:
            remedy = "Call the monitor around the optimizer's first steps."
            yield _finding("watched", "warn", 0.0, 1.0, "No step was watched.", remedy)
            return
        self._compare_frozen()
        yield self._check_frozen()
        remedy = "Build the optimizer after unfreezing."
        yield _of_parameters("not_in_optimizer", "fail", self._outside, "trainable but not in the optimizer", remedy)
        yield self._check_missing()
        yield self._check_zero()
        yield self._check_finite()
        yield self._check_exploding()
        yield self._check_unchanged()
        remedy = "Remove them from the optimizer; look for in-place writes."
        yield _of_parameters("frozen_moved", "fail", self._frozen_moved, "frozen but changed", remedy)
        yield from self._check_update_ratio()

    def _check_frozen(self) -> Finding:
        if self._frozen_expected:
            what, remedy = "frozen but expected to learn", "Set requires_grad before building the optimizer."
            return _of_parameters("frozen_by_mistake", "fail", self._frozen_expected, what, remedy)
        what, remedy = "in the optimizer but frozen", "Unfreeze them, or leave them out of it."
        return _of_parameters("frozen_by_mistake", "warn", self._frozen_inside, what, remedy)

    def _check_missing(self) -> Finding:
        records = self._records.items()
        lost = [name for name, record in records if record.missing == self.seen and not _matches(name, self._unused)]
        status: Status = "fail" if len(lost) == len(self._records) else "warn"
        remedy = "Look for detach(), no_grad() or a layer that forward() skips."
        return _of_parameters("missing_gradient", status, lost, "without any gradient", remedy)

    def _check_zero(self) -> Finding:
        with_gradient = {name: record for name, record in self._records.items() if record.missing < self.seen}
        lost = [name for name, record in with_gradient.items() if record.zero == self.seen - record.missing]
        status: Status = "fail" if len(lost) == len(with_gradient) else "warn"
        remedy = "Look for dead activations, and for saturated outputs after them."
        return _of_parameters("zero_gradient", status, lost, "left with a gradient of zero in every step", remedy)

    def _check_finite(self) -> Finding:
        lost = [name for name, record in self._records.items() if record.broken]
        remedy = "Lower the learning rate, clip gradients, use float32, and check the batch."
        return _of_parameters("nan_gradient", "fail", lost, "given a gradient of NaN or infinity", remedy)

    def _check_exploding(self) -> Finding:
        worst = max(self._norms)
        status: Status = "ok" if worst <= LARGE_NORM else "warn" if worst <= EXPLODED_NORM else "fail"
        name = max(self._records, key=lambda key: self._records[key].largest)
        message = (
            f"The largest gradient norm was {worst:.3g} (the limit is {LARGE_NORM:g}); most of it came from {name}."
        )
        remedy = "Clip gradients, lower the learning rate, or scale the inputs."
        return _finding("exploding_gradient", status, worst, LARGE_NORM, message, remedy)

    def _check_unchanged(self) -> Finding:
        learning = {
            name: record
            for name, record in self._records.items()
            if record.missing + record.zero < self.seen and name not in self._outside
        }
        lost = [name for name, record in learning.items() if not record.moved]
        status: Status = "fail" if len(lost) == len(learning) else "warn"
        what = "unchanged after the steps despite their gradients"
        remedy = "Look for a learning rate of zero, a step that is never called, and updates too small for the dtype."
        return _of_parameters("unchanged", status, lost, what, remedy)

    def _check_update_ratio(self) -> Iterator[Finding]:
        ratios = [record.ratio for record in self._records.values() if record.ratio > 0 and math.isfinite(record.ratio)]
        if not ratios:
            return
        middle = median(ratios)
        status: Status = "ok" if SLOW <= middle <= FAST else "fail" if middle > WILD else "warn"
        message = (
            f"One step changes a weight matrix by {middle:.1e} of its size (median); expected {SLOW:.0e} to {FAST:.0e}."
        )
        remedy = "Raise the learning rate, unless another check asks to lower it."
        if middle > FAST:
            remedy = "Lower the learning rate."
        yield _finding("update_ratio", status, middle, FAST if middle > SLOW else SLOW, message, remedy)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _of_parameters(check: str, status: Status, names: Sequence[str], what: str, remedy: str) -> Finding:
    """A finding about parameters: ok without any."""
    named = f": {name_first(names)}" if names else ""
    message = f"{counted(len(names), 'parameter is', 'parameters are')} {what}{named}."
    return _finding(check, status if names else "ok", float(len(names)), 0.0, message, remedy)
