"""The U-Net of the Probabilistic U-Net: plain convolutions, average pooling, bilinear upsampling, no normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import Backbone, channels_last
from .latent import init_he_truncated, init_relu_conv


class VggUNet(Backbone):
    """Blocks of [conv 3×3, ReLU]; features of the first width at full resolution, no head (Kohl et al. 2018).

    Upsampling is bilinear with aligned corners, to the size of the skip connection, so any image size works; the
    PyTorch port's fixed factor 2 (the same for divisible sizes) fails on others.

    Args:
        channels: image channels.
        widths: channels of the levels; ``out_channels`` is the first.
        convs: convolutions a block.
        he_truncated: initialise as the TensorFlow code, instead of Kaiming normal.
    """

    def __init__(self, channels: int, widths: Sequence[int], convs: int = 3, he_truncated: bool = False) -> None:
        super().__init__()
        self.out_channels = widths[0]
        self.down = nn.ModuleList(_block(a, b, convs) for a, b in pairwise((channels, *widths)))
        self.up = nn.ModuleList(_block(deep + skip, skip, convs) for skip, deep in reversed(list(pairwise(widths))))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                (init_he_truncated if he_truncated else init_relu_conv)(module)
        channels_last(self)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            x = block(x)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            up = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=True)
            x = block(torch.cat([up, skip], 1))
        return x


def _block(inputs: int, outputs: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
        inputs = outputs
    return nn.Sequential(*layers)
