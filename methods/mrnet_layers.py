"""The three networks of MR-Net (Ji et al., CVPR 2021): coarse net with EIM, MRM and MPM.

Shapes: B images, K expertness vectors an image, R raters, C channels of a map (``targets.py``); rows of a batch (B·K)
are image-major.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor, nn

from .backbones import channels_last
from .light_decoder import LightDecoder, ResNetTaps, repeat_images

KERNEL = 31


class ExpertnessLSTM(nn.Module):
    """EIM: the expertness vector is hidden and cell state of a ConvLSTM that takes one step on the bottleneck."""

    def __init__(self, raters: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.condition = nn.Conv2d(raters, width, 3, padding=1)
        self.gates = nn.Conv2d(2 * width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor, expertness: Tensor) -> Tensor:
        """Hidden state (B·K)×width of features x and expertness (B·K)×R.

        `x` has B rows, or B·K where the features themselves depend on the expertness.
        """
        # The vector is broadcast over the map, but zero padding makes the borders differ: no 1×1 convolution.
        state = self.condition(expertness[:, :, None, None].expand(-1, -1, *x.shape[-2:]))
        hidden, _ = self.step(x, state, state)
        return hidden

    def step(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """New hidden and cell state; gates in the order input, forget, output, candidate.

        One convolution of concat [x, hidden] in the paper; here the part of x is convolved once an image.
        """
        of_x, of_hidden = self.gates.weight.split(self.width, 1)
        gates = repeat_images(F.conv2d(x, of_x, padding=1), len(hidden) // len(x))
        gates = gates + F.conv2d(hidden, of_hidden, self.gates.bias, padding=1)
        enter, forget, out, candidate = gates.chunk(4, 1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
        return torch.sigmoid(out) * torch.tanh(cell), cell


class CoarseNet(nn.Module):
    """ResNet U-Net whose bottleneck passes the `ExpertnessLSTM`."""

    def __init__(
        self, channels: int, raters: int, outputs: int, width: int, blocks: Sequence[int], weights: str | None
    ) -> None:
        super().__init__()
        self.encoder = ResNetTaps(channels, width, blocks, weights)
        self.eim = ExpertnessLSTM(raters, 8 * width)
        self.decoder = LightDecoder(8 * width, self.encoder.tap_widths, 4 * width, outputs)
        channels_last(self)

    def forward(self, images: Tensor, expertness: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B·K)×C×H×W and features F0 (B·K)×4w×H/2×W/2 for expertness B×K×R."""
        return self.decode(self.encoder(images), expertness, images.shape[-2:])

    def decode(self, taps: list[Tensor], expertness: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        logits, features = self.decoder(self.eim(taps[-1], expertness.flatten(0, 1)), taps, size)
        return logits, features


def _conv_bn_prelu(inputs: int, outputs: int, bias: bool = True) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias), nn.BatchNorm2d(outputs), nn.PReLU()]


def _conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation if kernel == 3 else 0
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ReconstructionNet(nn.Module):
    """MRM: recovers every rater's mask from image, coarse logits and expertness.

    A VGG-16 with BN and PReLU (no pool after the last block), its own EIM, a cascaded ASPP and a DeepLab-like decoder.
    The rater heads are one 1×1 convolution with R·C outputs, applied *before* the last bilinear resize: exact, because
    interpolation weights sum to 1, and 256 channels at full resolution are never made.
    """

    def __init__(self, channels: int, raters: int, outputs: int, width: int, convs: Sequence[int]) -> None:
        super().__init__()
        self.raters = raters
        self.fuse = nn.Conv2d(channels + outputs, 3, 3, padding=1)
        widths = tuple(width * scale for scale in (1, 2, 4, 8, 8))
        self.blocks = nn.ModuleList()
        inputs = 3
        for count, wide in zip(convs, widths, strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += _conv_bn_prelu(inputs, wide)
                inputs = wide
            self.blocks.append(nn.Sequential(*layers))
        deep, wide, low = 8 * width, 4 * width, max(1, 3 * width // 4)
        self.eim = ExpertnessLSTM(raters, deep)
        self.up = nn.ConvTranspose2d(deep, deep, 2, stride=2)
        self.branches = nn.ModuleList([_conv_bn_relu(deep, wide)])
        self.branches.extend(_conv_bn_relu(deep, wide, 3, dilation) for dilation in (6, 12, 18))
        self.image_branch = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(deep, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.PReLU()
        )
        self.merge = _conv_bn_relu(5 * wide, wide)
        self.low_level = _conv_bn_relu(4 * width, low)
        self.refine = nn.Sequential(_conv_bn_relu(wide + low, wide, 3), *_conv_bn_prelu(wide, wide, bias=False))
        self.heads = nn.Conv2d(wide, raters * outputs, 1)
        self._init_weights()
        channels_last(self)

    def _init_weights(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=0.01)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        with torch.no_grad():  # a bilinear kernel of size 2 is 1/4 everywhere
            self.up.weight.zero_()
            self.up.weight.diagonal().fill_(0.25)

    def encode(self, images: Tensor, maps: Tensor) -> tuple[list[Tensor], Tensor]:
        """The six features φ of the consistency term, and the low-level features (block 3 before its pool).

        φ: after the fuse convolution, after each pool, and the output of block 5.

        Args:
            images: (B·K)×….
            maps: (B·K)×C×H×W coarse logits, or a mask in their place.
        """
        x = self.fuse(torch.cat([images, maps], 1))
        features, low_level = [x], x
        for level, block in enumerate(self.blocks):
            x = block(x)
            if level == 2:
                low_level = x
            if level < 4:
                x = F.max_pool2d(x, 2, ceil_mode=True)
            features.append(x)
        return features, low_level

    def forward(self, images: Tensor, logits: Tensor, expertness: Tensor) -> Tensor:
        """Rater logits (B·K)×R×C×H×W from images B×…, coarse logits (B·K)×C×H×W and expertness B×K×R."""
        features, low_level = self.encode(repeat_images(images, expertness.shape[1]), logits)
        x = self.up(self.eim(features[-1], expertness.flatten(0, 1)))
        # The cascade: each branch is added to the sum of those before it, and all partial sums go on.
        sums = [self.branches[0](x)]
        for branch in self.branches[1:]:
            sums.append(sums[-1] + branch(x))
        sums.append(sums[-1] + self.image_branch(x))  # a 1×1 map, bilinearly resized, is that constant
        x = resize(self.merge(torch.cat(sums, 1)), low_level.shape[-2:])
        x = self.refine(torch.cat([x, self.low_level(low_level)], 1))
        return resize(self.heads(x), images.shape[-2:]).unflatten(1, (self.raters, -1))


class SoftAttention(nn.Module):
    """``S(a) = max(minmax(G * a), a)`` with one learnable kernel for all maps."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(normal_kernel().to(torch.get_default_dtype())[None, None])

    def forward(self, maps: Tensor) -> Tensor:
        """S of maps N×M×H×W, each map on its own.

        Near the border the zero padding lowers G * a, and the min-max then spreads that over the map: a constant map
        of 1/2 gives 1 inside and 1/2 at the border, as in the authors' code.
        """
        blurred = blur(maps, self.kernel)
        low, high = blurred.amin((-2, -1), keepdim=True), blurred.amax((-2, -1), keepdim=True)
        return torch.maximum((blurred - low) / (high - low + 1e-8), maps)


class PerceptionHead(nn.Module):
    """MPM: the features, enhanced by the prediction maps and by the raters' disagreement, give the final logits."""

    def __init__(self, outputs: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ConvTranspose2d(4 * width, width, 2, stride=2),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            *_conv_bn_prelu(width, width),
            *_conv_bn_prelu(width, width),
        )
        self.attention = SoftAttention()
        self.head = nn.Conv2d(2 * outputs * width, outputs, 3, padding=1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=0.01)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        channels_last(self)

    def forward(self, features: Tensor, prediction: Tensor, disagreement: Tensor) -> Tensor:
        """Logits N×C×H×W from features F0, prediction maps A and disagreement maps U (both N×C×H×W)."""
        size = prediction.shape[-2:]
        features = self.features(features)[..., : size[0], : size[1]]
        maps = torch.cat([prediction.flip(1), disagreement.flip(1)], 1)  # the authors' order: A_cup, A_disc, U_cup, …
        # F · S(a) + F of every map a, multiplied channels-last so that no copy precedes the convolution
        factor = (1 + self.attention(maps)).permute(0, 2, 3, 1).unsqueeze(-1)
        enhanced = (factor * features.permute(0, 2, 3, 1).unsqueeze(-2)).flatten(-2)
        out: Tensor = self.head(enhanced.permute(0, 3, 1, 2))
        return out


def normal_kernel(size: int = KERNEL, extent: float = 4.0) -> Tensor:
    """G at the start, size×size float64: square root of the outer product of the normal's bin masses, sum 1.

    `size` bins of width w = (2·extent + 1) / size over [-extent - w/2, extent + w/2]. The square root makes it wider
    than a Gaussian (marginal std 5.2 pixels).
    """
    half = (2 * extent + 1) / size / 2
    masses = np.diff(norm.cdf(np.linspace(-extent - half, extent + half, size + 1)))
    kernel = np.sqrt(np.outer(masses, masses))
    return torch.from_numpy(kernel / kernel.sum())


def blur(maps: Tensor, kernel: Tensor) -> Tensor:
    """G * a of …×H×W maps with zero padding, as a convolution layer would give it, through the Fourier transform.

    A convolution of one channel with 961 taps is the slowest part of the network otherwise, forward and backward.
    """
    height, width = maps.shape[-2:]
    reach = kernel.shape[-1] // 2
    size = tuple(scipy.fft.next_fast_len(n + reach, real=True) for n in (height, width))
    # A layer correlates: the kernel is flipped, and its centre is moved to the origin by the crop.
    spectrum = torch.fft.rfft2(maps, size) * torch.fft.rfft2(kernel[0, 0].flip(0, 1), size)
    return torch.fft.irfft2(spectrum, size)[..., reach : reach + height, reach : reach + width]


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, corners aligned, as all of MR-Net's."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
