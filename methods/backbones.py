"""U-Net trunks that end in a full-resolution feature map of 16 channels; the methods add their own heads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.errors import UserError, unknown

FEATURES = 16
Width = Annotated[int, Field(ge=1)]  # channels of a level or block, as the type of an option
Widths = Annotated[tuple[Width, ...], Field(min_length=1)]
T = TypeVar("T", bound=nn.Module)
Drop = Callable[[Tensor], Tensor]


def _keep(x: Tensor) -> Tensor:
    return x


class Backbone(nn.Module):
    """A trunk: B×C×H×W images to B×``out_channels``×H×W features.

    Its forward pass is `shallow`, `deep` and `decode` one after the other, for methods that repeat a part (several
    decoders, several passes with dropout). The list of levels runs from full resolution down.
    """

    out_channels: int = FEATURES

    def shallow(self, image: Tensor) -> list[Tensor]:
        """Levels above the two deepest ones."""
        raise NotImplementedError

    def deep(self, levels: list[Tensor], drop: Drop = _keep) -> list[Tensor]:
        """All levels; `drop` is applied to the outputs of the two deepest."""
        raise NotImplementedError

    def decoder_blocks(self) -> nn.ModuleList:
        """The decoder's blocks, deepest first; what `decode` takes as `blocks`."""
        raise NotImplementedError

    def decode(
        self, levels: list[Tensor], size: Sequence[int], drop: Drop = _keep, blocks: nn.ModuleList | None = None
    ) -> Tensor:
        """Features at full resolution `size`; `drop` is applied to the outputs of the first two blocks."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        return self.decode(self.deep(self.shallow(image)), image.shape[-2:])


def build_backbone(
    name: str, channels: int, widths: Sequence[int] | None = None, weights_file: str | Path | None = None
) -> Backbone:
    """A trunk that maps B×C×H×W images to B×16×H×W features; its ``out_channels`` is 16.

    Any H and W are accepted: a decoder level is upsampled to the size of its skip connection, which for sizes
    divisible by the total stride is the usual factor 2.

    Args:
        name: ``unet_small`` (0.49 M parameters) or ``unet_r34`` (ResNet-34 U-Net, 24.4 M).
        channels: image channels C.
        widths: channels of the levels of ``unet_small``, default 16, 32, 64, 128.
        weights_file: local file with ImageNet weights for the encoder of ``unet_r34``, see `load_imagenet_weights`.

    Raises:
        UserError: unknown name, or an argument that the trunk does not have.
    """
    if name == "unet_small":
        if weights_file is not None:
            raise UserError(
                f"backbone_weights={str(weights_file)!r} is for the backbone unet_r34, but unet_small was asked for; "
                f"leave it out or set method.backbone=unet_r34"
            )
        return channels_last(SmallUNet(channels, tuple(widths) if widths else (16, 32, 64, 128)))
    if name == "unet_r34":
        if widths:
            raise UserError(
                f"widths={list(widths)} were given, but the widths of unet_r34 are fixed by ResNet-34; leave them out"
            )
        trunk = ResNet34UNet(channels)
        if weights_file is not None:
            load_imagenet_weights(trunk.encoder, Path(weights_file), channels)
        return channels_last(trunk)
    raise unknown("backbone", name, ("unet_small", "unet_r34"))


def conv_bn_relu(inputs: int, outputs: int) -> nn.Sequential:
    """3×3 convolution without bias, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def channels_last(module: T) -> T:
    """`module` with its convolutions in channels-last layout: 10 to 30 % faster on CPUs, the same numbers.

    The weights carry the layout because an image of one channel cannot: its two layouts have the same strides.
    Only tensors with 4 axes have such a layout; ``Module.to`` refuses a module that also holds one with 5.
    """
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(tensor.device, memory_format=torch.channels_last)
    return module


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv_bn_relu(inputs, outputs), conv_bn_relu(outputs, outputs))


def resize_nearest(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-neighbour upsampling to ``size``; the same numbers as factor 2 where the size is exactly double."""
    return F.interpolate(x, size=tuple(size), mode="nearest")


class SmallUNet(Backbone):
    """Two [conv 3×3, BN, ReLU] a level, max-pooling, nearest upsampling, skip concatenation, no head.

    Args:
        channels: image channels.
        widths: channels of the levels, from full resolution down; the first must be 16, which is also the output.
    """

    def __init__(self, channels: int, widths: Sequence[int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        if len(widths) < 2 or widths[0] != FEATURES:
            raise UserError(
                f"widths={list(widths)} of unet_small are not allowed: give at least two, the first being {FEATURES}"
            )
        self.down = nn.ModuleList(
            double_conv(inputs, outputs) for inputs, outputs in zip((channels, *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList(double_conv(deep + skip, skip) for deep, skip in _pairs_from_below(widths))
        _init_relu_convs(self)

    def shallow(self, image: Tensor) -> list[Tensor]:
        return self._down([], image, 0, max(1, len(self.down) - 2), _keep)

    def deep(self, levels: list[Tensor], drop: Drop = _keep) -> list[Tensor]:
        return self._down(levels, levels[-1], len(levels), len(self.down), drop)

    def _down(self, levels: list[Tensor], x: Tensor, first: int, last: int, drop: Drop) -> list[Tensor]:
        levels = list(levels)
        for level in range(first, last):
            x = drop(self.down[level](F.max_pool2d(x, 2, ceil_mode=True) if level else x))
            levels.append(x)
        return levels

    def decoder_blocks(self) -> nn.ModuleList:
        return self.up

    def decode(
        self, levels: list[Tensor], size: Sequence[int], drop: Drop = _keep, blocks: nn.ModuleList | None = None
    ) -> Tensor:
        x = levels[-1]
        for place, (block, skip) in enumerate(zip(blocks or self.up, reversed(levels[:-1]), strict=True)):
            x = block(torch.cat([resize_nearest(x, skip.shape[-2:]), skip], 1))
            x = drop(x) if place < 2 else x
        return x


class ResNet34UNet(Backbone):
    """ResNet-34 encoder (MONAI's, torchvision's parameters and names) with the light U-Net decoder of
    `segmentation_models_pytorch`: 256/128/64/32/16 channels, nearest upsampling, no head.

    The trunk of D-Persona and Pionono (dpersona: Wu et al., CVPR 2024). MONAI's ``FlexibleUNet`` is another network
    (parameter-free shortcuts, extra convolutions) and is not used.

    Args:
        channels: image channels.
    """

    skip_widths = (64, 64, 128, 256)  # stem, stages 1 to 3
    decoder_widths = (256, 128, 64, 32, FEATURES)

    def __init__(self, channels: int) -> None:
        super().__init__()
        # MONAI takes seconds to import; only this trunk needs it.
        from monai.networks.nets.resnet import resnet34

        self.encoder = resnet34(
            spatial_dims=2,
            n_input_channels=channels,
            shortcut_type="B",
            bias_downsample=False,
            conv1_t_size=7,
            conv1_t_stride=2,
            feed_forward=False,
        )
        inputs = (512, *self.decoder_widths[:-1])
        skips = (*reversed(self.skip_widths), 0)
        self.decoder = nn.ModuleList(
            double_conv(deep + skip, outputs)
            for deep, skip, outputs in zip(inputs, skips, self.decoder_widths, strict=True)
        )
        for module in self.decoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")

    # MONAI's forward returns the pooled vector only, so its stages are called here one by one.

    def shallow(self, image: Tensor) -> list[Tensor]:
        encoder = self.encoder
        stem = encoder.act(encoder.bn1(encoder.conv1(image)))
        first = encoder.layer1(encoder.maxpool(stem))
        return [stem, first, encoder.layer2(first)]

    def deep(self, levels: list[Tensor], drop: Drop = _keep) -> list[Tensor]:
        third = drop(self.encoder.layer3(levels[-1]))
        return [*levels, third, drop(self.encoder.layer4(third))]

    def decoder_blocks(self) -> nn.ModuleList:
        return self.decoder

    def decode(
        self, levels: list[Tensor], size: Sequence[int], drop: Drop = _keep, blocks: nn.ModuleList | None = None
    ) -> Tensor:
        x = levels[-1]
        sizes = [skip.shape[-2:] for skip in reversed(levels[:-1])] + [size]
        skips: list[Tensor | None] = [*reversed(levels[:-1]), None]  # the last block has no skip connection
        for place, (block, skip, target) in enumerate(zip(blocks or self.decoder, skips, sizes, strict=True)):
            x = resize_nearest(x, target)
            x = block(x if skip is None else torch.cat([x, skip], 1))
            x = drop(x) if place < 2 else x
        return x


def load_imagenet_weights(encoder: nn.Module, path: Path, channels: int) -> None:
    """Load torchvision's ``resnet34`` weights from a local file into the encoder of `ResNet34UNet`.

    The file is ``.safetensors`` or a torch state dict, read without unpickling code; ``~`` is the home folder. The
    classifier (``fc.*``) is left out. With one image channel the 7×7 stem is summed over RGB, as the authors do; other
    channel counts than 1 and 3 cannot use the weights.

    Raises:
        UserError: no such file, not a ResNet-34, or a channel count that the stem cannot serve.
    """
    path = Path(os.path.expanduser(path))  # unlike Path.expanduser, leaves an unknown ~user as it is
    if not path.is_file():
        raise UserError(f"backbone_weights={str(path)!r} is no file; give a local state dict of torchvision's resnet34")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many kinds; each means that the file cannot be used
        raise UserError(
            f"backbone_weights={str(path)!r} cannot be read ({error}); give a safetensors file or a plain state dict"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(
            f"backbone_weights={str(path)!r} does not hold named tensors alone; give the plain state dict of "
            f"torchvision's resnet34"
        )
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    stem = state.get("conv1.weight")
    if stem is not None and stem.ndim != 4:
        raise UserError(
            f"backbone_weights={str(path)!r} is not a resnet34 of torchvision (conv1.weight has {stem.ndim} "
            f"dimensions instead of 4); give that network's state dict"
        )
    if stem is not None and stem.shape[1] != channels:
        if channels != 1:
            raise UserError(
                f"backbone_weights={str(path)!r} has a stem for {stem.shape[1]} channels, but the images have "
                f"{channels}; only 1 and {stem.shape[1]} channels are possible, leave it out to train from scratch"
            )
        state["conv1.weight"] = stem.sum(1, keepdim=True)
    own = encoder.state_dict()
    # old torchvision files lack the batch counters, which do not matter
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    wrong = [n for n in state if n not in own or state[n].shape != own[n].shape]
    if missing or wrong:
        raise UserError(
            f"backbone_weights={str(path)!r} is not a resnet34 of torchvision (missing: {missing[:2]}, unexpected: "
            f"{wrong[:2]}); give that network's state dict"
        )
    encoder.load_state_dict(state, strict=False)


def _pairs_from_below(widths: Sequence[int]) -> list[tuple[int, int]]:
    """(width below, width of the skip) for each decoder level, deepest first."""
    return [(widths[level + 1], widths[level]) for level in range(len(widths) - 2, -1, -1)]


def _init_relu_convs(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
