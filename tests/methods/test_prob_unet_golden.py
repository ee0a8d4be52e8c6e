"""Numbers obtained by running the PyTorch port and D-Persona's baseline in float64 on filled parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.latent import half_squared_weights, kl_divergence, sum_of_norms
from multirater.methods.prob_unet import ProbUNet
from torch import Tensor, nn

ROW, COLUMN = np.mgrid[:128, :128]
IMAGE = torch.tensor(0.5 + 0.5 * np.sin(0.1 * ROW + 0.07 * COLUMN), dtype=torch.float64)[None, None]
MASK = torch.tensor((ROW - 64) ** 2 + (COLUMN - 64) ** 2 < 16**2, dtype=torch.float64)[None, None]


def fill(module: nn.Module) -> None:
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            shape = tuple(parameter.shape)
            scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
            values = np.random.RandomState(index).standard_normal(shape) * scale
            parameter.copy_(torch.tensor(values, dtype=torch.float64))


def build(channels: int = 1, **options: Any) -> ProbUNet:
    data = DataDescription("golden", channels, 1, 4, ("1", "2", "3", "4"), size=(128, 128))
    return create_method("prob_unet", data, **options)


def close(got: Tensor, wanted: list[float] | float, tolerance: float) -> None:
    wanted_tensor = torch.as_tensor(wanted, dtype=torch.float64).flatten()
    torch.testing.assert_close(got.detach().flatten(), wanted_tensor, rtol=0, atol=tolerance)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("options", "channels", "wanted"),
    [
        ({"variant": "pt"}, 1, (2_260_128, 1_367_820, 1_368_108, 3_393, 4_999_449)),
        ({"variant": "pt", "latent": 2}, 1, (2_260_128, 1_366_276, 1_366_564, 3_265, 4_996_233)),
        ({"variant": "tf"}, 1, (9_230_880, 4_355_532, 4_355_820, 3_393, 17_945_625)),
        ({"variant": "dp"}, 1, (24_429_952, 1_967_724, 1_967_868, 929, 28_366_473)),
        ({"variant": "dp"}, 3, (24_436_224, 1_968_012, 1_968_156, 929, 28_373_321)),
    ],
)
def test_parameter_counts(options: dict[str, Any], channels: int, wanted: tuple[int, ...]) -> None:
    method = build(channels, **options)
    counts = [count(part) for part in (method.trunk, method.prior, method.posterior, method.fusion, method)]
    assert tuple(counts) == wanted


def test_tensor_count() -> None:
    assert len(list(build().parameters())) == 102


@pytest.fixture(scope="module")
def method() -> ProbUNet:
    built = build(variant="pt", legacy_batch_sum=True, log_std_clamp=0, latent_bias="normal").double().eval()
    for part in (built.trunk, built.prior, built.posterior, built.fusion):
        fill(part)
    return built


@pytest.fixture(scope="module")
def features(method: ProbUNet) -> Tensor:
    with torch.no_grad():
        return method.trunk(IMAGE)


def test_pt_networks(method: ProbUNet, features: Tensor) -> None:
    close(torch.stack([features.mean(), features.std()]), [0.272295501, 0.437118659], 1e-9)
    prior, posterior = method.prior(IMAGE), method.encode(IMAGE, MASK)
    close(prior.mean, [0.02373332, -0.16267599, 0.19020999, 0.53172319, -0.23015886, -0.08306842], 1e-8)
    close(prior.std, [0.85672257, 1.06614871, 1.1046276, 1.4862441, 0.66038085, 1.04728906], 1e-8)
    close(posterior.mean, [0.02137857, -0.24687004, 0.34141768, 0.92135025, 0.1241526, -0.02043095], 1e-8)
    close(posterior.std, [0.85038363, 0.90183533, 1.23422963, 1.49506972, 0.49065098, 1.14503009], 1e-8)
    close(kl_divergence(posterior, prior), 0.312617903, 1e-9)


def test_pt_logits(method: ProbUNet, features: Tensor) -> None:
    prior, posterior = method.prior(IMAGE), method.encode(IMAGE, MASK)
    close(method.fusion(features, posterior.mean[:, None]).mean(), 0.322113426, 1e-9)
    close(method.fusion(features, prior.mean[:, None]).mean(), 0.233696341, 1e-9)


def test_pt_loss(method: ProbUNet, features: Tensor) -> None:
    prior, posterior = method.prior(IMAGE), method.encode(IMAGE, MASK)
    noise = torch.zeros(1, 1, 6, dtype=torch.float64)
    loss, terms = method.elbo_loss(features, prior, posterior, MASK, noise)
    close(terms["rec"], 13925.110745049, 1e-8)
    close(terms["rec"] / 128**2, 0.849921310, 1e-9)
    close(loss, 13928.240805861, 1e-8)


def test_regularisers(method: ProbUNet) -> None:
    parts = [method.posterior, method.prior, *method.fusion.hidden_layers]
    close(sum_of_norms(parts), 388.178076283, 1e-8)
    close(method.regularisation(), 388.178076283, 1e-8)
    close(half_squared_weights(parts), 2610.372160974, 1e-8)


def test_dp_posterior() -> None:
    # the small trunk: these values do not involve it
    method = build(variant="dp", backbone="unet_small", log_std_clamp=0).double().eval()
    fill(method.prior)
    fill(method.posterior)
    prior, posterior = method.prior(IMAGE), method.encode(IMAGE, MASK)
    close(prior.mean, [-1.58786301, 0.66935032, 1.23314044, 0.23932567, 0.69523807, 0.53313456], 1e-8)
    close(posterior.mean, [-2.30167801, 1.14508336, 1.91243644, 0.29722642, 0.86399537, 0.88255805], 1e-8)
    close(posterior.std, [2.63766699, 2.99085826, 0.42161558, 0.32640851, 0.21182356, 2.87386942], 1e-8)
    close(kl_divergence(posterior, prior), 1.776430404, 1e-9)
