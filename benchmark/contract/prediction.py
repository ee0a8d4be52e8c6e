"""Checks of `predict` as a function: shapes and ranges, its randomness, and what it must leave alone."""

from __future__ import annotations

import random

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from ...datasets.base import DataDescription
from ...methods.base import Prediction
from ...methods.targets import is_exclusive, output_channels
from .check import Skip, contract, few, require
from .subject import SAMPLES, Subject, random_states, snapshot, update

_FEW = 5  # samples asked for in the prefix test, beside `SAMPLES`
_CLOSE = 1e-4  # of probabilities computed in batches of another size
_SHARE = 1e-3  # of pixels that may differ more: a threshold turns the last bit of a map into a pixel
_OUTPUTS = ("samples", "raters", "mean")


@contract("prediction", "predict gives what is claimed, in shape and range, and nothing that is not", needs=("trains",))
def prediction(subject: Subject) -> str:
    data, method = subject.describe(), subject.trained()
    images = subject.batch(data)["image"][:2]
    found = subject.predict(method, images, _FEW)
    for output in ("samples", "raters"):
        there, gives = getattr(found, output) is not None, getattr(subject.cls, f"gives_{output}")
        require(gives or not there, f"predict gives {output}, but gives_{output} is False")
        require(
            there or not subject.claims(output),
            f"gives_{output} is True, but predict gives no {output} after the stages {', '.join(subject.stages)}",
        )
    check_layout(found, data, images, _FEW)
    with torch.inference_mode():  # one sample and no generator are the defaults of the contract
        check_layout(method.predict(images), data, images, 1)
    shapes = [f"{o} {'×'.join(map(str, v.shape))}" for o in _OUTPUTS if (v := getattr(found, o)) is not None]
    return ", ".join(shapes)


def check_layout(found: Prediction, data: DataDescription, images: Tensor, n_samples: int) -> None:
    """Refuse a prediction whose shapes, numbers or channels are not those of the contract.

    Raises:
        Fault: what is wrong with which output.
    """
    channels = (output_channels(data),) if data.classes > 1 or data.overlapping else ()
    layout = {"samples": ("S",), "raters": (data.raters,), "mean": ()}
    for output in _OUTPUTS:
        maps = getattr(found, output)
        if maps is None:
            continue
        expected = (len(images), *layout[output], *channels, *images.shape[2:])
        fits = isinstance(maps, Tensor) and len(maps.shape) == len(expected)
        fits = fits and all(e in ("S", s) for e, s in zip(expected, maps.shape, strict=True))
        shown = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        require(fits, f"{output} is {shown}, expected ({', '.join(map(str, expected))})")
        require(
            maps.is_floating_point(), f"{output} is of type {maps.dtype} instead of float; predict gives probabilities"
        )
        low, high = (float(v) for v in torch.aminmax(maps))
        require(low >= 0 and high <= 1, f"{output} lies in [{low:.3g}, {high:.3g}]; probabilities lie in [0, 1]")
        require(not maps.requires_grad, f"{output} carries a gradient")
        if is_exclusive(data):
            axis = 1 if output == "mean" else 2
            off = float((maps.sum(axis) - 1).abs().max())
            require(off < 1e-3, f"{output} of exclusive classes sums to 1 ± {off:.2g} over the channels; use a softmax")
    if found.samples is not None:
        given = found.samples.shape[1]
        require(1 <= given <= n_samples, f"predict gives {given} samples where {n_samples} are asked for")


@contract(
    "predict_seed",
    "the generator it is given decides the prediction, and another seed draws other samples",
    needs=("trains",),
)
def predict_seed(subject: Subject) -> str:
    method, images = subject.trained(), subject.batch()["image"][:2]
    runs = []
    for ambient in (1, 2):  # what must not matter
        torch.manual_seed(ambient)
        np.random.seed(ambient)  # noqa: NPY002
        random.seed(ambient)
        runs.append(subject.predict(method, images, seed=0))
    for output in _OUTPUTS:
        first, second = (getattr(run, output) for run in runs)
        require((first is None) == (second is None), f"{output} is there only in one of two equal calls of predict")
        require(
            first is None or subject.same(first, second),
            f"{output} differs between two calls of predict with generators of the same seed; draw all noise from the "
            f"generator",
        )
    if not subject.claims("samples"):
        return "the same bits twice"
    generator = torch.Generator(device=subject.device.type).manual_seed(0)
    before = generator.get_state()
    with torch.inference_mode():
        method.predict(images, n_samples=SAMPLES, generator=generator)
    if torch.equal(before, generator.get_state()):
        return "the same bits twice; samples are not drawn, the generator is not used"
    other = subject.predict(method, images, seed=1)
    assert runs[0].samples is not None
    assert other.samples is not None
    require(
        not torch.equal(runs[0].samples, other.samples),
        "predict draws from the generator, but another seed gives the same samples",
    )
    return "the same bits twice, other samples for another seed"


@contract("sample_prefix", "the first samples do not depend on how many are asked for", needs=("trains",))
def sample_prefix(subject: Subject) -> str:
    if not subject.claims("samples"):
        raise Skip("no samples are claimed")
    method, images = subject.trained(), subject.batch()["image"][:2]
    for count in (1, 2):  # one image, and slices of a volume
        many = subject.predict(method, images[:count], SAMPLES).samples
        some = subject.predict(method, images[:count], _FEW).samples
        one = subject.predict(method, images[:count], 1).samples
        assert many is not None
        assert some is not None
        assert one is not None
        for fewer in (some, one):
            size = fewer.shape[1]
            off = _share(many[:, :size], fewer) if many.shape[1] >= size else 1.0
            require(
                off <= _SHARE,
                f"the first {size} of {SAMPLES} samples are not those of asking for {size} (batch of {count}, "
                f"{off:.1%} of the values differ); draw the noise sample by sample",
            )
    return f"the first of {SAMPLES} are those of {_FEW} and of 1"


@contract("batching", "the prediction of an image does not depend on the others in the batch", needs=("trains",))
def batching(subject: Subject) -> str:
    method, images = subject.trained(), subject.batch()["image"]
    strange = 5 * images[1:3] + 2  # statistics over the batch would move with it
    alone = subject.predict(method, images[:1])
    again = subject.predict(method, images[:1], seed=1)
    plain = subject.predict(method, images[:3])
    mixed = subject.predict(method, torch.cat([images[:1], strange]))
    words = []
    for output in _OUTPUTS:
        first, second = getattr(plain, output), getattr(mixed, output)
        if first is None or second is None:
            continue
        off = _share(first[:1], second[:1])
        require(
            off <= _SHARE,
            f"{output} of an image changes with the other images of the batch ({off:.1%} of the values differ)",
        )
        # Noise may be drawn in another order for one image than for three; only what has none must agree.
        if torch.equal(getattr(alone, output), getattr(again, output)):
            off = _share(first[:1], getattr(alone, output))
            require(
                off <= _SHARE,
                f"{output} of an image in a batch of 3 is not that of the image alone ({off:.1%} of the values differ)",
            )
            words.append(f"{output} as alone")
        else:
            words.append(f"{output} drawn for itself")
    return ", ".join(words)


@contract(
    "volume_noise",
    "the slices of a volume share the noise of a sample: equal slices get equal samples",
    needs=("trains",),
)
def volume_noise(subject: Subject) -> str:
    if not subject.claims("samples"):
        raise Skip("no samples are claimed")
    method = subject.trained()
    if method.slices_apart:
        raise Skip("slices_apart is set under these options: each slice is drawn for itself, as by the authors")
    slices = subject.batch()["image"][:1].repeat(3, *[1] * (subject.dims + 1))
    method.slices_share_noise = True
    try:
        found = subject.predict(method, slices)
    finally:
        method.slices_share_noise = False
    for output in ("samples", "raters"):
        maps = getattr(found, output)
        off = 0.0 if maps is None else _share(maps[:1].expand_as(maps), maps)
        require(
            off <= _SHARE,
            f"{output} of three equal slices differ while slices_share_noise is set ({off:.1%} of the values); draw "
            f"the noise once for all images of the call, as draw_seeds(..., shared=self.slices_share_noise) does",
        )
    return "three equal slices have the same samples"


def _share(first: Tensor, second: Tensor) -> float:
    """Share of the values that differ by more than rounding."""
    return float(((first.float() - second.float()).abs() > _CLOSE).float().mean())


@contract(
    "predict_pure",
    "predict leaves mode, parameters, buffers and the global random generators alone",
    needs=("trains",),
)
def predict_pure(subject: Subject) -> str:
    method, images = subject.trained(), subject.batch()["image"][:2]
    for training in (False, True):
        method.train(training)
        modes = {name: part.training for name, part in method.named_modules()}
        learning = {name: p.requires_grad for name, p in method.named_parameters()}
        tensors, states = snapshot(method), random_states()
        generator = torch.Generator(device=subject.device.type).manual_seed(0)
        with torch.inference_mode():
            method.predict(images, n_samples=2, generator=generator)
        mode = "train" if training else "eval"
        turned = {name or "the method" for name, part in method.named_modules() if part.training != modes[name]}
        require(not turned, f"after predict in {mode} mode {few(turned)} is in another mode; put it back")
        switched = {name for name, p in method.named_parameters() if p.requires_grad != learning[name]}
        require(not switched, f"predict switches requires_grad of {few(switched)}")
        if training:  # evaluation runs in eval mode: dropout may draw and batch norm may move here
            continue
        after = snapshot(method)
        changed = {n for n in tensors.keys() | after.keys() if not _equal(tensors.get(n), after.get(n))}
        require(not changed, f"predict changes {few(changed)}")
        moved = {library for library, state in random_states().items() if state != states[library]}
        require(not moved, f"predict draws from the global generator of {few(moved)} instead of the one it is given")
    return "all as before"


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    return first is not None and second is not None and torch.equal(first, second)


@contract("save_load", "weights saved as safetensors and loaded into a new method predict the same", needs=("trains",))
def save_load(subject: Subject) -> str:
    method, images = subject.trained(), subject.batch()["image"][:2]
    others = {name for name, value in method.state_dict().items() if not isinstance(value, Tensor)}
    require(not others, f"the state holds {few(others)}, which is no tensor and cannot be saved")
    packed = save({name: value.detach().cpu().contiguous().clone() for name, value in method.state_dict().items()})
    new = subject.build(seed=1)
    new.load_state_dict(load(packed))
    first, second = (subject.predict(m, images) for m in (method, new))
    for output in _OUTPUTS:
        a, b = getattr(first, output), getattr(second, output)
        require(
            (a is None) == (b is None) and (a is None or subject.same(a, b)),
            f"{output} differs after saving and loading; keep what training changes in parameters and buffers",
        )
    # A cell that was cut off goes on training after it was loaded.
    stage = subject.stages[-1]
    update(new.train(), subject.optimizer(new, stage), subject.batch(), stage, seed=0)
    return f"the same prediction from a file of {len(packed) / 2**20:.1f} MiB"
