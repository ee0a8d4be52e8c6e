"""Plain U-Net baselines on one common backbone: they differ only in what they make of the raters' labels.

B2 `UNetMajority`, B3 `UNetSoft`, B5 `UNetLabelSampling` of the baselines in the literature (MV-UNet, soft labels,
LS-UNet of Jensen et al. 2019). The network, budget, schedule and augmentation are the suite's for all of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from ..core.sequences import van_der_corput
from ..datasets.base import DataDescription
from .backbones import build_backbone
from .base import Deviation, Method, Prediction
from .losses import batch_dice_loss, draw_rater, image_dice_loss, pick_rater, soft_bce_loss

Backbone = Annotated[Literal["unet_small", "unet_r34"], "trunk: small U-Net or the papers' ResNet-34 U-Net"]


class PlainUNet(Method):
    """Trunk and a 3×3 head giving one logit map."""

    def __init__(
        self,
        data: DataDescription,
        backbone: Backbone = "unet_r34",
        backbone_weights: Annotated[str | None, "file of ImageNet weights of the encoder (none: from scratch)"] = None,
        output_bias: Annotated[float, "start of the output bias; -4 starts near an empty mask (BCE needs it)"] = -4.0,
        **options: Any,
    ) -> None:
        super().__init__(data, backbone=backbone, backbone_weights=backbone_weights, output_bias=output_bias, **options)
        self.trunk = build_backbone(backbone, data.channels, weights_file=backbone_weights)
        self.head = nn.Conv2d(self.trunk.out_channels, 1, 3, padding=1)
        self.head.bias = nn.Parameter(torch.full((1,), output_bias))

    def logits(self, images: Tensor) -> Tensor:
        """B×1×H×W."""
        return self.head(self.trunk(images))

    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        return Prediction(mean=torch.sigmoid(self.logits(images))[:, 0])


class _HardTarget(PlainUNet):
    """A plain U-Net with the loss of hard targets, L = ½ (BCE + Dice) unless another is chosen."""

    deviations = (
        Deviation(
            "Dice of the loss",
            "over the whole batch",
            "per image, with smoothing 1",
            "dice_over=batch (set by the preset `paper`)",
            "small masks weigh as much as large ones; no empty outputs on lidc-contours",
        ),
    )

    def __init__(
        self,
        data: DataDescription,
        loss: Annotated[
            Literal["bce_dice", "bce", "dice"],
            "half BCE and half Dice; BCE alone (MR-Net, TAB); Dice alone (Pionono, D-Persona)",
        ] = "bce_dice",
        dice_over: Annotated[
            Literal["image", "batch"], "Dice per image, or over the batch as the authors do (large masks dominate)"
        ] = "image",
        **options: Any,
    ) -> None:
        super().__init__(data, loss=loss, dice_over=dice_over, **options)
        self.loss = loss
        self.dice = image_dice_loss if dice_over == "image" else batch_dice_loss

    def hard_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.loss == "bce":
            return soft_bce_loss(logits, target)
        dice = self.dice(logits, target)
        return dice if self.loss == "dice" else 0.5 * soft_bce_loss(logits, target) + 0.5 * dice


class UNetMajority(_HardTarget):
    """B2: the majority vote as target. A point prediction: it claims no samples.

    With an even number of raters a tie is frequent, and the rule moves the result: `strict` (more than half) makes
    systematically small masks.
    """

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        return f"ties {hparams['ties']}"

    def __init__(
        self,
        data: DataDescription,
        ties: Annotated[
            Literal["strict", "inclusive", "random"],
            "votes > R/2; votes >= R/2; or one coin a case and step for its ties",
        ] = "strict",
        **options: Any,
    ) -> None:
        super().__init__(data, ties=ties, **options)
        self.ties = ties

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        votes = batch["masks"].sum(1, keepdim=True, dtype=torch.int64)  # the mask of a missing rater is 0
        present = batch["rater_valid"].sum(1)[:, None, None, None]
        target = 2 * votes > present
        if self.ties != "strict":
            tied = (2 * votes == present) & (present > 0)
            if self.ties == "random":
                tied &= (torch.rand(len(votes), device=votes.device) < 0.5)[:, None, None, None]
            target |= tied
        return self.hard_loss(self.logits(batch["image"]), target.float()), {}


def nested_level_sets(mean: Tensor, n: int) -> Tensor:
    """B×S×H×W masks (0/1) of B×H×W maps: one threshold cuts the whole map, so that each sample is a segmentation;
    the thresholds are the van der Corput points, any first S of which are a fair set.

    Drawing each pixel on its own would not be one (baselines, section 4).
    """
    return (mean[:, None].double() > torch.from_numpy(van_der_corput(n)).to(mean.device)[:, None, None]).float()


class _LevelSets(PlainUNet):
    """Reads the map as the share of raters that mark a pixel; its samples are the nested level sets."""

    gives_samples = True

    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        mean = torch.sigmoid(self.logits(images))[:, 0]
        return Prediction(samples=nested_level_sets(mean, n_samples), mean=mean)


class UNetSoft(_LevelSets):
    """B3: cross-entropy against the mean of the raters, minimised where the map is the share of raters."""

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        present = batch["rater_valid"].sum(1)[:, None, None, None].clamp_min(1)
        share = batch["masks"].sum(1, keepdim=True) / present
        return soft_bce_loss(self.logits(batch["image"]), share), {}


class UNetLabelSampling(_HardTarget, _LevelSets):
    """B5: one rater drawn per image and step as target; what many multi-rater methods do underneath."""

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        target = pick_rater(batch["masks"], draw_rater(batch["rater_valid"])).float()
        return self.hard_loss(self.logits(batch["image"]), target), {}
