import numpy as np
import pytest
import torch
from multirater.benchmark.derived import level_sets
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.baselines import nested_level_sets


def data(channels=1, raters=6, **changes):
    ids = tuple(str(r) for r in range(raters))
    return DataDescription("d", channels, 1, raters, ids, size=(64, 64), **changes)


@pytest.fixture(scope="module")
def discs():
    """Six concentric discs, radii 8 to 13, of the specification of the baselines."""
    row, column = np.mgrid[:64, :64] - 32
    return torch.from_numpy(np.stack([(row**2 + column**2 <= r**2) for r in range(8, 14)]).astype(np.uint8))[None]


def batch(masks, valid=None):
    valid = torch.ones(masks.shape[:2], dtype=torch.bool) if valid is None else valid
    return {"image": torch.zeros(len(masks), 1, 64, 64), "masks": masks, "rater_valid": valid}


class Recorder:
    """Stands in for a loss and keeps its target."""

    def __call__(self, logits, target, valid=None):
        self.target = target
        return logits.mean()


def majority_target(masks, valid=None, **options):
    method = create_method("unet_majority", data(raters=masks.shape[1]), backbone="unet_small", loss="dice", **options)
    method.loss = Recorder()
    method.training_step(batch(masks, valid))
    return method.loss.target[:, 0]


def test_parameters_of_the_common_network():
    method = create_method("unet_majority", data(channels=3))
    assert sum(p.numel() for p in method.parameters()) == 24_436_369


def test_majority_of_the_six_discs(discs):
    assert discs[0].flatten(1).sum(1).tolist() == [197, 253, 317, 377, 441, 529]
    assert majority_target(discs).sum() == 317
    assert majority_target(discs, ties="inclusive").sum() == 377
    assert majority_target(discs[:, :4]).sum() == 253
    assert majority_target(discs[:, :4], ties="inclusive").sum() == 317


def test_random_ties_are_one_coin_a_case(discs):
    torch.manual_seed(0)
    areas = majority_target(discs.expand(40, -1, -1, -1), ties="random").sum((1, 2, 3))
    assert {int(a) for a in areas} == {317, 377}


def test_missing_raters_have_no_vote(discs):
    valid = torch.tensor([[True, True, True, False, False, False]])
    masks = discs * valid[:, :, None, None]
    assert majority_target(masks, valid).sum() == 253  # two of three


def test_the_soft_loss_is_lowest_at_the_share_of_raters(discs):
    method = create_method("unet_soft", data(), backbone="unet_small")
    share = discs.float().mean(1, keepdim=True)
    assert share.sum().item() == pytest.approx(352.3333, abs=1e-3)
    method.logits = lambda images: torch.logit(share, eps=1e-7)
    assert method.training_step(batch(discs))[0].item() == pytest.approx(0.0458846, abs=1e-5)
    method.logits = lambda images: torch.logit((share * 1.1).clamp(max=1), eps=1e-7)
    assert method.training_step(batch(discs))[0].item() > 0.0459


def test_label_sampling_draws_every_available_rater_and_no_other(discs):
    method = create_method("unet_label_sampling", data(), backbone="unet_small", loss="dice")
    method.loss = Recorder()
    method.logits = lambda images: torch.zeros(len(images), 1, 64, 64, requires_grad=True)
    valid = torch.tensor([[True, False, True, True, False, True]]).expand(64, -1)
    torch.manual_seed(0)
    method.training_step(batch(discs.expand(64, -1, -1, -1), valid))
    assert {int(a) for a in method.loss.target.sum((1, 2, 3, 4))} == {197, 317, 377, 529}


def test_samples_are_the_nested_level_sets_of_the_mean_and_their_prefix_is_stable():
    torch.manual_seed(0)
    method = create_method("unet_soft", data(), backbone="unet_small", output_bias=0.0).eval()
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        many, few = method.predict(images, 50), method.predict(images, 16)
    assert torch.equal(many.samples[:, :16], few.samples)
    assert np.array_equal(many.samples[0].numpy() > 0.5, level_sets(many.mean[0].numpy(), 50))
    assert torch.equal(many.samples, nested_level_sets(many.mean, 50))


def test_the_majority_network_claims_one_map_only():
    method = create_method("unet_majority", data(), backbone="unet_small").eval()
    with torch.inference_mode():
        prediction = method.predict(torch.rand(2, 1, 64, 64), 8)
    assert prediction.samples is None
    assert prediction.raters is None
    assert prediction.mean.shape == (2, 64, 64)
    assert prediction.mean.max() < 0.5  # the output bias of -4 starts near an empty mask


@pytest.mark.parametrize("name", ["unet_majority", "unet_soft", "unet_label_sampling"])
def test_every_parameter_learns(name, discs):
    torch.manual_seed(0)
    method = create_method(name, data(), backbone="unet_small").train()
    method.training_step({**batch(discs.expand(4, -1, -1, -1)), "image": torch.rand(4, 1, 64, 64)})[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
