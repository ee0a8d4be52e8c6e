from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from multirater.core.errors import UnsupportedPair, UserError
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.consensus import consensus_targets
from multirater.methods.pionono import Pionono, seeded_raters
from multirater.methods.pionono_parts import PiononoHead, RaterGaussians
from multirater.metrics import consensus_mask
from safetensors.torch import load, save
from torch import Tensor

SMALL: dict[str, Any] = {"backbone": "unet_small", "widths": [16, 16]}
KINDS: dict[str, dict[str, Any]] = {
    "binary": {},
    "exclusive": {"classes": 3},
    "overlapping": {"classes": 2, "overlapping": True},
}


def describe(raters: int = 3, identity: str = "derived", kind: str = "binary") -> DataDescription:
    ids = tuple(str(r + 1) for r in range(raters))
    more = KINDS[kind]
    return DataDescription(
        "tiny",
        1,
        more.get("classes", 1),
        raters,
        ids,
        identity,  # type: ignore[arg-type]
        2,
        (16, 16),
        more.get("overlapping", False),
    )


def build(raters: int = 3, kind: str = "binary", **options: Any) -> Pionono:
    torch.manual_seed(0)
    return create_method("pionono", describe(raters, kind=kind), **{**SMALL, **options})


def make_batch(size: int = 4, raters: int = 3, kind: str = "binary") -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    classes, overlapping = KINDS[kind].get("classes", 1), kind == "overlapping"
    shape = (size, raters, classes, 16, 16) if overlapping else (size, raters, 16, 16)
    masks = torch.randint(2 if overlapping else classes + 1, shape, generator=generator)
    return {
        "image": torch.rand(size, 1, 16, 16, generator=generator),
        "masks": masks.to(torch.uint8),
        "rater_valid": torch.ones(size, raters, dtype=torch.bool),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fidelity": "authors", "gold": "majority"},
        {"dice": "image", "mc_loss": "per_sample"},
        {"dice": "image", "norm_weight": 0.0, "head_layers": 4},
    ],
)
def test_every_parameter_gets_a_gradient(kind: str, options: dict[str, Any]) -> None:
    method = build(kind=kind, **options)
    slots = len(method.raters.mean)
    batch = make_batch(8, kind=kind)
    for _ in range(6):  # until every rater, and the consensus, has been drawn
        loss, logged = method.training_step(batch)
        loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    assert all((p.grad[slot] != 0).any() for p in method.raters.parameters() for slot in range(slots))
    assert all(not torch.as_tensor(v).requires_grad for v in logged.values())
    groups = method.parameters_for("main")
    assert sum(len(g["params"]) for g in groups) == len(list(method.parameters()))
    assert [g.get("lr_scale", 1.0) for g in groups] == [1.0, 200.0]


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_probabilities(kind: str) -> None:
    channels = {"binary": (), "exclusive": (4,), "overlapping": (2,)}[kind]
    for raters, maps in ((1, "mean"), (2, "mc"), (20, "mc_logits")):
        method = build(raters, kind, rater_maps=maps)
        out = method.predict(torch.rand(2, 1, 18, 21), 5, torch.Generator().manual_seed(0))
        assert out.samples.shape == (2, 5, *channels, 18, 21)
        assert out.raters.shape == (2, raters, *channels, 18, 21)
        assert out.mean.shape == (2, *channels, 18, 21)
        for value in (out.samples, out.raters, out.mean):
            assert ((value >= 0) & (value <= 1)).all()
        if kind == "exclusive":
            torch.testing.assert_close(out.samples.sum(2), torch.ones(2, 5, 18, 21))
            torch.testing.assert_close(out.mean.sum(1), torch.ones(2, 18, 21))
        loss, _ = method.training_step(make_batch(raters=raters, kind=kind))
        assert torch.isfinite(loss)


def test_probabilities_never_exceed_one_by_rounding() -> None:
    method = build(4)
    with torch.no_grad():
        method.head.layers[-1].bias.fill_(100.0)
    out = method.predict(torch.rand(1, 1, 16, 16), 3, torch.Generator().manual_seed(0))
    assert (out.mean == 1).all()


def test_samples_do_not_depend_on_how_many_are_asked_for() -> None:
    method = build(rater_maps="mc")
    images = torch.rand(3, 1, 18, 21)
    few = method.predict(images, 5, torch.Generator().manual_seed(7))
    many = method.predict(images, 37, torch.Generator().manual_seed(7))
    torch.testing.assert_close(many.samples[:, :5], few.samples)
    assert torch.equal(many.raters, few.raters)
    assert torch.equal(many.mean, few.mean)
    again = method.predict(images, 5, torch.Generator().manual_seed(7))
    assert torch.equal(again.samples, few.samples)
    assert not torch.equal(method.predict(images, 5, torch.Generator().manual_seed(8)).samples, few.samples)
    # the images have noise of their own
    same = method.predict(images[:1].expand(2, -1, -1, -1), 5, torch.Generator().manual_seed(7)).samples
    assert not torch.allclose(same[0], same[1])


def test_samples_are_of_raters_drawn_uniformly() -> None:
    drawn = seeded_raters(8000, 4, 3)
    assert torch.equal(seeded_raters(5, 4, 3), drawn[:5])
    assert (torch.bincount(drawn, minlength=4) / 8000 - 0.25).abs().max() < 0.02
    # without spread, a sample is the map of one of the raters
    method = build(fidelity="authors")
    with torch.no_grad():
        method.raters.full.zero_()
    out = method.predict(torch.rand(1, 1, 16, 16), 24, torch.Generator().manual_seed(0))
    distance = (out.samples[0][:, None] - out.raters[0][None]).abs().amax((2, 3))
    assert (distance.min(1).values < 1e-6).all()
    assert distance.argmin(1).unique().tolist() == [0, 1, 2]
    torch.testing.assert_close(out.mean, out.raters.mean(1))


@pytest.mark.parametrize("options", [{}, {"gold": "majority"}, {"gold": "staple"}, {"dice": "image"}])
def test_missing_raters_have_no_influence(options: dict[str, Any]) -> None:
    method = build(**options)
    batch = make_batch()
    batch["rater_valid"][:, 1] = False
    batch["rater_valid"][0] = False
    gradients = []
    for fill in (0, 1):
        given = {**batch, "masks": batch["masks"].clone()}
        given["masks"][~batch["rater_valid"]] = fill
        one = copy.deepcopy(method)
        for seed in range(4):
            torch.manual_seed(seed)
            loss, _ = one.training_step(given)
            assert torch.isfinite(loss)
            loss.backward()
        gradients.append([p.grad for p in one.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
    assert all((p.grad[1] == 0).all() for p in one.raters.parameters())
    batch["rater_valid"][:] = False
    loss, terms = method.training_step(batch)
    loss.backward()
    assert terms["seg"] == 0
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())


# -- vectorised against literal -------------------------------------------------------------------


def literal_head(head: PiononoHead, features: Tensor, code: Tensor) -> Tensor:
    """One code B×D, tiled over all pixels and joined to the features."""
    tiled = code[:, :, None, None].expand(-1, -1, *features.shape[-2:])
    x = torch.cat([features, tiled], 1)
    for layer in head.layers[:-1]:
        x = F.relu(layer(x))
    return head.layers[-1](x)


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("layers", [2, 3, 4])
def test_head_is_the_tiled_one(chunk: int | None, layers: int) -> None:
    torch.manual_seed(0)
    head = PiononoHead(6, 4, 3, layers, sample_chunk=chunk).double()
    features = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    codes = torch.randn(2, 8, 4, dtype=torch.float64, requires_grad=True)
    literal = torch.stack([literal_head(head, features, codes[:, s]) for s in range(8)], 1)
    inputs = [features, codes, *head.parameters()]
    for got, wanted in ((head(features, codes), literal), (head.mean_logits(features, codes), literal.mean(1))):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
        weight = torch.randn_like(wanted)
        mine = torch.autograd.grad((got * weight).sum(), inputs, retain_graph=True)
        theirs = torch.autograd.grad((wanted * weight).sum(), inputs, retain_graph=True)
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    with torch.no_grad():
        groups = codes.view(2, 2, 4, 4)
        parts = literal.view(2, 2, 4, 3, 5, 7)
        torch.testing.assert_close(head.group_means(features, groups), parts.mean(2))
        torch.testing.assert_close(head.group_means(features, groups, torch.sigmoid), parts.sigmoid().mean(2))
    single = head.float()
    out = single(features.float(), codes.float())
    torch.testing.assert_close(out, literal.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("diagonal", ["exp", "plain"])
def test_codes_are_those_of_the_distributions(diagonal: str) -> None:
    torch.manual_seed(0)
    gaussians = RaterGaussians(3, 5, diagonal=diagonal).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for p in gaussians.parameters():
            p.add_(0.2 * torch.randn_like(p))
    rater = torch.tensor([2, 0])
    noise = torch.randn(2, 4, 5, dtype=torch.float64)
    codes = gaussians.codes(rater[:, None], noise)
    for b in range(2):
        factor = gaussians.scale_tril()[rater[b]]
        assert torch.equal(factor, factor.tril())
        assert (factor.diagonal() > 0).all()
        for s in range(4):
            torch.testing.assert_close(codes[b, s], gaussians.mean[rater[b]] + factor @ noise[b, s])


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_literal_one(per_sample: bool, kind: str) -> None:
    """One distribution object per image, one pass per sample, as the released code."""
    method = build(kind=kind, mc_loss="per_sample" if per_sample else "mean_logit").double()
    batch = make_batch(kind=kind)
    features = method.trunk(batch["image"].double())
    rater, valid = torch.tensor([2, 0, 1, 1]), torch.ones(4, dtype=torch.bool)
    noise = torch.randn(4, 5, 8, dtype=torch.float64)
    channels = {"binary": 1, "exclusive": 4, "overlapping": 2}[kind]
    target = torch.randint(2, (4, channels, 16, 16)).double()
    loss, _ = method.elbo_loss(features, rater, target, valid, noise)

    factor, mean = method.raters.scale_tril(), method.raters.mean
    prior = torch.distributions.MultivariateNormal(torch.zeros(8).double(), scale_tril=2 * torch.eye(8).double())
    maps, kl = [], 0.0
    for s in range(5):
        codes = torch.stack([mean[r] + factor[r] @ noise[b, s] for b, r in enumerate(rater.tolist())])
        maps.append(literal_head(method.head, features, codes))
    for r in rater.tolist():
        q = torch.distributions.MultivariateNormal(mean[r], scale_tril=factor[r])
        kl += torch.distributions.kl_divergence(q, prior) / 4

    def dice(logits: Tensor) -> Tensor:
        p = logits.softmax(1) if kind == "exclusive" else logits.sigmoid()
        pairs = [(p[:, c], target[:, c]) for c in range(channels)]
        if channels == 1:
            pairs.append((1 - p[:, 0], 1 - target[:, 0]))
        return 1 - sum(2 * (a * b).sum() / (a.sum() + b.sum()) for a, b in pairs) / len(pairs)

    seg = sum(dice(m) for m in maps) / 5 if per_sample else dice(sum(maps) / 5)
    norms = sum(p.norm() for layer in method.head.layers[:-1] for p in layer.parameters())
    torch.testing.assert_close(loss, seg + 5e-4 * kl + 1e-5 * norms, rtol=0, atol=1e-10)


# -- consensus ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["majority", "staple"])
def test_gold_is_the_consensus_of_those_present(how: str) -> None:
    method = build(4, gold=how)
    row, column = np.mgrid[:16, :16]
    discs = np.stack([(row - 8) ** 2 + (column - 8) ** 2 < r**2 for r in (3, 4, 5, 6)])
    batch = make_batch(3, 4)
    batch["masks"][:] = torch.from_numpy(discs.astype(np.uint8))
    batch["rater_valid"][1, 3] = False
    seen = []
    for seed in range(20):
        torch.manual_seed(seed)
        rater, target, valid = method.draw_annotation(batch)
        assert valid.all()
        for b, r in enumerate(rater.tolist()):
            if r < 4:
                assert batch["rater_valid"][b, r]
                wanted = discs[r]
            else:
                seen.append(b)
                present = discs[batch["rater_valid"][b].numpy()]
                if how == "majority":
                    wanted = 2 * present.sum(0) > len(present)
                else:
                    wanted = consensus_mask(present, how)
            np.testing.assert_array_equal(target[b, 0].numpy(), wanted)
    assert {0, 1} <= set(seen)


def test_majority_of_classes_is_the_mode_and_the_smallest_in_a_tie() -> None:
    data = describe(4, kind="exclusive")
    labels = torch.tensor([[1, 1, 2, 0], [3, 3, 2, 2], [0, 1, 2, 3], [2, 2, 0, 0]], dtype=torch.uint8).T
    one_hot = F.one_hot(labels.long(), 4).movedim(-1, 1)[None, ..., None].to(torch.uint8)  # 1×R×C×4×1
    got = consensus_targets(one_hot, torch.ones(1, 4, dtype=torch.bool), data, "majority")
    assert got.shape == (1, 4, 4, 1)
    assert got.argmax(1).flatten().tolist() == [1, 2, 0, 0]
    staple = consensus_targets(one_hot.expand(2, -1, -1, -1, -1), torch.eye(2, 4).bool(), data, "staple")
    assert staple.argmax(1)[0].flatten().tolist() == labels[0].tolist()  # one rater present: that rater
    assert (staple.sum(1) == 1).all()
    none = torch.zeros(1, 4, dtype=torch.bool)
    for how in ("majority", "staple"):
        assert (consensus_targets(one_hot, none, data, how).argmax(1) == 0).all()


def test_consensus_map_is_that_of_the_gold_gaussian() -> None:
    method = build(3, gold="majority", test_samples=4)
    with torch.no_grad():
        method.raters.log_diagonal.fill_(-30.0)
    image = torch.rand(1, 1, 16, 16)
    out = method.predict(image, 2, torch.Generator().manual_seed(0))
    method.eval()
    with torch.no_grad():
        gold = method.head(method.trunk(image), method.raters.mean[None, 3:])[0, 0, 0].sigmoid()
    torch.testing.assert_close(out.mean[0], gold)
    assert not torch.allclose(out.mean, out.raters.mean(1), atol=1e-3)
    assert out.raters.shape == (1, 3, 16, 16)


# -- behaviour and options ------------------------------------------------------------------------


def test_raters_are_told_apart() -> None:
    """One image, three raters with discs of their own: the maps are theirs, and samples spread over them."""
    method = build(3, dice="image")
    row, column = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    distance = ((row - 8) ** 2 + (column - 8) ** 2).sqrt()
    masks = torch.stack([distance < radius for radius in (3, 4.5, 6)]).to(torch.uint8)
    batch = {
        "image": (distance / 12).expand(6, 1, -1, -1),
        "masks": masks.expand(6, -1, -1, -1),
        "rater_valid": torch.ones(6, 3, dtype=torch.bool),
    }
    groups = [{**g, "lr": 3e-3 * min(g.pop("lr_scale", 1.0), 5)} for g in method.parameters_for("main")]
    optimiser = torch.optim.Adam(groups)
    for _ in range(150):
        optimiser.zero_grad()
        loss, _ = method.training_step(batch)
        loss.backward()
        optimiser.step()
    out = method.predict(batch["image"][:1], 60, torch.Generator().manual_seed(0))
    maps = out.raters[0] > 0.5
    dice = 2 * (maps & masks.bool()).sum((1, 2)) / (maps.sum((1, 2)) + masks.sum((1, 2)))
    assert (dice > 0.9).all()
    areas = (out.samples[0] > 0.5).sum((1, 2)).float()
    wanted = masks.sum((1, 2)).float()
    nearest = (areas[:, None] - wanted).abs().argmin(1)
    assert nearest.unique().tolist() == [0, 1, 2]


def test_fidelity_sets_what_is_not_given() -> None:
    def told(**options: Any) -> tuple[Any, ...]:
        m = build(**options)
        return m.raters.diagonal, m.dice_clamp, m.rater_maps, m.consensus

    assert told() == ("exp", False, "mean", "mc")
    assert told(fidelity="authors") == ("plain", True, "mean", "mc")
    assert told(fidelity="dpersona") == ("plain", True, "mc_logits", "raters")
    assert told(fidelity="dpersona", dice_clamp=False, rater_maps="mc") == ("plain", False, "mc", "raters")
    assert "staple" in Pionono.label({"gold": "staple"})
    assert Pionono.label({"gold": "none"}) == ""


def test_a_collapsed_plain_diagonal_is_not_finite() -> None:
    method = build(fidelity="authors")
    with torch.no_grad():
        method.raters.full[:, 0, 0] = -0.1
    loss, _ = method.training_step(make_batch())
    assert not torch.isfinite(loss)


def test_refusals() -> None:
    with pytest.raises(UnsupportedPair, match="identity"):
        create_method("pionono", describe(identity="none"), **SMALL)
    with pytest.raises(UserError, match=r"method\.latent"):
        build(latent=0)
    with pytest.raises(UserError, match=r"method\.gold"):
        build(gold="expert")
    with pytest.raises(UserError, match="did you mean 'kl_weight'"):
        build(kl_wieght=1.0)


def test_double_precision_and_saving() -> None:
    method = build(gold="majority").double()
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    out = method.predict(image, 3, torch.Generator().manual_seed(0))
    assert out.samples.dtype == torch.float64
    torch.manual_seed(5)
    other = create_method("pionono", describe(), gold="majority", **SMALL).double()
    other.load_state_dict(load(save({k: v.contiguous() for k, v in method.state_dict().items()})))
    assert torch.equal(other.predict(image, 3, torch.Generator().manual_seed(0)).samples, out.samples)


def test_initial_means_follow_the_seed() -> None:
    assert torch.equal(build().raters.mean, build().raters.mean)
