"""Plain U-Net baselines on one common backbone: they differ only in what they make of the raters' labels.

B2 `UNetMajority`, B3 `UNetSoft`, B5 `UNetLabelSampling`, B8 `UNetStaple` of the baselines in the literature (MV-UNet,
soft labels, LS-UNet of Jensen et al. 2019, STAPLE of Warfield et al. 2004 as target). The network, budget, schedule
and augmentation are the suite's for all of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..core.sequences import van_der_corput
from ..datasets.base import DataDescription
from .backbones import build_backbone
from .base import Deviation, Method, Prediction
from .chunks import image_chunks
from .label_loss import DiceOver, LabelLoss, LossName
from .losses import draw_rater
from .targets import (
    is_exclusive,
    mean_target,
    output_channels,
    prediction_layout,
    target_channels,
    to_probabilities,
)

Backbone = Annotated[Literal["unet_small", "unet_r34"], "trunk: small U-Net or the papers' ResNet-34 U-Net"]
Weights = Annotated[str | None, "file of ImageNet weights of the encoder (none: from scratch)"]
Bias = Annotated[float, "start of the output bias of a foreground class; -4 starts near an empty mask (BCE needs it)"]


def output_conv(features: int, data: DataDescription, bias: float, copies: int = 1) -> nn.Conv2d:
    """The 3×3 output convolution of `copies` maps side by side; its bias favours the background."""
    head = nn.Conv2d(features, copies * output_channels(data), 3, padding=1)
    start = torch.full((copies, output_channels(data)), bias)
    if is_exclusive(data):
        start[:, 0] = 0.0
    head.bias = nn.Parameter(start.flatten())
    return head


class BaselineUNet(Method):
    """A trunk of the common kind and what all baselines share."""

    multiclass = True

    def __init__(
        self,
        data: DataDescription,
        backbone: Backbone = "unet_r34",
        backbone_weights: Weights = None,
        output_bias: Bias = -4.0,
        **options: Any,
    ) -> None:
        super().__init__(data, backbone=backbone, backbone_weights=backbone_weights, output_bias=output_bias, **options)
        self.backbone, self.backbone_weights, self.output_bias = backbone, backbone_weights, output_bias

    def new_trunk(self) -> nn.Module:
        return build_backbone(self.backbone, self.data.channels, weights_file=self.backbone_weights)

    def targets(self, batch: dict[str, Any]) -> Tensor:
        """B×R×C×H×W."""
        return target_channels(batch["masks"], self.data)

    def logits(self, images: Tensor) -> Tensor:
        """B×…×C×H×W."""
        raise NotImplementedError

    def maps(self, images: Tensor, axis: int = 1) -> Tensor:
        """Probabilities of `logits`, in the layout of a `Prediction`, of as many images at once as memory allows.

        Args:
            images: B×….
            axis: of the channels.
        """
        return torch.cat([self.probabilities(self.logits(images[some]), axis) for some in image_chunks(images)])

    def probabilities(self, logits: Tensor, axis: int = 1) -> Tensor:
        """Of logits B×…×C×H×W whose channel axis is `axis`, in the layout of a `Prediction`."""
        return prediction_layout(to_probabilities(logits, self.data, axis), self.data, axis)


class PlainUNet(BaselineUNet):
    """Trunk and a 3×3 head giving one map."""

    def __init__(
        self,
        data: DataDescription,
        backbone: Backbone = "unet_r34",
        backbone_weights: Weights = None,
        output_bias: Bias = -4.0,
        **options: Any,
    ) -> None:
        super().__init__(data, backbone, backbone_weights, output_bias, **options)
        self.trunk = self.new_trunk()
        self.head = output_conv(16, data, output_bias)

    def logits(self, images: Tensor) -> Tensor:
        """B×C×H×W."""
        return self.head(self.trunk(images))

    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        return Prediction(mean=self.maps(images))


DICE_DEVIATION = Deviation(
    "Dice of the loss",
    "over the whole batch",
    "per image, with smoothing 1",
    "dice_over=batch (set by the preset `paper`)",
    "small masks weigh as much as large ones; no empty outputs on lidc-contours",
)


class HardTarget(PlainUNet):
    """A plain U-Net with the loss of hard targets, L = ½ (BCE + Dice) unless another is chosen."""

    deviations = (DICE_DEVIATION,)

    def __init__(
        self,
        data: DataDescription,
        loss: LossName = "bce_dice",
        dice_over: DiceOver = "image",
        **options: Any,
    ) -> None:
        super().__init__(data, loss=loss, dice_over=dice_over, **options)
        self.loss = LabelLoss(data, loss, dice_over)

    def target(self, batch: dict[str, Any]) -> Tensor:
        """B×C×H×W in {0, 1} or [0, 1]."""
        raise NotImplementedError

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        logits = self.logits(batch["image"])
        return self.loss(logits[:, None], self.target(batch)[:, None], batch["rater_valid"].any(1, keepdim=True)), {}


class UNetMajority(HardTarget):
    """B2: the majority vote as target. A point prediction: it claims no samples.

    With an even number of raters a tie is frequent, and the rule moves the result: `strict` (more than half) makes
    systematically small masks. Exclusive classes: a pixel without a winner is background, and of two winners (half
    the votes each, `inclusive`) the lower class index is taken.
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

    def target(self, batch: dict[str, Any]) -> Tensor:
        targets = self.targets(batch)
        present = batch["rater_valid"][:, :, None, None, None]
        votes = (targets * present).sum(1, dtype=torch.int64)
        total = batch["rater_valid"].sum(1)[:, None, None, None]
        won = 2 * votes > total
        if self.ties != "strict":
            tied = (2 * votes == total) & (total > 0)
            if self.ties == "random":
                tied &= (torch.rand(len(votes), device=votes.device) < 0.5)[:, None, None, None]
            won |= tied
        return one_class_a_pixel(won) if is_exclusive(self.data) else won.float()


def one_class_a_pixel(won: Tensor) -> Tensor:
    """One-hot B×C×H×W of the foreground classes that won a pixel: the lowest index, background where none did."""
    foreground = won.clone()
    foreground[:, 0] = False
    none = ~foreground.any(1, keepdim=True)
    first = foreground & (foreground.cumsum(1) == 1)
    first[:, :1] = none
    return first.float()


def nested_level_sets(mean: Tensor, n: int) -> Tensor:
    """B×S×H×W masks (0/1) of B×H×W maps: one threshold cuts the whole map, so that each sample is a segmentation;
    the thresholds are the van der Corput points, any first S of which are a fair set.

    Drawing each pixel on its own would not be one (baselines, section 4).
    """
    return (mean[:, None].double() > torch.from_numpy(van_der_corput(n)).to(mean.device)[:, None, None]).float()


def nested_class_maps(mean: Tensor, n: int) -> Tensor:
    """B×S×C×H×W one-hot maps of B×C×H×W softmax maps: the same cut through the cumulated classes at every pixel.

    Threshold u gives the class k with P(class > k) ≤ u < P(class ≥ k); two classes are `nested_level_sets`.
    """
    above = mean.double().flip(1).cumsum(1).flip(1)[:, None]  # P(class >= k)
    u = torch.from_numpy(van_der_corput(n)).to(mean.device).view(-1, 1, 1, 1)
    reached = above > u
    reached[:, :, 0] = True
    beyond = torch.cat([reached[:, :, 1:], torch.zeros_like(reached[:, :, :1])], 2)
    return (reached & ~beyond).float()


class LevelSets(PlainUNet):
    """Reads the map as the share of raters that mark a pixel; its samples are the nested level sets."""

    gives_samples = True

    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        mean = self.maps(images)
        if is_exclusive(self.data):
            return Prediction(samples=nested_class_maps(mean, n_samples), mean=mean)
        flat = mean.flatten(1, -3) if mean.ndim > 3 else mean[:, None]
        sets = torch.stack([nested_level_sets(m, n_samples) for m in flat.unbind(1)], 2)  # per class
        return Prediction(samples=sets if mean.ndim > 3 else sets[:, :, 0], mean=mean)


class UNetSoft(LevelSets):
    """B3: cross-entropy against the mean of the raters, minimised where the map is the share of raters.

    Soft Dice is no option here: it is not minimised at the share.
    """

    def __init__(self, data: DataDescription, **options: Any) -> None:
        super().__init__(data, **options)
        self.loss = LabelLoss(data, "bce")

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        share = mean_target(self.targets(batch), batch["rater_valid"])
        valid = batch["rater_valid"].any(1, keepdim=True)
        return self.loss(self.logits(batch["image"])[:, None], share[:, None], valid), {}


class UNetLabelSampling(HardTarget, LevelSets):
    """B5: one rater drawn per image and step as target; what many multi-rater methods do underneath."""

    def target(self, batch: dict[str, Any]) -> Tensor:
        targets = self.targets(batch)
        chosen = draw_rater(batch["rater_valid"])
        return targets[torch.arange(len(targets), device=targets.device), chosen]


class UNetStaple(HardTarget):
    """B8: the STAPLE estimate of each image as target (Warfield, Zou and Wells 2004). A point prediction.

    Estimated anew from the augmented masks of every batch; about a millisecond an image. Overlapping and exclusive
    classes: one against the rest; a pixel that no class wins is background.
    """

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        return "soft target" if hparams["soft_target"] else ""

    def __init__(
        self,
        data: DataDescription,
        soft_target: Annotated[bool, "the posterior as target, instead of posterior > 0.5"] = False,
        region: Annotated[
            Literal["full", "box"], "pixels the estimate runs over: the whole image, or a box around the raters"
        ] = "full",
        **options: Any,
    ) -> None:
        super().__init__(data, soft_target=soft_target, region=region, **options)
        self.soft_target, self.region = soft_target, region

    def target(self, batch: dict[str, Any]) -> Tensor:
        masks = self.targets(batch).movedim(2, 1).bool().cpu().numpy()  # B×C×R×H×W
        valid = batch["rater_valid"].cpu().numpy()
        estimates = np.stack([[self._estimate(m, v) for m in case] for case, v in zip(masks, valid, strict=True)])
        target = torch.from_numpy(estimates).to(batch["masks"].device)
        if not is_exclusive(self.data):
            return target
        if self.soft_target:
            return target / target.sum(1, keepdim=True).clamp_min(1e-6)
        return one_class_a_pixel(target > 0.5)

    def _estimate(self, masks: np.ndarray, valid: np.ndarray) -> np.ndarray:
        from ..metrics.staple import staple_case

        if not valid.any():
            return np.zeros(masks.shape[1:], np.float32)
        found = staple_case(masks, rater_valid=valid, region=self.region)
        return (found.weights if self.soft_target else found.mask).astype(np.float32)
