"""Checks of what the predictions say: samples that differ, rater maps that differ and follow their raters."""

from __future__ import annotations

import torch
from torch import Tensor

from .check import Skip, contract, require
from .subject import SAMPLES, Subject, update

_DIFFERENT = 1e-6  # of probabilities; rounding stays below
FOLLOW_STEPS = 60
_FOLLOWS = 0.01  # soft Dice; less is too little to tell after so few steps


@contract("samples_differ", "samples of one image differ, if samples are claimed", needs=("trains",))
def samples_differ(subject: Subject) -> str:
    if not subject.claims("samples"):
        raise Skip("gives_samples is False" if not subject.cls.gives_samples else "no stage that gives samples runs")
    samples = subject.predict(subject.trained(), subject.batch()["image"], SAMPLES).samples
    require(samples is not None, "predict gives no samples")
    assert samples is not None
    given = samples.shape[1]
    require(given > 1, f"predict gives one sample where {SAMPLES} are asked for, so that it has no diversity")
    spread = float((samples.amax(1) - samples.amin(1)).max())
    require(
        spread > _DIFFERENT,
        f"all {given} samples of an image are the same (largest difference {spread:.1g}); set gives_samples to False, "
        f"or mend the draw",
    )
    return f"{given} samples, largest difference {spread:.2g}"


@contract("raters_differ", "the maps of raters that differ are different, if rater maps are claimed", needs=("trains",))
def raters_differ(subject: Subject) -> str:
    raters = _rater_maps(subject)
    pairs = (raters[:, :, None] - raters[:, None]).abs().flatten(3).amax((0, 3))  # R×R
    apart = pairs[~torch.eye(len(pairs), dtype=torch.bool, device=pairs.device)]
    nearest = float(apart.min())
    require(
        nearest > _DIFFERENT,
        f"the maps of two raters are the same (largest difference {nearest:.1g}), although the raters differ",
    )
    return f"nearest two differ by up to {nearest:.2g}"


@contract(
    "follows_raters", "the map of a rater is nearer to that rater than to others after some steps", needs=("trains",)
)
def follows_raters(subject: Subject) -> str:
    _rater_maps(subject)
    method, batch = subject.trained(), subject.batch()
    for stage in subject.stages:
        optimizer = subject.optimizer(method, stage)
        for step in range(FOLLOW_STEPS):  # fresh noise: methods that draw a rater must see them all
            update(method.train(), optimizer, batch, stage, seed=step)
    maps = subject.predict(method, batch["image"], 1).raters
    assert maps is not None
    dice = _soft_dice(maps.flatten(2).float(), batch["masks"].flatten(2).float())  # R×R
    own = torch.eye(len(dice), dtype=torch.bool, device=dice.device)
    gap = float(dice[own].mean() - dice[~own].mean())
    require(
        gap > -_FOLLOWS,
        f"rater maps are nearer to other raters than to their own (soft Dice {gap:+.3f}) after {FOLLOW_STEPS} more "
        f"steps a stage on raters who outline 0.6 to 1.4 of the radius; check the order of the raters",
    )
    if gap < _FOLLOWS:
        raise Skip(f"{FOLLOW_STEPS} more steps a stage are too few to tell the raters apart (soft Dice {gap:+.3f})")
    return f"soft Dice {gap:+.3f} with the own rater against the others"


def _rater_maps(subject: Subject) -> Tensor:
    """B×R×… after the common training.

    Raises:
        Skip: rater maps are not claimed.
        Fault: there are none.
    """
    if not subject.claims("raters"):
        raise Skip("gives_raters is False" if not subject.cls.gives_raters else "no stage that gives rater maps runs")
    raters = subject.predict(subject.trained(), subject.batch()["image"], 1).raters
    require(raters is not None, "predict gives no rater maps")
    assert raters is not None
    return raters


def _soft_dice(maps: Tensor, masks: Tensor) -> Tensor:
    """R×R: mean over images of the soft Dice of map r (B×R×P) and mask s (B×R×P)."""
    overlap = torch.einsum("brp,bsp->brs", maps, masks)
    total = maps.sum(2)[:, :, None] + masks.sum(2)[:, None]
    return (2 * overlap / total.clamp_min(1e-6)).mean(0)
