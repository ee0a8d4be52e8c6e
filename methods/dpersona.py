"""D-Persona: a latent space bounded by the raters' union and intersection, then one attention query per rater.

Wu, Luo, Xu, Guo, Ju, Ge, Liao, Cai, "Diversified and Personalized Multi-rater Medical Image Segmentation",
CVPR 2024, arXiv 2403.13417.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..core.errors import UnsupportedPair
from ..datasets.base import DataDescription
from .backbones import Width, Widths, build_backbone
from .base import Deviation, Method, Prediction
from .chunks import image_chunks
from .dpersona_deviations import DEVIATIONS
from .experts import ExpertHeads, attend, flat_share, heads_fit
from .fusion import FusionHead
from .latent import BiasInit, Gaussian, GaussianEncoder, draw_seeds, kl_divergence, seeded_noise, sum_of_norms
from .losses import batch_dice_loss, draw_rater, image_dice_loss, pick_rater, union_and_intersection
from .modes import evaluating, without_parameter_gradients


class DPersona(Method):
    """D-Persona with its two stages.

    Stage ``diverse`` trains a Probabilistic U-Net whose prior samples must cover the raters: the pixel-wise maximum and
    minimum over several samples match the union and intersection of the masks. Stage ``personalised`` keeps it fixed
    and trains one small head per rater; its query attends over a bank of prior codes, and the weighted mean code is
    decoded into that rater's map.

    Options that are null follow `fidelity`; a value that is given wins over it.
    """

    gives_samples: ClassVar[bool] = True
    gives_raters: ClassVar[bool] = True
    needs_identity: ClassVar[bool] = True
    stages: ClassVar[tuple[str, ...]] = ("diverse", "personalised")
    stage_gives: ClassVar[dict[str, str]] = {"diverse": "samples", "personalised": "raters"}
    deviations: ClassVar[tuple[Deviation, ...]] = DEVIATIONS

    def __init__(
        self,
        data: DataDescription,
        stages: Annotated[
            Literal["both", "diverse"], "diverse: stage 1 alone, also on raters without identity; no rater maps"
        ] = "both",
        fidelity: Annotated[
            Literal["default", "authors"],
            "authors: what is null below as in the released code (ReLU on the query, log std unclamped, batch norm "
            "of the frozen trunk in training mode)",
        ] = "default",
        backbone: Annotated[Literal["unet_r34", "unet_small"], "trunk that gives the feature map"] = "unet_r34",
        backbone_weights: Annotated[str | None, "local ImageNet weights of ResNet-34; null: from scratch"] = None,
        widths: Annotated[Widths | None, "levels of unet_small; null: 16, 32, 64, 128"] = None,
        latent: Annotated[int, Field(ge=1), "size of the code z"] = 6,
        encoder_widths: Annotated[Widths, "blocks of prior and posterior net"] = (16, 32, 64, 128, 256),
        encoder_convs: Annotated[int, Field(ge=1), "convolutions a block of prior and posterior net"] = 3,
        encoder_pool: Annotated[bool, "2x2 average pool before prior and posterior net"] = False,
        latent_bias: Annotated[BiasInit, "initial bias of mean and log std: std 1 or std 1e-3"] = "normal",
        log_std_clamp: Annotated[float | None, Field(ge=0), "limit of |log std|; 0: none; null: by fidelity"] = None,
        fusion_width: Annotated[int, Field(ge=1), "hidden channels of the fusion head"] = 16,
        sample_chunk: Annotated[
            int | None, Field(ge=1), "codes decoded at once (1: a loop); null: by device; never changes the draws"
        ] = None,
        dice: Annotated[Literal["batch", "image"], "soft Dice over the batch, or per image with smoothing 1"] = "batch",
        rater_draw: Annotated[Literal["batch", "image"], "one target rater a batch, or one an image"] = "batch",
        recon_source: Annotated[
            Literal["posterior", "prior"], "code of the reconstruction; prior: the code before August 2024"
        ] = "posterior",
        kl_weight: Annotated[float, Field(ge=0), "weight of KL(q||p)"] = 1.0,
        bound_weight: Annotated[float, Field(ge=0), "weight of the bound loss, beta in the paper"] = 0.5,
        bound_samples: Annotated[int, Field(ge=1), "prior samples in the bound loss"] = 10,
        norm_weight: Annotated[float, Field(ge=0), "weight of the sum of un-squared parameter norms"] = 1e-5,
        head_widths: Annotated[tuple[Width, ...], "blocks of a rater's head before the last one, of width z"] = (
            32,
            16,
        ),
        head_padding: Annotated[int, Field(ge=0), "padding of the heads' 3x3 convolutions (authors: 3)"] = 3,
        head_pool: Annotated[bool, "2x2 average pool of the features before the heads"] = False,
        head_dropout: Annotated[float, Field(ge=0, lt=1), "channel dropout in the heads"] = 0.1,
        query_relu: Annotated[bool | None, "ReLU after the last convolution of a head; null: by fidelity"] = None,
        bn_train_in_stage2: Annotated[
            bool | None, "batch norm of the frozen trunk uses and moves batch statistics; null: by fidelity"
        ] = None,
        bank_train: Annotated[int, Field(ge=2), "codes in the bank in stage 2"] = 100,
        bank_eval: Annotated[int, Field(ge=2), "codes in the bank at prediction"] = 500,
        shared_noise: Annotated[
            bool,
            "the images of any predict call share the noise of a sample; the slices of a volume do when a cell is "
            "evaluated, but not with fidelity=authors",
        ] = False,
    ) -> None:
        hparams = {name: value for name, value in locals().items() if name not in ("self", "data", "__class__")}
        super().__init__(data, **hparams)
        authors = fidelity == "authors"
        clamp = log_std_clamp if log_std_clamp is not None else (0.0 if authors else 10.0)
        self.query_relu = query_relu if query_relu is not None else authors
        self.bn_train_in_stage2 = bn_train_in_stage2 if bn_train_in_stage2 is not None else authors
        self.latent = latent
        self.rater_per_image = rater_draw == "image"
        self.recon_source = recon_source
        self.kl_weight = kl_weight
        self.bound_weight = bound_weight
        self.bound_samples = bound_samples
        self.norm_weight = norm_weight
        self.bank_train = bank_train
        self.bank_eval = bank_eval
        self.shared_noise = shared_noise
        self.slices_apart = authors  # dpersona.md, quirk 12
        self.dice: Callable[..., Tensor] = batch_dice_loss if dice == "batch" else image_dice_loss

        def encoder(channels: int) -> GaussianEncoder:
            return GaussianEncoder(
                channels,
                encoder_widths,
                encoder_convs,
                latent,
                pool_input=encoder_pool,
                bias=latent_bias,
                log_std_clamp=clamp or None,
            )

        self.trunk = build_backbone(backbone, data.channels, widths, backbone_weights)
        features = self.trunk.out_channels
        self.prior = encoder(data.channels)
        self.posterior = encoder(data.channels + data.raters)
        self.fusion = FusionHead(features, latent, fusion_width, sample_chunk=sample_chunk)
        self.heads: ExpertHeads | None = None
        if stages == "both":
            self.heads = ExpertHeads(
                data.raters,
                features,
                (*head_widths, latent),
                padding=head_padding,
                final_relu=self.query_relu,
                dropout=head_dropout,
                pool_input=head_pool,
            )
        # Saved with the weights: a checkpoint of stage 1 holds heads that were never trained.
        self.personalised_trained: Tensor
        self.register_buffer("personalised_trained", torch.tensor(False))

    @classmethod
    def stages_for(cls, hparams: dict[str, Any]) -> tuple[str, ...]:
        return cls.stages[:1] if hparams.get("stages") == "diverse" else cls.stages

    @classmethod
    def check_supported(cls, data: DataDescription, hparams: dict[str, Any]) -> None:
        """As every binary 2D method; without stage 2 raters need no identity, with it the heads must fit the images.

        Raises:
            UnsupportedPair: with the reason and what to do.
        """
        if hparams.get("stages") == "diverse" and data.identity == "none":
            data = replace(data, identity="derived")
        super().check_supported(data, hparams)
        if hparams.get("stages") != "both":
            return
        widths, padding, pool = (hparams[k] for k in ("head_widths", "head_padding", "head_pool"))
        if not heads_fit(data.size, len(widths) + 1, padding, pool):
            raise UnsupportedPair(
                f"the rater heads of {cls.__name__} shrink images of {'x'.join(map(str, data.size))} pixels below one "
                f"pixel under head_padding={padding}, head_pool={str(pool).lower()}, head_widths={list(widths)}; set "
                f"method.head_padding=3 as the authors do, or give fewer head_widths"
            )

    def parameters_for(self, stage: str | None) -> Iterable[nn.Parameter]:
        if stage == "personalised":
            return self._heads().parameters()
        return [p for part in (self.trunk, self.prior, self.posterior, self.fusion) for p in part.parameters()]

    # -- training -------------------------------------------------------------------------------

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Loss of stage ``diverse`` (default) or ``personalised`` and its terms."""
        images, valid = batch["image"], batch["rater_valid"]
        masks = (batch["masks"] * valid[:, :, None, None]).to(images.dtype)
        if stage == "personalised":
            return self._personalised_step(images, masks, valid)
        rater = draw_rater(valid, self.rater_per_image)
        noise = torch.randn(len(images), 1 + self.bound_samples, self.latent, device=images.device, dtype=images.dtype)
        features = self.trunk(images)
        # A missing rater's mask enters the posterior as zeros, like an empty one: the net has no input for "missing".
        prior, posterior = self.prior(images), self.posterior(torch.cat([images, masks], 1))
        loss, terms = self.diverse_loss(features, prior, posterior, masks, valid, rater, noise[:, :1], noise[:, 1:])
        return loss, {name: term.detach() for name, term in terms.items()}

    def diverse_loss(
        self,
        features: Tensor,
        prior: Gaussian,
        posterior: Gaussian,
        masks: Tensor,
        rater_valid: Tensor,
        rater: Tensor,
        noise: Tensor,
        bound_noise: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Stage 1: ``D(fcomb(F, z), Y_k) + KL + β · D_bound + Ω``, and its weighted-out terms.

        Args:
            features: B×16×H×W.
            prior, posterior: the two Gaussians of each image.
            masks: B×R×H×W in {0, 1}.
            rater_valid: B×R.
            rater: B, the drawn target rater k.
            noise: B×1×L, of the reconstruction's code.
            bound_noise: B×S×L, of the codes in the bound loss.
        """
        source = posterior if self.recon_source == "posterior" else prior
        reconstruction = self.fusion(features, source.codes(noise))
        extremes = self.fusion.extremes(features, prior.codes(bound_noise))
        terms = {
            "rec": self.dice(reconstruction, pick_rater(masks, rater)),
            "kl": kl_divergence(posterior, prior).mean(),
            "bound": self.dice(extremes, union_and_intersection(masks, rater_valid)),
        }
        loss = terms["rec"] + self.kl_weight * terms["kl"] + self.bound_weight * terms["bound"]
        if self.norm_weight:
            terms["norms"] = sum_of_norms([self.posterior, self.prior, *self.fusion.hidden_layers])
            loss = loss + self.norm_weight * terms["norms"]
        return loss, terms

    def _personalised_step(
        self, images: Tensor, masks: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        self.personalised_trained.fill_(True)
        with torch.no_grad():
            if self.bn_train_in_stage2:
                features = self.trunk(images)
            else:
                with evaluating(self.trunk):
                    features = self.trunk(images)
            prior = self.prior(images)
            noise = torch.randn(len(images), self.bank_train, self.latent, device=images.device, dtype=images.dtype)
            bank = prior.codes(noise)
        logits, queries = self.personalised_logits(features, bank)
        loss = self.dice(logits, masks, valid)
        return loss, {
            "flat_queries": flat_share(queries, bank),
            "query_norm": queries.detach().norm(dim=-1).amax(),
        }

    def personalised_logits(self, features: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
        """Logits B×R×H×W and queries B×R×L of all raters from a bank B×S×L; only the heads get gradients."""
        codes, queries = self.personalised_codes(features, bank)
        with without_parameter_gradients(self.fusion):
            return self.fusion(features, codes), queries

    def personalised_codes(self, features: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and queries B×R×L of all raters."""
        queries = self._heads()(features)
        return attend(queries, bank)[0], queries

    def _heads(self) -> ExpertHeads:
        if self.heads is None:
            raise RuntimeError("this D-Persona was built with stages='diverse' and has no rater heads")
        return self.heads

    # -- prediction -----------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        """Prior samples B×S×H×W and, once stage 2 has trained, rater maps B×R×H×W.

        Samples and bank have seeds of their own, drawn first: neither the number of samples nor the stage moves the
        noise of the other.
        """
        shared = self.shared_noise or (self.slices_share_noise and not self.slices_apart)
        seeds = draw_seeds(len(images), generator, 2, shared)

        def noise(rows_of_noise: int, which: int) -> Tensor:
            return torch.stack([seeded_noise(rows_of_noise, self.latent, seed, images) for seed in seeds[which::2]])

        personalise = self.heads is not None and bool(self.personalised_trained)
        sample_noise = noise(n_samples, 0)
        bank_noise = noise(self.bank_eval, 1) if personalise else None
        samples, raters, sample_codes, rater_codes = [], [], [], []
        with evaluating(self):
            for some in image_chunks(images):
                features, prior = self.trunk(images[some]), self.prior(images[some])
                sample_codes.append(prior.codes(sample_noise[some]))
                samples.append(torch.sigmoid(self.fusion(features, sample_codes[-1])))
                if bank_noise is not None:
                    rater_codes.append(self.personalised_codes(features, prior.codes(bank_noise[some]))[0])
                    raters.append(torch.sigmoid(self.fusion(features, rater_codes[-1])))
        return Prediction(
            samples=torch.cat(samples),
            raters=torch.cat(raters) if personalise else None,
            sample_codes=torch.cat(sample_codes),
            rater_codes=torch.cat(rater_codes) if personalise else None,
        )
