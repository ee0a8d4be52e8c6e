"""Numbers of the authors' TensorFlow graph and a PyTorch build that matches it, on the recipe of fixed weights.

Weights follow ``u_k = ((7919 k² + 104729 k + 12345) mod 1000003) / 1000003``, noise is 0, everything in float64.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.phiseg import PHiSeg
from multirater.methods.phiseg_layers import partial_sums
from torch import Tensor, nn

# level: (mean, population std, first element) of q μ, q σ, p μ, p σ, y; cross-entropy at the partial sum; 4^ℓ·K_ℓ
GOLDEN = {
    4: [
        (-0.01276755, 0.017849573, -0.0051607939),
        (0.68927034, 0.014652834, 0.68794543),
        (-0.0085435954, 0.012065767, -0.0053017918),
        (0.69051068, 0.009553725, 0.69089731),
        (-0.004031207, 0.0039952871, 0.0067013309),
        11347.378,
        0.24329866,
    ],
    3: [
        (0.002005564, 0.058622184, -0.011578084),
        (0.6945798, 0.029643461, 0.6873749),
        (0.0011770828, 0.04188755, -0.0074079708),
        (0.69395515, 0.021116057, 0.68945005),
        (0.014791748, 0.016241262, 0.020587146),
        11287.291,
        1.0251787,
    ],
    2: [
        (-0.055396767, 0.09748948, 0.097249127),
        (0.66701851, 0.047629107, 0.74295345),
        (-0.036247684, 0.073922435, 0.093382901),
        (0.67587011, 0.036445917, 0.74092828),
        (-0.0216378, 0.034873727, 0.0055680834),
        11438.521,
        5.160906,
    ],
    1: [
        (0.0495372, 0.098017598, 0.035886314),
        (0.71942163, 0.050087007, 0.71125131),
        (0.031612711, 0.068931491, 0.031580926),
        (0.70967194, 0.034991636, 0.70906231),
        (-0.0087923273, 0.035591216, 0.020540356),
        11425.29,
        8.190109,
    ],
    0: [
        (0.064716463, 0.090588312, -0.019527934),
        (0.72705247, 0.047007393, 0.68343088),
        (0.056905745, 0.057434295, -0.018259364),
        (0.7224165, 0.029705465, 0.68405917),
        (0.0017663428, 0.028837465, 0.048591483),
        11381.302,
        11.602177,
    ],
}


def u(count: int, first: int = 0) -> Tensor:
    k = torch.arange(first, first + count, dtype=torch.int64) % 1000003  # k² then fits; the sequence has this period
    return ((7919 * k * k + 104729 * k + 12345) % 1000003).double() / 1000003


IMAGES = (u(2 * 128 * 128) - 0.5).view(2, 1, 128, 128)
LABELS = (u(2 * 128 * 128, 777) > 0.7).view(2, 128, 128)


def fill(module: nn.Module) -> None:
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                values = (u(part.weight.numel()) - 0.5) * math.sqrt(24 / part.weight[0].numel())
                part.weight.copy_(values.view(part.weight.shape))
                if part.bias is not None:
                    part.bias.zero_()


def build(size: int = 128, **options: Any) -> PHiSeg:
    data = DataDescription("golden", 1, 1, 4, ("1", "2", "3", "4"), size=(size, size))
    return create_method("phiseg", data, **options)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def summary(x: Tensor) -> tuple[float, float, float]:
    return x.mean().item(), x.std(correction=0).item(), x.flatten()[0].item()


def zeros(method: PHiSeg) -> list[Tensor]:
    return [torch.zeros(2, 2, *size, dtype=torch.float64) for size in method.latent_sizes(IMAGES)]


def test_the_label_has_the_foreground_fraction_of_the_recipe() -> None:
    assert LABELS.double().mean().item() == pytest.approx(0.29800415, abs=5e-9)


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [(5, (5_982_388, 5_981_812, 5_854_986, 17_819_186)), (1, (4_360_612, 4_360_036, 65_666, 8_786_314))],
)
def test_parameter_counts(levels: int, wanted: tuple[int, ...]) -> None:
    method = build(latent_levels=levels)
    assert tuple(count(part) for part in (method.posterior, method.prior, method.likelihood, method)) == wanted


def test_dead_branches_are_what_the_reference_graph_has_more() -> None:
    """Codes of level 2, 3, 4 brought on to all finer levels: two convolutions of 64 channels and their norms each."""
    method = build()
    onward = 2 * (64 * 64 * 9 + 2 * 64)
    assert 6 * onward == 443_904
    counts = [count(part) for part in (method.posterior, method.prior, method.likelihood)]
    reference = [counts[0] + 6 * onward, counts[1] + 6 * onward, counts[2]]
    assert reference == [6_426_292, 6_425_716, 5_854_986]
    assert sum(reference) == 18_706_994


def test_batch_norm_layers() -> None:
    method = build()
    norms = [
        [m for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
        for part in (method.posterior, method.prior, method.likelihood)
    ]
    assert [len(layers) for layers in norms] == [37, 37, 32]
    assert all(m.eps == 1e-3 for layers in norms for m in layers)
    assert {m.momentum for m in norms[0] + norms[2]} == {0.01}


@pytest.fixture(scope="module")
def method() -> PHiSeg:
    built = build(centre_image=False).double().eval()  # the recipe's image is what enters the network
    fill(built)
    return built


@pytest.fixture(scope="module")
def pass_7_5(method: PHiSeg) -> dict[str, Any]:
    with torch.no_grad():
        target = method.target_channels(LABELS).double()
        posterior, codes = method.posterior.sample(method.encode_posterior(IMAGES, target), zeros(method))
        images = method.encode_prior(IMAGES)
        prior = method.prior.given(images, codes)
        logits = method.likelihood(codes)
        loss, terms = method.elbo_loss(logits, posterior, prior, target)
        _, own = method.prior.sample(images, zeros(method))
        generated = partial_sums(method.likelihood(own))[0]
    return {
        "posterior": posterior,
        "prior": prior,
        "logits": logits,
        "target": target,
        "loss": loss,
        "terms": terms,
        "generated": generated,
    }


@pytest.mark.parametrize("level", GOLDEN)
def test_7_5_levels(pass_7_5: dict[str, Any], level: int) -> None:
    q, p, logits = pass_7_5["posterior"][level], pass_7_5["prior"][level], pass_7_5["logits"][level]
    for got, wanted in zip((q.mean, q.std, p.mean, p.std, logits), GOLDEN[level], strict=False):
        assert summary(got) == pytest.approx(wanted, rel=1e-7)
    assert 4**level * pass_7_5["terms"][f"kl_{level}"].item() == pytest.approx(GOLDEN[level][6], rel=1e-7)


def test_7_5_cross_entropies_on_the_full_grid(pass_7_5: dict[str, Any]) -> None:
    """The literal loss: every level at full resolution, summed from the coarsest down."""
    total = torch.zeros(2, 2, 128, 128, dtype=torch.float64)
    for level in (4, 3, 2, 1, 0):
        total = total + nn.functional.interpolate(pass_7_5["logits"][level], size=(128, 128), mode="nearest")
        literal = nn.functional.cross_entropy(total, LABELS.long(), reduction="sum").item() / 2
        assert literal == pytest.approx(GOLDEN[level][5], rel=1e-7)
    torch.testing.assert_close(total, partial_sums(pass_7_5["logits"])[0], rtol=0, atol=1e-13)


def test_7_5_loss(pass_7_5: dict[str, Any]) -> None:
    assert pass_7_5["loss"].item() == pytest.approx(56906.00371, abs=1e-4)
    assert pass_7_5["terms"]["rec"].item() == pytest.approx(sum(GOLDEN[level][5] for level in GOLDEN), rel=1e-7)
    assert pass_7_5["terms"]["rec_0"].item() == pytest.approx(GOLDEN[0][5], rel=1e-7)


def test_7_5_generation(pass_7_5: dict[str, Any]) -> None:
    wanted = (-0.013357492, 0.035735201, -0.021690332)
    assert summary(pass_7_5["generated"][:, 1]) == pytest.approx(wanted, rel=1e-7)


def test_7_1() -> None:
    method = build(latent_levels=1, centre_image=False).double().eval()
    fill(method)
    with torch.no_grad():
        target = method.target_channels(LABELS).double()
        posterior, codes = method.posterior.sample(method.encode_posterior(IMAGES, target), zeros(method))
        images = method.encode_prior(IMAGES)
        prior = method.prior.given(images, codes)
        logits = method.likelihood(codes)
        _, terms = method.elbo_loss(logits, posterior, prior, target)
        generated = method.likelihood(method.prior.sample(images, zeros(method))[1])[0]
    got = (posterior[0].mean, posterior[0].std, prior[0].mean, prior[0].std)
    for values, wanted in zip(got, GOLDEN[4], strict=False):
        assert summary(values) == pytest.approx(wanted, rel=1e-7)
    assert summary(logits[0]) == pytest.approx((0.0033626531, 0.0033639654, -0.00029724004), rel=1e-7)
    assert terms["rec"].item() == pytest.approx(11368.721, rel=1e-7)
    assert terms["kl"].item() == pytest.approx(0.00095038538, rel=1e-7)
    assert summary(generated[:, 1]) == pytest.approx((0.0036211335, 0.0024551921, 0.00097241692), rel=1e-7)
