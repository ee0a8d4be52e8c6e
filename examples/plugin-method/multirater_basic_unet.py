"""MONAI's BasicUNet as a method of multirater: an existing network needs a loss and a prediction, nothing else."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from monai.networks.nets import BasicUNet
from multirater.datasets import DataDescription
from multirater.methods import Method, Prediction
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


class BasicUNetSoft(Method):
    """One map, trained on the mean of the raters who saw the case. Image sides must be multiples of 16."""

    def __init__(self, data: DataDescription, width: Annotated[int, "channels of the first level"] = 16) -> None:
        super().__init__(data, width=width)
        self.net = BasicUNet(2, data.channels, 1, features=(width, width, 2 * width, 4 * width, 8 * width, width))

    def training_step(self, batch: dict[str, Any], stage: str | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        seen = batch["rater_valid"][:, :, None, None].float()
        target = (batch["masks"] * seen).sum(1) / seen.sum(1)
        loss = binary_cross_entropy_with_logits(self.net(batch["image"])[:, 0], target)
        return loss, {"bce": loss.detach()}

    def predict(self, images: Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        return Prediction(mean=self.net(images)[:, 0].sigmoid())
