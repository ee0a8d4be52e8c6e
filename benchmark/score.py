"""Scores of predictions made by anybody: what is scored, and the values of each case under each variant."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from ..metrics.case import CaseView
from ..metrics.components import Components, components_from, components_of, holds_components
from ..metrics.convention import CANONICAL
from ..metrics.inputs import spacing_of
from ..metrics.npz import read_npz
from ..metrics.registry import METRICS, info_of
from ..metrics.score import COUNTS_ONLY, INPUTS, Cases, check_metrics, score_view
from ..metrics.surface import image_diagonal
from ..metrics.variants import conventions_of, list_variants
from .score_pooled import Pooled, PooledValues, split_pooled

# Axes of each array beside the leading case axis, as (fixed axes, spatial axes or not, optional channel axis or not).
_AXES: dict[str, tuple[int, bool, bool]] = {
    "raters": (1, True, False),
    "samples": (1, True, False),
    "probs": (1, True, True),
    "rater_probs": (1, True, True),
    "mean_prob": (0, True, True),
    "mean_log": (1, True, False),
    "uncertainty": (0, True, False),
    "valid": (0, True, False),
    "rater_valid": (1, False, False),
    "sample_weights": (1, False, False),
    "rater_weights": (1, False, False),
    "spacing": (1, False, False),
    "case_ids": (0, False, False),
}
_SHARED = ("valid", "rater_valid", "sample_weights", "rater_weights", "spacing")  # may be given once for all cases
_PREDICTIONS = ("samples", "probs", "rater_probs", "mean_prob")  # one of them is needed
ARRAYS = (*_AXES, "classes")


class Source(Protocol):
    """Cases to score: a file of arrays, a folder, or stored components."""

    @property
    def case_ids(self) -> Sequence[str]: ...

    @property
    def rater_ids(self) -> Sequence[str] | None:
        """Names of the rater slots; None: numbered from 1."""

    @property
    def given(self) -> frozenset[str]: ...

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know of the input, a line each."""

    def views(self) -> Iterator[CaseView]:
        """The cases, checked, one at a time."""


@dataclass
class ScoreFile:
    """Arrays of a file, all with a leading case axis (or one row for all cases)."""

    raters: NDArray
    inputs: dict[str, Any]
    case_ids: list[str]
    classes: list[int] | None = None
    notes: list[str] = field(default_factory=list)
    rater_ids: Sequence[str] | None = None

    @property
    def given(self) -> frozenset[str]:
        return frozenset(name for name in INPUTS if name in self.inputs)

    def views(self) -> Iterator[CaseView]:
        return iter(Cases(self.raters, self.inputs, classes=self.classes))


@dataclass
class ComponentsFile:
    """Stored components of cases."""

    cases: list[Components]
    notes: list[str] = field(default_factory=list)

    @property
    def rater_ids(self) -> Sequence[str] | None:
        return self.cases[0].facts["rater_ids"]

    @property
    def case_ids(self) -> list[str]:
        return [case.case_id for case in self.cases]

    @property
    def given(self) -> frozenset[str]:
        return frozenset.intersection(*(case.given for case in self.cases))

    def views(self) -> Iterator[CaseView]:
        return (case.view() for case in self.cases)


# -- reading an archive ------------------------------------------------------------------------------


def read_score_file(
    path: Path,
    spatial_dims: int = 2,
    classes: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
) -> ScoreFile | ComponentsFile:
    """Arrays of a score file with their axes checked, or the components it holds.

    Args:
        classes, spacing: replace those of the file.

    Raises:
        UserError: a missing array or a wrong number of axes, in one sentence.
    """
    arrays = read_npz(path)
    if holds_components(arrays):
        if classes is not None or spacing is not None:
            raise UserError(f"{path} holds components, in which classes and spacing are fixed; leave both options out")
        cases = components_from(path, arrays)
        if not cases:
            raise UserError(f"{path} holds no case; give at least one")
        return ComponentsFile(cases)
    if "raters" not in arrays:
        raise UserError(f"{path} has no array 'raters' (it has {_list(arrays)}); add the raters' masks, raters x H x W")
    if not any(name in arrays for name in _PREDICTIONS):
        raise UserError(f"{path} has no 'samples' or 'probs' (it has {_list(arrays)}); add the samples to score")
    axes = arrays["raters"].ndim
    if axes not in (spatial_dims + 1, spatial_dims + 2):
        other = ""
        if axes in (4, 5) and spatial_dims == 2:
            other = ", or --spatial-dims 3 for volumes"
        raise UserError(
            f"raters has {axes} axes; with {spatial_dims} spatial dimensions give raters x {_space(spatial_dims)}, "
            f"with a case axis in front if there are several{other}"
        )
    several = axes == spatial_dims + 2
    cases_n = len(arrays["raters"]) if several else 1
    if not cases_n:
        raise UserError(f"{path} holds no case; give at least one")
    if arrays["raters"].shape[1 if several else 0] == 0:
        raise UserError(f"raters has shape {arrays['raters'].shape}, so no rater; give at least one")
    inputs: dict[str, Any] = {
        name: _with_case_axis(name, array, several, cases_n, spatial_dims)
        for name, array in arrays.items()
        if name in _AXES
    }
    names = inputs.pop("case_ids", None)
    if spacing is not None:
        inputs["spacing"] = np.array(spacing_of(spacing, spatial_dims))
    case_ids = [str(i) for i in range(cases_n)] if names is None else [_text(name) for name in names]
    twice = sorted({name for name in case_ids if case_ids.count(name) > 1})[:1] if len(set(case_ids)) < cases_n else []
    if twice:
        raise UserError(f"case_ids holds {twice[0]!r} more than once; give every case its own name")
    ignored = sorted(set(arrays) - set(ARRAYS))
    return ScoreFile(
        raters=inputs.pop("raters"),
        inputs=inputs,
        case_ids=case_ids,
        classes=_classes(arrays.get("classes")) if classes is None else list(classes),
        notes=[f"not used: {', '.join(ignored)}"] if ignored else [],
    )


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _list(arrays: Mapping[str, Any]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def _space(spatial_dims: int) -> str:
    return "H x W" if spatial_dims == 2 else "D x H x W"


def _with_case_axis(name: str, array: NDArray, several: bool, cases: int, spatial_dims: int) -> NDArray:
    fixed, spatial, channel = _AXES[name]
    base = fixed + (spatial_dims if spatial else 0)
    allowed = {base, base + 1} if channel else {base}
    if several:
        with_cases = {n + 1 for n in allowed}
        once = name in _SHARED and array.ndim in allowed
        if array.ndim not in with_cases and not once:
            raise UserError(_axes_message(name, array, sorted(with_cases), "a case axis first, as raters has"))
        if not once and len(array) != cases:
            volumes = ", or --spatial-dims 3 if these are volumes" if spatial and spatial_dims == 2 else ""
            raise UserError(f"{name} has {len(array)} cases, raters has {cases}; give the same cases in both{volumes}")
        return array
    if name == "case_ids" and array.shape == (1,):
        return array
    if array.ndim not in allowed:
        raise UserError(_axes_message(name, array, sorted(allowed), "no case axis, as raters has none"))
    return array[None]


def _axes_message(name: str, array: NDArray, allowed: Sequence[int], why: str) -> str:
    return f"{name} has shape {array.shape}; give {' or '.join(map(str, allowed))} axes ({why})"


def _classes(array: NDArray | None) -> list[int] | None:
    if array is None:
        return None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError(
            f"classes has shape {array.shape} and type {array.dtype}; give a list of labels such as [1, 2, 3]"
        )
    return [int(c) for c in array]


# -- scores ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is scored, without its pixels: sizes that stand beside every number."""

    case_id: str
    n_samples: int
    n_raters: int
    present: tuple[bool, ...]  # of the rater slots
    classes: tuple[int, ...]
    diagonal: float = (
        math.nan
    )  # of the image in millimetres (pixels without a spacing), the worst distance; nan: unknown


@dataclass
class Scores:
    """Values of one variant: a dict per case, why values are undefined, and values pooled over all cases."""

    cases: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[dict[str, str]] = field(default_factory=list)
    pooled: dict[str, Pooled] = field(default_factory=dict)


@dataclass
class Result:
    """Scores of all cases under all variants asked for."""

    cases: list[Case]
    scores: dict[str, Scores]
    same: list[str]  # variants that change none of the metrics
    components: list[Components]


def score_source(
    source: Source,
    variant: str,
    metrics: Sequence[str] | None = None,
    keep_components: bool = False,
) -> Result:
    """Scores of every case, each of which is read once and then let go.

    Args:
        variant: a name, or ``all`` for every variant that changes one of the metrics.
        metrics: ids; None: all that the inputs allow.
        keep_components: make `Result.components`.

    Raises:
        UserError: unknown metric or variant, missing inputs, bad values in a case, which is named; too few samples
            where a variant and a metric that need them were asked for by name.
    """
    asked, (metrics, pooled) = metrics, split_pooled(metrics)
    if metrics is not None:
        check_metrics(metrics, source.given)
    strict = metrics is not None and variant != "all"
    variants = ["canonical"] if variant == "all" else [variant]
    out = Result([], {}, [], [])
    pools: dict[str, PooledValues] = {}
    for view, case_id in zip(source.views(), source.case_ids, strict=True):
        with naming(case_id):
            values = _score(view, variants[0], source.given, metrics, asked, strict, out, pools)
            if variant == "all" and not out.cases:  # which variants matter shows with the first case's metrics
                several = len(view.classes) > 1
                # What a variant changes of a pooled value, it changes of the value per case.
                also = [name.replace(".pooled", "") for name in pooled or ()]
                looked_at = [*values, *(name for name in also if name in METRICS)]
                out.same = [v for v in list_variants() if same_as_canonical(v, looked_at, several)]
                variants = [v for v in list_variants() if v not in out.same]
            for other in variants[1:]:
                _score(view, other, source.given, metrics, asked, strict, out, pools)
            if keep_components:
                out.components.append(components_of(view, case_id=case_id, rater_ids=source.rater_ids))
        present = tuple(bool(p) for p in np.isin(np.arange(view.slots), view.present))
        diagonal = math.nan if COUNTS_ONLY in view.given else image_diagonal(view)
        out.cases.append(Case(case_id, view.S, view.R, present, view.classes, diagonal))
    for name, pool in pools.items():
        out.scores[name].pooled = pool.values()
    return out


def _score(
    view: CaseView,
    variant: str,
    given: frozenset[str],
    metrics: Sequence[str] | None,
    asked: Sequence[str] | None,
    strict: bool,
    out: Result,
    pools: dict[str, PooledValues],
) -> dict[str, Any]:
    one = view.again()
    values = score_view(one, given, metrics, variant, True, strict)
    scored = out.scores.setdefault(variant, Scores())
    scored.reasons.append(values.pop("reasons"))
    scored.cases.append(values)
    if variant not in pools:
        pools[variant] = PooledValues(variant, given, asked)
    pools[variant].add(one)
    return values


@contextmanager
def naming(case_id: str) -> Iterator[None]:
    """Put the name of the case before a mistake found in it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"case {case_id}: {error}") from error


def same_as_canonical(variant: str, metrics: Iterable[str], several: bool) -> bool:
    """Whether a variant changes none of the metrics."""
    canonical, other = conventions_of(None, several), conventions_of(variant, several)
    families = {info_of(name)["family"] for name in metrics} - {""}
    return variant != "canonical" and all(canonical.get(f, CANONICAL) == other.get(f, CANONICAL) for f in families)
