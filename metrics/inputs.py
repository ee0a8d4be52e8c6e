"""Checks of what a user gives to `score_case`; every mistake is one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from .case import CaseView

LARGEST_LABEL = (1 << 16) - 1  # tables over all labels stay small; no data set has more classes
_MOST_CLASSES = 255  # of a list that nobody gave
_LARGEST_LOG = 1e-6  # log(1 + 1e-8) and its rounding in float32


def array_of(name: str, value: Any) -> NDArray:
    """`value` as a NumPy array of numbers.

    Raises:
        UserError: ragged or not numeric.
    """
    try:
        out = np.asarray(value)
    except ValueError as error:
        raise UserError(f"{name} is not a rectangular array ({error}); give masks of one shape") from error
    if out.dtype.kind not in "buif":
        raise UserError(f"{name} has type {out.dtype}; give booleans, integers or floats")
    return out


def label_array(name: str, value: Any) -> NDArray:
    """A mask or class-map array: bool or integers from 0 to 65535; floats are taken if they are whole numbers.

    Raises:
        UserError: fractions (probabilities have their own argument), nan, negative or huge labels.
    """
    out = array_of(name, value)
    if out.dtype == bool or not out.size:
        return out if out.dtype.kind in "bui" else out.astype(bool)
    if out.dtype.kind == "f" and not (np.isfinite(out).all() and (out == np.floor(out)).all()):
        instead = {"samples": "probs", "raters": "thresholded masks"}.get(name, "whole numbers")
        raise UserError(f"{name} holds fractions or nan; give masks or class maps, probabilities as {instead}")
    low, high = int(out.min()), int(out.max())
    if low < 0:
        raise UserError(f"{name} holds the negative label {low}; mark pixels that do not count in `valid`")
    if high > LARGEST_LABEL:
        raise UserError(f"{name} holds the label {high}; labels go up to {LARGEST_LABEL}, so renumber the classes")
    if out.dtype.kind == "f":
        out = out.astype(np.int64 if high > 1 else bool)
    return out


def check_probabilities(name: str, value: NDArray) -> None:
    """Raise `UserError` unless all values are in [0, 1]."""
    if not value.size or value.dtype.kind == "b":
        return
    low, high = value.min(), value.max()
    if not (low >= 0 and high <= 1):  # also false for nan
        what = "nan" if np.isnan(low) or np.isnan(high) else f"values from {low:g} to {high:g}"
        raise UserError(f"{name} holds {what}; give probabilities between 0 and 1 (after sigmoid or softmax)")


def evaluated_classes(
    raters: NDArray, samples: NDArray | None, classes: Sequence[int] | None, channels: int | None
) -> tuple[int, ...]:
    """The fixed list of evaluated classes.

    Args:
        raters, samples: checked label arrays, of one case or of many.
        classes: the list as given; None: 1 to the largest label in `raters` and `samples`, or to the last channel.
        channels: length of the channel axis of the probabilities, None if they have none.

    Raises:
        UserError: booleans mixed with class maps, a bad list, labels without a channel, or masks stored as 0/255.
    """
    top_raters = _largest(raters)
    top_samples = 0 if samples is None else _largest(samples)
    for name, top, other in (("samples", top_samples, raters), ("raters", top_raters, samples)):
        if other is not None and other.dtype == bool and top > 1 and classes is None:
            raise UserError(f"{name} holds labels up to {top} while the others are boolean; give the same kind")
    if classes is None:
        for name, labels, top in (("raters", raters, top_raters), ("samples", samples, top_samples)):
            if top == 255 and labels is not None and np.isin(labels, (0, 255)).all():
                raise UserError(f"{name} holds 0 and 255 only; give booleans (mask > 0) or classes=[255]")
        if channels is None:
            top = max(1, top_raters, top_samples)
            if top > _MOST_CLASSES:
                raise UserError(
                    f"labels go up to {top}, and each from 1 on would be a class; give those to evaluate as classes, "
                    f"for example [1, {top}]"
                )
            return tuple(range(1, top + 1))
        chosen = tuple(range(1, channels))
        if max(top_raters, top_samples) >= channels:
            raise UserError(
                f"labels go up to {max(top_raters, top_samples)}, but probs has {channels} channels "
                f"(background first); give one channel for each class"
            )
        return chosen
    chosen = _class_list(classes, channels)
    if chosen != (1,) and any(a is not None and a.dtype == bool for a in (raters, samples)):
        raise UserError(
            f"classes = {list(chosen)} needs class maps, but raters or samples are boolean; leave classes out"
        )
    return chosen


def _largest(labels: NDArray) -> int:
    return 1 if labels.dtype == bool else int(labels.max(initial=0))


def _class_list(classes: Sequence[int], channels: int | None) -> tuple[int, ...]:
    given = array_of("classes", classes)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
        raise UserError(f"classes = {classes!r} is not allowed; give a list of labels such as [1, 2, 3]")
    chosen = tuple(int(c) for c in given)
    if len(set(chosen)) != len(chosen) or min(chosen) < 1:
        raise UserError(f"classes = {list(chosen)} is not allowed; give different labels above 0 (0 is background)")
    if max(chosen) > LARGEST_LABEL:
        raise UserError(f"classes holds {max(chosen)}; labels go up to {LARGEST_LABEL}, so renumber the classes")
    if channels is not None and max(chosen) >= channels:
        raise UserError(
            f"classes go up to {max(chosen)}, but probs has {channels} channels (background first); "
            f"give one channel for each class"
        )
    return chosen


def weights_array(name: str, value: Any, count: int) -> NDArray[np.float64] | None:
    """Non-negative weights that sum to 1, or None if they are all equal.

    Raises:
        UserError: wrong length, negative, or another sum.
    """
    if value is None:
        return None
    out = array_of(name, value).astype(np.float64)
    if out.shape != (count,):
        raise UserError(
            f"{name} has shape {out.shape}; give {count} numbers, one for each of the {name.split('_')[0]}s"
        )
    if not (np.isfinite(out).all() and (out >= 0).all() and abs(out.sum() - 1) <= 1e-6):
        raise UserError(
            f"{name} has the sum {out.sum():g} and the smallest number {out.min():g}; give numbers >= 0 that sum to 1"
        )
    return None if (out == out[0]).all() else out / out.sum()


def _flags(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    out = array_of(name, value)
    if out.shape != shape:
        raise UserError(f"{name} has shape {out.shape}; the raters ask for {shape}")
    if out.dtype != bool and not np.isin(out, (0, 1)).all():
        raise UserError(f"{name} holds other values than true and false; give booleans")
    return out.astype(bool)


def _shape_error(name: str, got: tuple[int, ...], want: str) -> UserError:
    return UserError(f"{name} has shape {got}; {want}")


def read_case(
    raters: Any,
    samples: Any = None,
    *,
    probs: Any = None,
    rater_probs: Any = None,
    mean_prob: Any = None,
    mean_log: Any = None,
    uncertainty: Any = None,
    rater_valid: Any = None,
    sample_weights: Any = None,
    rater_weights: Any = None,
    valid: Any = None,
    classes: Sequence[int] | None = None,
    spacing: Any = None,
    n_samples: int | None = None,
) -> CaseView:
    """Checked arrays of one case; see `multirater.metrics.score_case` for the arguments.

    Missing raters are removed first, then the pixels that do not count. Nothing given is modified.

    Raises:
        UserError: wrong shapes, types or values, in one sentence.
    """
    everyone = array_of("raters", raters)
    if everyone.ndim not in (3, 4):
        raise _shape_error(
            "raters", everyone.shape, "give raters x height x width (or raters x depth x height x width)"
        )
    slots, spatial = len(everyone), everyone.shape[1:]
    if 0 in spatial:
        raise _shape_error("raters", everyone.shape, "which holds no pixel; give masks with at least one")
    present = np.arange(slots)
    if rater_valid is not None:
        present = np.flatnonzero(_flags("rater_valid", rater_valid, (slots,)))
    chosen = label_array("raters", everyone if len(present) == slots else everyone[present])
    region = None if valid is None else _flags("valid", valid, spatial)
    millimetres = spacing_of(spacing, len(spatial))

    masks = None if samples is None else label_array("samples", samples)
    if masks is not None and masks.shape[1:] != spatial:
        raise _shape_error("samples", masks.shape, f"the raters are {spatial}, so give samples x {spatial}")
    maps = _probabilities("probs", probs, spatial)
    if masks is not None and maps is not None and len(masks) != len(maps):
        raise UserError(f"samples holds {len(masks)} and probs {len(maps)} samples; give the same samples in both")
    given = masks if masks is not None else maps
    if given is not None and not len(given):
        raise UserError("samples or probs holds no sample; give at least one, or leave it out")
    channels = maps.shape[1] if maps is not None and maps.ndim > everyone.ndim else None
    evaluated = evaluated_classes(chosen, masks, classes, channels)
    several = len(evaluated) > 1
    if several and maps is not None and channels is None:
        raise _shape_error("probs", maps.shape, f"classes {list(evaluated)} need a channel axis after the samples")

    if chosen.dtype == bool:
        spare = {"probs": (maps, 2), "rater_probs": (rater_probs, 2), "mean_prob": (mean_prob, 1)}
        for name, (value, axes) in spare.items():
            shape = np.shape(value)
            if value is not None and len(shape) == axes + len(spatial) and shape[axes - 1] != 2:
                raise _shape_error(name, shape, "boolean raters go with two channels (background first) or none")
    personal, personal_labels = None, None
    if rater_probs is not None:
        personal, personal_labels = _rater_maps(rater_probs, everyone.shape, present, evaluated)
    mean = None if mean_prob is None else _mean_map(mean_prob, spatial, evaluated)
    logs = None if mean_log is None else _mean_log(mean_log, mean, spatial, evaluated)
    spread = None if uncertainty is None else _uncertainty(uncertainty, spatial)

    weights_r = weights_array("rater_weights", rater_weights, slots)
    void = "" if len(present) else "no rater annotated this case"
    if weights_r is not None and len(present) < slots:
        left = weights_r[present].sum()
        void = void if left > 0 else "the raters of this case have no weight"
        weights_r = weights_r[present] / left if left > 0 else None
    if region is not None and not region.any():
        void = "no pixel of this case counts"
    if n_samples is not None and (
        isinstance(n_samples, bool) or not isinstance(n_samples, int | np.integer) or n_samples < 1
    ):
        raise UserError(f"n_samples = {n_samples!r} is not allowed; give an integer >= 1")

    return CaseView(
        raters=_binary(_inside(chosen, region), evaluated),
        slots=slots,
        present=present,
        classes=evaluated,
        samples=None if masks is None else _binary(_inside(masks, region), evaluated),
        probs=_inside(maps, region),
        rater_probs=_inside(personal, region),
        rater_labels=None if personal_labels is None else _binary(_inside(personal_labels, region), evaluated),
        mean_prob=_inside(mean, region),
        mean_log=_inside(logs, region),
        uncertainty=_inside(spread, region),
        sample_weights=None if given is None else weights_array("sample_weights", sample_weights, len(given)),
        rater_weights=weights_r,
        n_samples=None if n_samples is None else int(n_samples),
        valid=region,
        spacing=millimetres,
        void=void,
    )


def _inside(array: Any, region: NDArray[np.bool_] | None) -> Any:
    return array if array is None or region is None else array[..., region]


def _binary(labels: NDArray, classes: tuple[int, ...]) -> NDArray:
    """A boolean mask if a single class is evaluated, else the class map."""
    return labels if len(classes) > 1 or labels.dtype == bool else labels == classes[0]


def _probabilities(name: str, value: Any, spatial: tuple[int, ...]) -> NDArray | None:
    if value is None:
        return None
    out = array_of(name, value)
    extra = out.ndim - len(spatial)
    if extra not in (1, 2) or out.shape[extra:] != spatial or (extra == 2 and out.shape[1] < 2):
        raise _shape_error(
            name, out.shape, f"the raters are {spatial}, so give samples x {spatial}, or samples x channels x {spatial}"
        )
    check_probabilities(name, out)
    return out.astype(np.float64) if out.dtype.kind in "bui" else out


def _rater_maps(
    value: Any, shape: tuple[int, ...], present: NDArray[np.intp], classes: tuple[int, ...]
) -> tuple[NDArray | None, NDArray | None]:
    """Personalised outputs of the present raters: (probabilities, None) or (None, hard masks)."""
    out = array_of("rater_probs", value)
    spatial = shape[1:]
    extra = out.ndim - len(spatial)
    if extra not in (1, 2) or len(out) != shape[0] or out.shape[extra:] != spatial:
        raise _shape_error("rater_probs", out.shape, f"give one map for each of the {shape[0]} raters: {shape}")
    out = out[present]
    if out.dtype.kind in "bui" and extra == 1:
        return None, label_array("rater_probs", out)
    check_probabilities("rater_probs", out)
    if extra == 2 and out.shape[1] <= max(classes):
        raise _shape_error("rater_probs", out.shape, f"classes {list(classes)} need {max(classes) + 1} channels")
    if extra == 1 and len(classes) > 1:
        raise _shape_error("rater_probs", out.shape, f"classes {list(classes)} need a channel axis after the raters")
    return out.astype(np.float64) if out.dtype.kind in "bui" else out, None


def _mean_map(value: Any, spatial: tuple[int, ...], classes: tuple[int, ...]) -> NDArray:
    out = array_of("mean_prob", value)
    extra = out.ndim - len(spatial)
    if extra not in (0, 1) or out.shape[extra:] != spatial:
        raise _shape_error("mean_prob", out.shape, f"give {spatial}, or channels x {spatial}")
    if extra == 1 and out.shape[0] <= max(classes):
        raise _shape_error("mean_prob", out.shape, f"classes {list(classes)} need {max(classes) + 1} channels")
    if extra == 0 and len(classes) > 1:
        raise _shape_error("mean_prob", out.shape, f"classes {list(classes)} need a channel axis in front")
    check_probabilities("mean_prob", out)
    return out.astype(np.float64) if out.dtype.kind in "bui" else out


def _mean_log(value: Any, mean: NDArray | None, spatial: tuple[int, ...], classes: tuple[int, ...]) -> NDArray:
    out = array_of("mean_log", value)
    wanted = (len(classes) + 1, *spatial)
    if out.shape != wanted:
        raise _shape_error("mean_log", out.shape, f"give background and classes {list(classes)}: {wanted}")
    if len(classes) > 1 and classes != tuple(range(1, len(classes) + 1)):
        raise UserError(
            f"mean_log goes with classes 1 to {len(classes)} in order, not {list(classes)}; give probs, or all classes"
        )
    if mean is None:
        raise UserError("mean_log goes with the mean map of the same samples; give mean_prob too")
    if not (np.isfinite(out).all() and out.max(initial=0.0) <= _LARGEST_LOG):
        raise UserError("mean_log holds nan, inf or values above 0; give means of log(p + 1e-8) of probabilities p")
    return out


def _uncertainty(value: Any, spatial: tuple[int, ...]) -> NDArray:
    out = array_of("uncertainty", value)
    if out.shape != spatial:
        raise _shape_error("uncertainty", out.shape, f"give one map {spatial}")
    if not np.isfinite(out).all():
        raise UserError("uncertainty holds nan or inf; give finite numbers")
    return out


def spacing_of(spacing: Any, dims: int) -> tuple[float, ...] | None:
    """Millimetres per pixel of each axis, checked; None stays None."""
    if spacing is None:
        return None
    out = array_of("spacing", spacing).astype(np.float64)
    if out.shape != (dims,) or not (np.isfinite(out).all() and (out > 0).all()):
        raise UserError(f"spacing = {out.tolist()} is not allowed; give {dims} millimetres per pixel, all above 0")
    return tuple(out.tolist())
