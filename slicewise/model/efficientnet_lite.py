"""A U-Net whose encoder is EfficientNet-Lite0, which can start from ImageNet weights.

After Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, 2020: the B0 of Tan and Le,
"EfficientNet", ICML 2019, with ReLU6 for swish and without squeeze-and-excitation.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from slicewise.model.efficientnet import STACKS, EfficientNetPyramid, Family

EPS = 1e-3
LITE = Family(
    tuple(stack.removesuffix("_se0.25") for stack in STACKS),
    ("batch", {"eps": EPS}),
    partial(nn.ReLU6, inplace=True),
)
# The stack that has stride 1 here and 2 in the paper.
UNSTRIDED = 5


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation by statistics that no batch changes; scale and offset are trained.

    A slice's answer must not depend on the other slices of its batch, neither now nor through running averages
    of the past, and the statistics of ImageNet are part of what is transferred. Without such a start they are
    0 and 1, and the module is but a scale and an offset.

    Args:
        channels: One mean and one variance each.
        eps: Added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to the same shape, alike in training and evaluation."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class EfficientNetLitePyramid(EfficientNetPyramid):
    """A convolution block at full size, then the stacks of EfficientNet-Lite0 on the image."""

    def __init__(self, in_channels: int, preset: str) -> None:
        super().__init__(in_channels, preset, LITE)
        for part in (self.stem, self.stacks):
            _freeze(part)
            _draw(part)
        for index, stack in enumerate(self.stacks.children()):
            for number, block in enumerate(stack.children()):
                _fit(block, dilation=2 if (index, number) > (UNSTRIDED, 0) else 1)


def _freeze(part: nn.Module) -> None:
    """Put frozen statistics in the place of every batch normalisation."""
    for parent in list(part.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, FrozenBatchNorm2d(child.num_features, child.eps))


def _draw(part: nn.Module) -> None:
    """Random weights that keep the signal's size (He et al., 2015).

    MONAI's leave that to the normalisation: with frozen statistics, its deepest level would start at 1e-9.
    """
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def _fit(block: nn.Module, dilation: int) -> None:
    """Dilate and pad one block's depth-wise convolution.

    Behind the stride that is left out, they were trained on a grid twice as coarse. With dilation 2 they see what
    they saw there ("atrous" convolution, Chen et al., 2017): every second row and column of our deepest level is
    Lite0's own output. Where TensorFlow's padding is the same on both sides, the convolution pads by itself: on one
    processor thread, a classification step takes a third less time than with MONAI's padding before it.
    """
    convolution = block.get_submodule("_depthwise_conv")
    assert isinstance(convolution, nn.Conv2d)
    if convolution.stride != (1, 1):
        return
    side = dilation * (convolution.kernel_size[0] // 2)
    convolution.dilation, convolution.padding = (dilation, dilation), (side, side)
    block._depthwise_conv_padding = nn.Identity()
