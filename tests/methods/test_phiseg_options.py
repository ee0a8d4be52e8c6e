"""Options of PHiSeg: initial values, fidelity, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from multirater.core.errors import UnsupportedPair, UserError
from multirater.core.options import options_of
from multirater.methods import METHODS
from multirater.methods.phiseg import PHiSeg
from phiseg_support import SMALL, build, description, make_batch, noise_of
from torch import nn


@pytest.mark.parametrize(("classes", "overlapping"), [(1, False), (2, False), (2, True)])
def test_output_bias_is_the_logit_of_foreground_in_every_partial_sum(classes: int, overlapping: bool) -> None:
    method = build(description(classes=classes, overlapping=overlapping), output_bias=-4.0)
    biases = [head.bias.detach() for head in method.likelihood.heads]
    assert not any(b.any() for b in biases[:-1])
    background = [] if overlapping else [0.0]
    assert biases[-1].tolist() == [*background, *[-4.0] * classes]


def test_initial_weights() -> None:
    method = build(widths=[64, 64], latent_levels=2)
    convs = [m for m in method.modules() if isinstance(m, nn.Conv2d)]
    assert all(not c.bias.any() for c in convs if c.bias is not None)
    weight = method.likelihood.merge[0][1].conv.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert weight.abs().max().item() <= 2.3 * (2 / (64 * 9)) ** 0.5


def test_calm_start_and_floor_of_the_deviations() -> None:
    """Small heads start near std softplus(0) everywhere; the authors' start has a KL that bright pixels blow up."""
    batch = make_batch()
    batch["image"][:, :, :2, :2] = 30.0
    wild, calm = build(), build(latent_scale=0.01)
    first, small = (m.training_step(batch)[1]["kl"].item() for m in (wild, calm))
    assert small < 0.01 * first
    head = calm.prior.top.std.weight
    torch.testing.assert_close(head, 0.01 * wild.prior.top.std.weight)
    floored = build(std_floor=0.5)
    images = batch["image"]
    for method, lowest in ((wild, 0.0), (floored, 0.5)):
        gaussians, _ = method.prior.sample(method.encode_prior(images), noise_of(method, 4))
        assert min(g.std.min().item() for g in gaussians) >= lowest
    with torch.no_grad():
        for method in (wild, floored):
            method.prior.top.std.bias.fill_(-40.0)
    assert wild.prior.encode(images).top.std.max() < 1e-6
    assert floored.prior.encode(images).top.std.min() >= 0.5


def test_fidelity_and_what_wins_over_it() -> None:
    def chosen(**options: Any) -> tuple[bool, str, int]:
        method = build(**options)
        return method.bn_generative_update, method.likelihood.up.kind, method.prior.top.mean.kernel_size[0]

    assert chosen() == (True, "tf1", 3)
    assert chosen(fidelity="plain") == (False, "half_pixel", 1)
    own = {"upsample": "tf1", "bn_generative_update": True, "top_mean_kernel": 3}
    assert chosen(fidelity="plain", **own) == (True, "tf1", 3)


def test_label_says_what_differs() -> None:
    def label(**options: Any) -> str:
        return PHiSeg.label({**{n: o.default for n, o in options_of(PHiSeg).items()}, **options})

    assert label() == "7_5"
    assert label(latent_levels=1, target="first") == "7_1, first rater only"
    assert label(bn_generative_update=False) == "7_5, one batch-norm update a step"
    assert label(fidelity="plain", widths=[8, 8], latent_levels=2) == "2_2, plain"


def test_refusals() -> None:
    with pytest.raises(UserError, match="latent_levels=5 is more than the 4"):
        build(latent_levels=5)
    with pytest.raises(UserError, match="16x20 pixels are no multiple of 8"):
        build().predict(torch.rand(1, 1, 16, 20))
    with pytest.raises(UserError, match=r"raise train\.batch_size"):
        build().training_step(make_batch(size=1, pixels=8))
    with pytest.raises(UserError, match=r"method\.widths = .* is not allowed"):
        build(widths=[])
    options = {name: option.default for name, option in options_of(PHiSeg).items()}
    with pytest.raises(UnsupportedPair, match="100x128 pixels are no multiple of 64"):
        PHiSeg.check_supported(description(size=(100, 128)), options)
    PHiSeg.check_supported(description(size=(128, 192), classes=3, has_missing=True), options)


def test_registry_entry_agrees_with_the_class() -> None:
    info = METHODS.entry("phiseg").info
    for key in ("gives_samples", "gives_raters", "needs_identity", "multiclass"):
        assert info[key] == getattr(PHiSeg, key)
    assert PHiSeg(description(), **SMALL).hparams.keys() == options_of(PHiSeg).keys()
