"""Numbers that the specification of Pionono gives, most of them run with the authors' modules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from multirater.benchmark.trainer import lr_scale
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.class_dice import batch_class_dice
from multirater.methods.latent import sum_of_norms
from multirater.methods.pionono_parts import PiononoHead, RaterGaussians
from torch import Tensor, nn


def describe(raters: int, classes: int, channels: int = 3) -> DataDescription:
    ids = tuple(str(r + 1) for r in range(raters))
    return DataDescription("golden", channels, classes, raters, ids, "derived", 2, (128, 128))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# -- parameters -----------------------------------------------------------------------------------


def test_parameter_counts() -> None:
    method = create_method("pionono", describe(6, 4), fidelity="authors")
    trunk = method.trunk
    assert count(trunk.encoder) == 21_284_672
    assert count(trunk.decoder) == 3_151_552
    assert count(trunk) == 24_436_224
    assert count(method.raters) == 432
    assert count(method) == 24_437_413
    # their frozen prior, one copy a rater, is one number here
    assert count(method) + 6 * (8 + 64) == 24_437_845

    grey = create_method("pionono", describe(4, 1, 1))
    assert count(grey.trunk) == 24_429_952
    levels = grey.trunk.deep(grey.trunk.shallow(torch.zeros(1, 1, 128, 128)))
    shapes = [(64, 64), (64, 32), (128, 16), (256, 8), (512, 4)]
    assert [tuple(level.shape[1:]) for level in levels] == [(c, s, s) for c, s in shapes]
    assert grey.trunk.decode(levels, (128, 128)).shape == (1, 16, 128, 128)


@pytest.mark.parametrize(("outputs", "wanted"), [(1, 689), (2, 706), (5, 757)])
def test_head(outputs: int, wanted: int) -> None:
    assert count(PiononoHead(16, 8, outputs)) == wanted


@pytest.mark.parametrize(("raters", "wanted"), [(4, 288), (6, 432), (21, 1_512)])
def test_latents(raters: int, wanted: int) -> None:
    assert count(RaterGaussians(raters, 8, diagonal="plain")) == wanted
    assert count(RaterGaussians(raters, 8)) == raters * (8 + 36)


# -- Kullback-Leibler divergence --------------------------------------------------------------------


def with_factor(diagonal: str, mean: float, scale: float, below: float) -> RaterGaussians:
    gaussians = RaterGaussians(2, 8, diagonal=diagonal).double()  # type: ignore[arg-type]
    with torch.no_grad():
        gaussians.mean.fill_(mean)
        if diagonal == "plain":
            lower = torch.ones(8, 8).tril(-1).double()
            gaussians.full.copy_(scale * torch.eye(8) + below * lower + 7 * lower.T)  # above: dead
        else:
            gaussians.log_diagonal.copy_(torch.full((2, 8), scale).double().log())
            gaussians.below.fill_(below)
    return gaussians


@pytest.mark.parametrize("diagonal", ["exp", "plain"])
@pytest.mark.parametrize(
    ("mean", "scale", "below", "wanted"),
    [(0, 2, 0, 0.0), (1, 2, 0, 1.0), (1, 1, 0, 3.5451774), (1, 1, 0.5, 4.4201774)],
)
def test_kl(diagonal: str, mean: float, scale: float, below: float, wanted: float) -> None:
    gaussians = with_factor(diagonal, mean, scale, below)
    torch.testing.assert_close(gaussians.kl(), torch.full((2,), wanted).double(), rtol=0, atol=1e-7)
    q = torch.distributions.MultivariateNormal(gaussians.mean, scale_tril=gaussians.scale_tril())
    p = torch.distributions.MultivariateNormal(torch.zeros(8).double(), scale_tril=2 * torch.eye(8).double())
    torch.testing.assert_close(gaussians.kl(), torch.distributions.kl_divergence(q, p))


@pytest.mark.parametrize("diagonal", ["exp", "plain"])
def test_start_of_the_gaussians(diagonal: str) -> None:
    torch.manual_seed(0)
    gaussians = RaterGaussians(20_000, 8, diagonal=diagonal)  # type: ignore[arg-type]
    torch.testing.assert_close(gaussians.scale_tril()[:3], (2 * torch.eye(8)).expand(3, -1, -1))
    assert gaussians.kl().mean().item() == pytest.approx(64, abs=0.8)
    assert 5e-4 * gaussians.kl().mean().item() == pytest.approx(0.032, abs=0.001)


# -- regulariser, loss, schedule ------------------------------------------------------------------


def test_regulariser_of_an_untrained_head() -> None:
    torch.manual_seed(0)
    head = PiononoHead(16, 8, 5)
    norms = sum_of_norms(head.hidden_layers)
    weights = [layer.weight for layer in head.layers[:2]]
    torch.testing.assert_close(norms, weights[0].norm() + weights[1].norm())
    norms.backward()
    assert all((layer.bias.grad == 0).all() for layer in head.layers[:2])
    assert head.layers[2].weight.grad is None


def one_hot(labels: Tensor, classes: int) -> Tensor:
    return F.one_hot(labels, classes).movedim(-1, 2).float()


def test_loss_of_a_perfect_prediction() -> None:
    labels = torch.randint(5, (3, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    y = one_hot(labels, 5)
    for clamp in (False, True):
        assert batch_class_dice(y, y, weight_clamp=clamp).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("batch", "wanted"), [(3, 0.182), (2, 0.023)])
def test_clamp_of_the_code(batch: int, wanted: float) -> None:
    """Two classes at 1024², one of them almost everywhere."""
    y = torch.zeros(batch, 1, 2, 1024, 1024)
    y[:, :, 1, :10, :10] = 1
    y[:, :, 0] = 1 - y[:, :, 1]
    assert batch_class_dice(y, y, weight_clamp=True).item() == pytest.approx(wanted, abs=5e-4)
    assert batch_class_dice(y, y).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("clamp", [False, True])
def test_an_absent_class_costs_its_share_and_has_no_gradient(clamp: bool) -> None:
    y = one_hot(torch.randint(4, (2, 1, 16, 16), generator=torch.Generator().manual_seed(0)), 5).double()
    p = y.clone().requires_grad_()
    loss = batch_class_dice(p, y, weight_clamp=clamp)
    assert loss.item() == pytest.approx(1 / 5, abs=1e-9)
    loss.backward()
    assert (p.grad[:, :, 4] == 0).all()


def test_loss_is_the_code_s_weighted_form() -> None:
    """Weights 1/V² in numerator and denominator of each class: they cancel, and the clamp is far."""
    torch.manual_seed(0)
    p = torch.randn(3, 1, 5, 8, 8).double().softmax(2)
    y = one_hot(torch.randint(5, (3, 1, 8, 8)), 5).double()
    flat_p, flat_y = p.movedim(2, 0).flatten(1), y.movedim(2, 0).flatten(1)
    weight = 1 / flat_y.sum(1) ** 2
    dice = 2 * (flat_p * flat_y).sum(1) * weight / ((flat_p + flat_y).sum(1) * weight)
    for clamp in (False, True):
        torch.testing.assert_close(batch_class_dice(p, y, weight_clamp=clamp), 1 - dice.mean(), rtol=0, atol=1e-12)


def test_one_channel_is_the_mean_of_foreground_and_background() -> None:
    torch.manual_seed(0)
    p, y = torch.rand(3, 1, 1, 8, 8).double(), (torch.rand(3, 1, 1, 8, 8) > 0.7).double()

    def dice(a: Tensor, b: Tensor) -> Tensor:
        return 1 - 2 * (a * b).sum() / (a.sum() + b.sum())

    torch.testing.assert_close(batch_class_dice(p, y), (dice(p, y) + dice(1 - p, 1 - y)) / 2)


def test_learning_rates() -> None:
    per_epoch = 7

    def at(schedule: str, epoch: int) -> float:
        return lr_scale(schedule, epoch * per_epoch, 100 * per_epoch, per_epoch, 0)

    rates = [at("decay_after_40", epoch) for epoch in range(100)]
    assert rates == pytest.approx([1.1 ** -max(0, e - 41) for e in range(100)])
    assert rates[99] == pytest.approx(3.97e-3, rel=1e-3)
    assert at("decay_after_10", 99) == pytest.approx(2.28e-4, rel=2e-3)
    assert at("decay_after_10", 11) == 1.0
