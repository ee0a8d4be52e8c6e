"""PHiSeg: a hierarchy of latent maps, one per resolution, from which a segmentation is built coarse to fine.

Baumgartner, Tezcan, Chaitanya, Hötker, Muehlematter, Schawkat, Becker, Donati, Konukoglu, "PHiSeg: Capturing
Uncertainty in Medical Image Segmentation", MICCAI 2019, arXiv 1906.04045.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.errors import UnsupportedPair, UserError
from ..datasets.base import DataDescription
from .backbones import Widths
from .base import Deviation, Method, Prediction
from .chunks import chunks, image_chunks
from .latent import draw_seeds, seeded_noise
from .losses import at_least_single, draw_rater, mean_valid, pick_rater
from .modes import evaluating
from .phiseg_deviations import DEVIATIONS
from .phiseg_layers import BN_MOMENTUM, GaussianMap, Upsampling, kl_maps, partial_sums, pixel_sum_cross_entropy
from .phiseg_networks import ImageParts, LatentHierarchy, Likelihood


@dataclass(frozen=True)
class Fidelity:
    """What an option that is null means."""

    upsample: Upsampling
    bn_generative_update: bool
    top_mean_kernel: int


FIDELITIES = {"authors": Fidelity("tf1", True, 3), "plain": Fidelity("half_pixel", False, 1)}


class PHiSeg(Method):
    """PHiSeg, "7_5" (7 resolution levels, 5 latent levels) unless `widths` and `latent_levels` say otherwise.

    Posterior q(z|x,s), prior p(z|x) and likelihood p(s|z); the likelihood sees the codes alone. The loss is the
    cross-entropy of every partial sum of the levels' logits plus the KL of every level, with one rater's mask drawn
    per image; prediction decodes ancestral samples of the prior.

    Binary masks are two exclusive channels with softmax, as in the code; overlapping classes, which it does not have,
    are one sigmoid channel each. Options that are null follow `fidelity`; a value that is given wins over it.
    """

    gives_samples: ClassVar[bool] = True
    multiclass: ClassVar[bool] = True
    deviations: ClassVar[tuple[Deviation, ...]] = DEVIATIONS

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        words = [f"{len(hparams['widths'])}_{hparams['latent_levels']}"]
        if hparams["fidelity"] != "authors":
            words.append(str(hparams["fidelity"]))
        if hparams["bn_generative_update"] is False:
            words.append("one batch-norm update a step")
        if hparams["target"] == "first":
            words.append("first rater only")
        return ", ".join(words)

    def __init__(
        self,
        data: DataDescription,
        fidelity: Annotated[
            Literal["authors", "plain"],
            "authors: the reference graph with its quirks; plain: what a straightforward PyTorch version would be "
            "(half-pixel upsampling, one batch-norm update a step, 1x1 means at every level)",
        ] = "authors",
        widths: Annotated[Widths, "channels of the resolution levels, finest first"] = (
            32,
            64,
            128,
            192,
            192,
            192,
            192,
        ),
        latent_levels: Annotated[int, Field(ge=1), "latent levels L, at most as many as widths (7_5: 5, 7_1: 1)"] = 5,
        latent: Annotated[int, Field(ge=1), "channels of the code of each level"] = 2,
        encoder_convs: Annotated[int, Field(ge=1), "convolutions a resolution level of prior and posterior"] = 3,
        upsample: Annotated[
            Upsampling | None, "bilinear upsampling of TensorFlow 1, or with half-pixel centres; null: by fidelity"
        ] = None,
        top_mean_kernel: Annotated[
            Literal[1, 3] | None, "kernel of the coarsest mean (its deviation's is 1); null: by fidelity"
        ] = None,
        bn_generative_update: Annotated[
            bool | None,
            "batch norm of prior and likelihood also takes the statistics of a prior sample in each step; "
            "null: by fidelity",
        ] = None,
        bn_momentum: Annotated[float, Field(gt=0, le=1), "weight of a batch in the running statistics"] = BN_MOMENTUM,
        centre_image: Annotated[bool, "image - 0.5, for images in [0, 1]"] = True,
        latent_scale: Annotated[
            float, Field(ge=0), "initial weights of the latent heads times this; below 1 calms the first KL"
        ] = 1.0,
        std_floor: Annotated[float, Field(ge=0), "added to every standard deviation; 0: none, as the authors"] = 0.0,
        output_bias: Annotated[
            float | None, "initial logit of foreground, such as -4 where it is rare; null: 0, as the authors"
        ] = None,
        kl_weight: Annotated[float, Field(ge=0), "weight of the KL of all levels"] = 1.0,
        exponential_weighting: Annotated[
            bool, "KL of level l times 4^l: coarser levels have fewer positions; false: all 1"
        ] = True,
        deep_supervision: Annotated[
            bool, "cross-entropy of every partial sum of levels; false: of the full sum only (not in the code)"
        ] = True,
        target: Annotated[
            Literal["random", "first"], "rater drawn per image and step, or always the first it has (1annot)"
        ] = "random",
        sample_chunk: Annotated[
            int | None, Field(ge=1), "samples decoded at once (1: a loop); null: by memory; never changes the draws"
        ] = None,
    ) -> None:
        hparams = {name: value for name, value in locals().items() if name not in ("self", "data", "__class__")}
        super().__init__(data, **hparams)
        if latent_levels > len(widths):
            raise UserError(
                f"method.latent_levels={latent_levels} is more than the {len(widths)} resolution levels of "
                f"method.widths={list(widths)}; give fewer latent levels or more widths"
            )
        chosen = FIDELITIES[fidelity]
        stencil: Upsampling = upsample or chosen.upsample
        mean_kernel: int = top_mean_kernel or chosen.top_mean_kernel
        self.bn_generative_update = (
            bn_generative_update if bn_generative_update is not None else chosen.bn_generative_update
        )
        self.widths = tuple(widths)
        self.latent_levels = latent_levels
        self.latent = latent
        self.centre_image = centre_image
        self.kl_weight = kl_weight
        self.level_weights = [4.0**level if exponential_weighting else 1.0 for level in range(latent_levels)]
        self.deep_supervision = deep_supervision
        self.first_rater = target == "first"
        self.sample_chunk = sample_chunk
        self.softmax = not data.overlapping
        self.outputs = data.classes + 1 if self.softmax else data.classes

        def hierarchy(inputs: int) -> LatentHierarchy:
            return LatentHierarchy(
                inputs, self.widths, latent_levels, latent, encoder_convs, stencil, mean_kernel, std_floor
            )

        self.posterior = hierarchy(data.channels + self.outputs)
        self.prior = hierarchy(data.channels)
        self.likelihood = Likelihood(self.outputs, self.widths, latent_levels, latent, stencil)
        self._set_bn_momentum(bn_momentum)
        with torch.no_grad():
            for head in (*self.posterior.latent_heads(), *self.prior.latent_heads()):
                head.weight.mul_(latent_scale)
        if output_bias is not None:
            # On the coarsest level alone: it is part of every partial sum.
            bias = self.likelihood.heads[-1].bias
            assert isinstance(bias, Tensor)
            with torch.no_grad():
                bias[-data.classes :] = output_bias

    def _set_bn_momentum(self, momentum: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        if self.bn_generative_update:
            # The code runs the prior's encoder twice a step on the same images. The batch statistics are the same, so
            # one run that advances the running statistics by two steps at once does it.
            for module in self.prior.encoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1 - (1 - momentum) ** 2

    @classmethod
    def check_supported(cls, data: DataDescription, hparams: dict[str, Any]) -> None:
        """As every 2D method; image sizes must be multiples of the total stride.

        Raises:
            UnsupportedPair: with the reason and what to do.
        """
        super().check_supported(data, hparams)
        stride = 2 ** (len(hparams["widths"]) - 1)
        if any(length % stride for length in data.size):
            raise UnsupportedPair(_size_message(data.size, len(hparams["widths"])))

    # -- training -------------------------------------------------------------------------------

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Negative ELBO of one rater's mask an image; an image without any rater counts for nothing."""
        images, valid = batch["image"], batch["rater_valid"]
        sizes = self.latent_sizes(images)
        if self.training and len(images) * sizes[-1][0] * sizes[-1][1] < 2:
            raise UserError(
                f"a batch of one image of {'x'.join(map(str, images.shape[-2:]))} pixels leaves a single value a "
                f"channel at level {len(self.widths)}, which batch norm cannot use; raise train.batch_size or give "
                f"fewer method.widths"
            )
        rater = valid.int().argmax(1) if self.first_rater else draw_rater(valid)
        masks = batch["masks"].masked_fill(~valid.view(*valid.shape, *[1] * (batch["masks"].ndim - 2)), 0)
        target = self.target_channels(pick_rater(masks, rater)[:, 0]).to(images.dtype)

        posterior, codes = self.posterior.sample(self.encode_posterior(images, target), self._noise(images))
        image_parts = self.encode_prior(images)
        prior = self.prior.given(image_parts, codes)
        loss, terms = self.elbo_loss(self.likelihood(codes), posterior, prior, target, valid.any(1, keepdim=True))
        if self.bn_generative_update and self.training:
            with torch.no_grad():
                _, own_codes = self.prior.sample(image_parts, self._noise(images))
                self.likelihood(own_codes)
        return loss, {name: term.detach() for name, term in terms.items()}

    def target_channels(self, mask: Tensor) -> Tensor:
        """One rater's mask as B×C×H×W in {0, 1}: one-hot with the background first, or the overlapping classes."""
        return F.one_hot(mask.long(), self.outputs).movedim(-1, 1) if self.softmax else mask

    def encode_prior(self, images: Tensor) -> ImageParts:
        """The prior's image parts of images B×C×H×W."""
        return self.prior.encode(images - 0.5 if self.centre_image else images)

    def encode_posterior(self, images: Tensor, target: Tensor) -> ImageParts:
        """The posterior's image parts of images and targets B×C×H×W; it sees the one-hot mask - 0.5."""
        return self.posterior.encode(torch.cat([images - 0.5 if self.centre_image else images, target - 0.5], 1))

    def elbo_loss(
        self,
        logits: Sequence[Tensor],
        posterior: Sequence[GaussianMap],
        prior: Sequence[GaussianMap],
        target: Tensor,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms before weighting, sums over pixels and latent positions, means over the batch.

        Args:
            logits: of the likelihood, y_ℓ.
            posterior, prior: Gaussians of the levels. All lists are finest first.
            target: B×C×H×W in {0, 1}.
            valid: B×1, False for an image that has no mask.
        """
        sums = partial_sums([at_least_single(level) for level in logits])
        if not self.deep_supervision:
            sums = sums[:1]
        reconstruction = pixel_sum_cross_entropy(sums, target, self.softmax)
        rec = torch.stack([mean_valid(each, valid) for each in reconstruction.split(1, 1)])
        divergence = [kl_maps(q, p)[:, None] for q, p in zip(posterior, prior, strict=True)]
        kl = torch.stack([mean_valid(each, valid) for each in divergence])
        weights = torch.tensor(self.level_weights, dtype=kl.dtype, device=kl.device)
        terms = {"rec": rec.sum(), "kl": (weights * kl).sum(), "rec_0": rec[0]}
        terms |= {f"kl_{level}": value for level, value in enumerate(kl)}
        return terms["rec"] + self.kl_weight * terms["kl"], terms

    # -- latent maps ----------------------------------------------------------------------------

    def latent_sizes(self, images: Tensor) -> list[tuple[int, int]]:
        """Height and width of the latent map of each level, finest first.

        Raises:
            UserError: the images' size is no multiple of the total stride.
        """
        height, width = images.shape[-2:]
        levels = len(self.widths)
        if height % 2 ** (levels - 1) or width % 2 ** (levels - 1):
            raise UserError(_size_message((height, width), levels))
        return [(height >> r, width >> r) for r in range(levels - self.latent_levels, levels)]

    def _noise(self, images: Tensor) -> list[Tensor]:
        """Standard normal noise of all levels from torch's global generator."""
        shapes = [(len(images), self.latent, *size) for size in self.latent_sizes(images)]
        return [torch.randn(shape, device=images.device, dtype=images.dtype) for shape in shapes]

    # -- prediction -----------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        """Prior samples B×S×H×W (multi-class B×S×C×H×W), each image with noise from a seed of its own.

        The noise of all levels and samples is drawn first. Encoder and coarsest level run once an image; the chain of
        finer levels and the likelihood run on samples of all images folded into one batch.
        """
        sizes = self.latent_sizes(images)
        counts = [self.latent * height * width for height, width in sizes]
        seeds = draw_seeds(len(images), generator, shared=self.slices_share_noise)
        bytes_per_row = self.likelihood.peak_channels * images[0, 0].numel() * images.element_size()
        samples = []
        with evaluating(self):
            for some in image_chunks(images, self.likelihood.peak_channels):
                part = images[some]
                noise = torch.cat([seeded_noise(n_samples, sum(counts), seed, images) for seed in seeds[some]])
                image_parts = self.encode_prior(part)
                owner = torch.arange(len(part), device=images.device).repeat_interleave(n_samples)
                for rows in self._chunks(len(owner), bytes_per_row, images.device):
                    flat = noise[rows].split(counts, 1)
                    level_noise = [x.unflatten(1, (self.latent, *size)) for x, size in zip(flat, sizes, strict=True)]
                    _, codes = self.prior.sample(image_parts.rows(owner[rows]), level_noise)
                    samples.append(self.probabilities(partial_sums(self.likelihood(codes))[0]))
        return Prediction(samples=torch.cat(samples).unflatten(0, (len(images), n_samples)))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of logits N×C×H×W as a `Prediction` holds them; binary: of foreground, N×H×W."""
        if not self.softmax:
            return torch.sigmoid(logits)
        if self.outputs == 2:
            return torch.sigmoid(logits[:, 1] - logits[:, 0])  # a softmax over two channels
        return logits.softmax(1)

    def _chunks(self, rows: int, bytes_per_row: int, device: torch.device) -> Sequence[slice]:
        if self.sample_chunk is None:
            # On the CPU a quarter of the usual chunk: these maps have many channels, and large ones are slower.
            return list(chunks(rows, bytes_per_row * (4 if device.type == "cpu" else 1), device))
        return [slice(start, start + self.sample_chunk) for start in range(0, rows, self.sample_chunk)]


def _size_message(size: Sequence[int], levels: int) -> str:
    return (
        f"PHiSeg with {levels} resolution levels halves the image {levels - 1} times, and "
        f"{'x'.join(map(str, size))} pixels are no multiple of {2 ** (levels - 1)}; give images of such a size "
        f"or fewer method.widths"
    )
