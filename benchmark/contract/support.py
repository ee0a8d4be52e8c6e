"""Checks of what data a method takes: it refuses what it says it refuses, and works on the rest."""

from __future__ import annotations

from typing import Any

import torch

from ...core.errors import UnsupportedPair, UserError
from ...datasets.base import DataDescription
from ...methods.base import Method
from .check import Fault, Skip, contract, is_one_sentence, require, situation
from .data import filled
from .prediction import check_layout
from .subject import Subject, loss_of, update


def trial(subject: Subject, data: DataDescription, valid: torch.Tensor | None = None) -> None:
    """A step of every stage, one on empty masks, and a prediction, on other data.

    Raises:
        Fault: the numbers or shapes are wrong.
    """
    method = subject.build(data)
    batch = subject.batch(data, valid=valid, cases=4 if valid is None else len(valid))
    for stage in subject.stages:
        optimizer = subject.optimizer(method, stage)
        for step, given in enumerate((batch, filled(batch, 0))):
            update(method.train(), optimizer, given, stage, seed=step)
    check_layout(subject.predict(method, batch["image"][:2], 3), data, batch["image"][:2], 3)


def check_refusal(subject: Subject, data: DataDescription, words: str) -> bool:
    """Whether such data are refused, as promised.

    Returns:
        False where only options chosen by hand make the method take them; it must then work.

    Raises:
        Fault: they are taken, or the refusal is not one clear sentence.
    """
    try:
        subject.cls.check_supported(data, dict(subject.options))
    except UnsupportedPair as refusal:
        text = str(refusal)
        require(is_one_sentence(text), f"the refusal of {words} is not one sentence: {text!r}")
        return True
    except Exception as error:
        raise Fault(
            f"check_supported raises {type(error).__name__} instead of UnsupportedPair on {words}: {error}"
        ) from error
    if subject.options != subject.smoke_options:
        try:
            subject.cls.check_supported(data, dict(subject.smoke_options))
        except UnsupportedPair:
            return False
    raise Fault(f"it takes {words}, which its capabilities exclude; call super().check_supported in check_supported")


def _works_or_refuses(subject: Subject, data: DataDescription, words: str) -> str:
    """Run a trial in which a clear refusal is as good as success; says which it was.

    Raises:
        Fault: neither.
    """
    try:
        trial(subject, data)
    except UserError as refusal:
        text = str(refusal)
        require(is_one_sentence(text), f"the refusal of {words} is not one sentence: {text!r}")
        return f"{words} refused"
    except Exception as error:
        with situation(f"{words} (make it work, or refuse it in check_supported with one sentence)"):
            raise error
    return f"{words} works"


def _takes(
    subject: Subject, data: DataDescription, words: str, allowed: bool, valid: torch.Tensor | None = None
) -> str:
    """Refused where not `allowed`, else a trial."""
    if not allowed and check_refusal(subject, data, words):
        return "refused, as it says"
    with situation(words):
        trial(subject, data, valid)
    return "works"


@contract("identity", "raters without identity are refused if it needs one, else it works", needs=("constructs",))
def identity(subject: Subject) -> str:
    return _takes(subject, subject.describe(identity="none"), "raters without identity", not subject.cls.needs_identity)


@contract("exclusive_classes", "3 exclusive classes: refused if it is binary, else it works", needs=("constructs",))
def exclusive_classes(subject: Subject) -> str:
    return _takes(subject, subject.describe(classes=3), "3 exclusive classes", subject.cls.multiclass)


@contract("overlapping_classes", "2 overlapping classes: refused if it is binary, else it works", needs=("constructs",))
def overlapping_classes(subject: Subject) -> str:
    data = subject.describe(classes=2, overlapping=True)
    return _takes(subject, data, "2 overlapping classes", subject.cls.multiclass)


# One rater missing, a case with a single one, all there, and one more; the last rater is the single one.
_VALID = torch.tensor([[True, False, True], [False, False, True], [True, True, True], [False, True, True]])
_NEVER = torch.tensor([[False, True, True], [False, False, True], [False, True, False], [False, True, True]])


@contract(
    "missing_raters",
    "missing raters: refused if it needs all, else it works and what stands in their masks has no effect",
    needs=("constructs",),
)
def missing_raters(subject: Subject) -> str:
    data = subject.describe(has_missing=True)
    found = _takes(subject, data, "missing raters", subject.cls.missing_raters, _VALID)
    if not (subject.cls.missing_raters or found == "works"):
        return found
    with situation("a rater missing in the whole batch"):
        trial(subject, data, _NEVER)
    method = subject.build(data).eval()  # without dropout and batch statistics
    batch = subject.batch(data, valid=_VALID)
    missing = ~_VALID.to(subject.device).view(*_VALID.shape, *[1] * (batch["masks"].ndim - 2))
    for stage in subject.stages:
        subject.optimizer(method, stage)  # switches gradients as the suite does
        zero, one = (
            _loss(method, {**batch, "masks": batch["masks"].masked_fill(missing, value)}, stage) for value in (0, 1)
        )
        require(
            abs(zero - one) <= 1e-5 * max(1.0, abs(zero)),
            f"the loss of stage {stage!r} is {zero:.5g} or {one:.5g}, depending on what stands in the masks of missing "
            f"raters; use rater_valid",
        )
    return "works; one rater a case, and one missing throughout"


def _loss(method: Method, batch: dict[str, Any], stage: str) -> float:
    return float(loss_of(method, batch, stage, seed=0)[0].detach())


@contract("dimensions", "images of other dimensions are refused, or work if claimed", needs=("constructs",))
def dimensions(subject: Subject) -> str:
    words = []
    for dims in (2, 3):
        if dims != subject.dims:
            allowed = dims in subject.cls.spatial_dims
            words.append(f"{dims}D {_takes(subject, subject.describe(dims), f'{dims}D images', allowed)}")
    return ", ".join(words)


@contract("rater_counts", "2 and 7 raters work; a single one works or is refused", needs=("constructs",))
def rater_counts(subject: Subject) -> str:
    for raters in (2, 7):
        with situation(f"with {raters} raters"):
            trial(subject, subject.describe(raters=raters))
    return "2 and 7 raters work, " + _works_or_refuses(subject, subject.describe(raters=1), "1 rater")


@contract("channels", "images of 3 channels work", needs=("constructs",))
def channels(subject: Subject) -> str:
    with situation("with 3 channels"):
        trial(subject, subject.describe(channels=3))
    return "3 channels work"


@contract("sizes", "other image sizes work or are refused in one sentence", needs=("constructs",))
def sizes(subject: Subject) -> str:
    side = subject.size if subject.dims == 2 else subject.size // 2
    rest = (side,) * (subject.dims - 2)
    shapes = ((*rest, side, side * 3 // 2), (*rest, side - 11, side + 9))  # not square; and of odd sides
    return ", ".join(_works_or_refuses(subject, subject.describe(size=s), "×".join(map(str, s))) for s in shapes)


@contract("devices", "it runs on the CPU and on a GPU, and both predict the same", needs=("trains",))
def devices(subject: Subject) -> str:
    if not torch.cuda.is_available():
        raise Skip("torch sees no CUDA device, so that only the CPU was checked")
    data, state = subject.describe(), subject.trained().state_dict()
    own, images = subject.device, subject.batch(data)["image"][:2]
    means = []
    try:
        for device in ("cpu", "cuda"):
            subject.device = torch.device(device)
            with situation(f"on {device}"):
                trial(subject, data)
                method = subject.build(data)
                method.load_state_dict(state)
                found = subject.predict(method, images.to(device), 1)
                assert found.mean is not None
                require(found.mean.device.type == device, f"the prediction lies on {found.mean.device}")
                means.append(found.raters if found.raters is not None else found.mean)
    finally:
        subject.device = own
    return _agreement(subject, means)


def _agreement(subject: Subject, maps: list[torch.Tensor]) -> str:
    """How far the maps of two devices are apart; only maps without noise can be compared."""
    off = float((maps[0].cpu() - maps[1].cpu()).abs().float().mean())
    if subject.claims("samples"):
        return f"both work, mean difference {off:.1g} (noise may be drawn differently)"
    require(off < 0.01, f"CPU and GPU predict maps that differ by {off:.2g} in the mean")
    return f"both work, mean difference {off:.1g}"
