from __future__ import annotations

from typing import Any

import pytest
import torch
from multirater.benchmark.cards import type_text
from multirater.core.errors import UnsupportedPair, UserError
from multirater.core.options import options_of
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.dpersona import DPersona
from multirater.methods.experts import ExpertHeads, attend, flat_share, heads_fit
from multirater.methods.fusion import FusionHead
from torch import nn

SMALL: dict[str, Any] = {
    "backbone": "unet_small",
    "widths": [16, 16],
    "encoder_widths": [8, 8],
    "encoder_convs": 1,
    "head_widths": [4, 4],
    "bank_eval": 20,
    "bank_train": 10,
}


def describe(raters: int = 3, identity: str = "derived", **more: Any) -> DataDescription:
    return DataDescription(
        "tiny", 1, more.pop("classes", 1), raters, tuple("12345"[:raters]), identity, 2, (16, 16), **more
    )  # type: ignore[arg-type]


def build(raters: int = 3, **options: Any) -> DPersona:
    torch.manual_seed(0)
    return create_method("dpersona", describe(raters), **{**SMALL, **options})


def make_batch(size: int = 4, raters: int = 3) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(size, 1, 16, 16, generator=generator),
        "masks": (torch.rand(size, raters, 16, 16, generator=generator) > 0.6).to(torch.uint8),
        "rater_valid": torch.ones(size, raters, dtype=torch.bool),
    }


def prepare(method: DPersona, stage: str) -> list[nn.Parameter]:
    """Freeze as the suite does."""
    trained = list(method.parameters_for(stage))
    for parameter in method.parameters():
        parameter.requires_grad_(any(parameter is t for t in trained))
    return trained


@pytest.mark.parametrize(
    "options", [{}, {"dice": "image", "rater_draw": "image", "encoder_pool": True, "head_pool": True}]
)
def test_each_stage_trains_its_parameters_and_no_other(options: dict[str, Any]) -> None:
    method = build(**options)
    for stage in method.stages:
        method.zero_grad()
        trained = prepare(method, stage)
        loss, logged = method.training_step(make_batch(), stage)
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
        assert all(p.grad is None for p in method.parameters() if not any(p is t for t in trained))
        assert all(not torch.as_tensor(v).requires_grad for v in logged.values())
    assert sum(1 for _ in method.parameters_for("diverse")) + sum(
        1 for _ in method.parameters_for("personalised")
    ) == len(list(method.parameters()))


def test_stage_2_leaves_gradients_off_even_if_nobody_froze_the_rest() -> None:
    method = build()
    loss, _ = method.training_step(make_batch(), "personalised")
    loss.backward()
    trained = {id(p) for p in method.parameters_for("personalised")}
    assert all((p.grad is not None) == (id(p) in trained) for p in method.parameters())
    assert all(p.requires_grad for p in method.parameters())


def test_stage_2_does_not_move_stage_1() -> None:
    method = build()
    before = {name: value.clone() for name, value in method.trunk.state_dict().items()}
    method.training_step(make_batch(), "personalised")
    assert method.trunk.training
    assert all(torch.equal(before[name], value) for name, value in method.trunk.state_dict().items())
    faithful = build(fidelity="authors")
    faithful.training_step(make_batch(), "personalised")
    assert not torch.equal(before["down.0.0.1.running_mean"], faithful.trunk.state_dict()["down.0.0.1.running_mean"])


def test_fidelity_sets_what_is_not_given() -> None:
    default, authors = build(), build(fidelity="authors")
    assert (default.query_relu, default.bn_train_in_stage2, default.prior.log_std_clamp) == (False, False, 10.0)
    assert (authors.query_relu, authors.bn_train_in_stage2, authors.prior.log_std_clamp) == (True, True, None)
    mixed = build(fidelity="authors", query_relu=False, log_std_clamp=3.0)
    assert (mixed.query_relu, mixed.bn_train_in_stage2, mixed.prior.log_std_clamp) == (False, True, 3.0)


def test_one_stage_needs_no_identity() -> None:
    with pytest.raises(UnsupportedPair, match="identity"):
        create_method("dpersona", describe(identity="none"), **SMALL)
    method = create_method("dpersona", describe(identity="none"), stages="diverse", **SMALL)
    assert method.stages_for({"stages": "diverse"}) == ("diverse",)
    assert method.stages_for({"stages": "both"}) == ("diverse", "personalised")
    assert method.predict(torch.rand(1, 1, 16, 16), 2).raters is None
    with pytest.raises(UnsupportedPair, match="classes"):
        create_method("dpersona", describe(classes=3), stages="diverse")


def test_rater_maps_appear_with_stage_2_and_survive_saving() -> None:
    method = build()
    image = torch.rand(2, 1, 16, 16)
    method.training_step(make_batch(), "diverse")
    before = method.predict(image, 4, torch.Generator().manual_seed(3))
    assert before.raters is None
    method.training_step(make_batch(), "personalised")
    after = method.predict(image, 4, torch.Generator().manual_seed(3))
    assert after.raters is not None
    assert after.raters.shape == (2, 3, 16, 16)
    assert torch.equal(before.samples, after.samples)
    loaded = build()
    loaded.load_state_dict(method.state_dict())
    again = loaded.predict(image, 4, torch.Generator().manual_seed(3))
    assert torch.equal(again.raters, after.raters)


def test_prediction_does_not_depend_on_the_number_of_samples() -> None:
    method = build()
    method.personalised_trained.fill_(True)
    image = torch.rand(3, 1, 18, 21)
    few = method.predict(image, 5, torch.Generator().manual_seed(7))
    many = method.predict(image, 37, torch.Generator().manual_seed(7))
    torch.testing.assert_close(many.samples[:, :5], few.samples)
    assert torch.equal(many.raters, few.raters)
    torch.testing.assert_close(few.mean, few.samples.mean(1))
    assert not torch.equal(method.predict(image, 5, torch.Generator().manual_seed(8)).samples, few.samples)
    for output in (many.samples, many.raters):
        assert ((output >= 0) & (output <= 1)).all()


def test_any_number_of_raters_and_missing_ones() -> None:
    for raters in (1, 2, 5):
        method = build(raters)
        batch = make_batch(raters=raters)
        if raters > 1:
            batch["rater_valid"][0, 0] = False
        for stage in method.stages:
            torch.manual_seed(0)
            loss, _ = method.training_step(batch, stage)
            assert torch.isfinite(loss)
            changed = {**batch, "masks": batch["masks"].clone()}
            changed["masks"][~batch["rater_valid"]] = 1
            torch.manual_seed(0)
            assert torch.equal(method.training_step(changed, stage)[0], loss)


def test_grouped_heads_equal_separate_networks() -> None:
    heads = ExpertHeads(3, 16, (8, 4, 6), final_relu=True).double().eval()
    features = torch.randn(2, 16, 24, 24).double()
    queries = heads(features)
    for rater in range(3):
        x = features
        for index, conv in enumerate(heads.convs):
            if index in (2, 4):
                x = nn.functional.avg_pool2d(x, 2)
            rows = slice(rater * conv.out_channels // 3, (rater + 1) * conv.out_channels // 3)
            x = torch.relu(nn.functional.conv2d(x, conv.weight[rows], conv.bias[rows], padding=3))
        torch.testing.assert_close(queries[:, rater], x.mean((2, 3)))


def test_attention_stays_in_the_hull_of_the_bank() -> None:
    bank = torch.randn(2, 50, 6)
    codes, attention = attend(torch.randn(2, 4, 6), bank)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4))
    assert (codes <= bank.amax(1, keepdim=True)).all()
    mean_code, _ = attend(torch.zeros(2, 4, 6), bank)
    torch.testing.assert_close(mean_code, bank.mean(1, keepdim=True).expand(-1, 4, -1))
    queries = torch.randn(2, 4, 6)
    queries[:, 1] = 0
    assert flat_share(queries, bank) == 0.25


@pytest.mark.parametrize("chunk", [1, 3, None])
def test_extremes_have_values_and_gradients_of_max_and_min(chunk: int | None) -> None:
    torch.manual_seed(0)
    fusion = FusionHead(5, 3, 7, sample_chunk=chunk).double()
    features = torch.randn(2, 5, 6, 4, dtype=torch.float64, requires_grad=True)
    codes = torch.randn(2, 8, 3, dtype=torch.float64, requires_grad=True)
    logits = fusion(features, codes)
    wanted = torch.stack([logits.max(1).values, logits.min(1).values], 1)
    got = fusion.extremes(features, codes)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    weight = torch.randn_like(got)
    inputs = [features, codes, *fusion.parameters()]
    gradients = torch.autograd.grad((got * weight).sum(), inputs)
    references = torch.autograd.grad((wanted * weight).sum(), inputs)
    for one, other in zip(gradients, references, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(fusion.extremes(features, codes), wanted, rtol=0, atol=1e-12)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UserError, match=r"method\.dice"):
        build(dice="pixel")
    with pytest.raises(UserError, match=r"did you mean 'bound_weight'"):
        build(bound_weigth=2.0)
    with pytest.raises(UserError, match=r"method\.bound_samples"):
        build(bound_samples=0)


@pytest.mark.parametrize(
    ("option", "value"),
    [("encoder_widths", [0]), ("encoder_widths", [-1]), ("encoder_widths", []), ("head_widths", [0]), ("widths", [])],
)
def test_widths_below_one_are_refused(option: str, value: list[int]) -> None:
    with pytest.raises(UserError, match=rf"method\.{option} = .* is not allowed"):
        build(**{option: value})


def test_width_options_print_a_readable_type() -> None:
    types = {name: type_text(option.type) for name, option in options_of(DPersona).items()}
    assert types["encoder_widths"] == "[int ≥ 1, …] length ≥ 1"
    assert types["widths"] == "[int ≥ 1, …] length ≥ 1 | null"
    assert types["head_widths"] == "[int ≥ 1, …]"


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("widths", [(), (2,), (2, 2), (2, 2, 2)])
def test_heads_fit_where_they_run(padding: int, pool: bool, widths: tuple[int, ...]) -> None:
    for side in (3, 4, 5, 8, 9, 16, 23, 24, 32, 56):
        heads = ExpertHeads(1, 2, (*widths, 2), padding=padding, pool_input=pool).eval()
        try:
            heads(torch.zeros(1, 2, side + 2, side))
            runs = True
        except RuntimeError:
            runs = False
        assert heads_fit((side + 2, side), len(widths) + 1, padding, pool) == runs


def test_heads_that_shrink_to_nothing_are_refused_before_training() -> None:
    options = {**SMALL, "head_padding": 0, "head_pool": True, "head_widths": [8, 8]}
    with pytest.raises(UnsupportedPair, match=r"16x16 pixels .* head_padding=0, head_pool=true, head_widths=\[8, 8\]"):
        create_method("dpersona", describe(), **options)
    assert create_method("dpersona", describe(), stages="diverse", **options).heads is None


def test_options_are_kept() -> None:
    options = {**SMALL, "latent": 4}
    kept = DPersona(describe(), **options).hparams
    assert {name: kept[name] for name in options} == options
    assert kept.keys() == options_of(DPersona).keys()


def test_training_covers_the_raters() -> None:
    """A few steps on one image: samples differ, and maximum and minimum approach union and intersection."""
    method = build(dice="image", rater_draw="image", bound_weight=2.0, norm_weight=0.0, latent_bias="small")
    row, column = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    distance = ((row - 8) ** 2 + (column - 8) ** 2).sqrt()
    masks = torch.stack([distance < radius for radius in (3, 4.5, 6)]).to(torch.uint8)
    batch = {
        "image": (distance / 12).expand(6, 1, -1, -1),
        "masks": masks.expand(6, -1, -1, -1),
        "rater_valid": torch.ones(6, 3, dtype=torch.bool),
    }
    prepare(method, "diverse")
    optimiser = torch.optim.Adam(method.parameters_for("diverse"), 5e-3)
    bounds = []
    for _ in range(150):
        optimiser.zero_grad()
        loss, logged = method.training_step(batch, "diverse")
        loss.backward()
        optimiser.step()
        bounds.append(float(logged["bound"]))
    assert bounds[-1] < 0.5 * bounds[0]
    samples = method.predict(batch["image"][:1], 50, torch.Generator().manual_seed(0)).samples[0] > 0.5
    areas = samples.sum((1, 2)).float()
    assert areas.std() > 5
    assert areas.min() < masks[1].sum() < areas.max()
