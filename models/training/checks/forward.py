"""Forward checks: does the model answer sensibly before it has learned anything?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.counted import counted
from models.training.checks.wording import fail_if, name_first, warn_if
from models.training.report import Finding, Status

TOLERANCE = 1e-3
MIN_SPREAD = 1e-6
# LoRA's second matrix starts at zero on purpose.
ZERO_AT_START = ("*lora_B*", "*lora_embedding_B*")
_finding = partial(Finding.of, "forward")


def check_forward(
    forward: Callable[[], Tensor],
    *,
    rows: int,
    width: int | None = None,
    dtype: torch.dtype | None = None,
    padded: Callable[[], Tensor] | None = None,
    module: nn.Module | None = None,
    lines: Sequence[int] | None = None,
    tolerance: float = TOLERANCE,
    ignore: Sequence[str] = ZERO_AT_START,
) -> Iterator[Finding]:
    """Run one batch of different inputs without gradients and check its outputs.

    A head that starts at zero outputs zeros; check the embeddings then.

    Args:
        forward: computes the outputs.
        rows: the number of inputs.
        width: the expected width; None accepts any.
        dtype: the expected dtype; None accepts any floating dtype.
        padded: computes the outputs of the same inputs with more padding.
        module: checked for dead layers, in evaluation mode during the run.
        lines: the inputs' lines in the file, for findings; positions in the batch by default.
        tolerance: how far `padded` may differ, as a share of the largest output.
        ignore: patterns of layer names that may output zeros.
    """
    names = list(lines) if lines is not None else list(range(rows))
    with torch.no_grad(), _evaluation_mode(module), _LayerOutputs(module, ignore) as layers:
        out = forward()
        more = padded() if padded is not None else None
    shape = _check_shape(out, rows, width)
    yield shape
    yield _check_dtype(out, dtype)
    if shape.status == "fail":
        return
    out = out.float()
    yield _check_finite(out, names)
    yield _check_zeros(out, names)
    if rows > 1:
        yield _check_constant(out, names)
    if more is not None:
        yield _check_padding(out, more.float(), names, tolerance)
    if module is not None:
        yield layers.finding()


def _check_shape(out: Tensor, rows: int, width: int | None) -> Finding:
    expected, got = f"[{rows}, {width if width is not None else 'any'}]", str(list(out.shape))
    fits = out.ndim == 2 and len(out) == rows and out.shape[1] > 0 and width in (None, out.shape[1])
    message = f"Outputs of {counted(rows, 'input')}: expected the shape {expected}, got {got}."
    remedy = "Return one row for each input: check pooling and squeezes."
    return _finding("shape", fail_if(not fits), got, expected, message, remedy)


def _check_dtype(out: Tensor, dtype: torch.dtype | None) -> Finding:
    fits = out.dtype == dtype if dtype is not None else out.is_floating_point()
    expected = str(dtype) if dtype is not None else "a floating dtype"
    message = f"Outputs: expected {expected}, got {out.dtype}."
    remedy = "Cast the model and its inputs to one dtype."
    return _finding("dtype", fail_if(not fits), str(out.dtype), expected, message, remedy)


def _check_finite(out: Tensor, names: list[int]) -> Finding:
    bad = _rows(~torch.isfinite(out).all(dim=1), names)
    contain = counted(len(bad), f"of {len(out)} outputs contains", f"of {len(out)} outputs contain")
    message = f"{contain} NaN or infinity."
    remedy = "Load the weights again, use float32, and check these inputs."
    return _finding("finite", fail_if(bad), float(len(bad)), 0.0, message, remedy, bad)


def _check_zeros(out: Tensor, names: list[int]) -> Finding:
    bad = _rows((out == 0).all(dim=1), names)
    status: Status = "ok" if not bad else "fail" if len(bad) == len(out) else "warn"
    message = f"{counted(len(bad), f'of {len(out)} outputs is', f'of {len(out)} outputs are')} all zero."
    remedy = "Check that all weights were loaded, and look at masks and dead layers."
    return _finding("all_zero", status, float(len(bad)), 0.0, message, remedy, bad)


def _check_constant(out: Tensor, names: list[int]) -> Finding:
    scale = max(float(out.abs().max().nan_to_num()), 1e-12)
    spread = float((out - out[0]).abs().max().nan_to_num()) / scale
    constant = spread <= MIN_SPREAD
    message = f"Outputs of different inputs differ by {spread:.1e} of the largest; expected more than {MIN_SPREAD:.0e}."
    remedy = "Every input has the same output: look for dead layers, a mask that hides all tokens, or a constant input."
    rows = names if constant else []
    return _finding("constant_output", fail_if(constant), spread, MIN_SPREAD, message, remedy, rows)


def _check_padding(out: Tensor, more: Tensor, names: list[int], tolerance: float) -> Finding:
    if more.shape != out.shape:
        got, expected = str(list(more.shape)), str(list(out.shape))
        message = f"Padded inputs: expected the shape {expected}, got {got}."
        return _finding("padding", "fail", got, expected, message, "Pool over real tokens only.", names)
    difference = (out - more).abs().amax(dim=1) / max(float(out.abs().max()), 1e-12)
    worst = float(difference.max())
    # NaN fails: every comparison with it is false.
    status: Status = "ok" if worst <= tolerance else "warn" if worst <= 50 * tolerance else "fail"
    message = (
        f"With more padding, the outputs differ by {worst:.1e} of the largest output; the limit is {tolerance:.0e}."
    )
    remedy = "Pass the attention mask, and leave padding out of pooling."
    return _finding("padding", status, worst, tolerance, message, remedy, _rows(~(difference <= tolerance), names))


class _LayerOutputs:
    """Records which layers of a module output only zeros, and which output NaN or infinity."""

    def __init__(self, module: nn.Module | None, ignore: Sequence[str]) -> None:
        self._module, self._ignore = module, ignore
        self._only_zeros: dict[str, bool] = {}
        self._not_finite: list[str] = []
        self._hooks = ExitStack()

    def __enter__(self) -> _LayerOutputs:
        for name, layer in self._module.named_modules() if self._module else ():
            is_leaf = name and not list(layer.children())
            if is_leaf and not any(fnmatch(name, pattern) for pattern in self._ignore):
                self._hooks.callback(layer.register_forward_hook(self._hook(name)).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if not isinstance(first, Tensor) or not first.is_floating_point() or first.numel() == 0:
                return
            self._only_zeros[name] = self._only_zeros.get(name, True) and not bool(first.any())
            if name not in self._not_finite and not bool(torch.isfinite(first).all()):
                self._not_finite.append(name)

        return record

    def finding(self) -> Finding:
        """The layers that output only zeros, or the first with NaN or infinity."""
        if self._not_finite:
            first = self._not_finite[0]
            message = f"The first layer with NaN or infinity is {first}."
            return _finding("dead_layers", "fail", first, None, message, "Check this layer's weights and inputs.")
        dead = [name for name, zeros in self._only_zeros.items() if zeros]
        named = f": {name_first(dead)}" if dead else ""
        every = len(self._only_zeros)
        outputs = counted(len(dead), f"of {every} layers outputs", f"of {every} layers output")
        message = f"{outputs} only zeros{named}."
        remedy = "A dead layer passes nothing on and learns nothing: check its weights, biases and inputs."
        return _finding("dead_layers", warn_if(dead), float(len(dead)), 0.0, message, remedy)


@contextmanager
def _evaluation_mode(module: nn.Module | None) -> Iterator[None]:
    """Evaluation mode; afterwards each layer returns to its own mode."""
    modes = {layer: layer.training for layer in module.modules()} if module is not None else {}
    if module is not None:
        module.eval()
    try:
        yield
    finally:
        for layer, training in modes.items():
            layer.training = training


def _rows(mask: Tensor, names: list[int]) -> list[int]:
    return [names[index] for index in mask.nonzero().flatten().tolist()]
