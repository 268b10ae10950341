"""Second rung: does the model answer sensibly before it has learned anything?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from models.training.report import Finding, Status, named_rows

TOLERANCE = 1e-3
# LoRA's second matrix starts at zero on purpose.
ZERO_AT_START = ("*lora_B*", "*lora_embedding_B*")


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
    """Run one batch of `rows` different inputs, without gradients, and look at its outputs [rows, width].

    `padded` gives the outputs of the same inputs with more padding; they may differ by `tolerance` of the largest
    output. `module` is put into evaluation mode meanwhile, and its layers are watched for dead ones (`ignore`:
    patterns of names to leave out). `lines` names the inputs' rows in findings, which are positions in the batch
    otherwise. A head that starts at zero gives zeros: check the embeddings then.
    """
    names = list(lines) if lines is not None else list(range(rows))
    with torch.no_grad(), _evaluating(module), _Layers(module, ignore) as layers:
        out = forward()
        more = padded() if padded is not None else None
    sound = _shape(out, rows, width)
    yield sound
    yield _dtype(out, dtype)
    if sound.status == "fail":
        return
    out = out.float()
    yield _finite(out, names)
    yield _all_zero(out, names)
    if rows > 1:
        yield _constant(out, names)
    if more is not None:
        yield _padding(out, more.float(), names, tolerance)
    if module is not None:
        yield layers.finding()


def _shape(out: Tensor, rows: int, width: int | None) -> Finding:
    expected, got = f"[{rows}, {width if width is not None else 'any'}]", str(list(out.shape))
    fits = out.ndim == 2 and len(out) == rows and out.shape[1] > 0 and width in (None, out.shape[1])
    message = f"Outputs of {rows} inputs: expected the shape {expected}, got {got}."
    return _finding(
        "shape",
        "ok" if fits else "fail",
        got,
        expected,
        message,
        "Give one row an input: look at pooling and squeezes.",
    )


def _dtype(out: Tensor, dtype: torch.dtype | None) -> Finding:
    fits = out.dtype == dtype if dtype is not None else out.is_floating_point()
    expected = str(dtype) if dtype is not None else "a floating dtype"
    message = f"Outputs: expected {expected}, got {out.dtype}."
    return _finding(
        "dtype",
        "ok" if fits else "fail",
        str(out.dtype),
        expected,
        message,
        "Cast the model and its inputs to one dtype.",
    )


def _finite(out: Tensor, names: list[int]) -> Finding:
    bad = _rows(~torch.isfinite(out).all(dim=1), names)
    message = f"{len(bad)} of {len(out)} outputs hold NaN or infinity."
    remedy = "Load the weights again, use float32, and look at these inputs."
    return _finding("finite", "fail" if bad else "ok", float(len(bad)), 0.0, message, remedy, bad)


def _all_zero(out: Tensor, names: list[int]) -> Finding:
    bad = _rows((out == 0).all(dim=1), names)
    status: Status = "ok" if not bad else "fail" if len(bad) == len(out) else "warn"
    message = f"{len(bad)} of {len(out)} outputs are all zero."
    return _finding(
        "all_zero",
        status,
        float(len(bad)),
        0.0,
        message,
        "Look for weights that were not loaded, masks, and dead layers.",
        bad,
    )


def _constant(out: Tensor, names: list[int]) -> Finding:
    scale = max(float(out.abs().max().nan_to_num()), 1e-12)
    spread = float((out - out[0]).abs().max().nan_to_num()) / scale
    status: Status = "fail" if spread <= 1e-6 else "ok"
    message = f"Outputs of different inputs differ by {spread:.1e} of the largest output."
    remedy = (
        "Every input gives the same output: look for dead layers, a mask that hides all tokens, or a constant input."
    )
    return _finding("constant_output", status, spread, 1e-6, message, remedy, names if status == "fail" else [])


def _padding(out: Tensor, more: Tensor, names: list[int], tolerance: float) -> Finding:
    if more.shape != out.shape:
        message = f"Padded inputs: expected the shape {list(out.shape)}, got {list(more.shape)}."
        return _finding(
            "padding",
            "fail",
            str(list(more.shape)),
            str(list(out.shape)),
            message,
            "Pool over real tokens only.",
            names,
        )
    apart = (out - more).abs().amax(dim=1) / max(float(out.abs().max()), 1e-12)
    worst = float(apart.max())
    status: Status = "ok" if worst <= tolerance else "fail" if not worst <= 50 * tolerance else "warn"
    message = f"With more padding the outputs differ by {worst:.1e} of the largest output."
    remedy = "Padding must not matter: pass the attention mask, and leave padding out of pooling."
    return _finding("padding", status, worst, tolerance, message, remedy, _rows(~(apart <= tolerance), names))


class _Layers:
    """Watches the layers of a module for outputs that are all zero or not finite."""

    def __init__(self, module: nn.Module | None, ignore: Sequence[str]) -> None:
        self._module, self._ignore = module, ignore
        self._silent: dict[str, bool] = {}
        self._broken: list[str] = []
        self._hooks = ExitStack()

    def __enter__(self) -> _Layers:
        leaves = (
            [(name, layer) for name, layer in self._module.named_modules() if not list(layer.children())]
            if self._module
            else []
        )
        for name, layer in leaves:
            if name and not any(fnmatch(name, pattern) for pattern in self._ignore):
                self._hooks.callback(layer.register_forward_hook(self._hook(name)).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if not isinstance(first, Tensor) or not first.is_floating_point() or first.numel() == 0:
                return
            self._silent[name] = self._silent.get(name, True) and not bool(first.any())
            if name not in self._broken and not bool(torch.isfinite(first).all()):
                self._broken.append(name)

        return look

    def finding(self) -> Finding:
        """Layers that gave nothing but zeros, and the first that gave NaN."""
        dead = [name for name, silent in self._silent.items() if silent]
        if self._broken:
            message = f"The first layer with NaN or infinity is {self._broken[0]}."
            return _finding(
                "dead_layers", "fail", self._broken[0], None, message, "Look at this layer's weights and inputs."
            )
        message = f"{len(dead)} of {len(self._silent)} layers give nothing but zeros" + (
            f": {', '.join(dead[:5])}." if dead else "."
        )
        remedy = "A dead layer passes nothing on and learns nothing: look at its weights, biases and what comes in."
        return _finding("dead_layers", "warn" if dead else "ok", float(len(dead)), 0.0, message, remedy)


@contextmanager
def _evaluating(module: nn.Module | None) -> Iterator[None]:
    """Evaluation mode, and afterwards each layer's own mode again."""
    modes = {layer: layer.training for layer in module.modules()} if module is not None else {}
    if module is not None:
        module.eval()
    try:
        yield
    finally:
        for layer, training in modes.items():
            layer.training = training


def _rows(chosen: Tensor, names: list[int]) -> list[int]:
    return [names[index] for index in chosen.nonzero().flatten().tolist()]


def _finding(
    check: str,
    status: Status,
    value: float | str,
    threshold: float | str | None,
    message: str,
    remedy: str,
    rows: Sequence[int] = (),
) -> Finding:
    return Finding(
        "forward", check, status, value, threshold, message, remedy if status != "ok" else "", named_rows(rows)
    )
