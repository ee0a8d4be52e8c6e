"""ResNet encoder with its taps, and the light decoder [transposed conv ‖ 1×1 skip, ReLU, BN] of MR-Net, PADL and TAB.

Both take a network apart where a condition (expertness vector, rater query) enters: the image is encoded once, and
several conditions are decoded as one batch whose skip connections are convolved once an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from .backbones import channels_last, load_imagenet_weights


class ResNetTaps(nn.Module):
    """ResNet of basic blocks (3-4-6-3 at width 64: ResNet-34, torchvision's names) without pool and classifier.

    Args:
        channels: image channels.
        width: channels of stem and first stage; the stages have 1, 2, 4 and 8 times as many.
        blocks: basic blocks of the four stages.
        weights_file: torchvision's ResNet-34 weights, see `load_imagenet_weights`.
        raw_stem: the first tap is the 7×7 convolution before batch norm and ReLU.

    Convolutions start from N(0, 2 / (k² C_out)).
    """

    def __init__(
        self,
        channels: int,
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 6, 3),
        weights_file: str | None = None,
        raw_stem: bool = False,
    ) -> None:
        super().__init__()
        # MONAI takes seconds to import; only this network needs it.
        from monai.networks.nets.resnet import ResNet

        if weights_file is not None and (width != 64 or tuple(blocks) != (3, 4, 6, 3)):
            raise UserError(
                f"backbone_weights={weights_file!r} fits ResNet-34 alone, but width={width} and "
                f"encoder_blocks={list(blocks)} were given; leave the weights out, or set method.width=64 and "
                f"method.encoder_blocks=[3,4,6,3]"
            )
        self.widths = tuple(width * scale for scale in (1, 2, 4, 8))
        self.raw_stem = raw_stem
        self.net = ResNet(
            "basic",
            list(blocks),
            list(self.widths),
            spatial_dims=2,
            n_input_channels=channels,
            conv1_t_size=7,
            conv1_t_stride=2,
            shortcut_type="B",
            bias_downsample=False,
            feed_forward=False,
        )
        if weights_file is not None:
            load_imagenet_weights(self.net, Path(weights_file), channels)
        channels_last(self)

    @property
    def tap_widths(self) -> tuple[int, ...]:
        return (self.widths[0], *self.widths)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size (rounded up)."""
        net = self.net
        conv = net.conv1(image)
        stem = net.act(net.bn1(conv))
        taps = [conv if self.raw_stem else stem]
        x = net.maxpool(stem)
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = stage(x)
            taps.append(x)
        return taps


class LightUp(nn.Module):
    """One level: transposed conv 2×2/2 of what comes from below, 1×1 conv of the skip, concat, ReLU, batch norm.

    No 3×3 convolution. ReLU stands *before* the batch norm, as in the authors' code.
    """

    def __init__(self, below: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below, outputs // 2, 2, stride=2)
        self.skip = nn.Conv2d(skip, outputs // 2, 1)
        self.norm = nn.BatchNorm2d(outputs // 2 * 2)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """`below` (B·K)×…, K decodings an image, image-major; `skip` B×…."""
        side = self.skip(skip)
        up = self.up(below)[..., : side.shape[-2], : side.shape[-1]]  # odd sizes: the last row or column goes
        return self.norm(F.relu(torch.cat([up, repeat_images(side, len(below) // len(skip))], 1)))


class LightDecoder(nn.Module):
    """Four `LightUp` levels and a transposed conv to full resolution.

    Args:
        below: channels at the bottleneck.
        taps: channels of the five taps of the encoder, from the stem down.
        width: channels of every level.
        outputs: channels of the output.
    """

    def __init__(self, below: int, taps: Sequence[int], width: int, outputs: int) -> None:
        super().__init__()
        skips = list(reversed(taps[:4]))
        self.levels = nn.ModuleList(
            LightUp(inputs, skip, width) for inputs, skip in zip((below, width, width, width), skips, strict=True)
        )
        self.last = nn.ConvTranspose2d(width, outputs, 2, stride=2)

    def forward(self, deep: Tensor, taps: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Output (B·K)×C×H×W and the features (B·K)×width at half the resolution it comes from.

        Args:
            deep: (B·K)×below, K decodings of each image at the bottleneck, image-major.
            taps: of the encoder, each B×….
            size: H and W of the image.
        """
        x = deep
        for level, tap in zip(self.levels, reversed(taps[:4]), strict=True):
            x = level(x, tap)
        return self.last(x)[..., : size[0], : size[1]], x


def repeat_images(x: Tensor, times: int) -> Tensor:
    """B×… to (B·K)×…, each image K times in a row."""
    return x if times == 1 else x.repeat_interleave(times, 0)
