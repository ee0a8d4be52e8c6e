from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from learning_support import areas_after_learning_whose_mask_is_wanted
from multirater.core.errors import UnsupportedPair, UserError
from multirater.datasets.base import DataDescription
from multirater.methods import chunks, create_method
from multirater.methods.tab import TAB, LowRankGaussian
from multirater.methods.tab_layers import FrozenBatchNorm2d, freeze_batch_norms
from multirater.methods.targets import output_channels, target_channels
from torch import Tensor, nn

SMALL: dict[str, Any] = {"width": 4, "encoder_blocks": [1, 1, 1, 1], "heads": 4, "rank": 3}


def describe(raters: int = 3, classes: int = 1, overlapping: bool = False, **more: Any) -> DataDescription:
    ids = tuple(str(r) for r in range(raters))
    size = more.pop("size", (64, 64))
    return DataDescription("tiny", 1, classes, raters, ids, "derived", 2, size, overlapping=overlapping, **more)


def build(data: DataDescription | None = None, **options: Any) -> TAB:
    torch.manual_seed(0)
    return create_method("tab", data or describe(), **{**SMALL, **options})


def make_batch(method: TAB, count: int = 4, size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
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


# -- a literal reading of the released forward pass -------------------------------------------------


def literal_forward(method: TAB, images: Tensor) -> list[torch.distributions.LowRankMultivariateNormal]:
    """Library distributions of every query: decoded one query after the other, skip connections repeated."""
    taps, bottleneck = method.attend(images)
    found = []
    for query in range(bottleneck.shape[1]):
        x = bottleneck[:, query]
        for level, tap in zip(method.decoder.levels, (taps[3], taps[2], taps[1], taps[0]), strict=True):
            x = level.norm(F.relu(torch.cat([level.up(x), level.skip(tap)], 1)))
        x = F.relu(method.norm(method.decoder.last(x)))
        mean, diagonal = method.mean_head(x).flatten(1), method.diagonal_head(x).abs().flatten(1) + 1e-5
        factor = method.factor_head(x)
        if method.factor_layout == "reinterpreted":
            factor = factor.contiguous().view(len(x), mean.shape[1], method.rank)
        else:
            channels = [
                factor[:, c * method.rank : (c + 1) * method.rank].flatten(2).transpose(1, 2)
                for c in range(method.outputs)
            ]
            factor = torch.cat(channels, 1)
        found.append(torch.distributions.LowRankMultivariateNormal(mean, factor, diagonal))
    return found


@torch.no_grad()
@pytest.mark.parametrize("fidelity", ["default", "authors"])
@pytest.mark.parametrize("data", [DATA["binary"], DATA["nested"]], ids=["binary", "nested"])
def test_distributions_are_those_of_the_literal_loop(data: DataDescription, fidelity: str) -> None:
    method = build(data, fidelity=fidelity).double().eval()
    images = torch.rand(2, 1, 64, 64, dtype=torch.float64)
    got, literal = method(images), literal_forward(method, images)
    for query, wanted in enumerate(literal):
        each = got[:, query]
        torch.testing.assert_close(each.mean.flatten(1), wanted.mean)
        torch.testing.assert_close(each.factor.flatten(1, 3), wanted.cov_factor)
        torch.testing.assert_close(each.variance.flatten(1), wanted.variance)
    assert (got.mean[:, 0] - got.mean[:, 1]).abs().max() > 0


def test_loss_is_that_of_the_literal_loop() -> None:
    method = build(DATA["nested"], rater_weight=1.25).double().train()
    batch = make_batch(method)
    masks, valid = target_channels(batch["masks"], method.data), batch["rater_valid"]
    distributions = method(batch["image"].double())
    shared, own = torch.randn(2, 4, 3, 3).double(), torch.randn(2, 4, 3, 2, 64, 64).double()
    loss, _ = method.sampled_loss(distributions, masks, valid, shared, own)
    wanted = torch.zeros(())
    for rater in range(3):
        for part, query, weight in ((0, 0, 1.0), (1, 1 + rater, 1.25)):
            d = distributions[:, query]
            low = (d.factor * shared[part, :, rater, None, None, None, :]).sum(-1)
            sample = d.mean + low + d.diagonal.sqrt() * own[part, :, rater]
            wanted = wanted + weight * F.binary_cross_entropy_with_logits(sample, masks[:, rater].double())
    torch.testing.assert_close(loss, wanted.double())


def test_reinterpreted_factors_are_scattered() -> None:
    """The code's memory layout: pixel p, factor j holds value p·k + j of the factor head's flat output."""
    method = build(DATA["nested"], fidelity="authors").eval()
    with torch.no_grad():
        nn.init.zeros_(method.factor_head.weight)
        method.factor_head.bias.copy_(torch.arange(6.0))  # 2 classes, rank 3: channel number as value
        factor = method(torch.rand(1, 1, 32, 32)).factor[0, 0]
    flat = torch.arange(6.0).repeat_interleave(32 * 32)
    assert torch.equal(factor.flatten(), flat)
    own = build(DATA["nested"]).eval()
    with torch.no_grad():
        nn.init.zeros_(own.factor_head.weight)
        own.factor_head.bias.copy_(torch.arange(6.0))
        factor = own(torch.rand(1, 1, 32, 32)).factor[0, 0]
    assert torch.equal(factor[0, 5, 7], torch.tensor([0.0, 1, 2]))
    assert torch.equal(factor[1, 30, 2], torch.tensor([3.0, 4, 5]))


# -- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fidelity", ["default", "authors"])
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_every_optimised_parameter_gets_a_gradient(data: DataDescription, fidelity: str) -> None:
    method = build(data, fidelity=fidelity).train()
    loss, logged = method.training_step(make_batch(method, size=(64, 64)))
    assert torch.isfinite(loss)
    loss.backward()
    names = {id(p): n for n, p in method.named_parameters()}
    optimised = list(method.parameters_for("main"))
    assert [names[id(p)] for p in optimised if p.grad is None or not torch.isfinite(p.grad).all()] == []
    still = {names[id(p)] for p in optimised if p.ndim > 1 and p.grad.abs().sum() == 0}
    # queries start at 0: their self-attention is a bias that is itself 0 at the start (see `DecoderLayer`)
    dead = {f"transformer.decoder.attention.{n}.weight" for n in ("in_proj", "out_proj")}
    assert {n.replace("in_proj_weight", "in_proj.weight") for n in still} == dead
    assert set(logged) == {"consensus", "raters"}
    assert all(not torch.as_tensor(v).requires_grad for v in logged.values())


def test_fidelity_sets_what_is_not_given() -> None:
    def settings(**options: Any) -> tuple[Any, ...]:
        m = build(**options)
        return m.encoder.raw_stem, m.factor_layout, m.draw

    assert settings() == (False, "channels", "low_rank")
    assert settings(fidelity="authors") == (True, "reinterpreted", "independent_variance")
    assert settings(fidelity="authors", draw="low_rank", stem_tap="relu") == (False, "reinterpreted", "low_rank")
    known = {"width": 64, "backbone_weights": None, "sample_from": "consensus", "fidelity": "default"}
    assert TAB.label(known) == "from scratch"
    assert TAB.label({**known, "fidelity": "authors", "backbone_weights": "x"}) == "fidelity authors"
    assert TAB.label({**known, "width": 16, "sample_from": "raters"}) == "width 16, samples of random raters"


def test_the_raw_stem_has_negative_values() -> None:
    images = torch.randn(2, 1, 32, 32)
    assert build(stem_tap="raw").encoder(images)[0].min() < 0
    assert build(stem_tap="relu").encoder(images)[0].min() == 0


def test_frozen_norms_keep_statistics_and_are_no_parameters() -> None:
    trained = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sequential(nn.BatchNorm2d(3)))
    trained(torch.randn(8, 1, 9, 9))
    nn.init.uniform_(trained[1][0].weight)
    nn.init.uniform_(trained[1][0].bias)
    x = torch.randn(4, 1, 9, 9)
    wanted = trained.eval()(x)
    freeze_batch_norms(trained)
    assert isinstance(trained[1][0], FrozenBatchNorm2d)
    torch.testing.assert_close(trained.train()(x), wanted)
    assert [n for n, _ in trained.named_parameters()] == ["0.weight", "0.bias"]
    method = build(encoder_norm="frozen", train_stem=False)
    before = {k: v.clone() for k, v in method.encoder.state_dict().items() if "running" in k}
    method.train().training_step(make_batch(method))
    assert before
    assert all(torch.equal(v, method.encoder.state_dict()[k]) for k, v in before.items())
    fixed = {n for n, p in method.named_parameters() if all(p is not q for q in method.parameters_for("main"))}
    assert fixed == {f"encoder.net.{n}.weight" for n in ("conv1", "layer1.0.conv1", "layer1.0.conv2")}


def test_weights_freeze_norm_and_stem(tmp_path: Any) -> None:
    from safetensors.torch import save_file

    source = TAB(describe(), heads=8).encoder.net
    state = {name: value.contiguous() for name, value in source.state_dict().items()}
    state["bn1.running_mean"] += 0.5
    save_file(state, tmp_path / "weights.safetensors")
    method = TAB(describe(), backbone_weights=str(tmp_path / "weights.safetensors"))
    assert isinstance(method.encoder.net.bn1, FrozenBatchNorm2d)
    assert (method.encoder.net.bn1.running_mean == 0.5).all()
    torch.testing.assert_close(method.encoder.net.layer4[2].conv2.weight, source.layer4[2].conv2.weight)
    assert len(list(method.parameters_for("main"))) < len(list(method.parameters()))


def test_output_bias_starts_near_an_empty_mask() -> None:
    prediction = build(output_bias=-6.0).predict(torch.rand(2, 1, 32, 32), 3)
    assert prediction.mean.mean() < 0.1
    assert prediction.samples.mean() < 0.2


# -- missing raters -----------------------------------------------------------------------------


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_the_mask_of_a_missing_rater_changes_nothing(data: DataDescription) -> None:
    method = build(data).train()
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


def test_a_missing_rater_gets_no_gradient_and_keeps_the_scale() -> None:
    method = build()
    masks = torch.ones(2, 3, 1, 8, 8, dtype=torch.uint8)
    shape = (2, 4, 1, 8, 8)
    mean = torch.zeros(shape, requires_grad=True)
    still = LowRankGaussian(mean, torch.zeros(*shape, 3), torch.full(shape, 1e-12))
    noise = torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 1, 8, 8)
    valid = torch.tensor([[True, False, True], [True, True, True]])
    loss, _ = method.sampled_loss(still, masks, valid, *noise)
    loss.backward()
    assert loss.item() == pytest.approx(6 * 0.693147, abs=1e-4)
    moved = mean.grad.abs().sum((2, 3, 4)) > 0
    assert moved.tolist() == [[True, True, False, True], [True, True, True, True]]


def test_an_image_without_any_rater_does_not_break_a_step() -> None:
    method = build().train()
    batch = make_batch(method)
    batch["rater_valid"][:] = False
    loss, _ = method.training_step(batch)
    assert loss == 0
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())


# -- prediction ---------------------------------------------------------------------------------


@pytest.mark.parametrize("raters", [1, 2, 20])
@pytest.mark.parametrize("size", [(64, 64), (33, 50), (9, 40)])
def test_any_number_of_raters_and_any_size(raters: int, size: tuple[int, int]) -> None:
    method = build(describe(raters, size=size))
    batch = make_batch(method, 2, size)
    loss, _ = method.train().training_step(batch)
    assert torch.isfinite(loss)
    prediction = method.predict(batch["image"], 7, torch.Generator().manual_seed(0))
    assert prediction.samples.shape == (2, 7, *size)
    assert prediction.raters.shape == (2, raters, *size)
    assert prediction.mean.shape == (2, *size)
    for maps in (prediction.samples, prediction.raters, prediction.mean):
        assert torch.isfinite(maps).all()
        assert 0 <= maps.min() <= maps.max() <= 1
    assert method.training  # predict puts the mode back


@pytest.mark.parametrize("name", ["nested", "one_nested", "exclusive"])
def test_several_classes(name: str) -> None:
    method = build(DATA[name])
    channels = output_channels(DATA[name])
    prediction = method.predict(torch.rand(2, 1, 32, 32), 5)
    assert prediction.samples.shape == (2, 5, channels, 32, 32)
    assert prediction.raters.shape == (2, 3, channels, 32, 32)
    assert prediction.mean.shape == (2, channels, 32, 32)
    if name == "exclusive":
        torch.testing.assert_close(prediction.samples.sum(2), torch.ones(2, 5, 32, 32))
        torch.testing.assert_close(prediction.mean.sum(1), torch.ones(2, 32, 32))


@pytest.mark.parametrize("sample_from", ["consensus", "raters"])
@pytest.mark.parametrize("draw", ["low_rank", "independent_variance"])
def test_samples_have_a_prefix_property_and_a_seed(
    sample_from: str, draw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = build(DATA["nested"], sample_from=sample_from, draw=draw)
    images = torch.rand(2, 1, 32, 32)
    few = method.predict(images, 5, torch.Generator().manual_seed(7))
    many = method.predict(images, 37, torch.Generator().manual_seed(7))
    torch.testing.assert_close(many.samples[:, :5], few.samples)
    assert torch.equal(many.raters, few.raters)
    assert torch.equal(many.mean, few.mean)
    assert torch.equal(few.samples, method.predict(images, 5, torch.Generator().manual_seed(7)).samples)
    assert not torch.equal(few.samples, method.predict(images, 5, torch.Generator().manual_seed(8)).samples)
    assert (many.samples[:, 0] - many.samples[:, 1]).abs().max() > 0
    monkeypatch.setattr(chunks, "_CPU_BYTES", 1)  # one query and one sample at a time
    piecewise = method.predict(images, 37, torch.Generator().manual_seed(7))
    torch.testing.assert_close(piecewise.samples, many.samples)
    torch.testing.assert_close(piecewise.raters, many.raters)


def set_distributions(method: TAB, means: list[float], factor: float, diagonal: float) -> None:
    """Constant distributions: means per query cannot be set in the heads, so the pass is replaced."""

    def constant(image: Tensor) -> LowRankGaussian:
        shape = (1, len(means), 1, *image.shape[-2:])
        mean = torch.tensor(means).view(1, -1, 1, 1, 1).expand(shape)
        return LowRankGaussian(mean, torch.full((*shape, method.rank), factor), torch.full(shape, diagonal))

    method._distributions = constant  # type: ignore[method-assign]


def test_low_rank_samples_are_coherent_and_independent_ones_are_not() -> None:
    images = torch.rand(1, 1, 32, 32)
    spread = {}
    for draw in ("low_rank", "independent_variance"):
        method = build(draw=draw)
        set_distributions(method, [0.0] * 4, 0.5, 1e-8)
        logits = method.predict(images, 200, torch.Generator().manual_seed(0)).samples.logit()[0]
        spread[draw] = (logits.std(0).mean().item(), logits.std((1, 2)).mean().item())
    # variance 3 / 4: √0.75 between samples and nothing within one; the code's draw has 0.75 within
    assert spread["low_rank"][0] == pytest.approx(0.75**0.5, rel=0.1)
    assert spread["low_rank"][1] < 0.01
    assert spread["independent_variance"][1] == pytest.approx(0.75, rel=0.05)


def test_samples_of_raters_come_from_each_about_equally() -> None:
    method = build(sample_from="raters")
    set_distributions(method, [50.0, -4.0, 0.0, 4.0], 0.0, 1e-8)
    samples = method.predict(torch.rand(1, 1, 16, 16), 600, torch.Generator().manual_seed(0)).samples[0, :, 0, 0]
    shares = [(samples < 0.1).float().mean(), ((samples > 0.4) & (samples < 0.6)).float().mean()]
    assert [s.item() for s in shares] == pytest.approx([1 / 3, 1 / 3], abs=0.06)
    assert samples.max() < 0.99  # never the consensus


def test_double_precision_and_state(tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    method = build(encoder_norm="frozen").train()
    method.training_step(make_batch(method))
    save_file({k: v.contiguous() for k, v in method.state_dict().items()}, tmp_path / "weights.safetensors")
    other = create_method("tab", describe(), **SMALL, encoder_norm="frozen")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    images = torch.rand(1, 1, 32, 32)
    single = method.predict(images, 3, torch.Generator().manual_seed(0))
    assert torch.equal(single.samples, other.predict(images, 3, torch.Generator().manual_seed(0)).samples)
    double = method.double().predict(images.double(), 3, torch.Generator().manual_seed(0))
    assert double.samples.dtype == torch.float64
    torch.testing.assert_close(double.samples.float(), single.samples, atol=1e-4, rtol=1e-3)


# -- refusals -----------------------------------------------------------------------------------


def test_refusals() -> None:
    anonymous = DataDescription("tiny", 1, 1, 3, ("a", "b", "c"), "none", 2, (32, 32))
    with pytest.raises(UnsupportedPair, match="identity"):
        create_method("tab", anonymous)
    with pytest.raises(UnsupportedPair, match="one position at its bottleneck"):
        create_method("tab", describe(size=(32, 20)), **SMALL)
    with pytest.raises(UserError, match="does not divide the token size 16"):
        create_method("tab", describe(), width=4, heads=3)
    with pytest.raises(UserError, match=r"method\.width"):
        create_method("tab", describe(), width=6)
    with pytest.raises(UserError, match="fits ResNet-34 alone"):
        create_method("tab", describe(), backbone_weights="w.pt", width=16)


@pytest.mark.slow
def test_it_learns_whose_mask_is_wanted() -> None:
    """Three raters draw the same disc 3 pixels smaller, as it is, and 3 pixels larger."""
    options = {"width": 8, "heads": 8, "rank": 7, "attention_softmax": "per_head", "output_bias": -4.0}
    method = build(**options).train()
    areas, wanted = areas_after_learning_whose_mask_is_wanted(method, 360)
    assert ((areas - wanted).abs() < 0.3 * wanted).all()
    assert areas[0] < areas[1] < areas[2]
