"""Broken predictions: shapes, randomness, side effects, answers that say nothing."""

from __future__ import annotations

import random

import numpy as np
import torch
from contract_sound import Faults, Plain, Predicts, Samples, Sound, assert_fails
from multirater.methods import Prediction
from multirater.methods.latent import draw_seeds, seeded_noise

FAULTS = Faults()
breaks = FAULTS.breaks


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


# volume_noise


@breaks("volume_noise", "draw the noise once for all images of the call")
class NoiseOfEverySlice(Sound):
    def noise(self, images, n, generator):
        return torch.stack([seeded_noise(n, 2, seed, images) for seed in draw_seeds(len(images), generator)])


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


@FAULTS.parametrize()
def test_a_broken_method_fails_its_check(check, method, words):
    assert_fails(check, method, words)
