"""Gaussians over a latent code and the encoders that predict them."""

from __future__ import annotations

import pytest
import torch
from multirater.methods.latent import Gaussian, GaussianEncoder, kl_divergence


def test_kl_properties() -> None:
    torch.manual_seed(0)
    q, p = Gaussian(torch.randn(50, 6), torch.randn(50, 6)), Gaussian(torch.randn(50, 6), torch.randn(50, 6))
    assert (kl_divergence(q, q).abs() < 1e-5).all()
    assert (kl_divergence(q, p) > 0).all()
    pairs = [torch.distributions.Normal(g.mean, g.std) for g in (q, p)]
    torch.testing.assert_close(kl_divergence(q, p), torch.distributions.kl_divergence(*pairs).sum(-1))


def test_gradient_passes_the_clamp_of_the_log_std() -> None:
    """A plain clamp has none outside its range: a prior thrown there by one bad step would stay dead."""
    encoder = GaussianEncoder(1, (4, 4), 1, 2, log_std_clamp=2.0)
    with torch.no_grad():
        encoder.head.bias.copy_(torch.tensor([0.0, 0.0, 50.0, -50.0]))
        encoder.head.weight.zero_()
    gaussian = encoder(torch.zeros(1, 1, 8, 8))
    assert gaussian.std.log().tolist()[0] == pytest.approx([2.0, -2.0])
    gaussian.std.log().sum().backward()
    assert encoder.head.bias.grad.tolist() == pytest.approx([0.0, 0.0, 1.0, 1.0])
