"""Sampling and training step of PHiSeg against a literal reading of the code: the same numbers in less time.

The reference draws sample by sample, runs the whole network on the image for each of them as the released graph does,
normalises in a pass of its own and brings every level to full resolution before it sums or scores it. Two threads, the
least of alternating rounds, widths of the quick preset at 64 pixels.

In a training step both sides run the same networks once: nothing loops over samples there, and a literal step differs
in the scoring of the levels and in the second run of the prior's encoder alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.latent import draw_seeds, seeded_noise
from multirater.methods.phiseg import PHiSeg
from multirater.methods.phiseg_layers import ConvBnRelu, GaussianMap
from multirater.methods.phiseg_networks import LatentHierarchy, Likelihood
from torch import Tensor, nn

pytestmark = [pytest.mark.perf, pytest.mark.usefixtures("two_threads")]
SIZE, SAMPLES, BATCH = 64, 50, 12


@pytest.fixture(scope="module")
def method() -> PHiSeg:
    torch.manual_seed(0)
    data = DataDescription("perf", 1, 1, 4, ("1", "2", "3", "4"), size=(SIZE, SIZE))
    return create_method("phiseg", data, widths=[8, 16, 32, 48, 48, 48], latent_levels=4)


# -- the literal reference ----------------------------------------------------------------------


def conv(layer: ConvBnRelu, x: Tensor) -> Tensor:
    return F.relu(layer.norm(layer.conv(x)))


def convs(layers: nn.Module, x: Tensor) -> Tensor:
    for layer in layers:  # type: ignore[attr-defined]
        x = conv(layer, x) if isinstance(layer, ConvBnRelu) else up(x)
    return x


def up(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    large = F.interpolate(padded, size=(2 * height + 1, 2 * width + 1), mode="bilinear", align_corners=True)
    return large[..., : 2 * height, : 2 * width]


def hierarchy(
    net: LatentHierarchy, x: Tensor, noise: Sequence[Tensor], given: Sequence[Tensor] | None = None
) -> tuple[list[GaussianMap], list[Tensor]]:
    features = []
    for level, layers in enumerate(net.encoder):
        x = convs(layers, F.avg_pool2d(x, 2) if level else x)
        features.append(x)
    top = GaussianMap(net.top.mean(x), F.softplus(net.top.std(x)))
    gaussians, codes = [top], [top.code(noise[-1])]
    for level in range(len(net.lower) - 1, -1, -1):
        part = net.lower[level]
        above = given[level + 1] if given is not None else codes[-1]
        h = torch.cat([features[level + net.skipped], convs(part.raise_code, up(above))], 1)
        h = conv(part.refine, conv(part.join, h))
        gaussians.append(GaussianMap(part.mean(h), F.softplus(part.std(h))))
        codes.append(gaussians[-1].code(noise[level]))
    return gaussians[::-1], codes[::-1]


def likelihood(net: Likelihood, codes: Sequence[Tensor]) -> list[Tensor]:
    """Logits of the levels at full resolution, finest first."""
    raised = [convs(layers, code) for layers, code in zip(net.raise_code, codes, strict=True)]
    x = raised[-1]
    logits = [net.heads[-1](x)]
    for level in range(len(codes) - 2, -1, -1):
        coarser = conv(net.from_coarser[level], up(x))
        x = convs(net.merge[level], torch.cat([raised[level], coarser], 1))
        logits.append(net.heads[level](x))
    return [F.interpolate(y, size=(SIZE, SIZE), mode="nearest") for y in logits[::-1]]


def level_noise(method: PHiSeg, flat: Tensor, image: Tensor) -> list[Tensor]:
    sizes = method.latent_sizes(image)
    parts = flat.split([2 * h * w for h, w in sizes], 1)
    return [part.view(len(flat), 2, h, w) for part, (h, w) in zip(parts, sizes, strict=True)]


@torch.no_grad()
def literal_samples(method: PHiSeg, image: Tensor, seed: int) -> Tensor:
    method.eval()
    own_seed = draw_seeds(1, torch.Generator().manual_seed(seed))[0]
    total = sum(2 * h * w for h, w in method.latent_sizes(image))
    flat = seeded_noise(SAMPLES, total, own_seed, image)
    maps = []
    for sample in range(SAMPLES):
        _, codes = hierarchy(method.prior, image - 0.5, level_noise(method, flat[sample : sample + 1], image))
        logits = torch.stack(likelihood(method.likelihood, codes)).sum(0)
        maps.append(logits.softmax(1)[:, 1])
    return torch.stack(maps, 1)


def literal_step(method: PHiSeg, batch: dict[str, Any]) -> Tensor:
    images, labels = batch["image"], batch["masks"][:, 0].long()
    hot = F.one_hot(labels, 2).permute(0, 3, 1, 2).float()

    def noise() -> list[Tensor]:
        return [torch.randn(BATCH, 2, h, w) for h, w in method.latent_sizes(images)]

    posterior, codes = hierarchy(method.posterior, torch.cat([images - 0.5, hot - 0.5], 1), noise())
    prior, _ = hierarchy(method.prior, images - 0.5, [torch.zeros_like(c) for c in codes], codes)
    total, loss = torch.zeros(1), torch.zeros(())
    for y in reversed(likelihood(method.likelihood, codes)):
        total = total + y
        loss = loss + F.cross_entropy(total, labels, reduction="none").sum((1, 2)).mean()
    for level, (q, p) in enumerate(zip(posterior, prior, strict=True)):
        variance = p.std**2 + 1e-10
        kl = (q.std**2 + (p.mean - q.mean) ** 2) / variance + variance.log() - (q.std**2 + 1e-10).log() - 1
        loss = loss + 4**level * 0.5 * kl.sum((1, 2, 3)).mean()
    _, own = hierarchy(method.prior, images - 0.5, noise())
    likelihood(method.likelihood, own)  # the code runs it with every step, for its batch statistics
    return loss


# -- timing -------------------------------------------------------------------------------------


@pytest.fixture
def ratio(race: Callable[..., float]) -> Callable[..., float]:
    return partial(race, "phiseg", rounds=5)


def test_fifty_samples(ratio: Callable[..., float], method: PHiSeg) -> None:
    image = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    literal = copy.deepcopy(method).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def ours() -> Tensor:
        return method.predict(image, SAMPLES, torch.Generator().manual_seed(3)).samples

    torch.testing.assert_close(ours(), literal_samples(literal, image, 3), rtol=1e-4, atol=1e-5)
    assert ratio("50 samples", ours, lambda: literal_samples(literal, image, 3)) >= 3


def test_training_step(ratio: Callable[..., float], method: PHiSeg) -> None:
    generator = torch.Generator().manual_seed(2)
    batch = {
        "image": torch.rand(BATCH, 1, SIZE, SIZE, generator=generator),
        "masks": (torch.rand(BATCH, 1, SIZE, SIZE, generator=generator) > 0.9).to(torch.uint8),
        "rater_valid": torch.ones(BATCH, 1, dtype=torch.bool),
    }
    ours = copy.deepcopy(method).train()
    plain = copy.deepcopy(method).to(memory_format=torch.contiguous_format).train()  # type: ignore[call-overload]

    def step(which: PHiSeg, loss_of: Callable[[], Tensor]) -> float:
        which.zero_grad()
        torch.manual_seed(5)
        loss = loss_of()
        loss.backward()
        return loss.item()

    def fast() -> float:
        return step(ours, lambda: ours.training_step(batch)[0])

    def slow() -> float:
        torch.rand(BATCH, 1)
        return step(plain, lambda: literal_step(plain, batch))

    assert ratio("training step", fast, slow) >= 1.2
