from __future__ import annotations

from typing import Any

import pytest
import torch
from learning_support import four_discs
from multirater.core.errors import UserError
from multirater.core.options import options_of
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.prob_unet import ProbUNet
from torch import Tensor

SMALL: dict[str, Any] = {"widths": [8, 12], "encoder_widths": [8, 12], "encoder_convs": 1}


def build(raters: int = 3, **options: Any) -> ProbUNet:
    torch.manual_seed(0)
    data = DataDescription("tiny", 1, 1, raters, tuple("123456"[:raters]), size=(16, 16))
    return create_method("prob_unet", data, **{**SMALL, **options})


def make_batch(size: int = 4, raters: int = 3, pixels: int = 16) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(size, 1, pixels, pixels, generator=generator),
        "masks": (torch.rand(size, raters, pixels, pixels, generator=generator) > 0.6).to(torch.uint8),
        "rater_valid": torch.ones(size, raters, dtype=torch.bool),
    }


def terms(method: ProbUNet, images: Tensor, target: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return method.elbo_loss(method.trunk(images), method.prior(images), method.encode(images, target), target, noise)


@pytest.mark.parametrize("variant", ["tf", "pt"])
def test_step_trains_every_parameter(variant: str) -> None:
    method = build(variant=variant)
    loss, logged = method.training_step(make_batch(), "main")
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())
    assert {"rec", "kl", "regulariser"} == set(logged)
    assert all(not torch.as_tensor(v).requires_grad for v in logged.values())


def test_duplicated_batch_leaves_tf_unchanged_and_doubles_pt_reconstruction() -> None:
    batch = make_batch()
    target, noise = batch["masks"][:, :1].float(), torch.randn(4, 1, 6)
    twice = [torch.cat([x, x]) for x in (batch["image"], target, noise)]
    tf = build(variant="tf")
    torch.testing.assert_close(terms(tf, *twice)[0], terms(tf, batch["image"], target, noise)[0])
    pt = build(variant="pt", legacy_batch_sum=True)
    one, two = terms(pt, batch["image"], target, noise)[1], terms(pt, *twice)[1]
    torch.testing.assert_close(two["rec"], 2 * one["rec"])
    torch.testing.assert_close(two["kl"], one["kl"])
    torch.testing.assert_close(two["regulariser"], one["regulariser"])


def test_prior_learns_through_the_kl_only() -> None:
    method = build(regulariser="none", kl_weight=0.0)
    loss, _ = method.training_step(make_batch())
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in method.prior.parameters())


def test_variants_follow_their_codes() -> None:
    tf, pt, dp = build(variant="tf"), build(variant="pt"), build(variant="dp", backbone="unet_small", widths=None)
    assert (tf.kl_weight, pt.kl_weight, dp.kl_weight) == (1.0, 10.0, 1.0)
    assert (tf.reconstruction, pt.reconstruction, dp.reconstruction) == ("bce", "bce", "dice")
    assert (tf.centre_mask, pt.centre_mask, dp.centre_mask) == (True, False, False)
    assert (tf.regulariser, pt.regulariser, dp.regulariser) == ("squares", "norms", "norms")
    assert build(variant="tf", centre_mask=False).centre_mask is False


def test_clamp_and_bias_options() -> None:
    images = torch.rand(2, 1, 16, 16)
    wild = build(log_std_clamp=0)
    with torch.no_grad():
        wild.prior.head.bias.fill_(30.0)
    assert (wild.prior(images).log_std > 20).all()
    tame = build(log_std_clamp=2.5)
    tame.load_state_dict(wild.state_dict())
    assert (tame.prior(images).log_std == 2.5).all()
    small, normal = build(), build(latent_bias="normal")
    assert small.prior.head.bias.abs().max() <= 2e-3
    assert normal.prior.head.bias.abs().max() > 0.3
    assert build(output_bias=-4.0).fusion.layers[-1].bias.item() == -4


def test_prediction_is_seeded_and_its_first_samples_do_not_depend_on_n() -> None:
    method = build(latent_bias="normal")
    images = torch.rand(3, 1, 17, 21)
    few = method.predict(images, 5, torch.Generator().manual_seed(7))
    many = method.predict(images, 40, torch.Generator().manual_seed(7))
    assert few.samples.shape == (3, 5, 17, 21)
    assert few.raters is None
    torch.testing.assert_close(many.samples[:, :5], few.samples)
    torch.testing.assert_close(few.mean, few.samples.mean(1))
    assert not torch.equal(method.predict(images, 5, torch.Generator().manual_seed(8)).samples, few.samples)
    assert (few.samples.std(1) > 0).any()
    assert method.training


def test_sample_chunk_changes_no_number() -> None:
    loop = build(sample_chunk=1)
    folded = build(sample_chunk=100)
    images = torch.rand(2, 1, 16, 16)
    predictions = [m.predict(images, 9, torch.Generator().manual_seed(0)).samples for m in (loop, folded)]
    torch.testing.assert_close(*predictions)


def test_shared_noise_gives_slices_of_a_volume_the_same_codes() -> None:
    image = torch.rand(1, 1, 16, 16).expand(3, -1, -1, -1)
    shared = build(shared_noise=True).predict(image, 4, torch.Generator().manual_seed(0)).samples
    torch.testing.assert_close(shared[0], shared[2])
    own = build(latent_bias="normal").predict(image, 4, torch.Generator().manual_seed(0)).samples
    assert not torch.allclose(own[0], own[2])


def test_fusion_equals_tiling_and_concatenation() -> None:
    fusion = build().fusion.double()
    features, codes = torch.randn(2, 8, 5, 6).double(), torch.randn(2, 7, 6).double()
    tiled = codes[..., None, None].expand(-1, -1, -1, 5, 6)
    x = torch.cat([features.unsqueeze(1).expand(-1, 7, -1, -1, -1), tiled], 2).flatten(0, 1)
    for layer in fusion.layers[:-1]:
        x = torch.relu(layer(x))
    wanted = fusion.layers[-1](x).view(2, 7, 5, 6)
    torch.testing.assert_close(fusion(features, codes), wanted, rtol=0, atol=1e-12)
    singles = torch.cat([fusion(features, codes[:, s : s + 1]) for s in range(7)], 1)
    torch.testing.assert_close(singles, wanted, rtol=0, atol=1e-12)


def test_weights_for_vgg_are_refused() -> None:
    with pytest.raises(UserError, match="unet_r34"):
        build(backbone_weights="x.pt")


@pytest.mark.parametrize(
    ("option", "value"), [("encoder_widths", [-1]), ("encoder_widths", []), ("widths", [16, -3]), ("widths", [])]
)
def test_widths_below_one_are_refused(option: str, value: list[int]) -> None:
    with pytest.raises(UserError, match=rf"method\.{option} = .* is not allowed"):
        build(**{option: value})


def test_options_are_kept() -> None:
    kept = ProbUNet(DataDescription(size=(16, 16)), **SMALL, latent=4).hparams
    assert {name: kept[name] for name in SMALL} == SMALL
    assert kept["latent"] == 4
    assert kept.keys() == options_of(ProbUNet).keys()


@pytest.mark.slow
def test_learns_the_four_answers_of_one_image() -> None:
    """Overfitted on one image with four masks, samples have a lower energy distance than their mean map."""
    method = build(4, kl_weight=1.0, output_bias=-4.0, variant="pt", backbone="unet_small", widths=None)
    image, masks, batch = four_discs()
    optimiser = torch.optim.Adam(method.parameters(), 2e-3)
    for _ in range(400):
        optimiser.zero_grad()
        method.training_step(batch)[0].backward()
        optimiser.step()
    prediction = method.predict(image, 50, torch.Generator().manual_seed(0))

    def ged(answers: Tensor) -> float:
        def distance_of(a: Tensor, b: Tensor) -> Tensor:
            a, b = a.flatten(1)[:, None], b.flatten(1)[None]
            return (1 - (a & b).sum(-1) / (a | b).sum(-1).clamp_min(1)).mean()

        raters = masks[0].bool()
        cross, own = distance_of(raters, answers), distance_of(answers, answers)
        return (2 * cross - own - distance_of(raters, raters)).item()

    assert ged(prediction.samples[0] > 0.5) < ged(prediction.mean > 0.5) - 0.1
