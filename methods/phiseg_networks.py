"""The three networks of PHiSeg: one hierarchy of latent maps for posterior and prior each, and the likelihood.

Level 0 of L is the finest. The R resolution levels of the encoder have ``widths``; latent level ℓ reads the encoder at
resolution level ℓ + d, d = R - L (Baumgartner et al. 2019, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import channels_last
from .phiseg_layers import ConvBnRelu, Double, GaussianMap, Upsampling, block, initialise


class TopLevel(nn.Module):
    """Coarsest latent level: two convolutions of the deepest feature. The mean's is 3×3, the deviation's 1×1."""

    def __init__(self, features: int, latent: int, mean_kernel: int, std_floor: float) -> None:
        super().__init__()
        self.std_floor = std_floor
        self.mean = nn.Conv2d(features, latent, mean_kernel, padding=mean_kernel // 2)
        self.std = nn.Conv2d(features, latent, 1)

    def forward(self, features: Tensor) -> GaussianMap:
        return GaussianMap(self.mean(features), F.softplus(self.std(features)) + self.std_floor)


class LowerLevel(nn.Module):
    """A finer latent level: the encoder's feature at its scale, and the code of the next coarser level.

    Args:
        features: channels of the encoder's feature.
        latent: channels Z of a code.
        raised: channels of the code once brought to this level's resolution (Z·n0).
        width: channels of the head.
        upsample: kind of bilinear upsampling.
        std_floor: added to the standard deviation.
    """

    def __init__(
        self, features: int, latent: int, raised: int, width: int, upsample: Upsampling, std_floor: float
    ) -> None:
        super().__init__()
        self.std_floor = std_floor
        self.up = Double(upsample)
        self.raise_code = block(latent, raised, raised)
        self.join = ConvBnRelu(features + raised, width)
        self.refine = ConvBnRelu(width, width)
        self.mean = nn.Conv2d(width, latent, 1)
        self.std = nn.Conv2d(width, latent, 1)

    def forward(self, image_part: Tensor, coarser: Tensor) -> GaussianMap:
        """The Gaussian of this level.

        Args:
            image_part: ``join.image_part`` of the encoder's feature.
            coarser: B×Z×h/2×w/2, code of the next coarser level.
        """
        h = self.refine(self.join.joined(image_part, self.raise_code(self.up(coarser))))
        return GaussianMap(self.mean(h), F.softplus(self.std(h)) + self.std_floor)


class ImageParts:
    """All that a hierarchy needs of the images, computed once however many samples follow.

    Attributes:
        top: Gaussian of the coarsest level, which depends on nothing else.
        parts: the image's share in each finer level, finest first.
    """

    def __init__(self, top: GaussianMap, parts: list[Tensor]) -> None:
        self.top = top
        self.parts = parts

    def rows(self, index: Tensor) -> ImageParts:
        return ImageParts(self.top.rows(index), [part[index] for part in self.parts])


class LatentHierarchy(nn.Module):
    """Posterior q(z|x,s) or prior p(z|x): an encoder, and a chain of latent maps from coarse to fine.

    Args:
        inputs: channels of the input; the posterior also sees the mask.
        widths: channels of the R resolution levels.
        latent_levels: L.
        latent: channels Z of each code.
        convs: convolutions a resolution level.
        upsample: kind of bilinear upsampling.
        top_mean_kernel: size of the convolution that gives the coarsest mean.
        std_floor: added to every standard deviation.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        latent_levels: int,
        latent: int,
        convs: int,
        upsample: Upsampling,
        top_mean_kernel: int,
        std_floor: float = 0.0,
    ) -> None:
        super().__init__()
        self.skipped = len(widths) - latent_levels  # d
        self.encoder = nn.ModuleList(
            block(before, *[width] * convs) for before, width in zip((inputs, *widths[:-1]), widths, strict=True)
        )
        self.top = TopLevel(widths[-1], latent, top_mean_kernel, std_floor)
        # The head has the width of level ℓ, not of ℓ + d where its feature comes from.
        self.lower = nn.ModuleList(
            LowerLevel(widths[level + self.skipped], latent, latent * widths[0], widths[level], upsample, std_floor)
            for level in range(latent_levels - 1)
        )
        initialise(self)
        channels_last(self)

    def latent_heads(self) -> list[nn.Conv2d]:
        """The convolutions that give means and standard deviations."""
        return [head for level in (self.top, *self.lower) for head in (level.mean, level.std)]

    def encode(self, x: Tensor) -> ImageParts:
        """What the chain needs of inputs B×C×H×W."""
        features: list[Tensor] = []
        for resolution, convs in enumerate(self.encoder):
            x = convs(F.avg_pool2d(x, 2) if resolution else x)
            features.append(x)
        latent_features = features[self.skipped : -1]
        parts = [
            level.join.image_part(feature)  # type: ignore[union-attr, operator]
            for level, feature in zip(self.lower, latent_features, strict=True)
        ]
        return ImageParts(self.top(features[-1]), parts)

    def sample(self, images: ImageParts, noise: Sequence[Tensor]) -> tuple[list[GaussianMap], list[Tensor]]:
        """Gaussians and codes of all levels, finest first: every level sees the code drawn at the coarser one.

        Args:
            images: from `encode`.
            noise: standard normal B×Z×h×w of each level, finest first.
        """
        gaussians, codes = [images.top], [images.top.code(noise[-1])]
        for level in range(len(self.lower) - 1, -1, -1):
            gaussians.append(self.lower[level](images.parts[level], codes[-1]))
            codes.append(gaussians[-1].code(noise[level]))
        return gaussians[::-1], codes[::-1]

    def given(self, images: ImageParts, codes: Sequence[Tensor]) -> list[GaussianMap]:
        """Gaussians of all levels, finest first, on a chain of given codes: the prior in training, fed the posterior's.

        Args:
            images: from `encode`.
            codes: B×Z×h×w of each level, finest first.
        """
        lower = [level(part, coarser) for level, part, coarser in zip(self.lower, images.parts, codes[1:], strict=True)]
        return [*lower, images.top]


class Likelihood(nn.Module):
    """p(s|z): a logit map per latent level from the codes alone; nothing of the image enters.

    Every code is brought to the resolution of its level in the output, H/2^ℓ, and joined with what comes from the
    coarser levels. The finest level has 4·n0 channels at full resolution: most of the time and memory of the method.

    Args:
        outputs: channels C of the logits.
        widths, latent_levels, latent, upsample: as `LatentHierarchy`.
    """

    def __init__(
        self, outputs: int, widths: Sequence[int], latent_levels: int, latent: int, upsample: Upsampling
    ) -> None:
        super().__init__()
        skipped = len(widths) - latent_levels
        last = latent_levels - 1
        joined = [*widths[skipped:-1], widths[last]]  # channels of post_c
        self.raise_code = nn.ModuleList(
            nn.Sequential(
                *block(latent, width, width),
                *(layer for _ in range(skipped) for layer in (Double(upsample), ConvBnRelu(width, width))),
            )
            for width in widths[:latent_levels]
        )
        self.up = Double(upsample)
        self.from_coarser = nn.ModuleList(ConvBnRelu(joined[level + 1], widths[level]) for level in range(last))
        self.merge = nn.ModuleList(block(2 * widths[level], joined[level], joined[level]) for level in range(last))
        self.heads = nn.ModuleList(nn.Conv2d(width, outputs, 1) for width in joined)
        # Peak of the finest level: its upsampled input twice (padded and not), both halves and their concatenation,
        # and the two merged maps. Everything coarser together is less than a third of that.
        finest = 2 * joined[min(1, last)] + 3 * widths[0] + 2 * joined[0]
        self.peak_channels = finest + finest // 3
        initialise(self)
        channels_last(self)

    def forward(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """Logits y_ℓ, B×C×H/2^ℓ×W/2^ℓ, of codes of all levels, both finest first."""
        x = self.raise_code[-1](codes[-1])
        logits = [self.heads[-1](x)]
        for level in range(len(codes) - 2, -1, -1):
            coarser = self.from_coarser[level](self.up(x))
            x = self.merge[level](torch.cat([self.raise_code[level](codes[level]), coarser], 1))
            logits.append(self.heads[level](x))
        return logits[::-1]
