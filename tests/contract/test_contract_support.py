"""Methods that refuse or take the wrong data."""

from __future__ import annotations

import torch
from contract_sound import Faults, Plain, Predicts, Sound, assert_fails
from multirater.core.errors import UnsupportedPair, UserError
from multirater.methods.targets import (
    prediction_layout,
)
from torch import nn

FAULTS = Faults()
breaks = FAULTS.breaks


# what it refuses and takes


def spread(masks, axis):
    """Mean unbiased variance; NaN of a single rater."""
    return ((masks - masks.mean(axis, keepdim=True)).square().sum(axis) / (masks.shape[axis] - 1)).mean()


class TakesAnything(Sound):
    @classmethod
    def check_supported(cls, data, hparams):
        return None


breaks("identity", "it takes raters without identity, which its capabilities exclude")(TakesAnything)


@breaks("identity", "raises ValueError instead of UnsupportedPair")
class RefusesByValueError(Sound):
    @classmethod
    def check_supported(cls, data, hparams):
        if data.identity == "none":
            raise ValueError("no identity")


@breaks("identity", "is not one sentence")
class RefusesAtLength(Sound):
    @classmethod
    def check_supported(cls, data, hparams):
        if data.identity == "none":
            raise UnsupportedPair("These raters have no identity. This method needs one. Choose another.")


@breaks("identity", "raters without identity: KeyError: 'none'")
class CannotDoWithout(Plain):
    def __init__(self, data):
        super().__init__(data)
        self.scale = {"synthetic": 1}[data.identity]


@breaks("exclusive_classes", "it takes 3 exclusive classes")
class TakesClasses(Plain):
    check_supported = TakesAnything.check_supported


@breaks("overlapping_classes", "it takes 2 overlapping classes")
class TakesOverlapping(Plain):
    check_supported = TakesAnything.check_supported


@breaks("exclusive_classes", "3 exclusive classes: samples is (2, 3, 32, 32), expected (2, S, 4, 32, 32)")
class ForegroundOnly(Sound):
    def maps(self, logits):
        return super().maps(logits) if self.data.classes == 1 else super().maps(logits)[:, :, 1]


@breaks("exclusive_classes", "use a softmax")
class SigmoidOfClasses(Sound):
    def maps(self, logits):
        return prediction_layout(logits.sigmoid(), self.data, 2)


@breaks("overlapping_classes", "2 overlapping classes: RuntimeError")
class BinaryInside(Sound):
    def rater_logits(self, features):
        return super().rater_logits(features).view(len(features), self.data.raters, 1, *features.shape[-2:])


@breaks("missing_raters", "depending on what stands in the masks of missing raters")
class IgnoresValid(Plain):
    def training_step(self, batch, stage=None):
        return super().training_step({**batch, "rater_valid": torch.ones_like(batch["rater_valid"])}, stage)


@breaks("missing_raters", "a rater missing in the whole batch: the loss of stage 'main' is nan")
class DividesByCases(Plain):
    def training_step(self, batch, stage=None):
        loss, scalars = super().training_step(batch, stage)
        weight = batch["rater_valid"].float().sum(0)
        return loss * (weight / weight).mean(), scalars


@breaks("missing_raters", "missing raters: the loss of stage 'main' is nan")
class SpreadOfRaters(Plain):
    def training_step(self, batch, stage=None):
        loss, scalars = super().training_step(batch, stage)
        present = [image.float()[valid] for image, valid in zip(batch["masks"], batch["rater_valid"], strict=True)]
        return loss * torch.stack([spread(masks, 0) for masks in present]).mean(), scalars


@breaks("missing_raters", "it takes missing raters")
class TakesMissing(Plain):
    missing_raters = False
    check_supported = TakesAnything.check_supported


@breaks("dimensions", "it takes 3D images")
class TakesVolumes(Plain):
    check_supported = TakesAnything.check_supported


@breaks("dimensions", "3D images: ")
class ClaimsVolumes(Plain):
    spatial_dims = (2, 3)


@breaks("rater_counts", "with 2 raters: ")
class ThreeRaters(Sound):
    def rater_logits(self, features):
        return self.rater_heads(features).unflatten(1, (3, -1))


@breaks("rater_counts", "1 rater (make it work, or refuse it in check_supported with one sentence)")
class NeedsTwoRaters(Plain):
    def training_step(self, batch, stage=None):
        loss, scalars = super().training_step(batch, stage)
        return loss * spread(batch["masks"].float(), 1), scalars


@breaks("channels", "with 3 channels: RuntimeError")
class GreyImages(Plain):
    def __init__(self, data):
        super().__init__(data)
        self.trunk[0] = nn.Conv2d(1, 8, 3, padding=1)


@breaks("sizes", "32×48 (make it work")
class SquareImages(Predicts):
    def change(self, mean):
        return mean.view(len(mean), 32, 32)


@breaks("sizes", "the refusal of 32×48 is not one sentence")
class RefusesSizesAtLength(Plain):
    @classmethod
    def check_supported(cls, data, hparams):
        if data.size != (32, 32):
            raise UserError("Bad size. Try again.")
        super().check_supported(data, hparams)


@FAULTS.parametrize()
def test_a_broken_method_fails_its_check(check, method, words):
    assert_fails(check, method, words)
