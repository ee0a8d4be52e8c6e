"""Baselines and Probabilistic U-Net at the sizes of the preset quick against loops over passes, samples and networks.

Literal MC-dropout runs the whole network once a pass; literal level sets are cut one after the other; the literal
Probabilistic U-Net tiles every code over the image and joins it to the features. Its training step and those of the
plain U-Nets loop over nothing in anybody's code, so that there is no literal side to race. The R networks of
`unet_per_rater` are raced against their stacked form, which is no loop and yet slower on CPUs. Two threads, the least
of alternating rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.baselines import nested_level_sets
from multirater.methods.baselines_ensembles import MCDropout, _dropper
from multirater.methods.baselines_raters import UNetPerRater
from multirater.methods.latent import draw_seeds, seeded_noise
from multirater.methods.prob_unet import ProbUNet
from torch import Tensor, nn

pytestmark = [pytest.mark.perf, pytest.mark.usefixtures("two_threads")]
SIZE, SAMPLES, BATCH, RATERS = 64, 50, 12, 4


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    data = DataDescription("perf", 1, 1, RATERS, ("1", "2", "3", "4"), "derived", 2, (SIZE, SIZE))
    return create_method(name, data, backbone="unet_small", **options)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_fifty_passes_of_mc_dropout(race: Callable[..., float], image: Tensor) -> None:
    method: MCDropout = build("mc_dropout").eval()

    def literal() -> Tensor:
        maps = []
        for seed in range(SAMPLES):
            drop = _dropper(method.dropout, seed)
            levels = method.trunk.deep(method.trunk.shallow(image), drop)
            maps.append(torch.sigmoid(method.head(method.trunk.decode(levels, (SIZE, SIZE), drop))))
        return torch.cat(maps)[:, 0]

    def ours() -> Tensor | None:
        return method.predict(image, SAMPLES, torch.Generator().manual_seed(0)).samples

    # Measured 2.2 to 2.6: the passes differ from the first dropout on, which is more than a third of the network.
    assert race("mc_dropout", "50 passes", ours, literal, rounds=5, warm=1) >= 1.3


@torch.no_grad()
def test_fifty_level_sets(race: Callable[..., float]) -> None:
    maps = torch.rand(BATCH, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    def literal() -> Tensor:
        from multirater.core.sequences import van_der_corput

        return torch.stack([(maps.double() > float(u)).float() for u in van_der_corput(SAMPLES)], 1)

    def agree(value: Tensor, reference: Tensor) -> None:
        assert torch.equal(value, reference)

    race("level sets", "50 of 12 maps", lambda: nested_level_sets(maps, SAMPLES), literal, rounds=10, agree=agree)


@torch.no_grad()
def test_fifty_samples_of_the_probabilistic_unet(race: Callable[..., float], image: Tensor) -> None:
    small = {"encoder_widths": [16, 32, 64, 128], "encoder_convs": 2, "encoder_pool": True}
    method: ProbUNet = build("prob_unet", variant="pt", **small).eval()

    def literal() -> Tensor:
        noise = seeded_noise(SAMPLES, method.latent, draw_seeds(1, torch.Generator().manual_seed(0))[0], image)
        features, prior = method.trunk(image), method.prior(image)
        maps = []
        for row in noise:
            code = prior.codes(row.expand(1, 1, -1))[:, 0]
            x = torch.cat([features, code[..., None, None].expand(-1, -1, SIZE, SIZE)], 1)
            for layer in method.fusion.layers[:-1]:
                x = torch.relu(layer(x))
            maps.append(torch.sigmoid(method.fusion.layers[-1](x))[:, 0])
        return torch.stack(maps, 1)

    def ours() -> Tensor | None:
        return method.predict(image, SAMPLES, torch.Generator().manual_seed(0)).samples

    def agree(value: Tensor, reference: Tensor) -> None:
        torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-5)

    assert race("prob_unet", "50 samples", ours, literal, rounds=8, warm=1, agree=agree) >= 1.3


def test_networks_one_after_the_other_against_stacked_ones(race: Callable[..., float]) -> None:
    """`torch.func.vmap` over the R networks of B1 makes grouped convolutions: no Python loop, and more time on CPUs."""
    method: UNetPerRater = build("unet_per_rater").train()
    images = torch.rand(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    networks = [nn.Sequential(trunk, head) for trunk, head in zip(method.trunks, method.heads, strict=True)]
    parameters, buffers = torch.func.stack_module_state(networks)  # type: ignore[arg-type]

    def call(weights: Any, state: Any) -> Tensor:
        return torch.func.functional_call(networks[0], (weights, state), (images,))

    def stacked() -> Tensor:
        logits = torch.func.vmap(call, randomness="different")(parameters, buffers).transpose(0, 1)
        torch.autograd.grad(logits.square().mean(), list(parameters.values()))
        return logits.detach()

    def looped() -> Tensor:
        method.zero_grad()
        logits = method.logits(images)
        logits.square().mean().backward()
        return logits.detach()

    def agree(value: Tensor, reference: Tensor) -> None:
        torch.testing.assert_close(value, reference, rtol=1e-3, atol=1e-4)

    what = "forward and backward of 4 networks, literal = stacked by vmap"
    assert race("unet_per_rater", what, looped, stacked, rounds=2, warm=1, agree=agree) >= 0.8
