"""MR-Net: an expertness vector says whose mask is wanted; rater disagreement then sharpens the map.

Ji, Yu, Wu, Ma, Liu, Liu, Lin, Lin, Zheng, "Learning Calibrated Medical Image Segmentation via Multi-rater Agreement
Modeling", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..core.errors import UnsupportedPair, UserError
from ..datasets.base import DataDescription
from .base import Deviation, Method, Prediction
from .chunks import chunks
from .losses import draw_rater, mean_valid
from .modes import evaluating, without_parameter_gradients
from .mrnet_deviations import DEVIATIONS
from .mrnet_layers import CoarseNet, PerceptionHead, ReconstructionNet
from .targets import cross_entropy, output_channels, prediction_layout, target_channels, to_probabilities

Consistency = Literal["off", "inert", "paper"]
Distance = Literal["channel_mean", "channel_sum", "width_sum"]
Count = Annotated[int, Field(ge=1)]

SINGLE, MIXED, AVERAGE = range(3)  # the three expertness vectors of a training step, and their weights
KIND_WEIGHTS = (1 / 6, 2 / 6, 3 / 6)


@dataclass(frozen=True)
class Fidelity:
    """What an option that is null means under a value of `fidelity`."""

    consistency: Consistency
    consistency_distance: Distance
    average_branch_map: Literal["average", "mixed"]
    passes: Literal["batched", "separate"]


FIDELITY = {
    "default": Fidelity("off", "channel_mean", "average", "batched"),
    "authors": Fidelity("inert", "channel_sum", "mixed", "separate"),
    "paper": Fidelity("paper", "channel_sum", "average", "batched"),
}


@dataclass
class Outputs:
    """Logits of the three networks for K expertness vectors an image: B×K×C×H×W, of the raters B×K×R×C×H×W."""

    coarse: Tensor
    raters: Tensor
    refined: Tensor


class MRNet(Method):
    """MR-Net: coarse net with EIM, multi-rater reconstruction (MRM) and multi-rater perception (MPM).

    The training target of an expertness vector e is the e-weighted mean of the masks. Every step takes three vectors
    an image: one rater, a random mixture, the average. No gradient crosses between the three networks: the suite's one
    optimiser over the sum of their losses is three optimisers.

    Deterministic: `predict` gives the map of each one-hot vector as that rater's and the map of the average vector as
    the mean; there are no samples. Options that are null follow `fidelity`; a value that is given wins over it.
    """

    gives_raters: ClassVar[bool] = True
    needs_identity: ClassVar[bool] = True
    multiclass: ClassVar[bool] = True
    stage_gives: ClassVar[dict[str, str]] = {"main": "mean"}  # "average weight", what the paper reports
    deviations: ClassVar[tuple[Deviation, ...]] = DEVIATIONS

    def __init__(
        self,
        data: DataDescription,
        fidelity: Annotated[
            Literal["default", "authors", "paper"],
            "authors: what is null below as in the released code (consistency term without effect, the mixed coarse "
            "map in the average branch, three passes a step); paper: the consistency term with a gradient",
        ] = "default",
        width: Annotated[int, Field(ge=1), "channels of the first level of all three networks (paper: 64)"] = 64,
        encoder_blocks: Annotated[
            tuple[Count, Count, Count, Count], "basic blocks of the four ResNet stages (paper: ResNet-34)"
        ] = (3, 4, 6, 3),
        vgg_convs: Annotated[
            tuple[Count, Count, Count, Count, Count], "convolutions of the five MRM blocks (paper: VGG-16)"
        ] = (2, 2, 3, 3, 3),
        backbone_weights: Annotated[
            str | None, "local ImageNet weights of ResNet-34; null: from scratch, as the authors' script"
        ] = None,
        output_bias: Annotated[
            float | None, "start of the output biases of all three networks, -4: near an empty mask; null: near 0"
        ] = None,
        coarse_weight: Annotated[float, Field(ge=0), "weight of the coarse net's cross-entropy"] = 0.7,
        consistency: Annotated[
            Consistency | None,
            "term on MRM features of coarse map and target; off: none; inert: computed without gradient, moves the "
            "MRM's batch-norm statistics (the code); paper: trains the coarse net; null: by fidelity",
        ] = None,
        consistency_weight: Annotated[float, Field(ge=0), "weight of the consistency term"] = 0.3,
        consistency_scale: Annotated[float, Field(ge=0), "factor inside the consistency term"] = 1e-3,
        consistency_distance: Annotated[
            Distance | None,
            "squared feature distance: mean or sum over channels, or sum over the width (the code under PyTorch >= "
            "1.10), averaged over what is left; null: by fidelity",
        ] = None,
        average_branch_map: Annotated[
            Literal["average", "mixed"] | None,
            "coarse map that the MPM sees in the average branch of training; null: by fidelity",
        ] = None,
        passes: Annotated[
            Literal["batched", "separate"] | None,
            "the three vectors of a step as one batch, or one after the other with batch-norm statistics of their "
            "own; null: by fidelity",
        ] = None,
    ) -> None:
        hparams = {name: value for name, value in locals().items() if name not in ("self", "data", "__class__")}
        super().__init__(data, **hparams)
        chosen = FIDELITY[fidelity]
        self.width = width
        self.coarse_weight = coarse_weight
        self.consistency = consistency or chosen.consistency
        self.consistency_weight = consistency_weight
        self.consistency_scale = consistency_scale
        self.consistency_distance = consistency_distance or chosen.consistency_distance
        self.average_branch_map = average_branch_map or chosen.average_branch_map
        self.separate = (passes or chosen.passes) == "separate"
        outputs = output_channels(data)
        self.coarse = CoarseNet(data.channels, data.raters, outputs, width, encoder_blocks, backbone_weights)
        self.reconstruction = ReconstructionNet(data.channels, data.raters, outputs, width, vgg_convs)
        self.perception = PerceptionHead(outputs, width)
        if output_bias is not None:
            for last in (self.coarse.decoder.last, self.reconstruction.heads, self.perception.head):
                assert last.bias is not None
                nn.init.constant_(last.bias, output_bias)

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        named = [] if hparams["fidelity"] == "default" else [f"fidelity {hparams['fidelity']}"]
        return ", ".join([*named, *([] if hparams["width"] == 64 else [f"width {hparams['width']}"])])

    @classmethod
    def check_supported(cls, data: DataDescription, hparams: dict[str, Any]) -> None:
        """As every personalised 2D method; disagreement needs at least two raters.

        Raises:
            UnsupportedPair: with the reason and what to do.
        """
        super().check_supported(data, hparams)
        if data.raters < 2:
            raise UnsupportedPair(
                f"{cls.__name__} models the disagreement of raters, but {data.name!r} has {data.raters}; choose a "
                f"plain U-Net such as unet_majority"
            )

    # -- the three networks ---------------------------------------------------------------------

    def forward(self, images: Tensor, expertness: Tensor) -> Outputs:
        """All three networks for images B×… and expertness vectors B×K×R (each sums to 1), as at prediction."""
        taps = self.coarse.encoder(images)
        logits, features = self.coarse.decode(taps, expertness, images.shape[-2:])
        raters = self.reconstruction(images, logits, expertness)
        refined = self.perceive(features, logits, raters)
        kinds = (len(images), expertness.shape[1])
        return Outputs(*(x.unflatten(0, kinds) for x in (logits, raters, refined)))

    def perceive(self, features: Tensor, logits: Tensor, raters: Tensor) -> Tensor:
        """MPM logits N×C×H×W from F0, coarse logits N×C×H×W and rater logits N×R×C×H×W.

        Disagreement is the unbiased standard deviation over the R reconstructed maps.
        """
        disagreement = to_probabilities(raters, self.data, 2).std(1)
        return self.perception(features, to_probabilities(logits, self.data, 1), disagreement)

    # -- training -------------------------------------------------------------------------------

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Sum of the losses of the three networks, which share no gradient."""
        images, valid = batch["image"], batch["rater_valid"]
        if self.separate and len(images) < 2:
            raise UserError(
                "mrnet with passes=separate needs at least 2 images a batch, because batch norm of the image-level "
                "branch sees one value an image; set train.batch_size=2 or more, or method.passes=batched"
            )
        masks = target_channels(batch["masks"], self.data).to(images.dtype)
        expertness = draw_expertness(valid).to(images.dtype)
        loss, terms = self.losses(images, masks, valid, expertness)
        return loss, {name: term.detach() for name, term in terms.items()}

    def losses(
        self, images: Tensor, masks: Tensor, rater_valid: Tensor, expertness: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_coarse + L_MRM + L_MPM, and the three before weighting.

        Args:
            images: B×….
            masks: B×R×C×H×W in {0, 1}.
            rater_valid: B×R.
            expertness: B×3×R in the order single, mixed, average; 0 for a missing rater.
        """
        targets = torch.einsum("bkr,brchw->bkchw", expertness, masks)
        groups = expertness.split(1, 1) if self.separate else (expertness,)
        coarse = [self.coarse(images, part) for part in groups]
        # Each network sees the outputs of the one before as constants.
        detached = [(logits.detach(), features.detach()) for logits, features in coarse]
        raters = [self.reconstruction(images, z, e) for (z, _), e in zip(detached, groups, strict=True)]
        logits = _join([z for z, _ in coarse], groups)
        terms = {
            "coarse": self._by_kind(logits, targets),
            "mrm": self._reconstruction_loss(_join(raters, groups), masks, rater_valid),
        }
        shown = [z for z, _ in detached]
        if self.average_branch_map == "mixed":
            shown = self._with_mixed_average(shown)
        refined = [
            self.perceive(features, z, r.detach()) for (_, features), z, r in zip(detached, shown, raters, strict=True)
        ]
        terms["mpm"] = self._by_kind(_join(refined, groups), targets)
        loss = self.coarse_weight * terms["coarse"] + terms["mrm"] + terms["mpm"]
        if self.consistency != "off":
            terms["consistency"] = self._consistency(images, logits[:, AVERAGE], targets[:, AVERAGE])
        if self.consistency == "paper":
            loss = loss + self.consistency_weight * terms["consistency"]
        return loss, terms

    def _by_kind(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of B×3×C×H×W, kinds weighted 1 : 2 : 3."""
        each = cross_entropy(logits, targets, self.data).mean(0)
        return (each * each.new_tensor(KIND_WEIGHTS)).sum()

    def _reconstruction_loss(self, raters: Tensor, masks: Tensor, rater_valid: Tensor) -> Tensor:
        """Mean over kinds and available raters of the cross-entropy of B×3×R×C×H×W against every rater's mask."""
        each = cross_entropy(raters, masks.unsqueeze(1), self.data)
        return mean_valid(each.mean(1), rater_valid)

    def _with_mixed_average(self, shown: list[Tensor]) -> list[Tensor]:
        if self.separate:
            return [shown[SINGLE], shown[MIXED], shown[MIXED]]
        maps = shown[0].unflatten(0, (-1, 3))[:, [SINGLE, MIXED, MIXED]]
        return [maps.flatten(0, 1)]

    def _consistency(self, images: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """L_con: distance of the MRM's features of the average coarse logits and of the average mask."""
        if self.consistency == "inert":
            # As released: detached logits, so nothing learns from it, but two more updates of the running statistics.
            with torch.no_grad():
                of_map, _ = self.reconstruction.encode(images, logits)
                of_target, _ = self.reconstruction.encode(images, target)
        else:
            with evaluating(self.reconstruction), without_parameter_gradients(self.reconstruction):
                both, _ = self.reconstruction.encode(torch.cat([images, images]), torch.cat([logits, target]))
            of_map, of_target = ([f.chunk(2)[which] for f in both] for which in (0, 1))
        return self.consistency_scale * feature_distance(of_map, of_target, self.consistency_distance)

    # -- prediction -----------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        """The map of each rater, B×R×H×W, and of the average expertness; nothing is drawn."""
        raters = self.data.raters
        average = torch.full((1, raters), 1 / raters)
        expertness = torch.cat([torch.eye(raters), average]).to(images)
        maps = self.segment(images, expertness.expand(len(images), -1, -1))
        return Prediction(raters=prediction_layout(maps[:, :-1], self.data, 2), mean=self._mean(maps[:, -1]))

    @torch.no_grad()
    def segment(self, images: Tensor, expertness: Tensor) -> Tensor:
        """Probabilities B×K×C×H×W for any expertness vectors B×K×R, in eval mode.

        The encoder of the coarse net runs once an image; the rest on all pairs of image and vector that memory allows
        at once.
        """
        count, size = expertness.shape[1], images.shape[-2:]
        channels = output_channels(self.data)
        # the widest moment: the MPM's enhanced features beside the maps of the raters
        floats = self.width * (4 * channels + 8) + 3 * channels * self.data.raters
        row = floats * size[0] * size[1] * images.element_size()
        out: list[Tensor] = []
        with evaluating(self):
            for some in chunks(len(images), row * count, images.device):
                part, taps = images[some], self.coarse.encoder(images[some])
                maps = []
                for which in chunks(count, row * len(part), images.device):
                    vectors = expertness[some, which]
                    logits, features = self.coarse.decode(taps, vectors, size)
                    raters = self.reconstruction(part, logits, vectors)
                    refined = to_probabilities(self.perceive(features, logits, raters), self.data, 1)
                    maps.append(refined.unflatten(0, (len(part), -1)))
                out.append(torch.cat(maps, 1))
        return torch.cat(out)

    def _mean(self, maps: Tensor) -> Tensor:
        return prediction_layout(maps, self.data, 1)


def draw_expertness(rater_valid: Tensor) -> Tensor:
    """Expertness B×3×R float32 of a training step, from torch's global generator: one rater, mixture, average.

    The mixture has integer parts uniform in {1, …, 10}. A missing rater gets 0 and the rest is renormalised.
    """
    valid = rater_valid.to(torch.float32)
    single = nn.functional.one_hot(draw_rater(rater_valid), rater_valid.shape[1]).to(torch.float32)
    parts = torch.randint(1, 11, rater_valid.shape, device=rater_valid.device) * valid
    each = torch.stack([single * valid, parts, valid], 1)
    return each / each.sum(-1, keepdim=True).clamp_min(1)


def feature_distance(first: Sequence[Tensor], second: Sequence[Tensor], kind: Distance) -> Tensor:
    """Sum over the layers of the mean squared distance of N×F×H×W features.

    ``channel_sum`` is the released code under the PyTorch of its time; since 1.10 the same call sums over the width.
    """
    squares = [(a - b).square() for a, b in zip(first, second, strict=True)]
    if kind == "channel_mean":
        terms = [s.mean() for s in squares]
    else:
        terms = [s.sum(1 if kind == "channel_sum" else -1).mean() for s in squares]
    return torch.stack(terms).sum()


def _join(parts: Sequence[Tensor], groups: Sequence[Tensor]) -> Tensor:
    """Rows (B·K)×… of each group of vectors to B×3×…."""
    return torch.cat([part.unflatten(0, group.shape[:2]) for part, group in zip(parts, groups, strict=True)], 1)
