"""`score_case` and `score_cases`: metrics of one case, or of many, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from .case import CaseView, Undefined
from .convention import Convention
from .inputs import array_of, evaluated_classes, label_array, read_case
from .overlap import usable_cores
from .pooled import pooled_dice_rater as pooled_dice_rater
from .registry import METRICS, info_of
from .variants import conventions_of

if TYPE_CHECKING:
    import pandas as pd

_WORTH_A_THREAD = 8  # cases

INPUTS = ("samples", "probs", "rater_probs", "mean_prob", "mean_log", "uncertainty")
COUNTS_ONLY = "counts only"  # stands among the given inputs of a case that is made of components


def score_case(
    raters: Any,
    samples: Any = None,
    *,
    probs: Any = None,
    rater_probs: Any = None,
    rater_valid: Any = None,
    sample_weights: Any = None,
    rater_weights: Any = None,
    valid: Any = None,
    classes: Sequence[int] | None = None,
    spacing: Any = None,
    metrics: Iterable[str] | None = None,
    variant: str | Convention | None = None,
    mean_prob: Any = None,
    mean_log: Any = None,
    uncertainty: Any = None,
    n_samples: int | None = None,
    reasons: bool = False,
) -> dict[str, Any]:
    """Metrics of one case.

    Args:
        raters: R×H×W or R×D×H×W, one mask per rater. bool (or floats that are 0 or 1) means binary, integers a class
            map.
        samples: S in place of R, one mask per sample of the model.
        probs: S×H×W, probabilities in [0, 1] of each sample; several classes: S×C×H×W, background first. Binarised
            strictly (0.5 is background); C channels: arg max, the lower index winning a tie. If `samples` is given too,
            `probs` only makes the mean map.
        rater_probs: R×H×W (R×C×H×W), the output meant for each rater; hard masks or class maps are taken too.
        rater_valid: R bool; False: this rater did not annotate this case. An empty mask is an answer, not missing.
        sample_weights, rater_weights: S, R numbers ≥ 0 that sum to 1; default uniform. They enter means and transports;
            maxima run over all members, and human baselines are undefined with weights.
        valid: H×W bool, pixels that count.
        classes: the fixed list of evaluated labels; default 1 to the largest label in `raters` and `samples`, or to the
            last channel of `probs`. A class absent from both of two maps is an agreement. Give the data set's list.
        spacing: millimetres per pixel; for surface metrics, volumes and the box of calibration and agreement, which
            reaches 10 mm beyond the raters' masks (16 pixels without spacing).
        metrics: ids such as ``["ged", "dice_rater.each"]``. None: all that the inputs allow, the human baselines
            (``human.*``, from the raters alone) included; `dice_each` only in its variants, ``ged.per_class`` only with
            several classes.
        variant: a name of `multirater.metrics.list_variants` or a `Convention`; None is canonical.
        mean_prob: H×W (C×H×W), the stored mean map p̄. Replaces the mean of `probs` or `samples` in `dice_soft` and the
            like, in calibration, and in the common mask of `dice_rater`. It is compared with thresholds in its own
            precision, and with the edges of calibration bins after exact conversion to float64.
        mean_log: C×H×W (binary: 2×H×W), the stored mean over the samples of log(p + 1e-8) of every channel, background
            first. With `mean_prob` it is all that `ncc` needs, and replaces `probs` there: stored as float32 it gives
            the value of `probs` to about 1e-5. `sample_weights` are those of the stored means.
        uncertainty: H×W, a predicted map of uncertainty of any scale, for `ncc.variance`.
        n_samples: S of ``human.oracle_*``; default the number of samples, or 16 if there are none.
        reasons: add the key ``"reasons"``: metric id to why it is nan (or to "common mask").

    Returns:
        Metric ids to floats, or to lists where ``info_of(id)["values"]`` says so: over the R rater slots (such as
        ``dice_rater.each``, `dice_each`, ``ece.each.list``) or over classes (``ged.per_class``). nan: undefined for
        this case.

    Raises:
        UserError: unknown metric or variant, missing inputs of a metric asked for, a metric asked for that the variant
            does not define, wrong shapes, types or values.

    Example:
        Two raters, two samples that both equal the first rater (IoU of the raters is 4/12):

        >>> import numpy as np
        >>> a = np.zeros((4, 4), bool); a[:, :2] = True
        >>> values = score_case(np.stack([a, a.T]), np.stack([a, a]), metrics=["ged", "hm_iou", "dice_soft"])
        >>> {name: round(value, 6) for name, value in values.items()}
        {'ged': 0.333333, 'hm_iou': 0.666667, 'dice_soft': 0.72}
        >>> score_case(np.stack([a, a.T]), a[None], metrics=["ged.ustat"], reasons=True)["reasons"]
        {'ged.ustat': 'one sample has no pair of different members'}
    """
    given = {
        "samples": samples,
        "probs": probs,
        "rater_probs": rater_probs,
        "mean_prob": mean_prob,
        "mean_log": mean_log,
        "uncertainty": uncertainty,
    }
    view = read_case(
        raters,
        **given,
        rater_valid=rater_valid,
        sample_weights=sample_weights,
        rater_weights=rater_weights,
        valid=valid,
        classes=classes,
        spacing=spacing,
        n_samples=n_samples,
    )
    return score_view(view, _given(given), metrics, variant, reasons, strict=metrics is not None)


def _given(inputs: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(name for name in INPUTS if inputs.get(name) is not None)


def score_view(
    view: CaseView,
    given: frozenset[str],
    metrics: Iterable[str] | None,
    variant: str | Convention | None,
    reasons: bool,
    strict: bool,
) -> dict[str, Any]:
    """`score_case` of a checked case.

    Args:
        given: which of `INPUTS` were given.
        strict: raise, not nan, where a variant does not define the metric or makes too few samples an error.
    """
    view.conventions = conventions_of(variant, len(view.classes) > 1)
    each = view.convention("dice").each is not None
    names = _default_names(given, each, len(view.classes) > 1) if metrics is None else check_metrics(metrics, given)
    out: dict[str, Any] = evaluate(view, names, strict)
    if reasons:
        out["reasons"] = view.notes
    return out


def evaluate(view: CaseView, names: Iterable[str], strict: bool = False) -> dict[str, Any]:
    """Values of metrics of a checked case; reasons go to `view.notes`.

    Args:
        strict: raise, not nan, where a variant does not define the metric or makes too few samples an error.
    """
    out: dict[str, Any] = {}
    for name in names:
        try:
            if view.void:
                raise Undefined(view.void)
            out[name] = _function(name)(view)
        except Undefined as reason:
            if strict and isinstance(reason, UserError):
                raise
            view.notes[name] = str(reason)
            length = {"rater": view.slots, "class": len(view.classes), "votes": view.slots + 1}.get(
                info_of(name)["values"]
            )
            out[name] = math.nan if length is None else [math.nan] * length
    return out


@lru_cache(maxsize=1024)
def _function(name: str) -> Callable[[CaseView], float | list[float]]:
    return METRICS.get(name)


def names_in_group(prefix: str) -> list[str]:
    """Metrics whose id starts with `prefix`, in the order of the registry."""
    return [entry.name for entry in METRICS.entries() if entry.name.startswith(prefix)]


def missing_input(name: str, given: frozenset[str]) -> str | None:
    """The first group of inputs that a metric lacks."""
    if COUNTS_ONLY in given and info_of(name)["pixels"]:
        return "pixels"
    for group in info_of(name)["needs"]:
        if given.isdisjoint(group.split("|")):
            return group
    return None


def check_metrics(metrics: Iterable[str], given: frozenset[str]) -> tuple[str, ...]:
    """The ids asked for, if all are known and their inputs are given.

    Raises:
        UserError: unknown metric, or missing inputs, which are named.
    """
    if isinstance(metrics, str):
        raise UserError(f"metrics = {metrics!r} is not allowed; give a list of ids, for example [{metrics!r}]")
    names = tuple(metrics) if isinstance(metrics, Iterable) else ()
    if not isinstance(metrics, Iterable) or not all(isinstance(name, str) for name in names):
        raise UserError(f"metrics = {metrics!r} is not allowed; give a list of ids, for example ['ged', 'dice_soft']")
    return _checked(names, given)


@lru_cache(maxsize=256)
def _checked(names: tuple[str, ...], given: frozenset[str]) -> tuple[str, ...]:
    for name in names:
        lacking = missing_input(name, given)
        if lacking == "pixels":
            raise UserError(
                f"metric {name!r} needs pixels, and components hold counts only; score the masks themselves"
            )
        if lacking is not None:
            one_of = " or ".join(lacking.split("|"))
            raise UserError(f"metric {name!r} needs {one_of}, which was not given; pass it or leave the metric out")
    return names


@lru_cache(maxsize=64)
def _default_names(given: frozenset[str], each: bool, several: bool) -> tuple[str, ...]:
    out = []
    for entry in METRICS.entries():
        if missing_input(entry.name, given) is not None:
            continue
        if (entry.name == "dice_each" and not each) or (info_of(entry.name)["values"] == "class" and not several):
            continue
        out.append(entry.name)
    return tuple(out)


def score_cases(
    raters: Any,
    samples: Any = None,
    *,
    probs: Any = None,
    rater_probs: Any = None,
    rater_valid: Any = None,
    sample_weights: Any = None,
    rater_weights: Any = None,
    valid: Any = None,
    classes: Sequence[int] | None = None,
    spacing: Any = None,
    metrics: Iterable[str] | None = None,
    variant: str | Convention | None = None,
    mean_prob: Any = None,
    mean_log: Any = None,
    uncertainty: Any = None,
    n_samples: int | None = None,
    reasons: bool = False,
) -> pd.DataFrame:
    """Metrics of N cases; every value has the bits that `score_case` gives for that case alone.

    Cases are scored by as many threads as there are cores: NumPy lets go of the interpreter while it counts.

    Args:
        raters: N×R×H×W (or N×R×D×H×W), or a list of N arrays, which may differ in size.
        samples, probs, rater_probs, mean_prob, mean_log, uncertainty: with the same leading case axis.
        rater_valid: N×R, or R for all cases.
        sample_weights, rater_weights: N×S, N×R, or one row for all cases.
        valid: N×H×W, or H×W for all cases.
        classes: as in `score_case`; the default list is taken over all cases given.
        spacing: one for all cases, or N rows.
        metrics, variant, n_samples, reasons: as in `score_case`; reasons make a column ``"reasons"``.

    Returns:
        One row per case, one column per metric id; cells of list-valued metrics are lists.

    Raises:
        UserError: as `score_case`, naming the case; lengths of the case axes that differ.
    """
    import pandas as pd

    inputs = {
        "samples": samples,
        "probs": probs,
        "rater_probs": rater_probs,
        "mean_prob": mean_prob,
        "mean_log": mean_log,
        "uncertainty": uncertainty,
        "rater_valid": rater_valid,
        "sample_weights": sample_weights,
        "rater_weights": rater_weights,
        "valid": valid,
        "spacing": spacing,
    }
    given = _given(inputs)
    wanted = None if metrics is None else check_metrics(metrics, given)
    cases = Cases(raters, inputs, classes=classes, n_samples=n_samples)

    def row(i: int) -> dict[str, Any]:
        view = cases[i]
        with _naming(i):
            return score_view(view, given, wanted, variant, reasons, strict=wanted is not None)

    return pd.DataFrame(_in_threads(row, len(cases)))


def _in_threads(row: Callable[[int], dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`row(i)` for 0 … count − 1, in order; of several errors the first case's is raised."""
    threads = min(usable_cores(), count // _WORTH_A_THREAD)
    if threads < 2:
        return [row(i) for i in range(count)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(row, range(count)))


@contextmanager
def _naming(case: int) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"case {case}: {error}") from error


class Cases:
    """Cases of arrays with a leading case axis (see `score_cases`), checked one at a time when they are asked for.

    Raises:
        UserError: lengths of the case axes that differ; of a case: as `read_case`, naming the case.
    """

    def __init__(
        self, raters: Any, inputs: Mapping[str, Any], classes: Sequence[int] | None = None, n_samples: int | None = None
    ) -> None:
        cases = _length("raters", raters)
        spatial = np.ndim(raters[0]) - 1 if cases else 2
        shared = {"rater_valid": 1, "sample_weights": 1, "rater_weights": 1, "valid": spatial, "spacing": 1}
        self._raters, self._cases, self._n_samples = raters, cases, n_samples
        self._inputs = {name: _per_case(name, value, cases, shared.get(name)) for name, value in inputs.items()}
        if classes is None:
            classes = _classes_of_all(raters, self._inputs.get("samples"), self._inputs.get("probs"), cases)
        self._classes = classes

    def __len__(self) -> int:
        return self._cases

    def __getitem__(self, i: int) -> CaseView:
        with _naming(i):
            return read_case(
                self._raters[i],
                **{name: None if values is None else values[i] for name, values in self._inputs.items()},
                classes=self._classes,
                n_samples=self._n_samples,
            )

    def __iter__(self) -> Iterator[CaseView]:
        return (self[i] for i in range(self._cases))


def _per_case(name: str, value: Any, cases: int, one_case_dims: int | None) -> Sequence[Any] | None:
    """`value` indexed by case; a value of `one_case_dims` axes is shared by all cases."""
    if value is None:
        return None
    if one_case_dims is not None and np.ndim(value) == one_case_dims:
        return [value] * cases
    if _length(name, value) != cases:
        raise UserError(f"{name} has {len(value)} cases, raters has {cases}; give the same cases in both")
    return value


def _length(name: str, value: Any) -> int:
    """Number of cases.

    Raises:
        UserError: a single number or nothing, which has no case axis.
    """
    try:
        return len(value)
    except TypeError as error:
        raise UserError(f"{name} = {value!r} has no case axis; give one entry for each case") from error


def _classes_of_all(
    raters: Any, samples: Sequence[Any] | None, probs: Sequence[Any] | None, cases: int
) -> tuple[int, ...] | None:
    """The default class list over all cases: it must not differ between the cases of one table."""
    lists = []
    for i in range(cases):
        y = label_array("raters", raters[i])
        s = None if samples is None else label_array("samples", samples[i])
        p = None if probs is None else array_of("probs", probs[i])
        # Of boolean raters there is one class, whatever the channels; `read_case` says what is wrong with them.
        channels = p.shape[1] if p is not None and p.ndim > y.ndim and y.dtype != bool else None
        lists.append(evaluated_classes(y, s, None, channels))
    longest = max(lists, key=len, default=(1,))
    return None if len(longest) == 1 else longest
