from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from learning_support import areas_after_learning_whose_mask_is_wanted
from multirater.core.errors import UnsupportedPair, UserError
from multirater.datasets.base import DataDescription
from multirater.methods import chunks, create_method
from multirater.methods.mrnet import AVERAGE, MIXED, SINGLE, MRNet, draw_expertness
from multirater.methods.mrnet_layers import blur, resize
from multirater.methods.targets import output_channels, target_channels
from torch import Tensor

SMALL: dict[str, Any] = {"width": 4, "encoder_blocks": [1, 1, 1, 1], "vgg_convs": [1, 1, 1, 1, 1]}


def describe(raters: int = 3, classes: int = 1, overlapping: bool = False, **more: Any) -> DataDescription:
    ids = tuple(str(r) for r in range(raters))
    size = more.pop("size", (32, 32))
    return DataDescription("tiny", 1, classes, raters, ids, "derived", 2, size, overlapping=overlapping, **more)


def build(data: DataDescription | None = None, **options: Any) -> MRNet:
    torch.manual_seed(0)
    return create_method("mrnet", data or describe(), **{**SMALL, **options})


def liven(method: MRNet) -> MRNet:
    """Maps that vary and depend on the expertness; those of the start are too flat to compare."""
    with torch.no_grad():
        method.coarse.eim.condition.weight.mul_(50)
        method.reconstruction.heads.weight.mul_(50)
        for part in (*method.perception.features, method.perception.head):
            if isinstance(part, torch.nn.Conv2d):
                part.weight.mul_(30)
    return method


def make_batch(method: MRNet, count: int = 4, size: tuple[int, int] = (32, 32)) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    data = method.data
    shape = (count, data.raters, *((data.classes,) if data.overlapping else ()), *size)
    labels = torch.randint(0, 2 if data.overlapping else data.classes + 1, shape, generator=generator)
    return {
        "image": torch.rand(count, data.channels, *size, generator=generator),
        "masks": labels.to(torch.uint8),
        "rater_valid": torch.ones(count, data.raters, dtype=torch.bool),
    }


DATA = {
    "binary": describe(),
    "nested": describe(classes=2, overlapping=True),
    "one_nested": describe(classes=1, overlapping=True),
    "exclusive": describe(classes=3),
}


# -- a literal reading of the released training step ------------------------------------------------


def literal_coarse(method: MRNet, images: Tensor, expertness: Tensor) -> tuple[Tensor, Tensor]:
    """One expertness vector an image, concatenated input of the ConvLSTM."""
    net = method.coarse
    taps = net.encoder(images)
    x = F.relu(taps[-1])
    state = net.eim.condition(expertness[:, :, None, None].expand(-1, -1, *x.shape[-2:]))
    gates = F.conv2d(torch.cat([x, state], 1), net.eim.gates.weight, net.eim.gates.bias, padding=1)
    i, f, o, g = gates.chunk(4, 1)
    x = torch.sigmoid(o) * torch.tanh(torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g))
    for level, tap in zip(net.decoder.levels, (taps[3], taps[2], taps[1], taps[0]), strict=True):
        x = level.norm(F.relu(torch.cat([level.up(x), level.skip(tap)], 1)))
    return net.decoder.last(x), x


def literal_reconstruction(method: MRNet, images: Tensor, maps: Tensor, expertness: Tensor) -> list[Tensor]:
    """Six (here R) heads, each after the resize to full resolution."""
    net = method.reconstruction
    x = net.fuse(torch.cat([images, maps], 1))
    for level, block in enumerate(net.blocks):
        x = block(x)
        if level == 2:
            low = x
        if level < 4:
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    state = net.eim.condition(expertness[:, :, None, None].expand(-1, -1, *x.shape[-2:]))
    gates = F.conv2d(torch.cat([x, state], 1), net.eim.gates.weight, net.eim.gates.bias, padding=1)
    i, f, o, g = gates.chunk(4, 1)
    x = torch.sigmoid(o) * torch.tanh(torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g))
    x = net.up(x)
    first = net.branches[0](x)
    second = first + net.branches[1](x)
    third = second + net.branches[2](x)
    fourth = third + net.branches[3](x)
    fifth = fourth + resize(net.image_branch(x), x.shape[-2:])
    x = resize(net.merge(torch.cat([first, second, third, fourth, fifth], 1)), low.shape[-2:])
    x = resize(net.refine(torch.cat([x, net.low_level(low)], 1)), images.shape[-2:])
    channels = output_channels(method.data)
    return [
        F.conv2d(
            x, net.heads.weight[r * channels : (r + 1) * channels], net.heads.bias[r * channels : (r + 1) * channels]
        )
        for r in range(method.data.raters)
    ]


def literal_perception(method: MRNet, features: Tensor, maps: Tensor, raters: list[Tensor]) -> Tensor:
    """One soft attention a map; the maps in the order A_cup, A_disc, U_cup, U_disc."""
    net = method.perception
    x = net.features(features)
    shown = [torch.sigmoid(maps[:, c : c + 1]) for c in reversed(range(maps.shape[1]))]
    for c in reversed(range(maps.shape[1])):
        shown.append(torch.std(torch.cat([torch.sigmoid(r[:, c : c + 1]) for r in raters], 1), 1, keepdim=True))
    enhanced = []
    for a in shown:
        soft = F.conv2d(a, net.attention.kernel, padding=15)
        low, high = soft.amin((2, 3), keepdim=True), soft.amax((2, 3), keepdim=True)
        enhanced.append(x * torch.maximum((soft - low) / (high - low + 1e-8), a) + x)
    return net.head(torch.cat(enhanced, 1))


def literal_losses(method: MRNet, batch: dict[str, Any], expertness: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """As released: three passes of each network, loops over raters; `fidelity=authors`, complete data.

    Also the coarse logits of the average vector.
    """
    bce = F.binary_cross_entropy_with_logits
    images = batch["image"]
    masks = target_channels(batch["masks"], method.data).to(images.dtype)
    targets, coarse = [], []
    for kind in (SINGLE, MIXED, AVERAGE):
        weighted = [masks[:, r] * expertness[:, kind, r, None, None, None] for r in range(method.data.raters)]
        targets.append(sum(weighted))
        coarse.append(literal_coarse(method, images, expertness[:, kind]))
    mrm, raters = [], []
    for kind in (SINGLE, MIXED, AVERAGE):
        raters.append(literal_reconstruction(method, images, coarse[kind][0].detach(), expertness[:, kind]))
        mrm.append(sum(bce(raters[-1][r], masks[:, r]) for r in range(method.data.raters)) / method.data.raters)
    refined = []
    for kind, shown in ((SINGLE, SINGLE), (MIXED, MIXED), (AVERAGE, MIXED)):
        constant = [r.detach() for r in raters[kind]]
        refined.append(literal_perception(method, coarse[kind][1].detach(), coarse[shown][0].detach(), constant))
    losses = {}
    for name, outputs in (("coarse", [z for z, _ in coarse]), ("mpm", refined)):
        m, p, a = (bce(z, t) for z, t in zip(outputs, targets, strict=True))
        losses[name] = (3 * a + 2 * p + m) / 6
    losses["mrm"] = sum(mrm) / 3
    return losses, coarse[AVERAGE][0]


@pytest.mark.parametrize("data", [DATA["binary"], DATA["nested"]], ids=["binary", "nested"])
def test_losses_and_gradients_are_those_of_the_literal_step(data: DataDescription) -> None:
    method = liven(build(data, fidelity="authors", consistency="off")).double()
    batch = make_batch(method)
    batch["image"] = batch["image"].double()
    masks = target_channels(batch["masks"], data).double()
    expertness = draw_expertness(batch["rater_valid"]).double()
    loss, terms = method.losses(batch["image"], masks, batch["rater_valid"], expertness)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in method.named_parameters()}
    method.zero_grad()
    literal, _ = literal_losses(method, batch, expertness)
    for name, value in literal.items():
        torch.testing.assert_close(terms[name], value)
    (0.7 * literal["coarse"] + literal["mrm"] + literal["mpm"]).backward()
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-9)


def test_one_pass_is_three_passes_in_eval_mode() -> None:
    """Batch-norm statistics are the only difference between batched and separate vectors."""
    batched, separate = (liven(build(passes=p)).double().eval() for p in ("batched", "separate"))
    batch = make_batch(batched)
    masks, valid = target_channels(batch["masks"], batched.data).double(), batch["rater_valid"]
    expertness = draw_expertness(valid).double()
    values = [m.losses(batch["image"].double(), masks, valid, expertness)[1] for m in (batched, separate)]
    for name in values[0]:
        torch.testing.assert_close(values[0][name], values[1][name])
    batched.train()
    separate.train()
    values = [m.losses(batch["image"].double(), masks, valid, expertness)[1] for m in (batched, separate)]
    assert not torch.isclose(values[0]["mrm"], values[1]["mrm"], rtol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (2, 3, 31, 40), (3, 1, 5, 7), (1, 2, 100, 33)])
def test_blur_is_a_convolution_with_zero_padding(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    maps = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    kernel = torch.rand(1, 1, 31, 31, dtype=torch.float64, requires_grad=True)
    got = blur(maps, kernel)
    wanted = F.conv2d(maps.reshape(-1, 1, *shape[2:]), kernel, padding=15).view_as(maps)
    torch.testing.assert_close(got, wanted)
    weight = torch.rand_like(got)
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), (maps, kernel)) for y in (got, wanted)), strict=True):
        torch.testing.assert_close(a, b)


# -- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fidelity", ["default", "authors", "paper"])
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_every_parameter_gets_a_gradient(data: DataDescription, fidelity: str) -> None:
    method = build(data, fidelity=fidelity).train()
    loss, logged = method.training_step(make_batch(method))
    assert torch.isfinite(loss)
    loss.backward()
    missing = [n for n, p in method.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []
    # a bias in front of batch norm has gradient 0 but for rounding; all other tensors are moved
    still = [n for n, p in method.named_parameters() if p.ndim > 1 and p.grad.abs().sum() == 0]
    assert still == []
    assert {"coarse", "mrm", "mpm"} <= set(logged)
    assert all(not torch.as_tensor(v).requires_grad for v in logged.values())


def test_no_gradient_crosses_between_the_networks() -> None:
    method = build().train()
    batch = make_batch(method)
    masks, valid = target_channels(batch["masks"], method.data).float(), batch["rater_valid"]
    owners = {"coarse": method.coarse, "mrm": method.reconstruction, "mpm": method.perception}
    for name, owner in owners.items():
        method.zero_grad()
        method.losses(batch["image"], masks, valid, draw_expertness(valid))[1][name].backward()
        mine = {id(p) for p in owner.parameters()}
        assert all((p.grad is not None) == (id(p) in mine) for p in method.parameters())


def test_the_consistency_term_trains_the_coarse_net_as_in_the_paper_only() -> None:
    for mode, trains in (("inert", False), ("paper", True)):
        method = build(consistency=mode).train()
        batch = make_batch(method)
        masks, valid = target_channels(batch["masks"], method.data).float(), batch["rater_valid"]
        before = {k: v.clone() for k, v in method.reconstruction.state_dict().items()}
        term = method.losses(batch["image"], masks, valid, draw_expertness(valid))[1]["consistency"]
        assert term > 0
        assert term.requires_grad == trains
        if trains:
            term.backward()
            assert method.coarse.encoder.net.conv1.weight.grad.abs().sum() > 0
            assert all(p.grad is None and p.requires_grad for p in method.reconstruction.parameters())
        updates = method.reconstruction.state_dict()["blocks.0.1.num_batches_tracked"]
        assert updates - before["blocks.0.1.num_batches_tracked"] == (1 if trains else 3)


def test_fidelity_sets_what_is_not_given() -> None:
    def settings(**options: Any) -> tuple[Any, ...]:
        m = build(**options)
        return m.consistency, m.consistency_distance, m.average_branch_map, m.separate

    assert settings() == ("off", "channel_mean", "average", False)
    assert settings(fidelity="authors") == ("inert", "channel_sum", "mixed", True)
    assert settings(fidelity="paper") == ("paper", "channel_sum", "average", False)
    assert settings(fidelity="authors", consistency="off", passes="batched") == ("off", "channel_sum", "mixed", False)
    assert MRNet.label({"fidelity": "default", "width": 64}) == ""
    assert MRNet.label({"fidelity": "authors", "width": 16}) == "fidelity authors, width 16"


def test_the_average_branch_sees_the_mixed_map_on_request() -> None:
    values = {}
    for fed in ("average", "mixed"):
        for passes in ("batched", "separate"):
            method = liven(build(average_branch_map=fed, passes=passes)).eval()
            batch = make_batch(method)
            masks, valid = target_channels(batch["masks"], method.data).float(), batch["rater_valid"]
            torch.manual_seed(3)
            values[fed, passes] = method.losses(batch["image"], masks, valid, draw_expertness(valid))[1]["mpm"].item()
    assert values["average", "batched"] == pytest.approx(values["average", "separate"], rel=1e-5)
    assert values["mixed", "batched"] == pytest.approx(values["mixed", "separate"], rel=1e-5)
    assert values["mixed", "batched"] != pytest.approx(values["average", "batched"], rel=1e-7)


def test_output_bias_starts_near_an_empty_mask() -> None:
    method = build(output_bias=-4.0)
    prediction = method.predict(torch.rand(2, 1, 32, 32))
    assert prediction.mean.mean() < 0.1
    assert prediction.raters.mean() < 0.1


# -- missing raters -----------------------------------------------------------------------------


def test_expertness_of_missing_raters_is_zero() -> None:
    torch.manual_seed(0)
    valid = torch.tensor([[True, False, True, True], [False, True, False, False]]).repeat(500, 1)
    drawn = draw_expertness(valid)
    torch.testing.assert_close(drawn.sum(-1), torch.ones(1000, 3))
    assert drawn[~valid[:, None].expand_as(drawn)].abs().max() == 0
    torch.testing.assert_close(drawn[::2, AVERAGE], torch.tensor([1 / 3, 0, 1 / 3, 1 / 3]).expand(500, -1))
    assert (drawn[1::2, :, 1] == 1).all()


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_the_mask_of_a_missing_rater_changes_nothing(data: DataDescription) -> None:
    method = build(data, output_bias=0.5).train()
    batch = make_batch(method)
    batch["rater_valid"][:, 1] = False
    batch["rater_valid"][0, 0] = False
    results = []
    for fill in (0, 1):
        masks = batch["masks"].clone()
        masks[~batch["rater_valid"]] = fill
        method.zero_grad()
        torch.manual_seed(4)
        loss, _ = method.training_step({**batch, "masks": masks})
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in method.parameters()]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    channels = output_channels(data)
    heads = method.reconstruction.heads.bias.grad.view(data.raters, channels)
    assert heads[1].abs().sum() == 0
    assert (heads[[0, 2]].abs().sum(1) > 0).all()


def test_an_image_without_any_rater_does_not_break_a_step() -> None:
    method = build().train()
    batch = make_batch(method)
    batch["rater_valid"][:] = False
    loss, _ = method.training_step(batch)
    assert torch.isfinite(loss)


# -- prediction ---------------------------------------------------------------------------------


@pytest.mark.parametrize("raters", [2, 20])
@pytest.mark.parametrize("size", [(32, 32), (33, 50), (16, 16), (9, 11)])
def test_any_number_of_raters_and_any_size(raters: int, size: tuple[int, int]) -> None:
    method = build(describe(raters, size=size))
    batch = make_batch(method, 2, size)
    loss, _ = method.train().training_step(batch)
    assert torch.isfinite(loss)
    prediction = method.predict(batch["image"], 7)
    assert prediction.samples is None
    assert prediction.raters.shape == (2, raters, *size)
    assert prediction.mean.shape == (2, *size)
    for maps in (prediction.raters, prediction.mean):
        assert torch.isfinite(maps).all()
        assert 0 <= maps.min() <= maps.max() <= 1
    assert method.training  # predict puts the mode back


@pytest.mark.parametrize("name", ["nested", "one_nested", "exclusive"])
def test_several_classes(name: str) -> None:
    method = build(DATA[name])
    channels = {"nested": 2, "one_nested": 1, "exclusive": 4}[name]
    prediction = method.predict(torch.rand(2, 1, 32, 32))
    assert prediction.raters.shape == (2, 3, channels, 32, 32)
    assert prediction.mean.shape == (2, channels, 32, 32)
    if name == "exclusive":
        torch.testing.assert_close(prediction.raters.sum(2), torch.ones(2, 3, 32, 32))


@torch.no_grad()
def test_prediction_is_the_literal_loop_over_raters(monkeypatch: pytest.MonkeyPatch) -> None:
    method = liven(build(DATA["nested"])).double().eval()
    for part in method.modules():  # statistics that are not those of the start
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 2)
    images = torch.rand(2, 1, 32, 32, dtype=torch.float64)
    vectors = torch.cat([torch.eye(3), torch.full((1, 3), 1 / 3)]).double()
    wanted = []
    for vector in vectors:
        expertness = vector.expand(2, -1)
        logits, features = literal_coarse(method, images, expertness)
        raters = literal_reconstruction(method, images, logits, expertness)
        wanted.append(torch.sigmoid(literal_perception(method, features, logits, raters)))
    got = method.predict(images)
    torch.testing.assert_close(got.raters, torch.stack(wanted[:-1], 1), atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(got.mean, wanted[-1], atol=1e-7, rtol=1e-6)
    monkeypatch.setattr(chunks, "_CPU_BYTES", 1)  # one image and one vector at a time
    piecewise = method.predict(images)
    torch.testing.assert_close(piecewise.raters, got.raters)
    torch.testing.assert_close(piecewise.mean, got.mean)
    outputs = method(images, vectors.expand(2, -1, -1))
    torch.testing.assert_close(torch.sigmoid(outputs.refined[:, :3]), got.raters)
    assert outputs.raters.shape == (2, 4, 3, 2, 32, 32)


@torch.no_grad()
def test_any_mixture_can_be_asked_for() -> None:
    method = build().eval()
    images = torch.rand(2, 1, 32, 32)
    vectors = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]).expand(2, -1, -1)
    maps = method.segment(images, vectors)
    assert maps.shape == (2, 2, 1, 32, 32)
    torch.testing.assert_close(maps[:, 1, 0], method.predict(images).raters[:, 1])


def test_prediction_draws_nothing() -> None:
    method = build()
    images = torch.rand(1, 1, 32, 32)
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()
    first = method.predict(images, 4, generator)
    assert torch.equal(state, generator.get_state())
    assert torch.equal(first.raters, method.predict(images, 50).raters)


def test_state_can_be_saved_and_loaded(tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    method = build().train()
    method.training_step(make_batch(method))
    state = {name: value.contiguous() for name, value in method.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    torch.manual_seed(9)
    other = create_method("mrnet", describe(), **SMALL)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    images = torch.rand(1, 1, 32, 32)
    assert torch.equal(method.predict(images).raters, other.predict(images).raters)


# -- refusals -----------------------------------------------------------------------------------


def test_refusals() -> None:
    with pytest.raises(UnsupportedPair, match="disagreement of raters"):
        create_method("mrnet", describe(1))
    anonymous = DataDescription("tiny", 1, 1, 3, ("a", "b", "c"), "none", 2, (32, 32))
    with pytest.raises(UnsupportedPair, match="identity"):
        create_method("mrnet", anonymous)
    with pytest.raises(UserError, match=r"method.width"):
        create_method("mrnet", describe(), width=0)
    with pytest.raises(UserError, match="fits ResNet-34 alone"):
        create_method("mrnet", describe(), backbone_weights="w.pt", width=16)
    method = build(passes="separate").train()
    with pytest.raises(UserError, match="at least 2 images a batch"):
        method.training_step(make_batch(method, 1))


def test_a_batch_of_one_image_works_where_the_code_fails() -> None:
    method = build().train()
    loss, _ = method.training_step(make_batch(method, 1, (64, 64)))
    assert torch.isfinite(loss)


@pytest.mark.slow
def test_it_learns_whose_mask_is_wanted() -> None:
    """Three raters draw the same disc 3 pixels smaller, as it is, and 3 pixels larger."""
    torch.manual_seed(0)
    method = build(describe(size=(64, 64)), width=8, output_bias=-4.0).train()
    areas, wanted = areas_after_learning_whose_mask_is_wanted(method, 120)
    assert ((areas - wanted).abs() < 0.3 * wanted).all()
    assert areas[0] < areas[1] < areas[2]
