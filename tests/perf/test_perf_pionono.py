"""Pionono against a literal reading of the released code: the same numbers in less time.

The reference makes a distribution object for every image and sample, tiles the code over all pixels by index, joins it
to the features and runs the head sample by sample; in training its port runs under anomaly detection. Processor time of
one thread at the sizes of the preset quick, the least of alternating rounds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.class_dice import batch_class_dice
from multirater.methods.pionono import Pionono
from torch import Tensor

pytestmark = pytest.mark.perf
BATCH, RATERS, SIZE, SAMPLES = 12, 4, 64, 50


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def method() -> Pionono:
    torch.manual_seed(0)
    data = DataDescription("perf", 1, 1, RATERS, ("1", "2", "3", "4"), "derived", 2, (SIZE, SIZE))
    return create_method("pionono", data, backbone="unet_small")


def tile(code: Tensor, dim: int, repeats: int) -> Tensor:
    size = code.size(dim)
    reps = [1] * code.dim()
    reps[dim] = repeats
    index = torch.cat([torch.arange(repeats) * size + i for i in range(size)])
    return torch.index_select(code.repeat(*reps), dim, index)


def literal_head(method: Pionono, features: Tensor, code: Tensor) -> Tensor:
    z = tile(tile(code.unsqueeze(2), 2, features.shape[2]).unsqueeze(3), 3, features.shape[3])
    x = torch.cat([features, z], 1)
    for layer in method.head.layers[:-1]:
        x = F.relu(layer(x))
    out: Tensor = method.head.layers[-1](x)
    return out


def distribution(method: Pionono, rater: int) -> torch.distributions.MultivariateNormal:
    return torch.distributions.MultivariateNormal(
        method.raters.mean[rater], scale_tril=torch.tril(method.raters.scale_tril()[rater])
    )


def literal_codes(method: Pionono, raters: list[int], noise: Tensor) -> Tensor:
    """One code an image: noise B×D stands for the draw of each distribution object."""
    codes = torch.zeros(len(raters), method.latent)
    for i, rater in enumerate(raters):
        q = distribution(method, rater)
        codes[i] = q.loc + q.scale_tril @ noise[i]
    return codes


@pytest.fixture
def ratio(race: Callable[..., float]) -> Callable[..., float]:
    """Processor time: the literal side is thousands of small calls that a busy machine delays most."""

    def agree(value: Tensor, reference: Tensor) -> None:
        torch.testing.assert_close(value, reference, rtol=0, atol=2e-5)

    return partial(race, "pionono", agree=agree, cpu=True)


@torch.no_grad()
def test_fifty_samples(ratio: Callable[..., float], method: Pionono) -> None:
    features = torch.randn(1, 16, SIZE, SIZE)
    drawn, noise = torch.randint(RATERS, (1, SAMPLES)), torch.randn(1, SAMPLES, method.latent)

    def ours() -> Tensor:
        return method.head(features, method.raters.codes(drawn, noise)).sigmoid()

    def literal() -> Tensor:
        out = torch.zeros(1, SAMPLES, 1, SIZE, SIZE)
        for s in range(SAMPLES):
            codes = literal_codes(method, drawn[:, s].tolist(), noise[:, s])
            out[:, s] = literal_head(method, features, codes).sigmoid()
        return out

    assert ratio("50 samples", ours, literal, rounds=20) >= 3


@torch.no_grad()
def test_means_of_twenty_codes_of_every_rater(ratio: Callable[..., float], method: Pionono) -> None:
    features, noise = torch.randn(1, 16, SIZE, SIZE), torch.randn(1, RATERS, 20, method.latent)

    def ours() -> Tensor:
        codes = method.raters.codes(torch.arange(RATERS)[:, None], noise)
        return method.head.group_means(features, codes, torch.sigmoid)

    def literal() -> Tensor:
        out = torch.zeros(1, RATERS, 1, SIZE, SIZE)
        for rater in range(RATERS):
            samples = torch.zeros(20, 1, 1, SIZE, SIZE)
            for s in range(20):
                codes = literal_codes(method, [rater], noise[:, rater, s])
                samples[s] = literal_head(method, features, codes).sigmoid()
            out[:, rater] = samples.mean(0)
        return out

    assert ratio("4 x 20 samples", ours, literal, rounds=20) >= 2.2


@torch.no_grad()
def test_prediction_of_an_image(ratio: Callable[..., float], method: Pionono) -> None:
    """Everything that `predict` answers, against a trunk run for each rater as in the port."""
    image = torch.rand(1, 1, SIZE, SIZE)
    method.eval()

    def ours() -> Tensor:
        return torch.tensor(method.predict(image, SAMPLES, torch.Generator().manual_seed(0)).samples.shape)

    def literal() -> Tensor:
        for rater in range(RATERS):
            features = method.trunk(image)
            for _ in range(20):
                literal_head(method, features, literal_codes(method, [rater], torch.randn(1, 8)))
        features = method.trunk(image)
        out = [
            literal_head(method, features, literal_codes(method, [int(r)], torch.randn(1, 8)))
            for r in torch.randint(RATERS, (SAMPLES,))
        ]
        return torch.tensor(torch.stack(out, 1)[:, :, 0].shape)

    assert ratio("prediction", ours, literal, rounds=20) >= 2.5


def test_training_step(ratio: Callable[..., float], method: Pionono) -> None:
    generator = torch.Generator().manual_seed(0)
    batch: dict[str, Any] = {
        "image": torch.rand(BATCH, 1, SIZE, SIZE, generator=generator),
        "masks": (torch.rand(BATCH, RATERS, SIZE, SIZE, generator=generator) > 0.9).to(torch.uint8),
        "rater_valid": torch.ones(BATCH, RATERS, dtype=torch.bool),
    }
    ours, plain = copy.deepcopy(method).train(), copy.deepcopy(method).train()

    def step() -> Tensor:
        ours.zero_grad()
        torch.manual_seed(5)
        loss, _ = ours.training_step(batch)
        loss.backward()
        return loss.detach()

    def literal() -> Tensor:
        plain.zero_grad()
        torch.manual_seed(5)
        with torch.autograd.set_detect_anomaly(True):
            rater, target, _ = plain.draw_annotation(batch)
            noise = torch.randn(BATCH, 5, plain.latent)
            features = plain.trunk(batch["image"])
            samples = torch.zeros(5, BATCH, 1, SIZE, SIZE)
            for s in range(5):
                samples[s] = literal_head(plain, features, literal_codes(plain, rater.tolist(), noise[:, s]))
            prior = torch.distributions.MultivariateNormal(torch.zeros(8), scale_tril=2 * torch.eye(8))
            kl = torch.zeros(BATCH)
            for i, r in enumerate(rater.tolist()):
                kl[i] = torch.distributions.kl_divergence(distribution(plain, r), prior)
            loss = batch_class_dice(samples.mean(0).sigmoid()[:, None], target[:, None])
            norms = sum(p.norm() for layer in plain.head.layers[:-1] for p in layer.parameters())
            loss = loss + 5e-4 * kl.mean() + 1e-5 * norms
            loss.backward()
        return loss.detach()

    assert ratio("training step", step, literal, rounds=3) >= 1.5
