from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multirater.core.errors import UnsupportedPair, UserError
from multirater.core.options import options_of
from multirater.datasets.base import DataDescription
from multirater.methods import METHODS, create_method
from multirater.methods.phiseg import PHiSeg
from multirater.methods.phiseg_layers import ConvBnRelu, Double, GaussianMap, kl_maps, partial_sums
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SMALL: dict[str, Any] = {"widths": [4, 6, 8, 8], "latent_levels": 3, "encoder_convs": 1}
SIZE = 16


def description(raters: int = 3, **changes: Any) -> DataDescription:
    ids = tuple(str(r) for r in range(raters))
    return DataDescription("tiny", 1, raters=raters, rater_ids=ids, **{"size": (SIZE, SIZE), **changes})


def build(data: DataDescription | None = None, **options: Any) -> PHiSeg:
    torch.manual_seed(0)
    return create_method("phiseg", data or description(), **{**SMALL, **options})


def make_batch(size: int = 4, raters: int = 3, pixels: int = SIZE, seed: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.rand(size, 1, pixels, pixels, generator=generator),
        "masks": (torch.rand(size, raters, pixels, pixels, generator=generator) > 0.6).to(torch.uint8),
        "rater_valid": torch.ones(size, raters, dtype=torch.bool),
    }


def gradients(method: PHiSeg, batch: dict[str, Any], seed: int = 3) -> list[Tensor]:
    method.zero_grad()
    torch.manual_seed(seed)
    method.training_step(batch, "main")[0].backward()
    return [p.grad.clone() for p in method.parameters()]


def give_batch_statistics(method: PHiSeg, seed: int = 2) -> None:
    """Running statistics, scales and shifts as of a trained network, so that no sample looks like another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.3, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)


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


def noise_of(method: PHiSeg, rows: int, dtype: torch.dtype = torch.float32, size: int = SIZE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    sizes = method.latent_sizes(torch.zeros(1, 1, size, size))
    return [torch.randn(rows, method.latent, *hw, generator=generator).to(dtype) for hw in sizes]


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


def test_kl_properties() -> None:
    generator = torch.Generator().manual_seed(0)
    q, p = (
        GaussianMap(torch.randn(5, 2, 3, 3, generator=generator), torch.rand(5, 2, 3, 3, generator=generator) + 0.1)
        for _ in range(2)
    )
    assert (kl_maps(q, q).abs() < 1e-4).all()
    assert (kl_maps(q, p) > 0).all()
    narrow = GaussianMap(p.mean, torch.zeros_like(p.std))
    assert torch.isfinite(kl_maps(narrow, narrow)).all()
    half = GaussianMap(q.mean.bfloat16(), q.std.bfloat16())
    assert kl_maps(half, half).dtype == torch.float32


# -- batch norm ---------------------------------------------------------------------------------


def statistics(module: nn.Module) -> dict[str, Tensor]:
    return {name: b for name, b in module.named_buffers() if name.endswith(("running_mean", "running_var"))}


def test_running_statistics_are_those_of_two_whole_passes() -> None:
    method = build(bn_generative_update=True).double()
    plain = build(bn_generative_update=False).double()
    batch = make_batch()
    batch["image"] = batch["image"].double()
    torch.manual_seed(4)
    method.training_step(batch)
    torch.manual_seed(4)
    loss, _ = plain.training_step(batch)
    # the code's generative branch: the whole prior once more, on its own codes, and the likelihood on those
    _, codes = plain.prior.sample(plain.encode_prior(batch["image"]), plain._noise(batch["image"]))
    plain.likelihood(codes)
    wanted = statistics(plain)
    for name, value in statistics(method).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-12, atol=1e-14)
    loss.backward()  # the second pass has not disturbed the graph of the first


def test_generative_update_changes_no_gradient() -> None:
    with_update, without = build(), build(bn_generative_update=False)
    for a, b in zip(gradients(with_update, make_batch()), gradients(without, make_batch()), strict=True):
        torch.testing.assert_close(a, b)


def test_momentum_of_the_running_statistics() -> None:
    norms = [m for m in build(bn_momentum=0.1, bn_generative_update=False).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.momentum for m in norms} == {0.1}
    twice = [m.momentum for m in build(bn_momentum=0.1).prior.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert twice == pytest.approx([0.19] * 4)


def test_folded_batch_norm_is_batch_norm() -> None:
    layer = ConvBnRelu(3, 5).double()
    with torch.no_grad():
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(0.5, 2)
        layer.norm.weight.normal_()
        layer.norm.bias.normal_()
    layer.eval()
    x = torch.randn(2, 3, 6, 7).double()
    wanted = F.relu(layer.norm(layer.conv(x)))
    torch.testing.assert_close(layer(x), wanted)
    torch.testing.assert_close(layer.joined(layer.image_part(x[:, :2]), x[:, 2:]), wanted)
    layer.train()
    copied = copy.deepcopy(layer)
    torch.testing.assert_close(layer(x), F.relu(copied.norm(copied.conv(x))))
    torch.testing.assert_close(layer.joined(layer.image_part(x[:, :2]), x[:, 2:]), F.relu(copied.norm(copied.conv(x))))


# -- upsampling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2), (5, 4)])
def test_tf1_upsampling_is_its_stencil(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    height, width = shape
    rows = [x[:, :, [i // 2, min(-(-i // 2), height - 1)]].mean(2) for i in range(2 * height)]
    tall = torch.stack(rows, 2)
    columns = [tall[..., [i // 2, min(-(-i // 2), width - 1)]].mean(3) for i in range(2 * width)]
    wanted = torch.stack(columns, 3)
    got = Double("tf1")(x)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-14)
    weight = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad((got * weight).sum(), x)[0], torch.autograd.grad((wanted * weight).sum(), x)[0]
    )


def test_half_pixel_upsampling() -> None:
    x = torch.tensor([[[[0.0, 4.0]]]])
    assert Double("half_pixel")(x)[0, 0, 0].tolist() == [0, 1, 3, 4]
    assert Double("tf1")(x)[0, 0, 0].tolist() == [0, 2, 4, 4]


def test_partial_sums() -> None:
    y = [torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[[10.0]]]])]
    fine, coarse = partial_sums(y)
    assert fine.flatten().tolist() == [11, 12, 13, 14]
    assert coarse.item() == 10


# -- prediction ---------------------------------------------------------------------------------


def test_prediction_is_seeded_and_its_first_samples_do_not_depend_on_n() -> None:
    method = build()
    give_batch_statistics(method)
    images = torch.rand(3, 1, SIZE, 2 * SIZE)
    few = method.predict(images, 5, torch.Generator().manual_seed(7))
    many = method.predict(images, 40, torch.Generator().manual_seed(7))
    assert few.samples.shape == (3, 5, SIZE, 2 * SIZE)
    assert few.raters is None
    torch.testing.assert_close(many.samples[:, :5], few.samples)
    torch.testing.assert_close(few.mean, few.samples.mean(1))
    assert not torch.allclose(method.predict(images, 5, torch.Generator().manual_seed(8)).samples, few.samples)
    assert (few.samples.std(1) > 0).any()
    assert method.training


def test_chunks_change_no_number() -> None:
    images = torch.rand(2, 1, SIZE, SIZE)
    predictions = []
    for chunk in (1, 4, None):
        method = build(sample_chunk=chunk)
        give_batch_statistics(method)
        predictions.append(method.predict(images, 5, torch.Generator().manual_seed(0)).samples)
    torch.testing.assert_close(predictions[0], predictions[1])
    torch.testing.assert_close(predictions[0], predictions[2])


def test_images_are_answered_one_by_one() -> None:
    """The second image's samples do not depend on the first image."""
    method = build()
    give_batch_statistics(method)
    images = torch.rand(2, 1, SIZE, SIZE)
    other = torch.stack([torch.rand(1, SIZE, SIZE), images[1]])
    a, b = (method.predict(x, 3, torch.Generator().manual_seed(0)).samples[1] for x in (images, other))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("latent_levels", [1, 3, 4])
def test_samples_are_those_of_a_literal_loop(latent_levels: int) -> None:
    """One sample at a time: encoder, concatenation, unfolded norms, levels summed at full resolution, softmax."""
    method = build(description(classes=2), latent_levels=latent_levels).double()
    give_batch_statistics(method)
    image = torch.rand(1, 1, SIZE, SIZE, dtype=torch.float64)
    got = method.predict(image, 4, torch.Generator().manual_seed(5)).samples
    kept: list[list[Tensor]] = []
    sample = method.prior.sample
    method.prior.sample = lambda parts, noise: (kept.append(list(noise)), sample(parts, noise))[1]
    method.predict(image, 4, torch.Generator().manual_seed(5))
    method.eval()
    net, like, up = method.prior, method.likelihood, Double("tf1")

    def conv(layer: Any, x: Tensor) -> Tensor:
        return F.relu(layer.norm(layer.conv(x))) if isinstance(layer, ConvBnRelu) else layer(x)

    def run(layers: Any, x: Tensor) -> Tensor:
        for layer in layers:
            x = conv(layer, x)
        return x

    with torch.no_grad():
        for s in range(4):
            noise = [level[s : s + 1] for level in kept[0]]
            features, x = [], image - 0.5
            for level, layers in enumerate(net.encoder):
                x = run(layers, F.avg_pool2d(x, 2) if level else x)
                features.append(x)
            codes = {latent_levels - 1: net.top.mean(x) + F.softplus(net.top.std(x)) * noise[-1]}
            for level in range(latent_levels - 2, -1, -1):
                part = net.lower[level]
                u = run(part.raise_code, up(codes[level + 1]))
                h = conv(part.refine, conv(part.join, torch.cat([features[level + 4 - latent_levels], u], 1)))
                codes[level] = part.mean(h) + F.softplus(part.std(h)) * noise[level]
            logits: Any = 0
            for level in range(latent_levels - 1, -1, -1):
                raised = run(like.raise_code[level], codes[level])
                if level == latent_levels - 1:
                    x = raised
                else:
                    x = run(like.merge[level], torch.cat([raised, conv(like.from_coarser[level], up(x))], 1))
                logits = logits + F.interpolate(like.heads[level](x), size=(SIZE, SIZE), mode="nearest")
            torch.testing.assert_close(got[:, s], logits.softmax(1), rtol=1e-9, atol=1e-12)


def test_binary_probability_is_the_softmax() -> None:
    method = build()
    logits = torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(method.probabilities(logits), logits.softmax(1)[:, 1])


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


def test_several_image_channels() -> None:
    data = DataDescription("tiny", 3, raters=2, rater_ids=("1", "2"), size=(SIZE, SIZE))
    method = build(data)
    images = torch.rand(2, 3, SIZE, SIZE)
    assert method.predict(images, 2).samples.shape == (2, 2, SIZE, SIZE)


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


# -- options and refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "overlapping"), [(1, False), (2, False), (2, True)])
def test_output_bias_is_the_logit_of_foreground_in_every_partial_sum(classes: int, overlapping: bool) -> None:
    method = build(description(classes=classes, overlapping=overlapping), output_bias=-4.0)
    biases = [head.bias.detach() for head in method.likelihood.heads]
    assert not any(b.any() for b in biases[:-1])
    background = [] if overlapping else [0.0]
    assert biases[-1].tolist() == [*background, *[-4.0] * classes]


def test_initial_weights() -> None:
    method = build(widths=[64, 64], latent_levels=2)
    convs = [m for m in method.modules() if isinstance(m, nn.Conv2d)]
    assert all(not c.bias.any() for c in convs if c.bias is not None)
    weight = method.likelihood.merge[0][1].conv.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert weight.abs().max().item() <= 2.3 * (2 / (64 * 9)) ** 0.5


def test_calm_start_and_floor_of_the_deviations() -> None:
    """Small heads start near std softplus(0) everywhere; the authors' start has a KL that bright pixels blow up."""
    batch = make_batch()
    batch["image"][:, :, :2, :2] = 30.0
    wild, calm = build(), build(latent_scale=0.01)
    first, small = (m.training_step(batch)[1]["kl"].item() for m in (wild, calm))
    assert small < 0.01 * first
    head = calm.prior.top.std.weight
    torch.testing.assert_close(head, 0.01 * wild.prior.top.std.weight)
    floored = build(std_floor=0.5)
    images = batch["image"]
    for method, lowest in ((wild, 0.0), (floored, 0.5)):
        gaussians, _ = method.prior.sample(method.encode_prior(images), noise_of(method, 4))
        assert min(g.std.min().item() for g in gaussians) >= lowest
    with torch.no_grad():
        for method in (wild, floored):
            method.prior.top.std.bias.fill_(-40.0)
    assert wild.prior.encode(images).top.std.max() < 1e-6
    assert floored.prior.encode(images).top.std.min() >= 0.5


def test_fidelity_and_what_wins_over_it() -> None:
    def chosen(**options: Any) -> tuple[bool, str, int]:
        method = build(**options)
        return method.bn_generative_update, method.likelihood.up.kind, method.prior.top.mean.kernel_size[0]

    assert chosen() == (True, "tf1", 3)
    assert chosen(fidelity="plain") == (False, "half_pixel", 1)
    own = {"upsample": "tf1", "bn_generative_update": True, "top_mean_kernel": 3}
    assert chosen(fidelity="plain", **own) == (True, "tf1", 3)


def test_label_says_what_differs() -> None:
    def label(**options: Any) -> str:
        return PHiSeg.label({**{n: o.default for n, o in options_of(PHiSeg).items()}, **options})

    assert label() == "7_5"
    assert label(latent_levels=1, target="first") == "7_1, first rater only"
    assert label(bn_generative_update=False) == "7_5, one batch-norm update a step"
    assert label(fidelity="plain", widths=[8, 8], latent_levels=2) == "2_2, plain"


def test_refusals() -> None:
    with pytest.raises(UserError, match="latent_levels=5 is more than the 4"):
        build(latent_levels=5)
    with pytest.raises(UserError, match="16x20 pixels are no multiple of 8"):
        build().predict(torch.rand(1, 1, 16, 20))
    with pytest.raises(UserError, match=r"raise train\.batch_size"):
        build().training_step(make_batch(size=1, pixels=8))
    with pytest.raises(UserError, match=r"method\.widths = .* is not allowed"):
        build(widths=[])
    options = {name: option.default for name, option in options_of(PHiSeg).items()}
    with pytest.raises(UnsupportedPair, match="100x128 pixels are no multiple of 64"):
        PHiSeg.check_supported(description(size=(100, 128)), options)
    PHiSeg.check_supported(description(size=(128, 192), classes=3, has_missing=True), options)


def test_registry_entry_agrees_with_the_class() -> None:
    info = METHODS.entry("phiseg").info
    for key in ("gives_samples", "gives_raters", "needs_identity", "multiclass"):
        assert info[key] == getattr(PHiSeg, key)
    assert PHiSeg(description(), **SMALL).hparams.keys() == options_of(PHiSeg).keys()


@pytest.mark.slow
def test_learns_the_answers_of_one_image() -> None:
    """Overfitted on one image with four discs, samples vary and have a lower energy distance than their mean map."""
    torch.manual_seed(0)
    data = description(4, size=(32, 32))
    method = create_method("phiseg", data, widths=[8, 16, 24, 24], latent_levels=3, output_bias=-4.0, bn_momentum=0.1)
    row, column = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    distance = ((row - 16) ** 2 + (column - 16) ** 2).sqrt()
    masks = torch.stack([distance < radius for radius in (4, 6, 9, 12)])[None].to(torch.uint8)
    image = (distance / 23)[None, None]
    batch = {
        "image": image.expand(8, -1, -1, -1),
        "masks": masks.expand(8, -1, -1, -1),
        "rater_valid": torch.ones(8, 4, dtype=torch.bool),
    }
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
