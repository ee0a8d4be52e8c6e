"""Baselines and Probabilistic U-Net at the sizes of the preset quick against loops over passes and samples.

Literal MC-dropout runs the whole network once a pass; literal level sets are cut one after the other; the literal
Probabilistic U-Net tiles every code over the image and joins it to the features. Its training step and those of the
plain U-Nets loop over nothing in anybody's code, so that there is no literal side to race. Two threads, the least of
alternating rounds.
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
from multirater.methods.latent import draw_seeds, seeded_noise
from multirater.methods.prob_unet import ProbUNet
from torch import Tensor

pytestmark = [pytest.mark.perf, pytest.mark.usefixtures("two_threads")]
SIZE, SAMPLES, BATCH = 64, 50, 12


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    data = DataDescription("perf", 1, 1, 4, ("1", "2", "3", "4"), "derived", 2, (SIZE, SIZE))
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
