"""Diagonal Gaussians over a low-dimensional latent code, the VGG-like encoders that predict them, and seeded noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import channels_last
from .losses import at_least_single

BiasInit = Literal["small", "normal"]
_NOISE_ROWS = 16


@dataclass
class Gaussian:
    """A diagonal Gaussian per image: mean and log standard deviation, both B×L."""

    mean: Tensor
    log_std: Tensor

    @property
    def std(self) -> Tensor:
        return self.log_std.exp()

    def codes(self, noise: Tensor) -> Tensor:
        """Reparameterised codes B×S×L from standard normal noise B×S×L (or S×L, shared by the images)."""
        return self.mean.unsqueeze(1) + self.std.unsqueeze(1) * noise


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """Analytic KL(q‖p) of each image, summed over the latent dimensions: B values, never negative."""
    variance_ratio = (2 * (q.log_std - p.log_std)).exp()
    distance = ((q.mean - p.mean) / p.std).square()
    return 0.5 * (variance_ratio + distance - 1 - 2 * (q.log_std - p.log_std)).sum(-1)


def init_relu_conv(conv: nn.Conv2d) -> None:
    """Kaiming-normal (fan-in, ReLU gain) weight; bias truncated normal of std 1e-3, cut at 2 std."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
    _init_small_bias(conv)


def init_he_truncated(conv: nn.Conv2d) -> None:
    """He normal truncated at 2 std and rescaled to keep the variance, as TensorFlow's initialiser does."""
    fan_in = conv.weight[0].numel()
    std = math.sqrt(2 / fan_in) / 0.87962566103423978  # std of a unit normal cut at ±2
    nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    _init_small_bias(conv)


def init_orthogonal(conv: nn.Conv2d) -> None:
    nn.init.orthogonal_(conv.weight)
    _init_small_bias(conv)


def _init_small_bias(conv: nn.Conv2d) -> None:
    if conv.bias is not None:
        nn.init.trunc_normal_(conv.bias, std=1e-3, a=-2e-3, b=2e-3)


class GaussianEncoder(nn.Module):
    """The prior or posterior net: VGG-like blocks without norm, global mean, 1×1 convolution to mean and log std.

    Probabilistic U-Net (Kohl et al. 2018) and D-Persona (Wu et al. 2024).

    Args:
        channels: input channels; a posterior also sees masks.
        widths: channels of the blocks; from the second on, each begins with a 2×2 average pool (ceil mode).
        convs: 3×3 convolutions, each followed by ReLU, a block.
        latent: size L of the code.
        pool_input: a 2×2 average pool before everything, for speed.
        bias: bias of the last layer: ``small`` (std 1e-3), or ``normal`` (std 1), which puts the initial standard
            deviations between about e⁻² and e² and starts the KL near 100.
        log_std_clamp: log std is limited to ±this; None leaves it free, and with it a source of NaN.
        he_truncated: initialise all weights as the TensorFlow code does, instead of Kaiming normal.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        convs: int,
        latent: int,
        pool_input: bool = False,
        bias: BiasInit = "small",
        log_std_clamp: float | None = 10.0,
        he_truncated: bool = False,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.pool_input = pool_input
        self.log_std_clamp = log_std_clamp
        layers: list[nn.Module] = []
        inputs = channels
        for level, width in enumerate(widths):
            if level:
                layers.append(nn.AvgPool2d(2, 2, ceil_mode=True))
            for _ in range(convs):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Conv2d(inputs, 2 * latent, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                (init_he_truncated if he_truncated else init_relu_conv)(module)
        if bias == "normal":
            assert self.head.bias is not None
            nn.init.normal_(self.head.bias)
        channels_last(self)

    def forward(self, x: Tensor) -> Gaussian:
        """The Gaussian of each image of a B×C×H×W batch."""
        if self.pool_input:
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        x = self.blocks(x).mean((2, 3), keepdim=True)
        mean, log_std = at_least_single(self.head(x)).flatten(1).chunk(2, 1)
        if self.log_std_clamp is not None:
            # The gradient passes the clamp unchanged: a plain clamp has none outside, and a prior that one bad step has
            # thrown there stays dead (KL stuck at 40, every sample noise). Inside, the value is the same to the bit.
            limited = log_std.clamp(-self.log_std_clamp, self.log_std_clamp)
            log_std = log_std + (limited - log_std).detach()
        return Gaussian(mean, log_std)


def sum_of_norms(modules: Sequence[nn.Module]) -> Tensor:
    """Ω of the PyTorch ports: the sum of un-squared L2 norms of all parameter tensors, biases included.

    Not weight decay: a pull of unit length on every tensor, whatever its size.
    """
    norms = [p.norm() for module in modules for p in module.parameters()]
    return torch.stack(norms).sum()


def half_squared_weights(modules: Sequence[nn.Module]) -> Tensor:
    """``0.5 Σ‖w‖²`` over weights, biases excluded: the regulariser of the TensorFlow code."""
    squares = [p.square().sum() for module in modules for p in module.parameters() if p.ndim > 1]
    return 0.5 * torch.stack(squares).sum()


def draw_seeds(images: int, generator: torch.Generator | None, purposes: int = 1, shared: bool = False) -> list[int]:
    """Seeds of each purpose and image from `generator` (torch's global one if None); of purpose k ``[k::purposes]``.

    A prediction draws all its seeds first and gives each purpose a generator of its own, so that the number of
    samples never moves the noise of anything else.

    Args:
        shared: all images (slices of one volume) have the same seeds.
    """
    device = generator.device if generator is not None else torch.device("cpu")
    count = purposes * (1 if shared else images)
    seeds = torch.randint(2**63 - 1, (count,), generator=generator, device=device).tolist()
    return seeds * images if shared else seeds


def seeded_noise(rows: int, size: int, seed: int, like: Tensor) -> Tensor:
    """Standard normal noise rows×size whose first rows do not depend on `rows`.

    Drawn on the CPU in blocks of constant shape: torch fills one large request differently from a small one.
    """
    generator = torch.Generator().manual_seed(seed)
    blocks = max(1, math.ceil(rows / _NOISE_ROWS))
    return torch.cat([torch.randn(_NOISE_ROWS, size, generator=generator) for _ in range(blocks)])[:rows].to(like)
