"""Parts of PHiSeg's networks: running statistics of batch norm, upsampling, partial sums, divergences."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from multirater.methods.phiseg_layers import ConvBnRelu, Double, GaussianMap, kl_maps, partial_sums
from phiseg_support import build, gradients, make_batch
from torch import Tensor, nn

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


# -- Gaussians ----------------------------------------------------------------------------------


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
