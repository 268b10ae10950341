"""Third rung: does the loss measure what is wanted, and can it be made small?"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn

from models.training.report import Finding, Status

# BERT's pooler has weights that mean pooling never uses.
UNUSED = ("*pooler*",)
TINY = 0.05
OVERFITTED = 0.2
NOT_OVERFITTED = 0.8
LEAP = 2.0
_ORDINARY_LOSS = 0.1


def check_loss(
    loss: Callable[[], Tensor],
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    classes: int | None = None,
    fresh: bool = True,
    outputs: Tensor | None = None,
    targets: Tensor | None = None,
    kind: Literal["classes", "values"] | None = None,
    unused: Sequence[str] = UNUSED,
) -> Iterator[Finding]:
    """Look at the first loss of one batch, before any step; `loss` computes it with its graph, `parameters` are all
    named ones.

    `fresh`: nothing has been learned of these rows yet, so the loss should not be tiny, and, where it is a
    cross-entropy over so many `classes`, be near ln(classes). `outputs` and `targets` are what the loss compares, of
    `kind` "classes" ([n, C] against int64 [n]) or "values" (equal shapes); None: told by the targets' dtype.
    `unused` are patterns of parameters that the loss need not reach.
    """
    if outputs is not None and targets is not None:
        yield check_loss_inputs(outputs, targets, kind)
    value, trouble = _computed(loss)
    if value is None or trouble:
        yield _finding(
            "loss_inputs",
            "fail",
            trouble,
            None,
            f"The loss: {trouble}",
            "Make outputs and targets the shapes that the loss takes.",
        )
    if value is None:
        return
    yield _scalar(value)
    if value.numel() != 1:
        return
    first = float(value.detach())
    yield _finding(
        "loss_finite", _fails(math.isfinite(first)), first, None, f"The first loss is {first:.4g}.", _NOT_FINITE
    )
    yield _connected(value, parameters, unused)
    if math.isfinite(first) and fresh:
        yield from _first_value(first, classes)


_NOT_FINITE = "Look for a logarithm or a division of zero, and for NaN in the outputs (the rung before)."


def check_loss_inputs(outputs: Tensor, targets: Tensor, kind: Literal["classes", "values"] | None = None) -> Finding:
    """Whether outputs and targets have shapes that belong together; the wrong ones broadcast in silence."""
    kind = kind or ("values" if targets.is_floating_point() else "classes")
    shapes = f"{list(outputs.shape)} against {list(targets.shape)}"
    if kind == "values":
        fits, expected = outputs.shape == targets.shape, "equal shapes"
    else:
        fits, expected = outputs.ndim == 2 and targets.shape == outputs.shape[:1], "[n, classes] against [n]"
    remedy = "Reshape one of them: where shapes differ, broadcasting compares every output with every target."
    if not fits:
        return _finding(
            "loss_inputs", "fail", shapes, expected, f"The loss compares {shapes}; expected {expected}.", remedy
        )
    if kind == "classes" and (
        targets.is_floating_point() or int(targets.min()) < 0 or int(targets.max()) >= outputs.shape[1]
    ):
        got = f"{targets.dtype} from {targets.min().item()} to {targets.max().item()}"
        message = f"Targets: expected class numbers from 0 to {outputs.shape[1] - 1}, got {got}."
        return _finding(
            "loss_inputs",
            "fail",
            got,
            f"0 to {outputs.shape[1] - 1}",
            message,
            "Number the labels from 0, and size the head by them.",
        )
    return _finding("loss_inputs", "ok", shapes, expected, f"The loss compares {shapes}.", "")


def check_overfit(
    module: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    *,
    steps: int = 100,
    learning_rate: float = 1e-3,
    floor: float = 0.0,
) -> Finding:
    """Train a copy of the module on one batch; a sound model and loss come close to `floor`. The module itself is
    left as it is.
    """
    model = copy.deepcopy(module)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        return _finding(
            "overfit",
            "fail",
            "nothing to train",
            None,
            "No parameter is trainable, so not even one batch can be learned.",
            _UNFREEZE,
        )
    optimizer = torch.optim.Adam(trainable, lr=learning_rate)
    first, best = math.nan, math.inf
    for _ in range(steps):
        value = loss(model)
        if not value.requires_grad:
            return _finding("overfit", "fail", "detached", None, "The loss is not connected to the model.", _DETACHED)
        here = float(value.detach())
        if not math.isfinite(here):
            return _finding(
                "overfit",
                "fail",
                here,
                None,
                "Training on one batch ended in NaN or infinity.",
                "Lower the learning rate; " + _NOT_FINITE,
            )
        first, best = (here if math.isnan(first) else first), min(best, here)
        if best - floor <= OVERFITTED / 2 * (first - floor):
            break
        optimizer.zero_grad()
        torch.autograd.backward([value])
        optimizer.step()
    return _overfitted(first, best, floor)


def _overfitted(first: float, best: float, floor: float) -> Finding:
    left = max(best - floor, 0.0) / max(first - floor, 1e-12)
    status: Status = "ok" if left <= OVERFITTED else "fail" if left > NOT_OVERFITTED else "warn"
    message = f"Trained on one batch alone, the loss went from {first:.4g} to {best:.4g} ({left:.0%} left)."
    remedy = (
        "A model that cannot learn one batch by heart learns nothing: look at frozen layers, targets and the "
        "learning rate."
    )
    return _finding("overfit", status, left, OVERFITTED, message, remedy)


def check_slope(losses: Sequence[float]) -> Finding:
    """Whether the losses of the first steps (one a step, at least 4) fall, and never leap.

    The means of the first and the last quarter are compared; a leap is told from the first loss, which no step has
    touched yet.
    """
    if len(losses) < 4:
        raise ValueError(f"losses: expected at least 4, got {len(losses)}")
    broken = next((step for step, value in enumerate(losses, start=1) if not math.isfinite(value)), None)
    if broken is not None:
        return _finding("slope", "fail", math.nan, 1.0, f"The loss is not finite from step {broken} on.", _TOO_FAST)
    quarter = len(losses) // 4
    start, end, peak = fmean(losses[:quarter]), fmean(losses[-quarter:]), max(losses)
    # A first batch that happens to cost nothing is no measure of a leap.
    first = max(losses[0], _ORDINARY_LOSS)
    ratio = end / start if start > 0 else 1.0
    message = (
        f"Over the first {len(losses)} steps the loss went from {start:.4g} to {end:.4g}, with {peak:.4g} as "
        f"its highest."
    )
    if end > LEAP * first or peak > 5 * LEAP * first:
        return _finding("slope", "fail", max(ratio, peak / first), LEAP, message, _TOO_FAST)
    remedy = _TOO_FAST if ratio > 1.05 else "Raise the learning rate, or look at the gradients (next rung)."
    return _finding("slope", "ok" if ratio < 1 else "warn", ratio, 1.0, message, remedy)


def _computed(loss: Callable[[], Tensor]) -> tuple[Tensor | None, str]:
    """The loss, and what torch said of its shapes; other warnings pass on."""
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


def _scalar(value: Tensor) -> Finding:
    message = f"The loss has the shape {list(value.shape)}; expected one number."
    return _finding(
        "loss_scalar", _fails(value.numel() == 1), str(list(value.shape)), "[]", message, "Reduce the loss to its mean."
    )


_DETACHED = "Look for detach(), no_grad(), item(), numpy() or argmax between the weights and the loss."
_UNFREEZE = "Unfreeze what is to learn, or pick mode=frozen."


def _connected(value: Tensor, parameters: Iterable[tuple[str, nn.Parameter]], unused: Sequence[str]) -> Finding:
    chosen = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    if not chosen:
        return _finding("connected", "fail", 0.0, None, "No parameter is trainable.", _UNFREEZE)
    if not value.requires_grad:
        return _finding(
            "connected", "fail", 0.0, float(len(chosen)), "The loss is cut off from every parameter.", _DETACHED
        )
    grads = torch.autograd.grad(value, [parameter for _, parameter in chosen], allow_unused=True)
    lost = [name for (name, _), grad in zip(chosen, grads, strict=True) if grad is None]
    lost = [name for name in lost if not any(fnmatch(name, pattern) for pattern in unused)]
    if len(lost) == len(chosen):
        return _finding(
            "connected",
            "fail",
            0.0,
            float(len(chosen)),
            "The loss reaches none of the trainable parameters.",
            _DETACHED,
        )
    message = f"The loss reaches all but {len(lost)} of {len(chosen)} trainable parameters" + (
        f": not {', '.join(lost[:5])}." if lost else "."
    )
    return _finding(
        "connected", "warn" if lost else "ok", float(len(chosen) - len(lost)), float(len(chosen)), message, _DETACHED
    )


def _first_value(first: float, classes: int | None) -> Iterator[Finding]:
    usual = math.log(classes) if classes else 1.0
    message = f"The first loss is {first:.4g}, before anything was learned."
    remedy = (
        "Look for the label among the inputs, for rows that are all alike, and for a loss that does not fit the data."
    )
    yield _finding("tiny_loss", "warn" if first < TINY * usual else "ok", first, TINY * usual, message, remedy)
    if classes:
        ratio = first / usual
        status: Status = "ok" if 0.5 <= ratio <= 1.5 else "warn" if 0.2 <= ratio <= 5 else "fail"
        message = (
            f"The first cross-entropy of a fresh head over {classes} classes is {first:.3f}; guessing gives "
            f"ln({classes}) = {usual:.3f}."
        )
        remedy = (
            "Look at the number of classes, at a softmax applied twice, and at how large the head's weights and "
            "inputs start."
        )
        yield _finding("fresh_loss", status, first, usual, message, remedy)


_TOO_FAST = "Lower the learning rate (by ten to begin with), clip gradients, or warm up longer."


def _fails(fine: bool) -> Status:
    return "ok" if fine else "fail"


def _finding(
    check: str, status: Status, value: float | str, threshold: float | str | None, message: str, remedy: str
) -> Finding:
    return Finding("loss", check, status, value, threshold, message, remedy if status != "ok" else "")
