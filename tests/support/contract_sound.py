"""One sound method of two stages, a plain one, and bases of copies that are broken in one place."""

from __future__ import annotations

from typing import Annotated

import pytest
import torch
from multirater.benchmark import check_method
from multirater.methods import Method, Prediction
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
        seeds = draw_seeds(len(images), generator, shared=self.slices_share_noise)
        return torch.stack([seeded_noise(n, 2, seed, images) for seed in seeds])

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


class Loss(Plain):
    """Its loss passes through `change`."""

    def training_step(self, batch, stage=None):
        loss, scalars = super().training_step(batch, stage)
        return self.change(loss), scalars


class Predicts(Plain):
    """Its mean map passes through `change`."""

    def predict(self, images, n_samples=1, generator=None):
        return Prediction(mean=self.change(super().predict(images).mean))


class Samples(Sound):
    """Its samples pass through `change`."""

    def predict(self, images, n_samples=1, generator=None):
        found = super().predict(images, n_samples, generator)
        return Prediction(samples=self.change(found.samples), raters=found.raters)


class Faults:
    """Broken methods of a test file: (check, class, words of the message)."""

    def __init__(self):
        self.found: list[tuple[str, type[Method], str]] = []

    def breaks(self, check, words):
        """Class decorator: this method breaks `check`, whose message holds `words`."""

        def decorate(cls):
            self.found.append((check, cls, words))
            return cls

        return decorate

    def parametrize(self):
        ids = [f"{check}-{cls.__name__}" for check, cls, _ in self.found]
        return pytest.mark.parametrize(("check", "method", "words"), self.found, ids=ids)


def run(method, *only, **options):
    return {c.name: c for c in check_method(method, device="cpu", size=32, only=only or None, **options)}


def assert_fails(check, method, words):
    """The check finds the fault, in one line that says so, and those it builds on pass."""
    found = run(method, check)
    assert found[check].outcome == "fail", found[check]
    assert words in found[check].message
    assert "\n" not in found[check].message
    if check != "options":
        assert [c for name, c in found.items() if name != check and c.outcome != "pass"] == []
