"""Fourth rung: does every weight that should learn learn, and none that should not?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from statistics import median

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.training.checks.loss import UNUSED
from models.training.report import Finding, Status

WATCHED_STEPS = 10
LARGE_NORM = 1e3
EXPLODED_NORM = 1e6
# Healthy is 1e-4 to 1e-2; a warning beyond ten times that.
SLOW, FAST, WILD = 1e-5, 1e-1, 2e-1


@dataclass(slots=True)
class _Record:
    """What the watched steps showed of one parameter."""

    missing: int = 0
    zero: int = 0
    broken: int = 0
    largest: float = 0.0
    moved: bool = False
    ratio: float = 0.0


class GradientMonitor:
    """Watches the first optimizer steps of a model, and says what did not learn as it should.

    Around each step: `with watch.step(): optimizer.step()`, or `before()` (after backward, before clipping) and
    `after()` (before zero_grad). After `steps` of them it does nothing and lets its copies go: of the trainable
    weights one a step, of the frozen ones one in all. `expected` are patterns of parameters that must learn;
    `unused` of those that may stay without a gradient.
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
        self._idle = [name for name, (parameter, _) in self._frozen.items() if id(parameter) in held]
        self._expected = [name for name in self._frozen if _matches(name, expected)]
        self._unused = unused
        self._records = {name: _Record() for name in self._trainable}
        self._from_zero = {name for name, parameter in self._trainable.items() if not bool(parameter.detach().any())}
        self._copies: dict[str, Tensor] = {}
        self._moved: list[str] = []
        self._norms: list[float] = []
        self.steps, self.seen = steps, 0

    @property
    def active(self) -> bool:
        """Whether steps are still being watched."""
        return self.seen < self.steps

    @contextmanager
    def step(self) -> Iterator[None]:
        """Watch the optimizer step in the body."""
        self.before()
        yield
        self.after()

    @torch.no_grad()
    def before(self) -> None:
        """Look at the gradients and remember the weights; between backward and the optimizer's step."""
        if not self.active:
            return
        squares = 0.0
        for name, parameter in self._trainable.items():
            squares += self._look(self._records[name], parameter.grad)
            self._copies[name] = parameter.detach().clone()
        self._norms.append(math.sqrt(squares))

    @torch.no_grad()
    def after(self) -> None:
        """Compare the weights with what they were before the step."""
        if not self.active:
            return
        self.seen += 1
        for name, before in self._copies.items():
            self._compare(name, before)
        self._copies = {}
        if not self.active:
            self._compare_frozen()
            self._frozen = {}

    @staticmethod
    def _look(record: _Record, grad: Tensor | None) -> float:
        """Note one gradient; its squared norm."""
        if grad is None:
            record.missing += 1
            return 0.0
        norm = float(grad.float().norm())
        record.broken += not math.isfinite(norm)
        record.zero += norm == 0
        record.largest = max(record.largest, norm if math.isfinite(norm) else 0.0)
        return norm * norm if math.isfinite(norm) else 0.0

    def _compare(self, name: str, before: Tensor) -> None:
        record, now = self._records[name], self._trainable[name].detach()
        # NaN differs from itself: a weight that became NaN has moved.
        record.moved |= not torch.equal(now, before)
        size = float(before.float().norm())
        if now.ndim >= 2 and size > 0 and name not in self._from_zero:
            record.ratio = max(record.ratio, float((now - before).float().norm()) / size)

    def _compare_frozen(self) -> None:
        self._moved += [
            name
            for name, (now, before) in self._frozen.items()
            if not torch.equal(now.detach(), before) and name not in self._moved
        ]

    def findings(self) -> Iterator[Finding]:
        """What the steps watched so far showed; nothing can be said before the first."""
        if not self._trainable:
            yield _finding("trainable", "fail", 0.0, 1.0, "No parameter is trainable.", "Unfreeze what is to learn.")
            return
        if self.seen == 0:
            yield _finding(
                "watched",
                "warn",
                0.0,
                1.0,
                "No step was watched.",
                "Call the watch around the optimizer's first steps.",
            )
            return
        self._compare_frozen()
        yield self._frozen_by_mistake()
        yield _named(
            "not_in_optimizer",
            "fail",
            self._outside,
            "trainable, but unknown to the optimizer",
            "Build the optimizer after unfreezing.",
        )
        yield self._without_gradient()
        yield self._zero()
        yield self._broken()
        yield self._exploding()
        yield self._unchanged()
        yield _named(
            "frozen_moved",
            "fail",
            self._moved,
            "frozen, and changed all the same",
            "Take them out of the optimizer; look for in-place writes.",
        )
        yield from self._update_ratio()

    def _frozen_by_mistake(self) -> Finding:
        if self._expected:
            return _named(
                "frozen_by_mistake",
                "fail",
                self._expected,
                "frozen, though they are to learn",
                "Set requires_grad before the optimizer is built.",
            )
        return _named(
            "frozen_by_mistake",
            "warn",
            self._idle,
            "in the optimizer, though frozen",
            "Unfreeze them, or leave them out of it.",
        )

    def _without_gradient(self) -> Finding:
        lost = [
            name
            for name, record in self._records.items()
            if record.missing == self.seen and not _matches(name, self._unused)
        ]
        status: Status = "fail" if len(lost) == len(self._records) else "warn"
        return _named(
            "missing_gradient",
            status,
            lost,
            "left without any gradient",
            "Look for detach(), no_grad() or a layer that forward() skips.",
        )

    def _zero(self) -> Finding:
        with_gradient = {name: record for name, record in self._records.items() if record.missing < self.seen}
        lost = [name for name, record in with_gradient.items() if record.zero == self.seen - record.missing]
        status: Status = "fail" if lost and len(lost) == len(with_gradient) else "warn"
        return _named(
            "zero_gradient",
            status,
            lost,
            "left with a gradient of zero in every step",
            "Look for dead activations and saturated outputs after them.",
        )

    def _broken(self) -> Finding:
        lost = [name for name, record in self._records.items() if record.broken]
        return _named(
            "nan_gradient",
            "fail",
            lost,
            "given NaN or infinity as gradient",
            "Lower the learning rate, clip, use float32; look at the batch.",
        )

    def _exploding(self) -> Finding:
        worst = max(self._norms)
        status: Status = "ok" if worst <= LARGE_NORM else "warn" if worst <= EXPLODED_NORM else "fail"
        name = max(self._records, key=lambda key: self._records[key].largest)
        message = f"The largest gradient norm was {worst:.3g}; the largest share came from {name}."
        return _finding(
            "exploding_gradient",
            status,
            worst,
            LARGE_NORM,
            message,
            "Clip gradients, lower the learning rate, scale the inputs.",
        )

    def _unchanged(self) -> Finding:
        had = {
            name: record
            for name, record in self._records.items()
            if record.missing + record.zero < self.seen and name not in self._outside
        }
        lost = [name for name, record in had.items() if not record.moved]
        status: Status = "fail" if lost and len(lost) == len(had) else "warn"
        remedy = "Look for a learning rate of zero, a step that is never called, and updates too small for the dtype."
        return _named("unchanged", status, lost, "unchanged after the steps, though they had gradients", remedy)

    def _update_ratio(self) -> Iterator[Finding]:
        ratios = [record.ratio for record in self._records.values() if record.ratio > 0 and math.isfinite(record.ratio)]
        if not ratios:
            return
        middle = median(ratios)
        status: Status = "ok" if SLOW <= middle <= FAST else "fail" if middle > WILD else "warn"
        message = (
            f"One step changes a weight matrix by {middle:.1e} of its size (the middle one; 1e-4 to 1e-2 is healthy)."
        )
        remedy = "Lower the learning rate." if middle > FAST else "Raise the learning rate."
        yield _finding("update_ratio", status, middle, FAST if middle > SLOW else SLOW, message, remedy)


def check_gradient(watch: GradientMonitor) -> Iterator[Finding]:
    """The findings of a watch."""
    return watch.findings()


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _named(check: str, status: Status, names: Sequence[str], what: str, remedy: str) -> Finding:
    message = f"{len(names)} {'parameter is' if len(names) == 1 else 'parameters are'} {what}" + (
        f": {', '.join(names[:5])}{' …' if len(names) > 5 else ''}." if names else "."
    )
    return _finding(check, status if names else "ok", float(len(names)), 0.0, message, remedy)


def _finding(check: str, status: Status, value: float, threshold: float, message: str, remedy: str) -> Finding:
    return Finding("gradient", check, status, value, threshold, message, remedy if status != "ok" else "")
