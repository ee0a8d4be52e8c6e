"""Samples of PHiSeg against a literal loop over the levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multirater.datasets.base import DataDescription
from multirater.methods.phiseg_layers import ConvBnRelu, Double
from phiseg_support import SIZE, build, description, give_batch_statistics
from torch import Tensor


def test_prediction_is_seeded_and_its_first_samples_do_not_depend_on_n() -> None:
    method = build()
    give_batch_statistics(method)
    images = torch.rand(3, 1, SIZE, 2 * SIZE)
    few = method.predict(images, 5, torch.Generator().manual_seed(7))
    many = method.predict(images, 40, torch.Generator().manual_seed(7))
    assert few.samples.shape == (3, 5, SIZE, 2 * SIZE)
    assert few.raters is None
    torch.testing.assert_close(many.samples[:, :5], few.samples)
    torch.testing.assert_close(few.mean, few.samples.mean(1))
    assert not torch.allclose(method.predict(images, 5, torch.Generator().manual_seed(8)).samples, few.samples)
    assert (few.samples.std(1) > 0).any()
    assert method.training


def test_several_image_channels() -> None:
    data = DataDescription("tiny", 3, raters=2, rater_ids=("1", "2"), size=(SIZE, SIZE))
    method = build(data)
    images = torch.rand(2, 3, SIZE, SIZE)
    assert method.predict(images, 2).samples.shape == (2, 2, SIZE, SIZE)


def test_chunks_change_no_number() -> None:
    images = torch.rand(2, 1, SIZE, SIZE)
    predictions = []
    for chunk in (1, 4, None):
        method = build(sample_chunk=chunk)
        give_batch_statistics(method)
        predictions.append(method.predict(images, 5, torch.Generator().manual_seed(0)).samples)
    torch.testing.assert_close(predictions[0], predictions[1])
    torch.testing.assert_close(predictions[0], predictions[2])


def test_images_are_answered_one_by_one() -> None:
    """The second image's samples do not depend on the first image."""
    method = build()
    give_batch_statistics(method)
    images = torch.rand(2, 1, SIZE, SIZE)
    other = torch.stack([torch.rand(1, SIZE, SIZE), images[1]])
    a, b = (method.predict(x, 3, torch.Generator().manual_seed(0)).samples[1] for x in (images, other))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("latent_levels", [1, 3, 4])
def test_samples_are_those_of_a_literal_loop(latent_levels: int) -> None:
    """One sample at a time: encoder, concatenation, unfolded norms, levels summed at full resolution, softmax."""
    method = build(description(classes=2), latent_levels=latent_levels).double()
    give_batch_statistics(method)
    image = torch.rand(1, 1, SIZE, SIZE, dtype=torch.float64)
    got = method.predict(image, 4, torch.Generator().manual_seed(5)).samples
    kept: list[list[Tensor]] = []
    sample = method.prior.sample
    method.prior.sample = lambda parts, noise: (kept.append(list(noise)), sample(parts, noise))[1]
    method.predict(image, 4, torch.Generator().manual_seed(5))
    method.eval()
    net, like, up = method.prior, method.likelihood, Double("tf1")

    def conv(layer: Any, x: Tensor) -> Tensor:
        return F.relu(layer.norm(layer.conv(x))) if isinstance(layer, ConvBnRelu) else layer(x)

    def run(layers: Any, x: Tensor) -> Tensor:
        for layer in layers:
            x = conv(layer, x)
        return x

    with torch.no_grad():
        for s in range(4):
            noise = [level[s : s + 1] for level in kept[0]]
            features, x = [], image - 0.5
            for level, layers in enumerate(net.encoder):
                x = run(layers, F.avg_pool2d(x, 2) if level else x)
                features.append(x)
            codes = {latent_levels - 1: net.top.mean(x) + F.softplus(net.top.std(x)) * noise[-1]}
            for level in range(latent_levels - 2, -1, -1):
                part = net.lower[level]
                u = run(part.raise_code, up(codes[level + 1]))
                h = conv(part.refine, conv(part.join, torch.cat([features[level + 4 - latent_levels], u], 1)))
                codes[level] = part.mean(h) + F.softplus(part.std(h)) * noise[level]
            logits: Any = 0
            for level in range(latent_levels - 1, -1, -1):
                raised = run(like.raise_code[level], codes[level])
                if level == latent_levels - 1:
                    x = raised
                else:
                    x = run(like.merge[level], torch.cat([raised, conv(like.from_coarser[level], up(x))], 1))
                logits = logits + F.interpolate(like.heads[level](x), size=(SIZE, SIZE), mode="nearest")
            torch.testing.assert_close(got[:, s], logits.softmax(1), rtol=1e-9, atol=1e-12)


def test_binary_probability_is_the_softmax() -> None:
    method = build()
    logits = torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(method.probabilities(logits), logits.softmax(1)[:, 1])
