"""Baselines of model uncertainty: B6 a deep ensemble, B7 Monte-Carlo dropout, both of the label-sampling U-Net (B5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ..datasets.base import DataDescription
from .backbones import Backbone as Trunk
from .base import Deviation, Prediction
from .baselines import DICE_DEVIATION, BaselineUNet, UNetLabelSampling, output_conv
from .label_loss import DiceOver, LabelLoss, LossName
from .latent import draw_seeds
from .losses import draw_rater

PASSES = 20  # at least so many make the mean map of MC-dropout
_AT_ONCE = 10  # passes folded into one batch


class Ensemble(BaselineUNet):
    """B6: M members that differ in their initial weights and in the rater each draws; the samples are the members.

    With one member per rater, each on its rater, an ensemble is `unet_per_rater`. The members run one after the other,
    which is faster on CPU than stacking them (see there).
    """

    gives_samples = True
    deviations = (
        DICE_DEVIATION,
        Deviation(
            "data order of the members",
            "a run of its own for each member",
            "all members see the same batches and augmentation, each draws its own rater of every image",
            effect="a little less diversity between members; M times the cost of a plain U-Net as usual",
        ),
    )

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        return f"{hparams['members']} networks"

    def __init__(
        self,
        data: DataDescription,
        members: Annotated[int, Field(ge=1), "number of networks M"] = 5,
        loss: LossName = "bce_dice",
        dice_over: DiceOver = "image",
        **options: Any,
    ) -> None:
        super().__init__(data, members=members, loss=loss, dice_over=dice_over, **options)
        self.members = members
        self.loss = LabelLoss(data, loss, dice_over)
        self.trunks = nn.ModuleList(self.new_trunk() for _ in range(members))
        self.heads = nn.ModuleList(output_conv(16, data, self.output_bias) for _ in range(members))

    def logits(self, images: Tensor) -> Tensor:
        """B×M×C×H×W."""
        return torch.stack([head(trunk(images)) for trunk, head in zip(self.trunks, self.heads, strict=True)], 1)

    def training_step(
        self, batch: dict[str, Any], stage: str | None = None
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Sum of the members' losses, so that each is trained as if alone."""
        targets, rows = self.targets(batch), torch.arange(len(batch["image"]), device=batch["image"].device)
        chosen = draw_rater(batch["rater_valid"].repeat(self.members, 1)).view(self.members, -1)
        logits = self.logits(batch["image"])
        valid = batch["rater_valid"].any(1, keepdim=True)
        each = [self.loss(logits[:, m : m + 1], targets[rows, chosen[m]][:, None], valid) for m in range(self.members)]
        return torch.stack(each).sum(), {}

    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        maps = self.maps(images, axis=2)
        return Prediction(samples=maps[:, :n_samples], mean=maps.mean(1))


class MCDropout(UNetLabelSampling):
    """B7: dropout in the two deepest encoder stages and the first two decoder stages, on at test time as well.

    Batch norm stays in eval mode at test time. The levels above the first dropout are computed once an image, and the
    passes are folded into the batch.
    """

    @classmethod
    def label(cls, hparams: dict[str, Any]) -> str:
        return f"p = {hparams['dropout']:g}"

    def __init__(
        self,
        data: DataDescription,
        dropout: Annotated[float, Field(ge=0, lt=1), "probability of dropping an activation"] = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(data, dropout=dropout, **options)
        self.dropout = dropout

    def logits(self, images: Tensor) -> Tensor:
        def drop(x: Tensor) -> Tensor:
            return nn.functional.dropout(x, self.dropout, self.training)

        trunk = self.trunk
        assert isinstance(trunk, Trunk)
        levels = trunk.deep(trunk.shallow(images), drop)
        return self.head(trunk.decode(levels, images.shape[-2:], drop))

    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        """Pass s of an image drops by seed s: the first S samples do not depend on how many are asked for.

        The mean map is that of at least 20 passes.
        """
        passes = max(n_samples, PASSES)
        seeds = draw_seeds(len(images), generator, shared=self.slices_share_noise)
        maps = torch.stack([self._passes(image[None], passes, seed) for image, seed in zip(images, seeds, strict=True)])
        return Prediction(samples=maps[:, :n_samples], mean=maps.mean(1))

    def _passes(self, image: Tensor, passes: int, seed: int) -> Tensor:
        trunk = self.trunk
        assert isinstance(trunk, Trunk)
        shallow = trunk.shallow(image)
        seeds = torch.Generator().manual_seed(seed)
        found = []
        # Blocks of constant size: torch fills one large request of random numbers differently from a small one.
        for start in range(0, passes, _AT_ONCE):
            drop = _dropper(self.dropout, int(torch.randint(2**62, (), generator=seeds)))
            levels = trunk.deep([x.expand(_AT_ONCE, -1, -1, -1) for x in shallow], drop)
            logits = self.head(trunk.decode(levels, image.shape[-2:], drop))
            found.append(self.probabilities(logits)[: passes - start])
        return torch.cat(found)


def _dropper(p: float, seed: int) -> Callable[[Tensor], Tensor]:
    """Dropout whose draws come from a seed, on the CPU: the same on every device."""
    generator = torch.Generator().manual_seed(seed)

    def drop(x: Tensor) -> Tensor:
        if p == 0:
            return x
        kept = torch.rand(x.shape, generator=generator) >= p
        return x * kept.to(x.device, x.dtype) / (1 - p)

    return drop
