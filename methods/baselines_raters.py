"""Baselines that keep the raters apart: B1 one U-Net per rater, B4a one output per rater, B4b one decoder per rater.

In the literature B1 is the diagonal of Multi-Net M1…MR and B4 is MH-UNet (Guan et al. 2018); loss, budget and
augmentation are those of the other baselines.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..datasets.base import DataDescription
from .backbones import Backbone as Trunk
from .backbones import build_backbone
from .base import Prediction
from .baselines import DICE_DEVIATION, BaselineUNet, output_conv
from .label_loss import DiceOver, LabelLoss, LossName
from .targets import output_channels


class RaterMaps(BaselineUNet):
    """Logits B×R×C×H×W, map r trained on rater r alone; the R maps are also all the samples it has."""

    gives_samples = True
    gives_raters = True
    needs_identity = True
    stage_gives: ClassVar[dict[str, str]] = {"main": "raters"}
    deviations = (DICE_DEVIATION,)

    def __init__(
        self, data: DataDescription, loss: LossName = "bce_dice", dice_over: DiceOver = "image", **options: Any
    ) -> None:
        super().__init__(data, loss=loss, dice_over=dice_over, **options)
        self.loss = LabelLoss(data, loss, dice_over)

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Σ_r a_r L(z_r, y_r) / Σ_r a_r over all raters present."""
        return self.loss(self.logits(batch["image"]), self.targets(batch), batch["rater_valid"]), {}

    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        """The consensus is the mean of the R maps; more than R samples are never made by repetition."""
        maps = self.maps(images, axis=2)
        return Prediction(samples=maps[:, :n_samples], raters=maps, mean=maps.mean(1))


class UNetPerRater(RaterMaps):
    """B1: R independent U-Nets, network r on rater r. It costs R times a plain U-Net.

    The networks run one after the other: stacking them (``torch.func.vmap``, which makes grouped convolutions) took
    twice the time on CPU. They share batches, so batch norm also sees images that rater r did not annotate.
    """

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        return "R networks"

    def __init__(self, data: DataDescription, **options: Any) -> None:
        super().__init__(data, **options)
        self.trunks = nn.ModuleList(self.new_trunk() for _ in range(data.raters))
        self.heads = nn.ModuleList(output_conv(16, data, self.output_bias) for _ in range(data.raters))

    def logits(self, images: Tensor) -> Tensor:
        return torch.stack([head(trunk(images)) for trunk, head in zip(self.trunks, self.heads, strict=True)], 1)

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Σ_r of the mean loss over the images that rater r annotated: each network's own loss, as if trained alone."""
        logits, targets, valid = self.logits(batch["image"]), self.targets(batch), batch["rater_valid"]
        each = [
            self.loss(logits[:, r : r + 1], targets[:, r : r + 1], valid[:, r : r + 1]) for r in range(logits.shape[1])
        ]
        return torch.stack(each).sum(), {}


class UNetMultiHead(RaterMaps):
    """B4a: one trunk, one output convolution with R maps."""

    def __init__(self, data: DataDescription, **options: Any) -> None:
        super().__init__(data, **options)
        self.trunk = self.new_trunk()
        self.head = output_conv(16, data, self.output_bias, copies=data.raters)

    def logits(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images)).unflatten(1, (self.data.raters, output_channels(self.data)))


class UNetMultiDecoder(RaterMaps):
    """B4b: one encoder, R decoders with an output each."""

    def __init__(self, data: DataDescription, **options: Any) -> None:
        super().__init__(data, **options)
        trunk = self.new_trunk()
        assert isinstance(trunk, Trunk)
        self.trunk = trunk  # encoder and the decoder of rater 1
        spare = (build_backbone(self.backbone, data.channels) for _ in range(data.raters - 1))
        self.more_decoders = nn.ModuleList(trunk.decoder_blocks() for trunk in spare)
        self.heads = nn.ModuleList(output_conv(16, data, self.output_bias) for _ in range(data.raters))

    def logits(self, images: Tensor) -> Tensor:
        levels = self.trunk.deep(self.trunk.shallow(images))
        decoders = [self.trunk.decoder_blocks(), *self.more_decoders]
        maps = [
            head(self.trunk.decode(levels, images.shape[-2:], blocks=blocks))
            for blocks, head in zip(decoders, self.heads, strict=True)
        ]
        return torch.stack(maps, 1)
