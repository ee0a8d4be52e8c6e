"""Probabilistic U-Net: a conditional VAE whose low-dimensional code changes the whole segmentation coherently.

Kohl et al., "A Probabilistic U-Net for Segmentation of Ambiguous Images", NeurIPS 2018, arXiv 1806.05034.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..core.errors import UserError
from ..datasets.base import DataDescription
from .backbones import Backbone, Widths, build_backbone
from .base import Deviation, Method, Prediction
from .chunks import image_chunks
from .fusion import FusionHead
from .latent import (
    BiasInit,
    Gaussian,
    GaussianEncoder,
    draw_seeds,
    half_squared_weights,
    kl_divergence,
    seeded_noise,
    sum_of_norms,
)
from .losses import batch_dice_loss, draw_rater, image_dice_loss, pick_rater, soft_bce_loss
from .modes import evaluating
from .prob_unet_deviations import DEVIATIONS
from .vgg_unet import VggUNet

BackboneChoice = Literal["vgg", "unet_r34", "unet_small"]
Regulariser = Literal["norms", "squares", "none"]
Initialisation = Literal["kaiming", "he_truncated"]


@dataclass(frozen=True)
class Variant:
    """What an option that is null means under a variant."""

    backbone: BackboneChoice
    widths: tuple[int, ...] | None
    encoder_widths: tuple[int, ...]
    reconstruction: Literal["bce", "dice"]
    kl_weight: float
    regulariser: Regulariser
    centre_mask: bool
    initialisation: Initialisation


_TF_WIDTHS = (32, 64, 128, 192, 192, 192, 192)
_PT_WIDTHS = (32, 64, 128, 192)
VARIANTS = {
    "tf": Variant("vgg", _TF_WIDTHS, _TF_WIDTHS, "bce", 1.0, "squares", True, "he_truncated"),
    "pt": Variant("vgg", _PT_WIDTHS, _PT_WIDTHS, "bce", 10.0, "norms", False, "kaiming"),
    "dp": Variant("unet_r34", None, (16, 32, 64, 128, 256), "dice", 1.0, "norms", False, "kaiming"),
}


class ProbUNet(Method):
    """Probabilistic U-Net in the three variants found in code.

    The loss is ``reconstruction + β · KL(q‖p) + 1e-5 · regulariser`` with one posterior sample and one rater's mask
    drawn per image; prediction decodes samples of the prior. Options that are null follow `variant`.
    """

    gives_samples: ClassVar[bool] = True
    deviations: ClassVar[tuple[Deviation, ...]] = DEVIATIONS

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        return f"variant {hparams['variant']}"

    def __init__(
        self,
        data: DataDescription,
        variant: Annotated[
            Literal["tf", "pt", "dp"],
            "tf: the authors' TensorFlow code; pt: the common PyTorch port; dp: the baseline in D-Persona's code "
            "(batch Dice instead of cross-entropy, low diversity)",
        ] = "pt",
        backbone: Annotated[BackboneChoice | None, "trunk; vgg: the method's own U-Net; null: by variant"] = None,
        backbone_weights: Annotated[str | None, "local ImageNet weights for unet_r34; null: from scratch"] = None,
        widths: Annotated[Widths | None, "levels of vgg or unet_small; null: by variant"] = None,
        latent: Annotated[int, Field(ge=1), "size of the code z (the port's script uses 2)"] = 6,
        encoder_widths: Annotated[Widths | None, "blocks of prior and posterior; null: by variant"] = None,
        encoder_convs: Annotated[int, Field(ge=1), "convolutions a block of prior and posterior net"] = 3,
        encoder_pool: Annotated[bool, "2x2 average pool before prior and posterior net"] = False,
        latent_bias: Annotated[BiasInit, "initial bias of mean and log std: std 1 (pt, dp) or 1e-3 (tf)"] = "small",
        log_std_clamp: Annotated[float, Field(ge=0), "limit of |log std|; 0: none, as in all three codes"] = 10.0,
        initialisation: Annotated[
            Initialisation | None, "Kaiming and orthogonal, or truncated He everywhere; null: by variant"
        ] = None,
        output_bias: Annotated[float | None, "initial bias of the logit, such as -4 for rare foreground"] = None,
        reconstruction: Annotated[
            Literal["bce", "dice"] | None, "cross-entropy summed over pixels, or soft Dice; null: by variant"
        ] = None,
        dice: Annotated[Literal["batch", "image"], "kind of soft Dice; without effect on cross-entropy"] = "batch",
        legacy_batch_sum: Annotated[
            bool,
            "cross-entropy summed over the batch too, as in pt: the KL weight then shrinks with the batch; "
            "without effect on a Dice reconstruction",
        ] = False,
        kl_weight: Annotated[float | None, Field(ge=0), "weight beta of the KL; null: by variant (1, 10, 1)"] = None,
        regulariser: Annotated[
            Regulariser | None,
            "un-squared norms (pt, dp), or half squared weights with the trunk (tf); null: by variant",
        ] = None,
        regulariser_weight: Annotated[float, Field(ge=0), "weight of the regulariser"] = 1e-5,
        centre_mask: Annotated[bool | None, "posterior sees mask - 0.5; null: by variant (tf only)"] = None,
        rater_draw: Annotated[Literal["image", "batch"], "one target rater an image, or one a batch"] = "image",
        sample_chunk: Annotated[
            int | None, Field(ge=1), "codes decoded at once (1: a loop); null: by device; never changes the draws"
        ] = None,
        shared_noise: Annotated[
            bool,
            "the images of any predict call share the noise of a sample; the slices of a volume always do when a cell "
            "is evaluated",
        ] = False,
    ) -> None:
        hparams = {name: value for name, value in locals().items() if name not in ("self", "data", "__class__")}
        super().__init__(data, **hparams)
        chosen = VARIANTS[variant]
        self.latent = latent
        self.reconstruction = reconstruction or chosen.reconstruction
        self.dice = batch_dice_loss if dice == "batch" else image_dice_loss
        self.legacy_batch_sum = legacy_batch_sum
        self.kl_weight = kl_weight if kl_weight is not None else chosen.kl_weight
        self.regulariser = regulariser or chosen.regulariser
        self.regulariser_weight = regulariser_weight
        self.centre_mask = centre_mask if centre_mask is not None else chosen.centre_mask
        self.rater_per_image = rater_draw == "image"
        self.shared_noise = shared_noise
        he_truncated = (initialisation or chosen.initialisation) == "he_truncated"

        def encoder(channels: int) -> GaussianEncoder:
            return GaussianEncoder(
                channels,
                tuple(encoder_widths or chosen.encoder_widths),
                encoder_convs,
                latent,
                pool_input=encoder_pool,
                bias=latent_bias,
                log_std_clamp=log_std_clamp or None,
                he_truncated=he_truncated,
            )

        self.trunk = _build_trunk(
            backbone or chosen.backbone, data.channels, widths, chosen.widths, backbone_weights, he_truncated
        )
        features = self.trunk.out_channels
        self.prior = encoder(data.channels)
        self.posterior = encoder(data.channels + 1)
        self.fusion = FusionHead(
            features,
            latent,
            features,
            sample_chunk=sample_chunk,
            output_bias=output_bias,
            he_truncated=he_truncated,
        )

    # -- training -------------------------------------------------------------------------------

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Negative ELBO of one rater's mask an image."""
        images = batch["image"]
        rater = draw_rater(batch["rater_valid"], self.rater_per_image)
        target = pick_rater(batch["masks"], rater).to(images.dtype)
        noise = torch.randn(len(images), 1, self.latent, device=images.device, dtype=images.dtype)
        features, prior, posterior = self.trunk(images), self.prior(images), self.encode(images, target)
        loss, terms = self.elbo_loss(features, prior, posterior, target, noise)
        return loss, {name: term.detach() for name, term in terms.items()}

    def encode(self, images: Tensor, target: Tensor) -> Gaussian:
        """Posterior of images B×C×H×W and one mask B×1×H×W each."""
        return self.posterior(torch.cat([images, target - 0.5 if self.centre_mask else target], 1))

    def elbo_loss(
        self, features: Tensor, prior: Gaussian, posterior: Gaussian, target: Tensor, noise: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms before weighting.

        Args:
            features: B×F×H×W.
            prior, posterior: the two Gaussians of each image.
            target: B×1×H×W in {0, 1}.
            noise: B×1×L.
        """
        logits = self.fusion(features, posterior.codes(noise))
        if self.reconstruction == "dice":
            rec = self.dice(logits, target)
        else:
            rec = soft_bce_loss(logits, target, pixel_sum=True)
            if self.legacy_batch_sum:
                rec = rec * len(features)
        terms = {"rec": rec, "kl": kl_divergence(posterior, prior).mean()}
        loss = rec + self.kl_weight * terms["kl"]
        if self.regulariser != "none":
            terms["regulariser"] = self.regularisation()
            loss = loss + self.regulariser_weight * terms["regulariser"]
        return loss, terms

    def regularisation(self) -> Tensor:
        """Regulariser before its weight; the fusion head's last layer is never part of it."""
        parts: list[nn.Module] = [self.posterior, self.prior, *self.fusion.hidden_layers]
        return sum_of_norms(parts) if self.regulariser == "norms" else half_squared_weights([self.trunk, *parts])

    # -- prediction -----------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        """Prior samples B×S×H×W, each image with noise from a seed of its own."""
        seeds = draw_seeds(len(images), generator, shared=self.shared_noise or self.slices_share_noise)
        noise = torch.stack([seeded_noise(n_samples, self.latent, seed, images) for seed in seeds])
        samples = []
        with evaluating(self):
            for some in image_chunks(images):
                codes = self.prior(images[some]).codes(noise[some])
                samples.append(torch.sigmoid(self.fusion(self.trunk(images[some]), codes)))
        return Prediction(samples=torch.cat(samples))


def _build_trunk(
    name: str,
    channels: int,
    widths: tuple[int, ...] | None,
    vgg_widths: tuple[int, ...] | None,
    weights: str | None,
    he_truncated: bool,
) -> Backbone:
    if name != "vgg":
        return build_backbone(name, channels, widths, weights)
    if weights is not None:
        raise UserError(
            f"backbone_weights={weights!r} is for the backbone unet_r34, but this Probabilistic U-Net uses vgg; "
            f"leave it out or set method.backbone=unet_r34"
        )
    return VggUNet(channels, tuple(widths or vgg_widths or _PT_WIDTHS), he_truncated=he_truncated)
