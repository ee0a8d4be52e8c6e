"""Broken training: losses, gradients, logs, randomness, hard masks."""

from __future__ import annotations

import random

import numpy as np
import torch
from contract_sound import Faults, Loss, Plain, Sound, assert_fails
from multirater.methods import Method
from torch import nn

FAULTS = Faults()
breaks = FAULTS.breaks


# trains


@breaks("trains", "the loss of stage 'main' is nan")
class LossNan(Loss):
    def change(self, loss):
        return loss * float("nan")


@breaks("trains", "not a scalar tensor")
class LossOfOneValue(Loss):
    def change(self, loss):
        return loss[None]


@breaks("trains", "no gradient")
class LossDetached(Loss):
    def change(self, loss):
        return loss.detach()


@breaks("trains", "the gradient of trunk.0.weight in stage 'main' is not finite")
class GradientNan(Loss):
    def change(self, loss):
        return loss + (self.trunk[0].weight * 0).square().sum().sqrt()


@breaks("trains", "instead of (loss, scalars)")
class LossAlone(Plain):
    def training_step(self, batch, stage=None):
        return super().training_step(batch, stage)[0]


@breaks("trains", "Inference tensors")
class CachesInferenceTensor(Plain):
    def predict(self, images, n_samples=1, generator=None):
        self.cached = self.head.weight * 1.0
        return super().predict(images)

    def training_step(self, batch, stage=None):
        loss, scalars = super().training_step(batch, stage)
        return loss + 0 * (self.head.weight * getattr(self, "cached", 1.0)).sum(), scalars


@breaks("trains", "judged by samples, but predict gives none")
class NothingToJudge(Plain):
    gives_samples = True


@breaks("trains", "returns a Tensor instead of a Prediction")
class PredictsTensor(Plain):
    def predict(self, images, n_samples=1, generator=None):
        return super().predict(images).mean


@breaks("trains", "NotImplementedError")
class NoPredict(Plain):
    predict = Method.predict


@breaks("loss_falls", "the loss of stage 'main' is")
class LossRises(Loss):
    def change(self, loss):
        return 2 * loss.detach() - loss


@breaks("loss_falls", "the loss of stage 'main' is 1 at first")
class LossConstant(Loss):
    def change(self, loss):
        return loss * 0 + 1


# logs


class Logs(Plain):
    def training_step(self, batch, stage=None):
        return super().training_step(batch, stage)[0], self.logged


@breaks("logs", "logs a list")
class LogsList(Logs):
    logged = [1.0]  # noqa: RUF012


@breaks("logs", "'dice' in the log of stage 'main' is a Tensor of shape (3,)")
class LogsVector(Logs):
    logged = {"dice": torch.zeros(3)}  # noqa: RUF012


@breaks("logs", "is a str instead of one number")
class LogsText(Logs):
    logged = {"dice": "high"}  # noqa: RUF012


@breaks("logs", "logs under 3")
class LogsWithoutName(Logs):
    logged = {3: 1.0}  # noqa: RUF012


# gradients


@breaks("gradients", "never reaches inject.bias, inject.weight")
class UnusedParameters(Plain):
    def parameters_for(self, stage):
        return [*super().parameters_for(stage), *self.inject.parameters()]


@breaks("gradients", "stage 'personal' gives a gradient to trunk.0.bias, trunk.0.weight")
class UnfreezesTrunk(Sound):
    def training_step(self, batch, stage=None):
        loss, scalars = super().training_step(batch, stage)
        if stage == "personal":
            self.trunk.requires_grad_(True)
            loss = loss + self.trunk(batch["image"]).square().mean()
        return loss, scalars


@breaks("gradients", "itself changes head.bias, head.weight")
class OwnOptimizer(Plain):
    def training_step(self, batch, stage=None):
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter -= 0.01
        return super().training_step(batch, stage)


# training_seed


@breaks("training_seed", "when it is built twice")
class NumpyWeights(Plain):
    def __init__(self, data):
        super().__init__(data)
        nn.init.constant_(self.head.bias, float(np.random.rand()))  # noqa: NPY002


@breaks("training_seed", "when it is trained twice")
class PythonNoise(Loss):
    def change(self, loss):
        return loss * random.random()


@breaks("training_seed", "__init__ sets torch's global seed")
class SeedsInInit(Plain):
    def __init__(self, data):
        super().__init__(data)
        torch.manual_seed(7)


@breaks("training_seed", "training_step of stage 'main' sets torch's global seed")
class SeedsInTraining(Loss):
    def change(self, loss):
        torch.manual_seed(7)
        return loss


# empty_and_full_masks


@breaks("empty_and_full_masks", "with empty masks: the loss of stage 'main' is")
class DividesByForeground(Plain):
    def training_step(self, batch, stage=None):
        loss, scalars = super().training_step(batch, stage)
        return loss / batch["masks"].sum(), scalars


@breaks("empty_and_full_masks", "with full masks: the loss of stage 'main' is")
class DividesByBackground(Plain):
    def training_step(self, batch, stage=None):
        loss, scalars = super().training_step(batch, stage)
        return loss / (1 - batch["masks"].float()).sum(), scalars


@FAULTS.parametrize()
def test_a_broken_method_fails_its_check(check, method, words):
    assert_fails(check, method, words)
