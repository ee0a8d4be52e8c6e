"""Training steps of D-Persona against a literal reading of the released code: the same loss in less time.

The reference tiles the code over all pixels, decodes sample by sample, runs the heads one by one, keeps gradients
through the whole network in stage 2 and runs under anomaly detection, as the released training script does. Wall time
on two threads, the least of alternating rounds.

How much a whole step can gain is bounded by what both sides must compute: trunk and encoders forward and backward in
stage 1, the trunk forward and the heads forward and backward in stage 2, where the literal step has less than twice
our floating-point operations: the same arithmetic cannot be much more than twice as fast. The fusion head on its own
shows what the shared base and the gradient through the attaining codes bring.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.dpersona import DPersona
from multirater.methods.experts import ExpertHeads
from multirater.methods.fusion import FusionHead
from multirater.methods.losses import batch_dice_loss, draw_rater
from torch import Tensor

pytestmark = [pytest.mark.perf, pytest.mark.usefixtures("two_threads")]
BATCH, RATERS, SIZE = 12, 4, 128


@pytest.fixture(scope="module")
def method() -> DPersona:
    torch.manual_seed(0)
    data = DataDescription("perf", 1, 1, RATERS, ("1", "2", "3", "4"), "derived", 2, (SIZE, SIZE))
    # no dropout: its draws differ between a grouped network and single ones, and the losses are to be compared
    return create_method("dpersona", data, fidelity="authors", latent_bias="small", head_dropout=0.0).train()


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    distance = ((row - 64) ** 2 + (column - 64) ** 2).sqrt()
    masks = torch.stack([distance < radius for radius in (16, 20, 24, 28)]).to(torch.uint8)
    return {
        "image": torch.rand(BATCH, 1, SIZE, SIZE, generator=generator),
        "masks": masks.expand(BATCH, -1, -1, -1),
        "rater_valid": torch.ones(BATCH, RATERS, dtype=torch.bool),
    }


# -- the literal reference ----------------------------------------------------------------------


def tile(code: Tensor, dim: int, repeats: int) -> Tensor:
    size = code.size(dim)
    reps = [1] * code.dim()
    reps[dim] = repeats
    index = torch.cat([torch.arange(repeats) * size + i for i in range(size)])
    return torch.index_select(code.repeat(*reps), dim, index)


def fcomb(fusion: FusionHead, features: Tensor, code: Tensor) -> Tensor:
    z = tile(tile(code.unsqueeze(2), 2, features.shape[2]).unsqueeze(3), 3, features.shape[3])
    x = torch.cat([features, z], 1)
    for layer in fusion.layers[:-1]:
        x = F.relu(layer(x))
    return fusion.layers[-1](x)


def literal_stage_1(method: DPersona, batch: dict[str, Any]) -> Tensor:
    images, masks = batch["image"], batch["masks"].float()
    rater = draw_rater(batch["rater_valid"], per_image=False)
    noise = torch.randn(BATCH, 11, 6)
    features = method.trunk(images)
    prior, posterior = method.prior(images), method.posterior(torch.cat([images, masks], 1))
    reconstruction = fcomb(method.fusion, features, posterior.mean + posterior.std * noise[:, 0])
    samples = [fcomb(method.fusion, features, prior.mean + prior.std * noise[:, s]) for s in range(1, 11)]
    stack = torch.cat(samples, 1)
    bounds = torch.stack([stack.max(1).values, stack.min(1).values], 1)
    target = torch.stack([masks.max(1).values, masks.min(1).values], 1)
    pairs = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior.mean, posterior.std), torch.distributions.Normal(prior.mean, prior.std)
    )
    loss = batch_dice_loss(reconstruction, masks[torch.arange(BATCH), rater].unsqueeze(1))
    loss = loss + pairs.sum(-1).mean() + 0.5 * batch_dice_loss(bounds, target)
    norms = 0.0
    for module in (method.posterior, method.prior, *method.fusion.layers[:-1]):
        for parameter in module.parameters():
            norms = norms + parameter.norm()
    return loss + 1e-5 * norms


def head(heads: ExpertHeads, rater: int, features: Tensor) -> Tensor:
    x = features
    for index, conv in enumerate(heads.convs):
        if index in (2, 4):
            x = F.avg_pool2d(x, 2)
        count = conv.out_channels // RATERS
        rows = slice(rater * count, (rater + 1) * count)
        x = F.relu(F.conv2d(x, conv.weight[rows], conv.bias[rows], padding=3))
    return x.mean(2).mean(2)


def literal_stage_2(method: DPersona, batch: dict[str, Any]) -> Tensor:
    images, masks = batch["image"], batch["masks"].float()
    features, prior = method.trunk(images), method.prior(images)
    noise = torch.randn(BATCH, 100, 6)
    with torch.no_grad():
        bank = torch.stack([prior.mean + prior.std * noise[:, s] for s in range(100)], 1)
    maps = []
    for rater in range(RATERS):
        query = head(method.heads, rater, features)
        weights = torch.softmax((bank @ query.unsqueeze(2)).squeeze(2), 1)
        maps.append(fcomb(method.fusion, features, (weights.unsqueeze(2) * bank).sum(1)))
    return batch_dice_loss(torch.cat(maps, 1), masks)


# -- timing -------------------------------------------------------------------------------------


@pytest.fixture
def ratio(race: Callable[..., float]) -> Callable[..., float]:
    """How many times less time ours takes for the same value; alternating rounds, the least of each."""

    def agree(value: float, reference: float) -> None:
        assert value == pytest.approx(reference, rel=2e-5)

    return partial(race, "dpersona", agree=agree)


def step_ratio(
    ratio: Callable[..., float], method: DPersona, batch: dict[str, Any], stage: str, literal: Callable[..., Tensor]
) -> float:
    ours = copy.deepcopy(method)
    plain = copy.deepcopy(method).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    trained = {id(p) for p in ours.parameters_for(stage)}
    for parameter in ours.parameters():
        parameter.requires_grad_(id(parameter) in trained)

    def step(which: DPersona, loss_of: Callable[[], Tensor]) -> float:
        which.zero_grad()
        torch.manual_seed(5)
        loss = loss_of()
        loss.backward()
        return loss.item()

    def literally() -> float:
        # `train_dp.py` switches anomaly detection on for all of training, so a step as released includes its cost.
        with torch.autograd.set_detect_anomaly(True):
            return step(plain, lambda: literal(plain, batch))

    return ratio(
        f"training step, stage {stage}",
        lambda: step(ours, lambda: ours.training_step(batch, stage)[0]),
        literally,
    )


def test_stage_1_step(ratio: Callable[..., float], method: DPersona, batch: dict[str, Any]) -> None:
    assert step_ratio(ratio, method, batch, "diverse", literal_stage_1) >= 1.7


def test_stage_2_step(ratio: Callable[..., float], method: DPersona, batch: dict[str, Any]) -> None:
    assert step_ratio(ratio, method, batch, "personalised", literal_stage_2) >= 1.4


def test_bound_of_ten_samples(ratio: Callable[..., float], method: DPersona) -> None:
    features = torch.randn(BATCH, 16, SIZE, SIZE).contiguous(memory_format=torch.channels_last).requires_grad_()
    codes = torch.randn(BATCH, 10, 6)

    def backward(bounds: Tensor) -> float:
        value = bounds.square().mean()
        value.backward()
        return value.item()

    def literal() -> float:
        stack = torch.cat([fcomb(method.fusion, features, codes[:, s]) for s in range(10)], 1)
        return backward(torch.stack([stack.max(1).values, stack.min(1).values], 1))

    def ours() -> float:
        return backward(method.fusion.extremes(features, codes))

    assert ratio("bound of ten samples, with gradient", ours, literal) >= 1.5


@torch.no_grad()
def test_decoding_fifty_samples(ratio: Callable[..., float], method: DPersona) -> None:
    features, codes = torch.randn(1, 16, SIZE, SIZE), torch.randn(1, 50, 6)

    def literal() -> float:
        return torch.cat([fcomb(method.fusion, features, codes[:, s]) for s in range(50)], 1).square().mean().item()

    def ours() -> float:
        return method.fusion(features, codes).square().mean().item()

    assert ratio("decoding 50 samples", ours, literal, rounds=5) >= 1.5
