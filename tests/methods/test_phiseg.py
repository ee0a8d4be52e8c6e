"""PHiSeg in training: its loss against literal loops, missing raters, several classes, stored state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from learning_support import four_discs
from multirater.methods import create_method
from multirater.methods.phiseg import PHiSeg
from multirater.methods.phiseg_layers import GaussianMap
from phiseg_support import SIZE, build, description, gradients, make_batch, noise_of
from safetensors.torch import load_file, save_file
from torch import Tensor

# -- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"fidelity": "plain"}, {"latent_levels": 1}, {"latent_levels": 4}])
def test_step_trains_every_parameter(options: dict[str, Any]) -> None:
    method = build(**options)
    loss, logged = method.training_step(make_batch(), "main")
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in method.parameters())
    assert {"rec", "kl", "rec_0", *(f"kl_{i}" for i in range(method.latent_levels))} == set(logged)
    assert all(not torch.as_tensor(v).requires_grad for v in logged.values())


def test_prior_learns_through_the_kl_only() -> None:
    method = build(kl_weight=0.0)
    method.training_step(make_batch())[0].backward()
    assert all(p.grad is None or not p.grad.any() for p in method.prior.parameters())


@pytest.mark.parametrize("raters", [1, 2, 20])
def test_any_number_of_raters(raters: int) -> None:
    method = build(description(raters))
    assert all(torch.isfinite(g).all() for g in gradients(method, make_batch(raters=raters)))


def test_missing_raters_do_not_matter() -> None:
    method = build()
    batch = make_batch()
    batch["rater_valid"] = torch.tensor([[True, False, True], [False, True, False], [False, False, False], [True] * 3])
    first = gradients(method, batch)
    batch["masks"] = torch.where(batch["rater_valid"][:, :, None, None], batch["masks"], 1 - batch["masks"])
    second = gradients(build(), batch)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert all(torch.isfinite(g).all() for g in first)


def test_images_without_any_rater_count_for_nothing() -> None:
    method = build()
    batch = make_batch()
    batch["rater_valid"][:] = False
    loss, _ = method.training_step(batch)
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in method.parameters())
    # the means are over the images that have a mask
    target = method.target_channels(batch["masks"][:, 0]).float()
    posterior, codes = method.posterior.sample(method.encode_posterior(batch["image"], target), noise_of(method, 4))
    logits = method.likelihood(codes)
    valid = torch.tensor([[True], [False], [True], [False]])
    some, _ = method.elbo_loss(logits, posterior, posterior, target, valid)
    of_two, _ = method.elbo_loss(
        [y[::2] for y in logits],
        [GaussianMap(g.mean[::2], g.std[::2]) for g in posterior],
        [GaussianMap(g.mean[::2], g.std[::2]) for g in posterior],
        target[::2],
    )
    torch.testing.assert_close(some, of_two)


def test_target_is_a_rater_of_the_image() -> None:
    batch = make_batch(size=64)
    batch["masks"] = torch.arange(3, dtype=torch.uint8)[None, :, None, None].expand(64, 3, SIZE, SIZE).contiguous()
    batch["rater_valid"][:, 0] = False
    seen: list[Tensor] = []

    def record(method: PHiSeg) -> Tensor:
        original = method.target_channels
        method.target_channels = lambda mask: (seen.append(mask[:, 0, 0]), original(mask.clamp(max=1)))[1]
        method.training_step(batch)
        return seen.pop()

    drawn = record(build())
    assert set(drawn.tolist()) == {1, 2}
    assert set(record(build(target="first")).tolist()) == {1}  # the first that is present


def elbo_parts(method: PHiSeg, target: Tensor) -> dict[str, Any]:
    images = make_batch()["image"].double()
    posterior, codes = method.posterior.sample(
        method.encode_posterior(images, target), noise_of(method, len(images), torch.float64)
    )
    prior = method.prior.given(method.encode_prior(images), codes)
    return {"logits": method.likelihood(codes), "posterior": posterior, "prior": prior, "target": target}


@pytest.mark.parametrize("overlapping", [False, True])
def test_loss_is_the_literal_one(overlapping: bool) -> None:
    """Every level at full resolution, summed from the coarsest, scored pixel by pixel; KL of torch's distributions."""
    method = build(description(classes=2, overlapping=overlapping)).double()
    masks = torch.randint(0, 3, (4, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    target = torch.stack([masks > 0, masks > 1], 1) if overlapping else method.target_channels(masks)
    parts = elbo_parts(method, target.double())
    loss, terms = method.elbo_loss(**parts)
    wanted, total = 0.0, 0.0
    for y in reversed(parts["logits"]):
        total = total + F.interpolate(y, size=(SIZE, SIZE), mode="nearest")
        if overlapping:
            each = F.binary_cross_entropy_with_logits(total, target.double(), reduction="sum")
        else:
            each = F.cross_entropy(total, masks, reduction="sum")
        wanted = wanted + each / 4
    torch.testing.assert_close(terms["rec"], wanted)
    torch.testing.assert_close(terms["rec_0"], each / 4)
    divergence = 0.0
    for level, (q, p) in enumerate(zip(parts["posterior"], parts["prior"], strict=True)):
        pair = [torch.distributions.Normal(g.mean, g.std) for g in (q, p)]
        divergence = divergence + 4**level * torch.distributions.kl_divergence(*pair).sum() / 4
    # torch's has no 1e-10 beside the variances
    torch.testing.assert_close(terms["kl"], divergence, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss, wanted + terms["kl"])


def test_weights_of_the_loss() -> None:
    method = build().double()
    target = method.target_channels(make_batch()["masks"][:, 0]).double()
    parts = elbo_parts(method, target)
    _, terms = method.elbo_loss(**parts)
    kl = [terms[f"kl_{level}"] for level in range(3)]
    torch.testing.assert_close(terms["kl"], kl[0] + 4 * kl[1] + 16 * kl[2])
    equal, _ = build(exponential_weighting=False, kl_weight=0.5).elbo_loss(**parts)
    torch.testing.assert_close(equal, terms["rec"] + 0.5 * sum(kl))
    single, _ = build(deep_supervision=False).elbo_loss(**parts)
    torch.testing.assert_close(single, terms["rec_0"] + terms["kl"])


# -- data layouts -------------------------------------------------------------------------------


@pytest.mark.parametrize("overlapping", [False, True])
def test_several_classes(overlapping: bool) -> None:
    method = build(description(classes=2, overlapping=overlapping))
    channels = 2 if overlapping else 3
    batch = make_batch()
    if overlapping:
        batch["masks"] = torch.stack([batch["masks"], batch["masks"] // 2], 2)
    else:
        batch["masks"] = torch.randint(0, 3, batch["masks"].shape, dtype=torch.uint8)
    batch["rater_valid"][0, 1] = False
    loss, _ = method.training_step(batch)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())
    prediction = method.predict(batch["image"], 3, torch.Generator().manual_seed(0))
    assert prediction.samples.shape == (4, 3, channels, SIZE, SIZE)
    if not overlapping:
        torch.testing.assert_close(prediction.samples.sum(2), torch.ones(4, 3, SIZE, SIZE))


def test_double_precision_and_stored_state(tmp_path: Any) -> None:
    method = build().double()
    batch = make_batch()
    batch["image"] = batch["image"].double()
    loss, _ = method.training_step(batch)
    assert loss.dtype == torch.float64
    save_file({name: value.contiguous() for name, value in method.state_dict().items()}, tmp_path / "w.safetensors")
    other = build(output_bias=1.0).double()
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    a, b = (m.predict(batch["image"], 2, torch.Generator().manual_seed(0)).samples for m in (method, other))
    assert torch.equal(a, b)
    assert a.dtype == torch.float64


# -- learning -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_learns_the_answers_of_one_image() -> None:
    """Overfitted on one image with four discs, samples vary and have a lower energy distance than their mean map."""
    torch.manual_seed(0)
    data = description(4, size=(32, 32))
    method = create_method("phiseg", data, widths=[8, 16, 24, 24], latent_levels=3, output_bias=-4.0, bn_momentum=0.1)
    image, masks, batch = four_discs()
    optimiser = torch.optim.Adam(method.parameters(), 3e-3)
    for step in range(400):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / 400)
        optimiser.zero_grad()
        method.training_step(batch)[0].backward()
        optimiser.step()
    prediction = method.predict(image, 50, torch.Generator().manual_seed(0))

    def ged(answers: Tensor) -> float:
        def distance_of(a: Tensor, b: Tensor) -> Tensor:
            a, b = a.flatten(1)[:, None], b.flatten(1)[None]
            return (1 - (a & b).sum(-1) / (a | b).sum(-1).clamp_min(1)).mean()

        raters = masks[0].bool()
        return (2 * distance_of(raters, answers) - distance_of(answers, answers) - distance_of(raters, raters)).item()

    assert ged(prediction.samples[0] > 0.5) < ged(prediction.mean > 0.5) - 0.1
