"""Baselines with several maps or networks, and the layouts of several classes."""

from __future__ import annotations

import pytest
import torch
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.baselines import nested_class_maps, nested_level_sets
from multirater.methods.label_loss import LabelLoss
from safetensors.torch import load, save

BASELINES = [
    "unet_per_rater",
    "unet_majority",
    "unet_soft",
    "unet_multihead",
    "unet_multidecoder",
    "unet_label_sampling",
    "ensemble",
    "mc_dropout",
    "unet_staple",
]
RATERS = ["unet_per_rater", "unet_multihead", "unet_multidecoder"]


def data(raters=4, channels=1, size=32, **changes):
    ids = tuple(str(r) for r in range(raters))
    return DataDescription(
        "d", channels, raters=raters, rater_ids=ids, identity="derived", size=(size, size), **changes
    )


LAYOUTS = {"binary": {}, "nested": {"classes": 2, "overlapping": True}, "exclusive": {"classes": 3}}


def batch(description, cases=3, seed=0, valid=None):
    draw = torch.Generator().manual_seed(seed)
    shape = (cases, description.raters, *((description.classes,) if description.overlapping else ()), *description.size)
    top = 2 if description.overlapping else description.classes + 1
    masks = torch.randint(0, top, shape, generator=draw, dtype=torch.uint8)
    valid = torch.ones(cases, description.raters, dtype=torch.bool) if valid is None else valid
    masks *= valid.view(*valid.shape, *[1] * (masks.ndim - 2))
    image = torch.rand(cases, description.channels, *description.size, generator=draw)
    return {"image": image, "masks": masks, "rater_valid": valid}


def build(name, description, seed=0, **options):
    torch.manual_seed(seed)
    return create_method(name, description, backbone="unet_small", **options)


def count(name, raters, **options):
    method = create_method(name, data(raters=raters, channels=3, size=64), **options)
    return sum(p.numel() for p in method.parameters())


def test_parameters_with_four_raters():
    assert count("unet_per_rater", 4) == 97_745_476
    assert count("unet_multihead", 4) == 24_436_804
    assert count("unet_multidecoder", 4) == 33_891_460
    assert count("mc_dropout", 4) == count("unet_staple", 4) == 24_436_369


def test_parameters_with_six_raters_and_five_members():
    assert count("unet_multihead", 6) == 24_437_094
    assert count("unet_multidecoder", 6) == 40_194_854
    assert count("ensemble", 6) == 122_181_845


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", BASELINES)
def test_every_layout_and_missing_raters(name, layout):
    description = data(has_missing=True, **LAYOUTS[layout])
    method = build(name, description).train()
    valid = torch.tensor([[True, True, False, True], [False, False, True, False], [True] * 4])
    loss, _ = method.training_step(batch(description, valid=valid))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())
    method.eval()
    with torch.inference_mode():
        found = method.predict(torch.rand(2, 1, 32, 32), 7, torch.Generator().manual_seed(3))
    channels = {"binary": (), "nested": (2,), "exclusive": (4,)}[layout]
    assert found.mean.shape == (2, *channels, 32, 32)
    if method.gives_samples:
        given = {"ensemble": 5}.get(name, 4 if name in RATERS else 7)
        assert found.samples.shape == (2, given, *channels, 32, 32)
    else:
        assert found.samples is None
    if method.gives_raters:
        assert found.raters.shape == (2, 4, *channels, 32, 32)
    for maps in (found.mean, found.samples, found.raters):
        if maps is not None:
            assert 0 <= maps.min() <= maps.max() <= 1 + 1e-6
            if layout == "exclusive":
                torch.testing.assert_close(maps.sum(-3), torch.ones_like(maps.sum(-3)))


@pytest.mark.parametrize("name", RATERS)
def test_a_missing_rater_does_not_move_its_own_output(name):
    description = data(has_missing=True)
    method = build(name, description).train()
    valid = torch.tensor([[True, True, False, True]]).expand(3, -1)
    one, other = batch(description, valid=valid), batch(description, valid=valid)
    other["masks"] = other["masks"].clone()
    other["masks"][:, 2] = 1
    torch.testing.assert_close(method.training_step(one)[0], method.training_step(other)[0], rtol=0, atol=0)
    grads = (
        torch.autograd.grad(method.training_step(one)[0], list(method.heads[2].parameters()))
        if hasattr(method, "heads")
        else [torch.autograd.grad(method.training_step(one)[0], method.head.weight)[0][2]]
    )
    assert all((g == 0).all() for g in grads)


def test_loss_of_each_rater_by_hand():
    description = data(raters=2)
    logits, valid = torch.randn(3, 2, 1, 8, 8), torch.tensor([[True, True], [True, False], [False, True]])
    target = torch.randint(0, 2, (3, 2, 1, 8, 8))
    each = {}
    for b, r in [(0, 0), (0, 1), (1, 0), (2, 1)]:
        z, y = logits[b, r, 0], target[b, r, 0].float()
        p = torch.sigmoid(z)
        bce = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
        each[b, r] = 0.5 * bce + 0.5 * (1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
    torch.testing.assert_close(LabelLoss(description)(logits, target, valid), torch.stack(list(each.values())).mean())
    p, y = torch.sigmoid(logits[:, 0, 0][:2]), target[:, 0, 0][:2].float()
    fore = 2 * (p * y).sum() / (p.sum() + y.sum())
    back = 2 * ((1 - p) * (1 - y)).sum() / ((1 - p).sum() + (1 - y).sum())
    found = LabelLoss(description, "dice", "batch")(logits[:2, :1], target[:2, :1], valid[:2, :1])
    torch.testing.assert_close(found, 1 - (fore + back) / 2)


def test_one_network_per_rater_learns_as_if_alone():
    description = data(raters=2, has_missing=True)
    method = build("unet_per_rater", description, loss="bce").train()
    valid = torch.tensor([[True, True], [True, False], [True, True]])
    given = batch(description, valid=valid)
    method.training_step(given)[0].backward()
    together = [p.grad.clone() for p in method.heads[1].parameters()]
    method.zero_grad()
    logits = method.heads[1](method.trunks[1](given["image"]))[[0, 2], 0]
    alone = torch.nn.functional.binary_cross_entropy_with_logits(logits, given["masks"][[0, 2], 1].float())
    alone.backward()
    for a, b in zip(together, method.heads[1].parameters(), strict=True):
        torch.testing.assert_close(a, b.grad)


def test_one_head_is_one_network():
    """B4a with R = 1 is B1 with R = 1."""
    images = torch.rand(2, 1, 32, 32)
    one = build("unet_per_rater", data(raters=1)).eval()
    head = build("unet_multihead", data(raters=1)).eval()
    head.trunk.load_state_dict(one.trunks[0].state_dict())
    head.head.load_state_dict(one.heads[0].state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(one.predict(images).raters, head.predict(images).raters, rtol=0, atol=0)


def test_one_member_is_the_label_sampling_network():
    """B6 with M = 1 is B5: same outputs and, for the same draw of raters, the same loss."""
    description = data()
    single = build("unet_label_sampling", description)
    ensemble = build("ensemble", description, members=1)
    ensemble.trunks[0].load_state_dict(single.trunk.state_dict())
    ensemble.heads[0].load_state_dict(single.head.state_dict())
    losses = []
    for method in (single.train(), ensemble.train()):
        torch.manual_seed(5)
        losses.append(method.training_step(batch(description))[0])
    torch.testing.assert_close(*losses, rtol=0, atol=0)
    images = torch.rand(2, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(single.eval().predict(images).mean, ensemble.eval().predict(images).mean)


def test_members_differ_and_draw_their_own_raters():
    description = data(raters=2)
    method = build("ensemble", description).eval()
    with torch.inference_mode():
        samples = method.predict(torch.rand(1, 1, 32, 32), 50).samples[0]
    assert len(samples) == 5
    assert (samples - samples[:1]).abs().amax((1, 2))[1:].min() > 0


class TestDropout:
    def test_without_dropout_all_passes_agree(self):
        method = build("mc_dropout", data(), dropout=0.0).eval()
        with torch.inference_mode():
            samples = method.predict(torch.rand(1, 1, 32, 32), 6).samples[0]
        torch.testing.assert_close(samples, samples[:1].expand_as(samples), rtol=0, atol=0)

    def test_passes_differ_and_their_prefix_is_stable(self):
        method = build("mc_dropout", data(), output_bias=0.0).eval()
        images = torch.rand(2, 1, 32, 32)
        with torch.inference_mode():
            many = method.predict(images, 33, torch.Generator().manual_seed(1))
            few = method.predict(images, 12, torch.Generator().manual_seed(1))
            other = method.predict(images, 12, torch.Generator().manual_seed(2))
        assert torch.equal(many.samples[:, :12], few.samples)
        assert not torch.equal(other.samples, few.samples)
        assert (many.samples[:, 1:] - many.samples[:, :1]).abs().amax((2, 3)).min() > 0
        torch.testing.assert_close(many.mean, many.samples.mean(1))

    def test_batch_norm_stays_fixed_at_test_time(self):
        method = build("mc_dropout", data()).eval()
        before = {k: v.clone() for k, v in method.state_dict().items()}
        with torch.inference_mode():
            method.predict(torch.rand(2, 1, 32, 32), 4)
        assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())

    def test_a_literal_pass(self):
        """Dropout after the two deepest encoder stages and the first two decoder stages, nowhere else."""
        method = build("mc_dropout", data(), dropout=0.5).train()
        calls = []
        original = torch.nn.functional.dropout
        try:
            torch.nn.functional.dropout = lambda x, p, training: calls.append((tuple(x.shape), p, training)) or x
            method.logits(torch.rand(1, 1, 32, 32))
        finally:
            torch.nn.functional.dropout = original
        shapes = [(1, 64, 8, 8), (1, 128, 4, 4), (1, 64, 8, 8), (1, 32, 16, 16)]
        assert calls == [(shape, 0.5, True) for shape in shapes]


def test_staple_target_of_the_six_discs():
    row, column = torch.meshgrid(torch.arange(64) - 32, torch.arange(64) - 32, indexing="ij")
    discs = torch.stack([(row**2 + column**2 <= r**2) for r in range(8, 14)]).to(torch.uint8)[None]
    method = build("unet_staple", data(raters=6, size=64))
    given = {"masks": discs, "rater_valid": torch.ones(1, 6, dtype=torch.bool)}
    assert method.target(given).sum() == 377
    soft = build("unet_staple", data(raters=6, size=64), soft_target=True).target(given)
    assert soft.sum() == pytest.approx(377, abs=1)
    missing = torch.tensor([[False] * 6])
    assert build("unet_staple", data(raters=6, size=64)).target({"masks": discs, "rater_valid": missing}).sum() == 0


def test_label_sampling_and_soft_labels_converge_to_one_map():
    """B5 with cross-entropy and B3 have one minimiser (baselines 7): a one-layer model of free logits."""
    description = data(raters=4, size=8)
    given = batch(description, cases=1)
    share = given["masks"].float().mean(1)
    given = {name: value.expand(16, *value.shape[1:]) for name, value in given.items()}  # 16 draws a step
    found = {}
    for name, options in (("unet_soft", {}), ("unet_label_sampling", {"loss": "bce"})):
        method = build(name, description, **options)
        free = torch.zeros(1, 1, 8, 8, requires_grad=True)
        method.logits = lambda images, free=free: free.expand(16, -1, -1, -1)
        torch.manual_seed(0)
        rate, average = 20.0, torch.zeros(1, 1, 8, 8)
        for step in range(2000):
            (grad,) = torch.autograd.grad(method.training_step(given)[0], free)
            with torch.no_grad():
                free -= rate / (1 + step / 50) * grad
                if step >= 500:
                    average += torch.sigmoid(free) / 1500
        found[name] = average[0]
    assert (found["unet_soft"] - found["unet_label_sampling"]).abs().max() < 0.02
    inner = (share > 0) & (share < 1)
    assert (found["unet_soft"] - share)[inner].abs().max() < 0.02


def test_class_maps_of_two_classes_are_level_sets():
    foreground = torch.rand(2, 16, 16)
    maps = nested_class_maps(torch.stack([1 - foreground, foreground], 1), 16)
    assert torch.equal(maps[:, :, 1], nested_level_sets(foreground, 16))
    assert (maps.sum(2) == 1).all()


def test_class_maps_have_the_shares_of_the_classes():
    mean = torch.rand(1, 4, 8, 8).softmax(1)
    share = nested_class_maps(mean, 1023).mean(1)
    torch.testing.assert_close(share, mean, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", BASELINES)
def test_save_and_load(name):
    method = build(name, data()).eval()
    other = build(name, data(), seed=1).eval()
    other.load_state_dict(load(save({k: v.contiguous() for k, v in method.state_dict().items()})))
    images = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        a, b = (m.predict(images, 4, torch.Generator().manual_seed(0)).mean for m in (method, other))
    assert torch.equal(a, b)


@pytest.mark.parametrize("name", RATERS)
def test_raters_without_identity_are_refused(name):
    from multirater.core.errors import UnsupportedPair

    anonymous = DataDescription("d", raters=2, rater_ids=("1", "2"), identity="none", size=(32, 32))
    with pytest.raises(UnsupportedPair, match="identity"):
        create_method(name, anonymous, backbone="unet_small")
