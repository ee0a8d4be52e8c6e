"""Each contract test catches its fault: one sound method, and copies of it that are broken in one place."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from multirater.benchmark import Check, check_method
from multirater.benchmark.contract import contract_names
from multirater.benchmark.contract.answers import _soft_dice
from multirater.benchmark.contract.check import is_one_sentence
from multirater.benchmark.contract.data import describe, make_batch
from multirater.core.errors import UnsupportedPair, UserError
from multirater.methods import METHODS, Method, Prediction
from multirater.methods.latent import draw_seeds, seeded_noise
from multirater.methods.losses import draw_rater, mean_valid
from multirater.methods.targets import (
    cross_entropy,
    output_channels,
    prediction_layout,
    target_channels,
    to_probabilities,
)
from pydantic import Field
from torch import nn


class Sound(Method):
    """Two stages: samples by a random code added to the features, then a head a rater on fixed features."""

    gives_samples = True
    gives_raters = True
    needs_identity = True
    multiclass = True
    stages = ("diverse", "personal")
    stage_gives = {"diverse": "samples", "personal": "raters"}  # noqa: RUF012

    def __init__(self, data, width: Annotated[int, Field(ge=1), "channels"] = 8):
        super().__init__(data, width=width)
        c = output_channels(data)
        self.trunk = nn.Sequential(nn.Conv2d(data.channels, width, 3, padding=1), nn.ReLU())
        self.inject = nn.Linear(2, width)
        self.head = nn.Conv2d(width, c, 1)
        self.rater_heads = nn.Conv2d(width, data.raters * c, 1)
        self.register_buffer("steps", torch.tensor(0))

    def parameters_for(self, stage):
        if stage == "personal":
            return [{"params": self.rater_heads.parameters(), "lr_scale": 10.0}]
        return [p for part in (self.trunk, self.inject, self.head) for p in part.parameters()]

    def training_step(self, batch, stage=None):
        self.steps += 1
        features, valid = self.trunk(batch["image"]), batch["rater_valid"]
        targets = target_channels(batch["masks"], self.data)
        if stage == "personal":
            loss = mean_valid(cross_entropy(self.rater_logits(features.detach()), targets, self.data), valid)
            return loss, {"steps": int(self.steps)}
        rater = draw_rater(valid)
        noise = torch.randn(len(features), 1, 2)
        logits = self.sample_logits(features, noise)
        return cross_entropy(logits, targets[torch.arange(len(rater)), rater][:, None], self.data).mean(), {}

    def rater_logits(self, features):
        """B×R×C×H×W."""
        return self.rater_heads(features).unflatten(1, (self.data.raters, -1))

    def sample_logits(self, features, noise):
        """B×S×C×H×W of features B×F×H×W and noise B×S×2."""
        added = features[:, None] + self.inject(noise)[..., None, None]
        return self.head(added.flatten(0, 1)).unflatten(0, noise.shape[:2])

    def noise(self, images, n, generator):
        return torch.stack([seeded_noise(n, 2, seed, images) for seed in draw_seeds(len(images), generator)])

    def maps(self, logits):
        return prediction_layout(to_probabilities(logits, self.data, 2), self.data, 2)

    def predict(self, images, n_samples=1, generator=None):
        features = self.trunk(images)
        samples = self.maps(self.sample_logits(features, self.noise(images, n_samples, generator)))
        return Prediction(samples=samples, raters=self.maps(self.rater_logits(features)))


class Plain(Sound):
    """The first stage alone, as a plain U-Net would be: one map, binary."""

    gives_samples = False
    gives_raters = False
    needs_identity = False
    multiclass = False
    stages = ("main",)
    stage_gives = {}  # noqa: RUF012

    def parameters_for(self, stage):
        return [*self.trunk.parameters(), *self.head.parameters()]

    def training_step(self, batch, stage=None):
        targets, valid = target_channels(batch["masks"], self.data), batch["rater_valid"]
        logits = self.head(self.trunk(batch["image"]))[:, None]
        return mean_valid(cross_entropy(logits.expand_as(targets), targets, self.data), valid), {}

    def predict(self, images, n_samples=1, generator=None):
        return Prediction(mean=self.head(self.trunk(images)).sigmoid()[:, 0])


def run(method, *only, **options):
    return {c.name: c for c in check_method(method, device="cpu", size=32, only=only or None, **options)}


def test_a_sound_method_passes_every_check():
    found = run(Sound)
    assert list(found) == contract_names()
    assert {c.name: c.message for c in found.values() if c.outcome == "fail"} == {}
    skipped = {c.name for c in found.values() if c.outcome == "skip"}
    assert skipped == {"metadata", "devices"} - ({"devices"} if torch.cuda.is_available() else set())
    for check in found.values():
        assert isinstance(check, Check)
        assert check.about
        assert check.message
        assert check.seconds >= 0


def test_a_sound_method_without_samples_and_rater_maps_passes_every_check():
    found = run(Plain)
    assert {c.name: c.message for c in found.values() if c.outcome == "fail"} == {}
    assert {"sample_prefix", "samples_differ", "raters_differ", "follows_raters"} <= {
        c.name for c in found.values() if c.outcome == "skip"
    }
    assert found["identity"].message == "works"
    assert found["exclusive_classes"].message == "refused, as it says"


# -- broken methods -----------------------------------------------------------------------------

FAULTS: list[tuple[str, type[Method], str]] = []


def breaks(check, words):
    """Class decorator: this method breaks `check`, whose message holds `words`."""

    def decorate(cls):
        FAULTS.append((check, cls, words))
        return cls

    return decorate


# options


@breaks("options", "'width' is not explained")
class Unexplained(Sound):
    def __init__(self, data, width: int = 8):
        super().__init__(data, width)


@breaks("options", "the default 4 of option 'width'")
class DefaultNotAllowed(Sound):
    def __init__(self, data, width: Annotated[int, Field(ge=8), "channels"] = 4):
        super().__init__(data, width)


@breaks("options", "needs a default")
class NoDefault(Sound):
    def __init__(self, data, width: Annotated[int, "channels"]):
        super().__init__(data, width)


@breaks("options", "no JSON form")
class DefaultOfNoJson(Sound):
    def __init__(self, data, mode: Annotated[complex, "a number"] = 1j):
        super().__init__(data)


# constructs, defaults


@breaks("constructs", "call super().__init__(data, ...)")
class NoSuper(Sound):
    def __init__(self, data):
        nn.Module.__init__(self)
        self.layer = nn.Linear(1, 1)


@breaks("constructs", "ValueError: no such layer (test_contract_faults.py:")
class RaisesInInit(Sound):
    def __init__(self, data):
        raise ValueError("no such layer")


@breaks("constructs", "nothing to train")
class NoParameters(Sound):
    def __init__(self, data):
        Method.__init__(self, data)


@breaks("constructs", "changes the option values")
class ChangesOptions(Sound):
    def __init__(self, data, widths: Annotated[list[int], "channels of the levels"] = [8]):  # noqa: B006
        super().__init__(data, widths[0])
        widths.append(16)


@breaks("constructs", "refuses everything")
class RefusesMadeData(Sound):
    @classmethod
    def check_supported(cls, data, hparams):
        raise UnsupportedPair("this method refuses everything")


@breaks("defaults", "KeyError: 'large'")
class DefaultCannotBeBuilt(Sound):
    def __init__(self, data, backbone: Annotated[Literal["unet_small", "large"], "trunk"] = "large"):
        super().__init__(data, {"unet_small": 8}[backbone])


# stages


@breaks("stages", "'other', which is not in stages")
class UnknownStage(Sound):
    @classmethod
    def stages_for(cls, hparams):
        return ("diverse", "other")


@breaks("stages", "one or more different names")
class NoStages(Sound):
    @classmethod
    def stages_for(cls, hparams):
        return ()


@breaks("stages", "'everything'; allowed are samples, raters, mean")
class StageGivesNonsense(Sound):
    stage_gives = {"diverse": "everything"}  # noqa: RUF012


@breaks("stages", "'last', which is not in stages")
class StageGivesOfNoStage(Sound):
    stage_gives = {"last": "raters"}  # noqa: RUF012


@breaks("stages", "gives_raters is False")
class StageGivesUnclaimed(Plain):
    stage_gives = {"main": "raters"}  # noqa: RUF012


@breaks("stages", "sets lr in a group")
class OwnLearningRate(Plain):
    def parameters_for(self, stage):
        return [{"params": super().parameters_for(stage), "lr": 1.0}]


@breaks("stages", "mixes parameters and groups")
class MixedGroups(Plain):
    def parameters_for(self, stage):
        return [{"params": list(self.head.parameters())}, *self.trunk.parameters()]


@breaks("stages", "trains nothing")
class EmptyStage(Plain):
    def parameters_for(self, stage):
        return []


@breaks("stages", "names a parameter twice")
class Twice(Plain):
    def parameters_for(self, stage):
        return super().parameters_for(stage) * 2


@breaks("stages", "would never be saved")
class ForeignParameter(Plain):
    def parameters_for(self, stage):
        return [*super().parameters_for(stage), nn.Parameter(torch.zeros(1))]


@breaks("stages", "spatial_dims=(2, 4)")
class FourDimensions(Plain):
    spatial_dims = (2, 4)


@breaks("stages", "version=0")
class VersionZero(Plain):
    version = 0


@breaks("stages", "label gives None")
class LabelNone(Plain):
    @classmethod
    def label(cls, hparams):
        return None


# trains


class Loss(Plain):
    """Its loss passes through `change`."""

    def training_step(self, batch, stage=None):
        loss, scalars = super().training_step(batch, stage)
        return self.change(loss), scalars


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


# prediction


@breaks("prediction", "gives_samples is False")
class UnclaimedSamples(Plain):
    def predict(self, images, n_samples=1, generator=None):
        mean = super().predict(images).mean
        return Prediction(samples=mean[:, None], mean=mean)


@breaks("prediction", "predict gives no raters after the stages main")
class NoRaters(Plain):
    gives_raters = True
    stage_gives = {"main": "mean"}  # noqa: RUF012


class Predicts(Plain):
    """Its mean map passes through `change`."""

    def predict(self, images, n_samples=1, generator=None):
        return Prediction(mean=self.change(super().predict(images).mean))


@breaks("prediction", "mean is (2, 1, 32, 32), expected (2, 32, 32)")
class WrongShape(Predicts):
    def change(self, mean):
        return mean[:, None]


@breaks("prediction", "probabilities lie in [0, 1]")
class Logits(Predicts):
    def change(self, mean):
        return mean.logit()


@breaks("prediction", "mean lies in [nan, nan]")
class PredictsNan(Predicts):
    def change(self, mean):
        return mean * float("nan")


@breaks("prediction", "torch.int64 instead of float")
class Integers(Predicts):
    def change(self, mean):
        return (mean > 0.5).long()


@breaks("prediction", "ndarray")
class NumpyMap(Predicts):
    def change(self, mean):
        return mean.numpy()


@breaks("prediction", "AttributeError: 'NoneType' object has no attribute 'device'")
class NeedsGenerator(Plain):
    def predict(self, images, n_samples=1, generator=None):
        torch.rand(1, generator=generator, device=generator.device)
        return super().predict(images)


class Samples(Sound):
    """Its samples pass through `change`."""

    def predict(self, images, n_samples=1, generator=None):
        found = super().predict(images, n_samples, generator)
        return Prediction(samples=self.change(found.samples), raters=found.raters)


@breaks("prediction", "predict gives 10 samples where 5 are asked for")
class TooManySamples(Samples):
    def change(self, samples):
        return torch.cat([samples, samples], 1)


# predict_seed


class Noise(Sound):
    """Its noise is that of `draw`."""

    def noise(self, images, n, generator):
        return self.draw((len(images), n, 2), generator)


@breaks("predict_seed", "draw all noise from the generator")
class GlobalNoise(Noise):
    def draw(self, shape, generator):
        return torch.randn(shape)


@breaks("predict_seed", "samples differs")
class GlobalNoiseBehindFork(Noise):
    def draw(self, shape, generator):
        with torch.random.fork_rng():
            return torch.randn(shape)


@breaks("predict_seed", "another seed gives the same samples")
class FixedNoise(Noise):
    def draw(self, shape, generator):
        torch.rand(1, generator=generator)
        return torch.linspace(-1, 1, shape[1])[None, :, None].expand(shape)


# sample_prefix


@breaks("sample_prefix", "are not those of asking for")
class NoiseInOneRequest(Noise):
    def draw(self, shape, generator):
        return torch.randn(shape, generator=generator)


@breaks("sample_prefix", "(batch of 2,")
class NoiseSampleByImage(Noise):
    def draw(self, shape, generator):
        rows = [torch.randn(2, generator=generator) for _ in range(shape[0] * shape[1])]
        return torch.stack(rows).view(shape)


# batching


@breaks("batching", "changes with the other images of the batch")
class NormalisesBatch(Plain):
    def predict(self, images, n_samples=1, generator=None):
        return super().predict(images - images.mean())


@breaks("batching", "in a batch of 3 is not that of the image alone")
class CountsImages(Predicts):
    def change(self, mean):
        return mean / len(mean)


@breaks("batching", "samples of an image changes with the other images")
class SharesStatistics(Sound):
    def predict(self, images, n_samples=1, generator=None):
        return super().predict(images / images.std(), n_samples, generator)


# predict_pure


@breaks("predict_pure", "after predict in eval mode")
class TurnsToTraining(Predicts):
    def change(self, mean):
        self.trunk.train()
        return mean


@breaks("predict_pure", "after predict in train mode")
class StaysInEval(Predicts):
    def change(self, mean):
        self.eval()
        return mean


@breaks("predict_pure", "predict changes steps")
class CountsPredictions(Predicts):
    def change(self, mean):
        self.steps += 1
        return mean


@breaks("predict_pure", "predict changes head.bias")
class MovesWeights(Predicts):
    def change(self, mean):
        self.head.bias.data += 1e-3
        return mean


@breaks("predict_pure", "switches requires_grad of head.bias, head.weight")
class Freezes(Predicts):
    def change(self, mean):
        self.head.requires_grad_(False)
        return mean


@breaks("predict_pure", "global generator of torch")
class DrawsGlobally(Predicts):
    def change(self, mean):
        torch.rand(1)
        return mean


@breaks("predict_pure", "global generator of Python, numpy")
class DrawsFromNumpy(Predicts):
    def change(self, mean):
        np.random.rand()  # noqa: NPY002
        random.random()
        return mean


# save_load


@breaks("save_load", "mean differs after saving and loading")
class HiddenState(Plain):
    scale = 1.0

    def training_step(self, batch, stage=None):
        self.scale = 0.5
        return super().training_step(batch, stage)

    def predict(self, images, n_samples=1, generator=None):
        return Prediction(mean=super().predict(images).mean * self.scale)


@breaks("save_load", "_extra_state, which is no tensor")
class ExtraState(Plain):
    def get_extra_state(self):
        return {"scale": 1}

    def set_extra_state(self, state):
        pass


# samples_differ, raters_differ, follows_raters


@breaks("samples_differ", "are the same")
class OneSampleRepeated(Samples):
    def change(self, samples):
        return samples[:, :1].expand_as(samples)


@breaks("samples_differ", "one sample where 16 are asked for")
class OneSample(Samples):
    def change(self, samples):
        return samples[:, :1]


class Raters(Sound):
    """Its rater maps pass through `change`."""

    def predict(self, images, n_samples=1, generator=None):
        found = super().predict(images, n_samples, generator)
        return Prediction(samples=found.samples, raters=self.change(found.raters))


@breaks("raters_differ", "the maps of two raters are the same")
class TwoRatersAlike(Raters):
    def change(self, raters):
        return torch.cat([raters[:, :1], raters[:, :1], raters[:, 2:]], 1)


@breaks("follows_raters", "nearer to other raters than to their own")
class RatersInReverse(Raters):
    def change(self, raters):
        return raters.flip(1)


# what it refuses and takes


def spread(masks, axis):
    """Mean unbiased variance; NaN of a single rater."""
    return ((masks - masks.mean(axis, keepdim=True)).square().sum(axis) / (masks.shape[axis] - 1)).mean()


class TakesAnything(Sound):
    @classmethod
    def check_supported(cls, data, hparams):
        return None


FAULTS.append(("identity", TakesAnything, "it takes raters without identity, which its capabilities exclude"))


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


@pytest.mark.parametrize(("check", "method", "words"), FAULTS, ids=[f"{c}-{m.__name__}" for c, m, _ in FAULTS])
def test_a_broken_method_fails_its_check(check, method, words):
    found = run(method, check)
    assert found[check].outcome == "fail", found[check]
    assert words in found[check].message
    assert "\n" not in found[check].message
    # It is this check that finds the fault: those it builds on pass.
    earlier = [c for name, c in found.items() if name != check]
    if check != "options":
        assert [c for c in earlier if c.outcome != "pass"] == []


def test_every_check_is_seen_to_fail():
    apart = {"metadata", "devices"}  # below
    assert {check for check, _, _ in FAULTS} | apart == set(contract_names())


# -- the two that need more than a class --------------------------------------------------------


@pytest.fixture
def registered():
    names = []

    def register(cls, target=None, **info):
        name = f"contract_{cls.__name__.lower()}"
        METHODS.add(name, cls if target is None else target, **info)
        names.append(name)
        return name

    yield register
    for name in names:
        del METHODS._entries[name]


def test_metadata_of_a_class(registered):
    found = run(registered(Plain, summary="plain", gives_samples=False), "metadata")["metadata"]
    assert (found.outcome, found.message) == ("pass", "1 capabilities agree")
    found = run(registered(Sound, gives_samples=True, multiclass=False), "metadata")["metadata"]
    assert found.outcome == "fail"
    assert found.message == "the registry says multiclass=False, but the class says True"


def test_metadata_of_a_lazy_entry_are_complete(registered):
    where = f"{__name__}:Sound"
    name = registered(Sound, where, gives_samples=True, gives_raters=True, multiclass=True)
    found = run(name, "metadata")["metadata"]
    assert found.outcome == "fail"
    assert found.message == "the registry says needs_identity=False, but the class says True"
    METHODS.entry(name).info["needs_identity"] = True
    assert run(name, "metadata")["metadata"].outcome == "pass"
    METHODS.entry(name).info.clear()
    METHODS.entry(name).info["summary"] = "no capability is said"
    assert run(name, "metadata")["metadata"].outcome == "skip"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU shows the fault")
def test_a_method_that_fails_on_the_gpu_fails_the_check_of_devices(monkeypatch):
    assert run(Plain, "devices")["devices"].outcome == "skip"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", list)
    found = run(Plain, "devices")["devices"]
    assert found.outcome == "fail"
    assert found.message.startswith("on cuda: ")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_noise_on_the_wrong_device_fails_the_check_of_devices():
    class Host(Sound):
        def noise(self, images, n, generator):
            return torch.stack([seeded_noise(n, 2, 0, torch.zeros(1)) for _ in images])

    assert run(Plain, "devices")["devices"].outcome == "pass"
    assert run(Host, "devices")["devices"].outcome == "fail"


# -- the runner ---------------------------------------------------------------------------------


def test_what_builds_on_a_failed_check_is_skipped():
    found = run(RaisesInInit)
    assert [c.name for c in found.values() if c.outcome == "fail"] == ["constructs"]
    assert "ValueError: no such layer" in found["constructs"].traceback
    assert found["samples_differ"].message == "needs the check 'trains'"
    assert found["channels"].message == "needs the check 'constructs'"


def test_a_loss_that_does_not_fall_stops_nothing_else():
    found = run(LossRises)
    assert [c.name for c in found.values() if c.outcome == "fail"] == ["loss_falls"]


def test_only_runs_what_it_needs_too():
    assert list(run(Sound, "logs")) == ["constructs", "stages", "trains", "logs"]
    with pytest.raises(UserError, match="unknown check 'lgos': did you mean 'logs'"):
        run(Sound, "lgos")


def test_overrides_reach_the_method_and_the_learning_rate():
    few, many = (run(Sound, "constructs", overrides={"method": {"width": w}})["constructs"].message for w in (2, 16))
    assert few != many
    slow = run(Plain, "loss_falls", overrides={"train": {"lr": 1e-6}})["loss_falls"].message
    assert slow != run(Plain, "loss_falls")["loss_falls"].message
    with pytest.raises(UserError, match="did you mean 'width'"):
        run(Sound, "constructs", overrides={"method": {"widht": 2}})


def test_options_chosen_by_hand_may_lift_a_refusal():
    class Lifts(Sound):
        """As D-Persona: without its second stage it needs no identity, and gives no rater maps."""

        def __init__(self, data, both: Annotated[bool, "the second stage too"] = True):
            super().__init__(data)
            self.both = both

        @classmethod
        def stages_for(cls, hparams):
            return cls.stages if hparams["both"] else cls.stages[:1]

        @classmethod
        def check_supported(cls, data, hparams):
            if data.identity == "none" and hparams["both"]:
                super().check_supported(data, hparams)

        def predict(self, images, n_samples=1, generator=None):
            found = super().predict(images, n_samples, generator)
            return found if self.both else Prediction(samples=found.samples)

    assert run(Lifts, "identity")["identity"].message == "refused, as it says"
    found = run(Lifts, "identity", "prediction", "raters_differ", overrides={"method": {"both": False}})
    assert found["identity"].message == "works"
    assert found["prediction"].outcome == "pass"
    assert found["raters_differ"].message == "no stage that gives rater maps runs"


def test_the_callers_random_numbers_stay():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    run(Sound, "training_seed")
    drawn = float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    assert drawn == (float(torch.rand(1)), float(np.random.rand()), random.random())  # noqa: NPY002


def test_no_method():
    with pytest.raises(UserError, match="unknown method 'prob_une': did you mean 'prob_unet'"):
        check_method("prob_une")
    with pytest.raises(UserError, match="no method; give a registry name or a subclass"):
        check_method(nn.Linear)


def test_a_class_of_a_notebook_has_no_file():
    scope = {"Plain": Plain, "__name__": "__main__"}
    exec("class Mine(Plain):\n    pass", scope)
    assert run(scope["Mine"], "loss_falls")["loss_falls"].outcome == "pass"


DOCS = Path(__file__).parents[2] / "docs" / "adding-a-method.md"


def test_the_documentation_lists_every_check():
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])] == contract_names()


def test_the_method_of_the_documentation_is_sound():
    scope = {"__name__": "__main__"}
    exec(re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[1], scope)
    found = run(scope["MyUNet"], "loss_falls", "missing_raters", "prediction", "gradients")
    assert {c.name: c.message for c in found.values() if c.outcome != "pass"} == {}


# -- the made data ------------------------------------------------------------------------------


def test_made_raters_differ_and_are_learnable():
    data = describe(64)
    batch = make_batch(data)
    areas = batch["masks"].flatten(2).sum(2).float()
    assert (areas[:, 1:] > 1.5 * areas[:, :-1]).all()
    assert areas.max() < 0.7 * 64 * 64
    maps = batch["masks"].flatten(2).float()
    dice = _soft_dice(maps, maps)
    assert torch.allclose(dice.diag(), torch.ones(3))
    assert dice[0, 2] < 0.4
    inside, outside = (batch["image"][:, 0][batch["masks"][:, 1] == m].mean() for m in (1, 0))
    assert inside > outside + 0.5


@pytest.mark.parametrize("dims", [2, 3])
def test_made_classes(dims):
    exclusive = make_batch(describe(32, dims, classes=3))["masks"]
    assert exclusive.shape == (4, 3, *(32,) * dims)
    assert exclusive.unique().tolist() == [0, 1, 2, 3]
    nested = make_batch(describe(32, dims, classes=2, overlapping=True))["masks"]
    assert nested.shape == (4, 3, 2, *(32,) * dims)
    assert (nested[:, :, 0] >= nested[:, :, 1]).all()
    assert 0 < nested[:, :, 1].sum() < nested[:, :, 0].sum()


def test_made_data_are_the_same_every_time():
    data = describe((32, 40), raters=2, channels=3)
    first, second, other = make_batch(data), make_batch(data), make_batch(data, seed=1)
    assert first["image"].shape == (4, 3, 32, 40)
    assert torch.equal(first["image"], second["image"])
    assert not torch.equal(first["image"], other["image"])
    valid = torch.tensor([[True, False], [False, True]])
    assert make_batch(data, 2, valid=valid)["masks"][~valid].sum() == 0


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("it works on 2D data, but this is 3D; choose another method", True),
        ("give for example 1.5 or U.S. data", True),
        ("Bad size. Try again.", False),
        ("no", False),
        ("one line of text\nand another one", False),
    ],
)
def test_what_one_sentence_is(text, one):
    assert is_one_sentence(text) is one
