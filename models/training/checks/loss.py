"""Loss checks: does the loss measure what is wanted, and can training make it small?"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn

from models.training.checks.wording import fail_if, name_first, warn_if
from models.training.report import Finding, Status

Kind = Literal["classes", "values"]

# BERT's pooler has weights that mean pooling never uses.
UNUSED = ("*pooler*",)
TINY = 0.05
OVERFITTED = 0.2
NOT_OVERFITTED = 0.8
LEAP = 2.0
MIN_SLOPE_LOSSES = 4
_ORDINARY_LOSS = 0.1

_FIX_NOT_FINITE = "Look for a logarithm of zero, a division by zero, and NaN in the outputs (the forward checks)."
_FIX_DETACHED = "Look for detach(), no_grad(), item(), numpy() or argmax between the weights and the loss."
_FIX_FROZEN = "Unfreeze the parameters that are to learn, or set mode=frozen."
_FIX_TOO_FAST = "Lower the learning rate (by ten to begin with), clip gradients, or warm up longer."
_finding = partial(Finding.of, "loss")


def check_loss(
    loss: Callable[[], Tensor],
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    classes: int | None = None,
    fresh: bool = True,
    outputs: Tensor | None = None,
    targets: Tensor | None = None,
    kind: Kind | None = None,
    unused: Sequence[str] = UNUSED,
) -> Iterator[Finding]:
    """Check the loss of one batch before the first step.

    Args:
        loss: computes the loss with its graph.
        parameters: all named parameters of the model.
        classes: the number of classes of a cross-entropy; a fresh head's loss should be near ln(classes).
        fresh: whether the model has learned nothing of these rows yet, so that a tiny loss is suspicious.
        outputs: the outputs that the loss compares.
        targets: the targets that the loss compares with the outputs.
        kind: "classes" ([n, C] against int64 [n]) or "values" (equal shapes); by default the targets' dtype tells.
        unused: patterns of parameters that the loss need not reach.
    """
    if outputs is not None and targets is not None:
        yield check_loss_inputs(outputs, targets, kind)
    value, trouble = _compute(loss)
    if value is None or trouble:
        remedy = "Give outputs and targets the shapes that the loss takes."
        yield _finding("loss_inputs", "fail", trouble, None, f"The loss: {trouble}", remedy)
    if value is None:
        return
    yield _check_scalar(value)
    if value.numel() != 1:
        return
    first = float(value.detach())
    finite = math.isfinite(first)
    yield _finding("loss_finite", fail_if(not finite), first, None, f"The first loss is {first:.4g}.", _FIX_NOT_FINITE)
    yield _check_connected(value, parameters, unused)
    if finite and fresh:
        yield from _check_first_value(first, classes)


def check_loss_inputs(outputs: Tensor, targets: Tensor, kind: Kind | None = None) -> Finding:
    """Check that outputs and targets belong together; wrong shapes broadcast in silence."""
    kind = kind or ("values" if targets.is_floating_point() else "classes")
    shapes = f"{list(outputs.shape)} against {list(targets.shape)}"
    if kind == "values":
        fits, expected = outputs.shape == targets.shape, "equal shapes"
    else:
        fits, expected = outputs.ndim == 2 and targets.shape == outputs.shape[:1], "[n, classes] against [n]"
    if not fits:
        message = f"The loss compares {shapes}; expected {expected}."
        remedy = "Reshape one of them: different shapes broadcast, which compares every output with every target."
        return _finding("loss_inputs", "fail", shapes, expected, message, remedy)
    if kind == "classes" and not _are_class_numbers(targets, outputs.shape[1]):
        got = f"{targets.dtype} from {targets.min().item()} to {targets.max().item()}"
        expected = f"0 to {outputs.shape[1] - 1}"
        message = f"Targets: expected class numbers from {expected}, got {got}."
        remedy = "Number the labels from 0, and give the head one output for each."
        return _finding("loss_inputs", "fail", got, expected, message, remedy)
    return _finding("loss_inputs", "ok", shapes, expected, f"The loss compares {shapes}.")


def _are_class_numbers(targets: Tensor, classes: int) -> bool:
    return not targets.is_floating_point() and int(targets.min()) >= 0 and int(targets.max()) < classes


def check_overfit(
    module: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    *,
    steps: int = 100,
    learning_rate: float = 1e-3,
    floor: float = 0.0,
    least: float = 0.0,
) -> Finding:
    """Train a copy of the module on one batch; a sound model and loss come close to `floor`.

    A loss of at most `least` above it has been learnt, however small it was at the start.
    """
    model = copy.deepcopy(module)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        message = "No parameter is trainable, so the model cannot learn even one batch."
        return _finding("overfit", "fail", "nothing to train", None, message, _FIX_FROZEN)
    optimizer = torch.optim.Adam(trainable, lr=learning_rate)
    first, best = math.nan, math.inf
    for _ in range(steps):
        value = loss(model)
        if not value.requires_grad:
            message = "The loss is not connected to the model."
            return _finding("overfit", "fail", "detached", None, message, _FIX_DETACHED)
        current = float(value.detach())
        if not math.isfinite(current):
            message = "Training on one batch ended in NaN or infinity."
            return _finding("overfit", "fail", current, None, message, f"Lower the learning rate. {_FIX_NOT_FINITE}")
        first, best = (current if math.isnan(first) else first), min(best, current)
        if best - floor <= max(OVERFITTED / 2 * (first - floor), least):
            break
        optimizer.zero_grad()
        torch.autograd.backward([value])
        optimizer.step()
    return _overfit_finding(first, best, floor, least)


def _overfit_finding(first: float, best: float, floor: float, least: float) -> Finding:
    left = 0.0 if best - floor <= least else (best - floor) / max(first - floor, 1e-12)
    status: Status = "ok" if left <= OVERFITTED else "fail" if left > NOT_OVERFITTED else "warn"
    message = f"On one batch, the loss went from {first:.4g} to {best:.4g}: {left:.0%} left, limit {OVERFITTED:.0%}."
    remedy = "A model that cannot learn one batch learns nothing: check frozen layers, targets and the learning rate."
    return _finding("overfit", status, left, OVERFITTED, message, remedy)


def check_slope(losses: Sequence[float]) -> Finding:
    """Check that the losses of the first steps (at least 4) fall and never leap.

    The means of the first and the last quarter are compared; a leap is measured from the loss before any step.
    """
    if len(losses) < MIN_SLOPE_LOSSES:
        raise ValueError(f"losses: expected at least {MIN_SLOPE_LOSSES}, got {len(losses)}")
    broken = next((step for step, value in enumerate(losses, start=1) if not math.isfinite(value)), None)
    if broken is not None:
        return _finding("slope", "fail", math.nan, 1.0, f"The loss is not finite from step {broken} on.", _FIX_TOO_FAST)
    quarter = len(losses) // 4
    start, end, peak = fmean(losses[:quarter]), fmean(losses[-quarter:]), max(losses)
    # A first batch with a loss of nearly 0 is no measure of a leap.
    first = max(losses[0], _ORDINARY_LOSS)
    ratio = end / start if start > 0 else 1.0
    message = f"Over the first {len(losses)} steps the loss went from {start:.4g} to {end:.4g}, peak {peak:.4g}."
    if end > LEAP * first or peak > 5 * LEAP * first:
        return _finding("slope", "fail", max(ratio, peak / first), LEAP, message, _FIX_TOO_FAST)
    remedy = _FIX_TOO_FAST if ratio > 1.05 else "Look at the gradient checks: they say whether the steps are too small."
    return _finding("slope", warn_if(ratio >= 1), ratio, 1.0, message, remedy)


def _compute(loss: Callable[[], Tensor]) -> tuple[Tensor | None, str]:
    """The loss, and torch's complaint about its shapes; other warnings pass on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value, trouble = loss(), ""
        except (RuntimeError, ValueError, IndexError) as error:
            value, trouble = None, str(error).splitlines()[0][:300]
    for warning in caught:
        if "broadcasting" in str(warning.message):
            trouble = trouble or str(warning.message).splitlines()[0][:300]
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return value, trouble


def _check_scalar(value: Tensor) -> Finding:
    shape = str(list(value.shape))
    message = f"The loss has the shape {shape}; expected one number."
    return _finding("loss_scalar", fail_if(value.numel() != 1), shape, "[]", message, "Reduce the loss to its mean.")


def _check_connected(value: Tensor, parameters: Iterable[tuple[str, nn.Parameter]], unused: Sequence[str]) -> Finding:
    trainable = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    total = float(len(trainable))
    if not trainable:
        return _finding("connected", "fail", 0.0, None, "No parameter is trainable.", _FIX_FROZEN)
    if not value.requires_grad:
        message = "The loss is cut off from every parameter."
        return _finding("connected", "fail", 0.0, total, message, _FIX_DETACHED)
    grads = torch.autograd.grad(value, [parameter for _, parameter in trainable], allow_unused=True)
    lost = [name for (name, _), grad in zip(trainable, grads, strict=True) if grad is None]
    lost = [name for name in lost if not any(fnmatch(name, pattern) for pattern in unused)]
    if len(lost) == len(trainable):
        message = "The loss reaches none of the trainable parameters."
        return _finding("connected", "fail", 0.0, total, message, _FIX_DETACHED)
    named = f": not {name_first(lost)}" if lost else ""
    message = f"The loss reaches all but {len(lost)} of {len(trainable)} trainable parameters{named}."
    return _finding("connected", warn_if(lost), total - len(lost), total, message, _FIX_DETACHED)


def _check_first_value(first: float, classes: int | None) -> Iterator[Finding]:
    usual = math.log(classes) if classes else 1.0
    limit = TINY * usual
    message = f"The first loss, before the model has learned anything, is {first:.4g}; expected at least {limit:.4g}."
    remedy = (
        "Look for the label among the inputs, for rows that are all alike, and for a loss that does not fit the data."
    )
    yield _finding("tiny_loss", warn_if(first < limit), first, limit, message, remedy)
    if classes:
        ratio = first / usual
        status: Status = "ok" if 0.5 <= ratio <= 1.5 else "warn" if 0.2 <= ratio <= 5 else "fail"
        message = (
            f"The first cross-entropy of a fresh head over {classes} classes is {first:.3f}; guessing gives "
            f"ln({classes}) = {usual:.3f}, and {usual / 2:.3f} to {1.5 * usual:.3f} is fine."
        )
        remedy = "Check the number of classes, a softmax applied twice, and the scale of the head's weights and inputs."
        yield _finding("fresh_loss", status, first, usual, message, remedy)
