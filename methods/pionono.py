"""Pionono: one Gaussian in a small latent space per rater; a code of it, at every pixel, turns features into a mask.

Schmidt, Morales-Álvarez, Molina, "Probabilistic Modeling of Inter- and Intra-observer Variability in Medical Image
Segmentation", ICCV 2023, arXiv 2307.11397.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..datasets.base import DataDescription
from .backbones import Widths, build_backbone
from .base import Deviation, Method, Prediction
from .chunks import image_chunks
from .class_dice import batch_class_dice
from .consensus import consensus_targets
from .label_loss import LabelLoss
from .latent import draw_seeds, seeded_noise, sum_of_norms
from .losses import draw_rater, mean_valid
from .modes import evaluating
from .pionono_deviations import DEVIATIONS
from .pionono_parts import Diagonal, PiononoHead, RaterGaussians
from .targets import is_exclusive, output_channels, prediction_layout, target_channels, to_probabilities

_RATER_BLOCK = 16

Maps = Literal["mean", "mc_logits", "mc"]
ConsensusMap = Literal["mc", "raters"]


@dataclass(frozen=True)
class Fidelity:
    """What an option that is null means."""

    diagonal: Diagonal
    dice_clamp: bool
    rater_maps: Maps
    consensus: ConsensusMap


FIDELITY = {
    "default": Fidelity("exp", False, "mean", "mc"),
    "authors": Fidelity("plain", True, "mean", "mc"),
    "dpersona": Fidelity("plain", True, "mc_logits", "raters"),
}


class Pionono(Method):
    """Pionono with its raters and, on demand, the consensus as one more of them.

    The loss of a batch with one annotation an image, of rater r, is ``Seg(mean_s head(v, z_s), y) + λ_KL · KL(q(z|r) ‖
    N(0, σ² I)) + λ_reg · Ω(head)`` with S codes ``z_s ~ q(z|r)``.

    Options that are null follow `fidelity`; a value that is given wins over it.
    """

    gives_samples: ClassVar[bool] = True
    gives_raters: ClassVar[bool] = True
    needs_identity: ClassVar[bool] = True
    multiclass: ClassVar[bool] = True
    deviations: ClassVar[tuple[Deviation, ...]] = DEVIATIONS

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        return "" if hparams["gold"] == "none" else f"also trained on {hparams['gold']} masks"

    def __init__(
        self,
        data: DataDescription,
        fidelity: Annotated[
            Literal["default", "authors", "dpersona"],
            "authors: what is null below as in the released code; dpersona: as in the port in D-Persona's code",
        ] = "default",
        gold: Annotated[
            Literal["none", "majority", "staple"],
            "consensus of the raters as one more rater (Pionono's tables: staple, which its baselines do not see)",
        ] = "none",
        backbone: Annotated[Literal["unet_r34", "unet_small"], "trunk that gives the feature map"] = "unet_r34",
        backbone_weights: Annotated[str | None, "local ImageNet weights of ResNet-34; null: from scratch"] = None,
        widths: Annotated[Widths | None, "levels of unet_small; null: 16, 32, 64, 128"] = None,
        latent: Annotated[int, Field(ge=1), "size of the code z"] = 8,
        prior_std: Annotated[float, Field(gt=0), "sigma of the prior, and of every rater at the start"] = 2.0,
        mean_spread: Annotated[
            float, Field(ge=0), "spread of the raters' initial means (named posterior init sigma in the code)"
        ] = 8.0,
        diagonal: Annotated[
            Diagonal | None, "exp: positive standard deviations; plain: free parameters; null: by fidelity"
        ] = None,
        latent_lr_scale: Annotated[float, Field(gt=0), "learning rate of the Gaussians over that of the rest"] = 200.0,
        head_layers: Annotated[int, Field(ge=2), "1x1 convolutions of the head"] = 3,
        output_bias: Annotated[float, "initial bias of the foreground logits"] = 0.0,
        sample_chunk: Annotated[
            int | None, Field(ge=1), "codes decoded at once (1: a loop); null: by device; never changes the draws"
        ] = None,
        dice: Annotated[
            Literal["batch", "image"],
            "soft Dice over the batch, mean over all classes, or per image with smoothing 1, foreground only",
        ] = "batch",
        dice_clamp: Annotated[
            bool | None, "the code's clamp, which acts beyond 2 million pixels of a class a batch; null: by fidelity"
        ] = None,
        mc_samples: Annotated[int, Field(ge=1), "codes an image in training"] = 5,
        mc_loss: Annotated[
            Literal["mean_logit", "per_sample"],
            "loss of the mean of the logits, as published, or mean of the losses, as in an evidence lower bound",
        ] = "mean_logit",
        kl_weight: Annotated[float, Field(ge=0), "weight of KL(q(z|r)||p)"] = 5e-4,
        norm_weight: Annotated[float, Field(ge=0), "weight of the un-squared parameter norms of the head"] = 1e-5,
        test_samples: Annotated[int, Field(ge=1), "codes a rater in the means at prediction"] = 20,
        rater_maps: Annotated[
            Maps | None,
            "mean: decode the rater's mean code; mc_logits, mc: mean of the logits or probabilities of "
            "test_samples codes; null: by fidelity",
        ] = None,
        consensus: Annotated[
            ConsensusMap | None,
            "mc: mean of the probabilities of test_samples codes, of the gold Gaussian if there is one, else of every "
            "rater; raters: mean of the rater maps; null: by fidelity",
        ] = None,
    ) -> None:
        hparams = {name: value for name, value in locals().items() if name not in ("self", "data", "__class__")}
        super().__init__(data, **hparams)
        chosen = FIDELITY[fidelity]
        self.gold = gold
        self.latent = latent
        self.latent_lr_scale = latent_lr_scale
        self.image_dice = LabelLoss(data, "dice", "image") if dice == "image" else None
        self.dice_clamp = dice_clamp if dice_clamp is not None else chosen.dice_clamp
        self.mc_samples = mc_samples
        self.per_sample = mc_loss == "per_sample"
        self.kl_weight = kl_weight
        self.norm_weight = norm_weight
        self.test_samples = test_samples
        self.rater_maps = rater_maps or chosen.rater_maps
        self.consensus = consensus or chosen.consensus

        self.trunk = build_backbone(backbone, data.channels, widths, backbone_weights)
        self.raters = RaterGaussians(
            data.raters + (gold != "none"), latent, prior_std, mean_spread, diagonal or chosen.diagonal
        )
        self.head = PiononoHead(
            self.trunk.out_channels, latent, output_channels(data), head_layers, sample_chunk=sample_chunk
        )
        last = self.head.layers[-1].bias
        assert isinstance(last, Tensor)
        with torch.no_grad():
            last[int(is_exclusive(data)) :].fill_(output_bias)

    def parameters_for(self, stage: str | None) -> list[dict[str, Any]]:
        return [
            {"params": [*self.trunk.parameters(), *self.head.parameters()]},
            {"params": list(self.raters.parameters()), "lr_scale": self.latent_lr_scale},
        ]

    # -- training -------------------------------------------------------------------------------

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Loss of one annotation an image, drawn uniformly among those there are (the consensus counts as one)."""
        images = batch["image"]
        rater, target, valid = self.draw_annotation(batch)
        noise = torch.randn(len(images), self.mc_samples, self.latent, device=images.device, dtype=images.dtype)
        loss, terms = self.elbo_loss(self.trunk(images), rater, target, valid, noise)
        return loss, {name: term.detach() for name, term in terms.items()}

    def draw_annotation(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """One annotation an image: index B of its Gaussian, mask B×C×H×W, and B whether the image has any."""
        masks, valid = batch["masks"], batch["rater_valid"]
        annotated = valid.any(1)
        open_slots = valid if self.gold == "none" else torch.cat([valid, annotated[:, None]], 1)
        rater = draw_rater(open_slots)
        # An index among the raters for all; images whose draw is the consensus get theirs below.
        picked = masks[torch.arange(len(masks), device=masks.device), rater.clamp_max(masks.shape[1] - 1)]
        target = target_channels(picked.unsqueeze(1), self.data)[:, 0]
        if self.gold != "none":
            rows = (rater == self.data.raters).nonzero()[:, 0]
            if len(rows):
                each = target_channels(masks[rows], self.data)
                target = target.index_copy(0, rows, consensus_targets(each, valid[rows], self.data, self.gold))
        return rater, target, annotated

    def elbo_loss(
        self, features: Tensor, rater: Tensor, target: Tensor, valid: Tensor, noise: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms before weighting.

        Args:
            features: B×F×H×W.
            rater: B, whose annotation it is.
            target: B×C×H×W in {0, 1}.
            valid: B, False for an image without an annotation, which is left out.
            noise: B×S×D.
        """
        codes = self.raters.codes(rater[:, None], noise)
        if self.per_sample:
            logits = self.head(features, codes)
        else:
            logits = self.head.mean_logits(features, codes).unsqueeze(1)
        shape = logits.shape[:2]
        terms = {
            "seg": self.segmentation_loss(logits, target.unsqueeze(1).expand_as(logits), valid[:, None].expand(shape)),
            "kl": mean_valid(self.raters.kl()[rater], valid),
        }
        loss = terms["seg"] + self.kl_weight * terms["kl"]
        if self.norm_weight:
            terms["norms"] = sum_of_norms(self.head.hidden_layers)
            loss = loss + self.norm_weight * terms["norms"]
        return loss, terms

    def segmentation_loss(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Dice loss of N maps an image, averaged: logits and target B×N×C×H×W, valid B×N."""
        if self.image_dice is not None:
            return self.image_dice(logits, target, valid)
        return batch_class_dice(to_probabilities(logits, self.data, 2), target, valid, self.dice_clamp)

    # -- prediction -----------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        """Samples of raters drawn uniformly, a map for each rater, and the consensus as mean.

        Each image has seeds of its own for the raters drawn, their codes and the codes in the means, drawn first: the
        number of samples moves nothing else.
        """
        seeds = draw_seeds(len(images), generator, 3, self.slices_share_noise)
        parts = []
        with evaluating(self):
            for some in image_chunks(images):
                parts.append(self._predict(images[some], n_samples, seeds[3 * some.start : 3 * some.stop]))
        samples, raters, mean, codes = (torch.cat(maps) for maps in zip(*parts, strict=True))
        return Prediction(
            samples=prediction_layout(samples, self.data, 2),
            raters=prediction_layout(raters, self.data, 2),
            mean=prediction_layout(mean, self.data, 1),
            sample_codes=codes,
            rater_codes=self.raters.mean[: self.data.raters].detach().expand(len(images), -1, -1),
        )

    def _predict(self, images: Tensor, n_samples: int, seeds: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features = self.trunk(images)
        raters = self.data.raters
        drawn = torch.stack([seeded_raters(n_samples, raters, seed) for seed in seeds[0::3]]).to(images.device)
        noise = torch.stack([seeded_noise(n_samples, self.latent, seed, images) for seed in seeds[1::3]])
        sample_codes = self.raters.codes(drawn, noise)
        samples = self._probabilities(self.head(features, sample_codes))

        slots, count = len(self.raters.mean), self.test_samples
        means = torch.stack([seeded_noise(slots * count, self.latent, seed, images) for seed in seeds[2::3]])
        means = means.view(len(images), slots, count, self.latent)
        maps = self._rater_maps(features, means[:, :raters])
        if self.consensus == "raters":
            return samples, maps, maps.mean(1), sample_codes
        voices = slice(raters, slots) if slots > raters else slice(0, raters)
        index = torch.arange(slots, device=images.device)[voices, None]
        codes = self.raters.codes(index, means[:, voices]).flatten(1, 2)
        mean = self.head.group_means(features, codes.unsqueeze(1), self._probabilities)[:, 0]
        return samples, maps, mean, sample_codes

    def _rater_maps(self, features: Tensor, noise: Tensor) -> Tensor:
        """B×R×C×H×W from noise B×R×T×D."""
        images, raters = noise.shape[:2]
        if self.rater_maps == "mean":
            return self._probabilities(self.head(features, self.raters.mean[:raters].expand(images, -1, -1)))
        codes = self.raters.codes(torch.arange(raters, device=noise.device)[:, None], noise)
        if self.rater_maps == "mc":
            return self.head.group_means(features, codes, self._probabilities)
        return self._probabilities(self.head.group_means(features, codes))

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Of logits B×N×C×H×W."""
        return to_probabilities(logits, self.data, 2)


def seeded_raters(rows: int, raters: int, seed: int) -> Tensor:
    """Raters drawn uniformly with replacement; the first do not depend on how many are drawn."""
    generator = torch.Generator().manual_seed(seed)
    blocks = -(-rows // _RATER_BLOCK)
    drawn = [torch.randint(raters, (_RATER_BLOCK,), generator=generator) for _ in range(blocks)]
    return torch.cat(drawn)[:rows]
