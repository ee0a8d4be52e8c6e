"""The U-Net of Zhang et al.'s code: strided convolutions, instance norm, PReLU, bilinear upsampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import Backbone


def double_conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Twice: convolution 3×3 without bias, affine instance norm, PReLU of one slope; the first may be strided."""
    layers: list[nn.Module] = []
    for place, channels in enumerate((inputs, outputs)):
        layers += [
            nn.Conv2d(channels, outputs, 3, stride=1 if place else stride, padding=1, bias=False),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.PReLU(),
        ]
    return nn.Sequential(*layers)


class ZhangUNet(Backbone):
    """Features of `width` channels at full resolution, no head.

    Levels have w, 2w, 4w, … channels, the deepest as many as the one above it. The first decoder block joins the
    deepest map with itself.

    Args:
        channels: image channels.
        width: channels w of the first level.
        depth: number of levels.
        magnify: as in the authors' code, where the deepest map is first upsampled like all others, to twice the size of
            the map it joins, and then cut at the centre: the decoder sees its bottleneck magnified twice, without rim.
    """

    def __init__(self, channels: int, width: int, depth: int, magnify: bool = False) -> None:
        super().__init__()
        self.out_channels = width
        self.magnify = magnify
        widths = [width * 2 ** min(level, depth - 2) if level else width for level in range(depth)]
        self.down = nn.ModuleList(
            double_conv(inputs, outputs, stride=2 if level else 1)
            for level, (inputs, outputs) in enumerate(zip((channels, *widths[:-1]), widths, strict=True))
        )
        skips = widths[::-1]
        outputs = [*skips[1:], width]
        below = [skips[0], *outputs[:-1]]  # channels that come from below, deepest block first
        self.up = nn.ModuleList(
            double_conv(skip + deep, out) for skip, deep, out in zip(skips, below, outputs, strict=True)
        )

    def forward(self, image: Tensor) -> Tensor:
        x, levels = image, []
        for block in self.down:
            x = block(x)
            levels.append(x)
        for place, (block, skip) in enumerate(zip(self.up, reversed(levels), strict=True)):
            if place:
                x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=True)
            elif self.magnify:
                x = magnified(x)
            x = block(torch.cat([skip, x], 1))
        return x


def magnified(x: Tensor) -> Tensor:
    """Upsampled twice and cut at the centre to the size it had."""
    large = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    height, width = x.shape[-2:]
    top, left = (height + 1) // 2, (width + 1) // 2
    return large[..., top : top + height, left : left + width]
