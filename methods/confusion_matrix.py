"""Confusion-matrix methods: a network for the truth and, for each annotator, how it is misread.

CM-Global has one matrix per annotator (Tanno et al., "Learning From Noisy Labels by Regularized Estimation of Annotator
Confusion", CVPR 2019, for classification), CM-Pixel one per annotator and pixel (Zhang et al., "Disentangling Human
Error from the Ground Truth in Segmentation of Medical Images", NeurIPS 2020, arXiv 2007.15963).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.errors import UnsupportedPair, UserError
from ..datasets.base import DataDescription
from .annotator_matrices import ALL, Form, GlobalMatrices, PixelMatrices, Who
from .backbones import Backbone, Width, Widths, build_backbone, channels_last
from .base import Deviation, Method, Prediction
from .chunks import chunks, image_chunks
from .class_dice import batch_class_dice
from .confusion_matrix_deviations import DEVIATIONS
from .losses import at_least_single, draw_rater
from .modes import evaluating
from .resnet18_unet import ResNet18UNet
from .targets import is_exclusive
from .zhang_unet import ZhangUNet

_LEAST_PROBABILITY = 1e-7

BackboneName = Literal["unet_r34", "unet_r18", "unet_small", "unet_zhang"]
DataLoss = Literal["nll", "ce_on_probs", "dice"]
Mix = Literal["probs", "logits"]


@dataclass(frozen=True)
class Fidelity:
    """What an option that is null means; `authors` are Zhang et al., `pionono` the port in Pionono's code."""

    form: Form
    mix: Mix
    loss: DataLoss
    trace_weight: float
    trace_sign: Literal[1, -1]
    trace_warmup: int
    annotators: Literal["all", "one"]
    matrix_lr_scale: float | None  # None: by method
    output_bias: float
    magnify: bool


FIDELITY = {
    "default": Fidelity("softmax", "probs", "nll", 0.01, 1, 200, "all", None, -4.0, False),
    "authors": Fidelity("softplus", "probs", "ce_on_probs", 1.5, 1, 0, "all", 1.0, 0.0, True),
    "pionono": Fidelity("softplus", "logits", "dice", 1.0, -1, 0, "one", 100.0, 0.0, False),
}


class ConfusionMatrix(Method):
    """A truth ``p``, annotators that see ``A_r p``, and the loss ``Σ_r [-mean log (A_r p)[y_r]] + λ Σ_r mean tr A_r``.

    The trace makes truth and annotators identifiable: among all pairs that explain the annotations the one with the
    least reliable annotators is taken, from a start at which they are reliable. Binary data have two labels, background
    and foreground (with a single channel every matrix would be the number 1); of overlapping classes each has its own
    matrices of two labels.

    Options that are null follow `fidelity`; a value that is given wins over it.
    """

    gives_raters: ClassVar[bool] = True
    needs_identity: ClassVar[bool] = True
    multiclass: ClassVar[bool] = True
    deviations: ClassVar[tuple[Deviation, ...]] = DEVIATIONS
    default_lr_scale: ClassVar[float] = 1.0

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        return "" if hparams["fidelity"] == "default" else f"fidelity {hparams['fidelity']}"

    def __init__(
        self,
        data: DataDescription,
        fidelity: Annotated[
            Literal["default", "authors", "pionono"],
            "authors: what is null below as in Zhang et al.'s code; pionono: as in the port in Pionono's code, whose "
            "trace term keeps the annotators reliable",
        ] = "default",
        backbone: Annotated[
            BackboneName, "trunk; unet_zhang: Zhang et al.'s own U-Net; unet_r18: of CM-Pixel in Pionono's code"
        ] = "unet_r34",
        backbone_weights: Annotated[str | None, "local ImageNet weights of ResNet-34; null: from scratch"] = None,
        widths: Annotated[Widths | None, "levels of unet_small; null: 16, 32, 64, 128"] = None,
        zhang_width: Annotated[Width, "channels of the first level of unet_zhang (MNIST: 24)"] = 16,
        zhang_depth: Annotated[int, Field(ge=2), "levels of unet_zhang (MNIST: 3)"] = 4,
        magnify: Annotated[
            bool | None, "unet_zhang magnifies its bottleneck twice and cuts it at the centre; null: by fidelity"
        ] = None,
        form: Annotated[Form | None, "columns by softmax, or by softplus and division; null: by fidelity"] = None,
        init_diagonal: Annotated[float, Field(gt=0, lt=1), "start of the diagonal, for form=softmax"] = 0.9,
        mix: Annotated[
            Mix | None,
            "what a matrix multiplies: probabilities, or logits with the softmax after it; null: by fidelity",
        ] = None,
        loss: Annotated[
            DataLoss | None,
            "negative log-likelihood; cross-entropy with a second softmax; Dice over the batch; null: by fidelity",
        ] = None,
        trace_weight: Annotated[
            float | None, Field(ge=0), "weight lambda of the trace; null: by fidelity (0.01, 1.5, 1)"
        ] = None,
        trace_sign: Annotated[
            Literal[1, -1] | None, "1: minimise the trace, as published; -1: maximise it; null: by fidelity"
        ] = None,
        trace_warmup: Annotated[
            int | None,
            Field(ge=0),
            "first steps, in which the trace is maximised whatever its sign; null: by fidelity (200, 0, 0)",
        ] = None,
        annotators: Annotated[
            Literal["all", "one"] | None, "annotators of an image in a step: all, or one drawn; null: by fidelity"
        ] = None,
        matrix_lr_scale: Annotated[
            float | None,
            Field(gt=0),
            "learning rate of the matrices over that of the rest; null: by fidelity (10 or, for cm_pixel, 1; 1; 100)",
        ] = None,
        output_bias: Annotated[
            float | None, "initial bias of the foreground logits; null: by fidelity (-4, 0, 0)"
        ] = None,
        **options: Any,
    ) -> None:
        given = {
            name: value for name, value in locals().items() if name not in ("self", "data", "options", "__class__")
        }
        super().__init__(data, **given, **options)
        chosen = FIDELITY[fidelity]

        def pick(value: Any, name: str) -> Any:
            return getattr(chosen, name) if value is None else value

        self.groups = data.classes if data.overlapping else 1
        self.labels = data.classes + 1 if is_exclusive(data) else 2
        self.form: Form = pick(form, "form")
        self.init_diagonal = init_diagonal
        self.mix: Mix = pick(mix, "mix")
        self.loss: DataLoss = pick(loss, "loss")
        self.trace_weight: float = pick(trace_weight, "trace_weight")
        self.trace_sign: int = pick(trace_sign, "trace_sign")
        self.trace_warmup: int = pick(trace_warmup, "trace_warmup")
        self.one_annotator = pick(annotators, "annotators") == "one"
        self.matrix_lr_scale: float = pick(matrix_lr_scale, "matrix_lr_scale") or self.default_lr_scale

        self.trunk: Backbone
        if backbone in ("unet_zhang", "unet_r18") and (backbone_weights is not None or widths is not None):
            raise UserError(
                f"backbone_weights={backbone_weights!r} and widths={widths} are not for the backbone {backbone}; leave "
                f"them out (unet_zhang has method.zhang_width and method.zhang_depth)"
            )
        if backbone == "unet_zhang":
            self.trunk = ZhangUNet(data.channels, zhang_width, zhang_depth, pick(magnify, "magnify"))
        elif backbone == "unet_r18":
            self.trunk = channels_last(ResNet18UNet(data.channels))
        else:
            self.trunk = build_backbone(backbone, data.channels, widths, backbone_weights)
        # 1×1 in Zhang et al.'s network, 3×3 in Pionono's.
        kernel = 1 if backbone == "unet_zhang" else 3
        self.head = nn.Conv2d(self.trunk.out_channels, self.groups * self.labels, kernel, padding=kernel // 2)
        start: float = pick(output_bias, "output_bias")
        if start:
            assert self.head.bias is not None
            with torch.no_grad():
                self.head.bias.copy_(torch.tensor([0.0] + [start] * (self.labels - 1)).repeat(self.groups))
        self.matrices = self.build_matrices()
        # Saved with the weights: the sign of the trace depends on it.
        self.steps_done: Tensor
        self.register_buffer("steps_done", torch.tensor(0))

    def build_matrices(self) -> GlobalMatrices | PixelMatrices:
        raise NotImplementedError

    @classmethod
    def check_supported(cls, data: DataDescription, hparams: dict[str, Any]) -> None:
        """As every 2D method; instance norm needs more than one pixel at the bottleneck of unet_zhang.

        Raises:
            UnsupportedPair: with the reason and what to do.
        """
        super().check_supported(data, hparams)
        if hparams.get("backbone") != "unet_zhang":
            return
        stride = 2 ** (hparams["zhang_depth"] - 1)
        if all(-(-side // stride) <= 1 for side in data.size):
            raise UnsupportedPair(
                f"images of {'x'.join(map(str, data.size))} pixels are one pixel at the bottleneck of unet_zhang with "
                f"zhang_depth={hparams['zhang_depth']}; set method.zhang_depth lower"
            )

    def parameters_for(self, stage: str | None) -> list[dict[str, Any]]:
        return [
            {"params": [*self.trunk.parameters(), *self.head.parameters()]},
            {"params": list(self.matrices.parameters()), "lr_scale": self.matrix_lr_scale},
        ]

    # -- training -------------------------------------------------------------------------------

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Loss of all annotators, or of one drawn per image, and its terms."""
        masks, valid = batch["masks"], batch["rater_valid"]
        annotations = masks if self.data.overlapping else masks.unsqueeze(2)  # B×R×G×H×W
        who: Who = ALL
        if self.one_annotator:
            who = draw_rater(valid)
            annotations = annotations[torch.arange(len(masks), device=masks.device), who].unsqueeze(1)
            valid = valid.any(1, keepdim=True)
        sign = torch.where(self.steps_done < self.trace_warmup, -1, self.trace_sign)
        self.steps_done += 1
        features = self.trunk(batch["image"])
        data_term, trace = self.loss_terms(features, self.logits(features), annotations, valid, who)
        loss = data_term + self.trace_weight * sign * trace
        return loss, {"data": data_term.detach(), "trace": trace.detach()}

    def logits(self, features: Tensor) -> Tensor:
        """Of the truth, B×G×C×H×W."""
        out = at_least_single(self.head(features))
        return out.unflatten(1, (self.groups, self.labels))

    def loss_terms(
        self, features: Tensor, logits: Tensor, annotations: Tensor, valid: Tensor, who: Who = ALL
    ) -> tuple[Tensor, Tensor]:
        """Data term and trace, both summed over the annotators and averaged over the images that have any.

        Missing annotations count in neither, so that data and trace of an annotator keep their proportion.

        Args:
            features: B×F×H×W.
            logits: B×G×C×H×W.
            annotations: B×N×G×H×W, labels 0 … C - 1.
            valid: B×N.
            who: the N annotators: a slice, or one index B for each image.
        """
        seen, trace = self.matrices(features, self._mixed(logits), who)
        weight = valid.to(logits.dtype)
        images = valid.any(1).sum().clamp_min(1)
        if self.loss == "dice":
            data_term = self._dice(seen, annotations, valid) * (weight.sum() / images)
        else:
            data_term = (self._negative_log(seen, annotations) * weight).sum() / images
        return data_term, (trace * weight).sum() / images

    def _mixed(self, logits: Tensor) -> Tensor:
        return logits if self.mix == "logits" else logits.softmax(2)

    def _negative_log(self, seen: Tensor, annotations: Tensor) -> Tensor:
        """Mean over pixels (and groups) of each annotation, B×N."""
        if self.mix == "logits" or self.loss == "ce_on_probs":
            # With probabilities this is the authors' second softmax: even a perfect prediction costs 0.31 (two labels).
            seen = seen.log_softmax(3)
        else:
            seen = seen.clamp_min(_LEAST_PROBABILITY).log()
        return -seen.gather(3, annotations.long().unsqueeze(3)).mean((2, 3, 4, 5))

    def _dice(self, seen: Tensor, annotations: Tensor, valid: Tensor) -> Tensor:
        if self.mix == "logits":
            seen = seen.softmax(3)
        target = F.one_hot(annotations.long(), self.labels).movedim(-1, 3)
        groups = valid.repeat_interleave(self.groups, 1)
        return batch_class_dice(seen.flatten(1, 2), target.flatten(1, 2), groups)

    # -- prediction -----------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        """Maps of the annotators and, as mean, the estimated truth. Nothing is random; there are no samples."""
        raters, means = [], []
        with evaluating(self):
            for some in image_chunks(images):
                part = images[some]
                features = self.trunk(part)
                logits = self.logits(features)
                truth = self._mixed(logits)
                # A head holds about four maps of its width and a few of matrices at once.
                bytes_each = len(part) * part[0, 0].numel() * part.element_size() * self._channels_each()
                seen = torch.cat(
                    [
                        self.matrices(features, truth, who)[0]
                        for who in chunks(self.data.raters, bytes_each, part.device)
                    ],
                    1,
                )
                raters.append(self._layout(seen.softmax(3) if self.mix == "logits" else seen, 2))
                means.append(self._layout(logits.softmax(2), 1))
        return Prediction(raters=torch.cat(raters), mean=torch.cat(means))

    @torch.no_grad()
    def average_matrices(self, images: Tensor) -> Tensor:
        """Matrices averaged over the pixels of each image, B×R×G×C×C: what Zhang et al. compare with the true ones."""
        if isinstance(self.matrices, GlobalMatrices):
            return self.matrices.matrices().expand(len(images), -1, -1, -1, -1)
        with evaluating(self):
            return self.matrices.matrices(self.trunk(images)).mean((-2, -1))

    @torch.no_grad()
    def pixel_matrices(self, images: Tensor) -> Tensor:
        """Matrices B×R×G×C×C×H×W; H and W are 1 where every pixel has the same."""
        if isinstance(self.matrices, GlobalMatrices):
            return self.average_matrices(images)[..., None, None]
        with evaluating(self):
            return self.matrices.matrices(self.trunk(images))

    def _channels_each(self) -> int:
        """Channels at full resolution that one annotator takes at prediction."""
        return 2 * self.groups * self.labels

    def _layout(self, maps: Tensor, axis: int) -> Tensor:
        """Maps ...×G×C×H×W, groups at `axis`, as a `Prediction` wants them."""
        maps = maps.clamp(0, 1)  # sums of rounded products
        if self.data.overlapping:
            return maps.select(axis + 1, 1)
        maps = maps.squeeze(axis)
        return maps if is_exclusive(self.data) else maps.select(axis, 1)


class CMGlobal(ConfusionMatrix):
    """One confusion matrix per annotator, the same for every pixel and image."""

    # A few numbers that must get somewhere within a run; the heads of cm_pixel are networks.
    default_lr_scale: ClassVar[float] = 10.0

    def build_matrices(self) -> GlobalMatrices:
        return GlobalMatrices(self.data.raters, self.groups, self.labels, self.form, self.init_diagonal)


class CMPixel(ConfusionMatrix):
    """One confusion matrix per annotator and pixel, from a convolutional head on the features for each annotator."""

    def __init__(
        self,
        data: DataDescription,
        matrix_width: Annotated[Width | None, "channels inside a head; null: those of the features"] = None,
        rank: Annotated[
            int | None, Field(ge=1), "matrices as low rank plus a multiple of the identity; null: full"
        ] = None,
        **options: Any,
    ) -> None:
        super().__init__(data, matrix_width=matrix_width, rank=rank, **options)

    def build_matrices(self) -> PixelMatrices:
        features = self.trunk.out_channels
        width, rank = self.hparams["matrix_width"], self.hparams["rank"]
        return PixelMatrices(
            self.data.raters,
            self.groups,
            self.labels,
            features,
            width or features,
            self.form,
            self.init_diagonal,
            rank,
        )

    def _channels_each(self) -> int:
        width = self.hparams["matrix_width"] or self.trunk.out_channels
        return int(4 * width + 4 * self.groups * self.labels**2)
