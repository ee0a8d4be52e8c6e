from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from multirater.core.errors import UserError
from multirater.methods.backbones import build_backbone, channels_last, load_imagenet_weights, resize_nearest
from multirater.methods.vgg_unet import VggUNet
from torch import nn


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [("unet_small", 1, 487_696), ("unet_r34", 1, 24_429_952), ("unet_r34", 3, 24_436_224)],
)
def test_parameter_counts(name: str, channels: int, parameters: int) -> None:
    assert sum(p.numel() for p in build_backbone(name, channels).parameters()) == parameters


def test_resnet_encoder_has_torchvisions_parameters() -> None:
    encoder = build_backbone("unet_r34", 1).encoder
    assert sum(p.numel() for p in encoder.parameters()) == 21_278_400
    names = set(encoder.state_dict())
    assert {"conv1.weight", "layer2.0.downsample.0.weight", "layer4.2.bn2.running_var"} <= names


@pytest.mark.parametrize("name", ["unet_small", "unet_r34"])
@pytest.mark.parametrize("size", [(64, 64), (41, 50), (33, 96)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    trunk = build_backbone(name, 1).eval()
    with torch.no_grad():
        assert trunk(torch.rand(1, 1, *size)).shape == (1, trunk.out_channels, *size)


@pytest.mark.parametrize("size", [(41, 41), (64, 40)])
def test_vgg_unet_takes_any_size(size: tuple[int, int]) -> None:
    trunk = VggUNet(2, (8, 12, 16))
    assert trunk(torch.rand(2, 2, *size)).shape == (2, 8, *size)


def test_upsampling_to_the_skip_is_factor_two_for_divisible_sizes() -> None:
    x = torch.rand(1, 3, 5, 7)
    assert torch.equal(resize_nearest(x, (10, 14)), F.interpolate(x, scale_factor=2, mode="nearest"))


def test_images_of_a_batch_do_not_mix_in_eval_mode() -> None:
    trunk = build_backbone("unet_small", 1).eval()
    images = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(trunk(images)[1:2], trunk(images[1:2]))


def test_every_parameter_gets_a_gradient() -> None:
    for name in ("unet_small", "unet_r34"):
        trunk = build_backbone(name, 1)
        trunk(torch.rand(2, 1, 64, 64)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trunk.parameters())


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_imagenet_file(tmp_path: Path, suffix: str) -> None:
    rgb = build_backbone("unet_r34", 3).encoder.state_dict()
    state = {name: value.clone().contiguous() for name, value in rgb.items()}
    state["fc.weight"] = torch.zeros(1000, 512)
    path = tmp_path / f"resnet34.{suffix}"
    if suffix == "pt":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    grey = build_backbone("unet_r34", 1, weights_file=path).encoder.state_dict()
    torch.testing.assert_close(grey["conv1.weight"], rgb["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(grey["layer3.1.conv2.weight"], rgb["layer3.1.conv2.weight"])
    colour = build_backbone("unet_r34", 3, weights_file=path).encoder.state_dict()
    assert torch.equal(colour["conv1.weight"], rgb["conv1.weight"])
    with pytest.raises(UserError, match="stem for 3 channels"):
        build_backbone("unet_r34", 2, weights_file=path)


def test_imagenet_file_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.pt")
    with pytest.raises(UserError, match="not a resnet34"):
        build_backbone("unet_r34", 1, weights_file="~/part.pt")
    with pytest.raises(UserError, match="is no file"):
        build_backbone("unet_r34", 1, weights_file="~nobody-of-that-name/part.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "named tensors"),
        ({0: torch.zeros(3)}, "named tensors"),
        ({"state_dict": {"conv1.weight": torch.zeros(64, 3, 7, 7)}}, "named tensors"),
        ({"conv1.weight": torch.zeros(64)}, "1 dimensions instead of 4"),
    ],
)
def test_files_with_other_content_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=message):
        load_imagenet_weights(nn.Identity(), tmp_path / "other.pt", 1)


def test_wrong_files_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no file"):
        build_backbone("unet_r34", 1, weights_file=tmp_path / "absent.pt")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.pt")
    with pytest.raises(UserError, match="not a resnet34"):
        build_backbone("unet_r34", 1, weights_file=tmp_path / "part.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UserError, match="cannot be read"):
        build_backbone("unet_r34", 1, weights_file=tmp_path / "text.pt")
    with pytest.raises(UserError, match="did you mean 'unet_r34'"):
        build_backbone("unet_r43", 1)
    with pytest.raises(UserError, match="fixed by ResNet-34"):
        build_backbone("unet_r34", 1, widths=(16, 32))
    with pytest.raises(UserError, match="the first being 16"):
        build_backbone("unet_small", 1, widths=(8, 16))
    with pytest.raises(UserError, match="unet_r34"):
        build_backbone("unet_small", 1, weights_file="x.pt")


def test_channels_last_is_the_layout_of_module_to_and_leaves_other_tensors_alone():
    """Strides of tensors with an axis of length 1 decide the kernels, and so the bits of a training."""

    class WithFive(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.point = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 1, 1)
            self.five = nn.Parameter(torch.zeros(2, 3, 1, 4, 4))

    ours, theirs = channels_last(WithFive()), WithFive()
    theirs.first, theirs.point = (m.to(memory_format=torch.channels_last) for m in (theirs.first, theirs.point))
    assert [p.stride() for p in ours.parameters()] == [p.stride() for p in theirs.parameters()]
    assert ours.first.weight.stride() != WithFive().first.weight.stride()
