"""Building blocks of PHiSeg: convolution with batch norm, upsampling, maps of Gaussians, and the terms of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .latent import init_he_truncated

Upsampling = Literal["tf1", "half_pixel"]
BN_EPSILON = 1e-3
BN_MOMENTUM = 0.01
_VARIANCE_FLOOR = 1e-10


@dataclass
class GaussianMap:
    """A diagonal Gaussian at every latent position: mean and standard deviation, both B×Z×h×w."""

    mean: Tensor
    std: Tensor

    def code(self, noise: Tensor) -> Tensor:
        """Reparameterised code from standard normal noise of the same shape."""
        return self.mean + self.std * noise

    def rows(self, index: Tensor) -> GaussianMap:
        """The Gaussians of some images, with repetition: one image serves many samples."""
        return GaussianMap(self.mean[index], self.std[index])


def kl_maps(q: GaussianMap, p: GaussianMap) -> Tensor:
    """KL(q‖p) of each image, summed over channels and positions: B values.

    The variances are used directly, with 1e-10 added to them as in the authors' code: the standard deviation is a
    softplus without floor. In single precision at least, also under autocast, where 1e-10 would be 0.
    """
    dtype = torch.promote_types(q.mean.dtype, torch.float32)
    q_mean, q_std, p_mean, p_std = (t.to(dtype) for t in (q.mean, q.std, p.mean, p.std))
    q_variance, p_variance = q_std.square(), p_std.square() + _VARIANCE_FLOOR
    ratio = (q_variance + (p_mean - q_mean).square()) / p_variance
    return 0.5 * (ratio + p_variance.log() - (q_variance + _VARIANCE_FLOOR).log() - 1).sum((1, 2, 3))


class ConvBnRelu(nn.Module):
    """3×3 convolution without bias, batch norm, ReLU.

    In eval mode the norm is folded into the weight: one pass over the map instead of two, the same numbers.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=BN_EPSILON, momentum=BN_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if norm.training:
            return F.relu(norm(self.conv(x)), inplace=True)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - norm.running_mean * scale
        return F.relu(F.conv2d(x, self.conv.weight * scale[:, None, None, None], bias, padding=1), inplace=True)

    def image_part(self, features: Tensor) -> Tensor:
        """The convolution of the first input channels alone, which all samples of an image share; see `joined`."""
        return F.conv2d(features, self.conv.weight[:, : features.shape[1]], padding=1)

    def joined(self, image_part: Tensor, x: Tensor) -> Tensor:
        """`forward` of the concatenation [features, x], given ``image_part(features)``: convolution is linear."""
        rest = F.conv2d(x, self.conv.weight[:, -x.shape[1] :], padding=1)
        return F.relu(self.norm(rest + image_part), inplace=True)


def block(*widths: int) -> nn.Sequential:
    """`ConvBnRelu` layers of these channels, from input to output."""
    return nn.Sequential(*(ConvBnRelu(a, b) for a, b in pairwise(widths)))


class Double(nn.Module):
    """Bilinear upsampling by 2.

    ``tf1`` is that of TensorFlow 1 without half-pixel centres, which neither value of ``align_corners`` gives:
    ``out[2k] = in[k]``, ``out[2k+1] = (in[k] + in[k+1]) / 2``, the last row and column repeated. It shifts the map by a
    quarter of a coarse pixel per level. ``half_pixel`` is PyTorch's with ``align_corners=False``.
    """

    def __init__(self, kind: Upsampling) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "half_pixel":
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        height, width = x.shape[-2:]
        inner = F.interpolate(x, size=(2 * height - 1, 2 * width - 1), mode="bilinear", align_corners=True)
        return F.pad(inner, (0, 1, 0, 1), mode="replicate")


def partial_sums(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Logits a_ℓ = Σ_{m≥ℓ} y_m at the resolution of level ℓ, finest (the segmentation) first.

    The code brings every y_m to full resolution by nearest-neighbour; a sum of levels ≥ ℓ is then constant over blocks
    of 2^ℓ×2^ℓ pixels, so that one value a block says the same.
    """
    sums = [outputs[-1]]
    for output in reversed(outputs[:-1]):
        sums.append(output + F.interpolate(sums[-1], scale_factor=2, mode="nearest"))
    return sums[::-1]


def pixel_sum_cross_entropy(sums: Sequence[Tensor], target: Tensor, softmax: bool) -> Tensor:
    """Cross-entropy of each image and partial sum, summed over the pixels at full resolution: B×L.

    Where logits are constant over a block, the pixels' sum is the block's size times the cross-entropy against the
    block's mean target: the loss of all levels costs 4/3 of the finest one instead of L times.

    Args:
        sums: `partial_sums`.
        target: B×C×H×W in {0, 1}: one-hot for `softmax`, else independent channels.
        softmax: the channels exclude each other.
    """
    each = []
    for level, logits in enumerate(sums):
        if level:
            target = F.avg_pool2d(target, 2)
        if softmax:
            pixels = F.cross_entropy(logits, target, reduction="none").sum((1, 2))
        else:
            pixels = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum((1, 2, 3))
        each.append(4**level * pixels)
    return torch.stack(each, 1)


def initialise(module: nn.Module) -> None:
    """He normal weights (fan-in, truncated at 2 std, variance kept), biases 0, as in the authors' code."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            init_he_truncated(part)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
