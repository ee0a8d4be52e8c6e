"""What is kept of a case so that most metrics and variants can be computed again without its pixels.

Specification 1.2 (rule 6) and 12: per class the exact intersection counts of raters and samples (and of CIMD's left
masks), the background's if there are several classes, weights, S, R, and what each metric tallied over the pixels
(`CaseView.tally`: thresholded overlaps of the mean map, counts of the maps meant for the raters, votes). The same
functions run on them, so that `score_components` gives the bits of `score_case`; a metric that needs the pixels
themselves (``info_of(name)["pixels"]``) is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from ..core.files import replacing
from .case import CaseView, Undefined
from .convention import Convention
from .inputs import read_case
from .npz import read_npz
from .overlap import Floats
from .registry import METRICS, info_of
from .score import COUNTS_ONLY, INPUTS, evaluate, missing_input, score_view
from .variants import conventions_of, list_variants

HEADER = "multirater_components"
_FORMAT = 1
_PIXELS = ("raters", "_samples", "probs", "rater_probs", "rater_labels", "mean_prob", "mean_log", "uncertainty")
_COUNTS, _TALLY = "counts", "tally"
FACTS = (
    "case_id", "rater_ids", "classes", "slots", "S", "n_samples", "pixels", "given", "left_differ", "personalised",
    "spacing", "void",
)  # fmt: skip


@dataclass(frozen=True)
class Components:
    """Counts of one case.

    Attributes:
        facts: JSON values: case_id, rater_ids, classes, slots, S, n_samples, pixels, given, left_differ, personalised,
            spacing, void.
        arrays: ``present``, ``sample_weights`` and ``rater_weights`` (if not uniform), ``counts <label>`` (T×T
            intersections of raters, samples and, where they differ, left samples), ``tally <key> <i>``.
    """

    facts: dict[str, Any]
    arrays: dict[str, NDArray]

    @property
    def case_id(self) -> str:
        return str(self.facts["case_id"])

    @property
    def given(self) -> frozenset[str]:
        """The inputs there were, marked as counts."""
        return frozenset({*self.facts["given"], COUNTS_ONLY})

    def view(self) -> CaseView:
        """The case as the metrics see it, without pixels."""
        return CountsView(self)


class NotKept(Undefined, UserError):
    """Counts that were not stored (another convention, a metric added later): an error where the metric was asked for
    by name, else nan with this reason."""


class CountsView(CaseView):
    """A `CaseView` made of `Components`: its counts are there, its pixels are not.

    Asking for pixels raises `UserError`, asking for counts that were not kept `NotKept`; what was never given is None,
    as in any view.
    """

    def __init__(self, components: Components) -> None:
        facts, arrays = components.facts, components.arrays
        present = arrays["present"].astype(np.intp)
        super().__init__(
            raters=np.zeros((len(present), 0), bool),
            slots=int(facts["slots"]),
            present=present,
            classes=tuple(facts["classes"]),
            sample_weights=arrays.get("sample_weights"),
            rater_weights=arrays.get("rater_weights"),
            n_samples=facts["n_samples"],
            spacing=None if facts["spacing"] is None else tuple(facts["spacing"]),
            void=facts["void"],
        )
        given = set(facts["given"])
        held_as = {"samples": ("_samples",), "rater_probs": ("rater_probs", "rater_labels")}
        for name in ("raters", *(held for one in given for held in held_as.get(one, (one,)))):
            delattr(self, name)
        self.__dict__["S"] = int(facts["S"])
        self._components = components
        for name in arrays:
            kind, _, rest = name.partition(" ")
            if kind == _TALLY and rest.endswith(" 0"):
                key = rest.removesuffix(" 0")
                found = [arrays[n] for i in range(len(arrays)) if (n := f"{_TALLY} {key} {i}") in arrays]
                self._tallies[_tuples(json.loads(key))] = tuple(found)

    def __getattr__(self, name: str) -> NoReturn:
        if name in _PIXELS:
            raise UserError(f"pixels of {name.removeprefix('_')} are needed, and components hold counts only")
        raise AttributeError(name)

    @property
    def pixels(self) -> int:
        return int(self._components.facts["pixels"])

    @property
    def given(self) -> frozenset[str]:
        return self._components.given

    @property
    def personalised(self) -> bool:
        return bool(self._components.facts["personalised"])

    @property
    def left_differ(self) -> bool:
        return bool(self._components.facts["left_differ"])

    def tally(self, key: tuple, compute: Any) -> tuple[NDArray, ...]:
        if key not in self._tallies:
            raise NotKept(
                f"n/a: components hold no counts of {key[0]} with {list(key[1:])}; score the masks themselves"
            )
        return self._tallies[key]

    def _class_counts(self, label: int, left: bool) -> Floats:
        arrays = self._components.arrays
        name = f"{_COUNTS} {label}"
        if name in arrays:
            counts = arrays[name].astype(np.float64)
        else:  # the background of a single class: pixels in neither of two masks
            inside = self._class_counts(self.classes[0], self.left_differ)
            sizes = inside.diagonal()
            counts = self.pixels - sizes[:, None] - sizes[None, :] + inside
        size = len(counts) if left else self.R + self.S
        return np.ascontiguousarray(counts[:size, :size])

    def one_class(self, label: int) -> CaseView:
        facts = {**self._components.facts, "classes": [label], "left_differ": False, "personalised": False}
        facts["given"] = [name for name in facts["given"] if name in ("samples", "probs")]
        kept = ("present", "sample_weights", "rater_weights", f"{_COUNTS} {label}")
        one = CountsView(Components(facts, {k: v for k, v in self._components.arrays.items() if k in kept}))
        one.conventions = self.conventions
        return one


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


# -- making ------------------------------------------------------------------------------------------


def components_of(
    raters: Any,
    samples: Any = None,
    *,
    case_id: str = "",
    rater_ids: Sequence[str] | None = None,
    every_variant: bool = True,
    **inputs: Any,
) -> Components:
    """Components of one case, enough for every metric without pixels under every named variant.

    Args:
        raters: R×H×W (R×D×H×W), or a checked `CaseView`, which then is all there is to give.
        samples, inputs: as in `multirater.metrics.score_case` (probs, rater_probs, mean_prob, rater_valid,
            sample_weights, rater_weights, valid, classes, spacing, n_samples).
        case_id, rater_ids: names of the case and of the rater slots, kept as they are.
        every_variant: False keeps the counts and what was tallied of a `CaseView` by the metrics scored so far, which
            costs next to nothing; what other metrics and variants would tally is then refused (`NotKept`).

    Raises:
        UserError: as `score_case`.

    Example:
        >>> import numpy as np
        >>> a = np.zeros((4, 4), bool); a[:, :2] = True
        >>> kept = components_of(np.stack([a, a.T]), np.stack([a, a]))
        >>> round(score_components(kept, ["ged"])["ged"], 6)
        0.333333
    """
    view = raters if isinstance(raters, CaseView) else read_case(raters, samples, **inputs)
    facts = {
        "case_id": case_id,
        "rater_ids": None if rater_ids is None else list(rater_ids),
        "classes": list(view.classes),
        "slots": view.slots,
        "S": view.S,
        "n_samples": view._n_samples,
        "pixels": view.pixels,
        "given": sorted(view.given),
        "left_differ": view.left_differ,
        "personalised": view.personalised,
        "spacing": None if view.spacing is None else list(view.spacing),
        "void": view.void,
    }
    arrays: dict[str, NDArray] = {"present": np.asarray(view.present, dtype=np.int64)}
    for name in ("sample_weights", "rater_weights"):
        weights = getattr(view, name)
        if weights is not None:
            arrays[name] = weights
    if not view.void:
        labels = view.classes if len(view.classes) == 1 else (0, *view.classes)
        for label in labels:
            counts = view._class_counts(label, view.left_differ)
            arrays[f"{_COUNTS} {label}"] = counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
        tallies = _tallies(view) if every_variant else view._tallies
        for key, found in sorted(tallies.items(), key=lambda item: str(item[0])):
            for i, array in enumerate(found):
                arrays[f"{_TALLY} {json.dumps(key)} {i}"] = array
    return Components(facts, arrays)


def _tallies(view: CaseView) -> dict[tuple, tuple[NDArray, ...]]:
    """What the metrics tally of a case under any named variant: they are run once and their tallies kept."""
    names = [name for name in METRICS.names() if not info_of(name)["pixels"]]
    names = [name for name in names if missing_input(name, view.given) is None]
    done: set[tuple] = set()
    for variant in list_variants():
        one = view.again()
        one._n_samples = 1  # the oracle's draws tally nothing; with one sample they cost nothing either
        one.conventions = conventions_of(variant, len(view.classes) > 1)
        shared = one.conventions["map"]  # also decides the common mask of metrics per rater
        todo = {name: (name, one.convention(info_of(name)["family"]), shared) for name in names}
        evaluate(one, [name for name, key in todo.items() if key not in done])
        done.update(todo.values())
    return view._tallies


# -- scoring -----------------------------------------------------------------------------------------


def score_components(
    components: Components,
    metrics: Iterable[str] | None = None,
    variant: str | Convention | None = None,
    n_samples: int | None = None,
    reasons: bool = False,
) -> dict[str, Any]:
    """`multirater.metrics.score_case` of stored components: the same values, to the last bit.

    Args:
        metrics: ids; None: all that the components allow.
        variant, n_samples, reasons: as in `score_case`. A `Convention` of your own may need counts that are not kept.

    Raises:
        UserError: a metric that needs pixels, an input that was not given, unknown names.
    """
    view = components.view()
    if n_samples is not None:
        view._n_samples = n_samples
    return score_view(view, components.given, metrics, variant, reasons, strict=metrics is not None)


# -- files -------------------------------------------------------------------------------------------


def save_components(path: Path, cases: Sequence[Components]) -> None:
    """Write components of cases to a plain, compressed ``.npz``; equal arrays of all cases lie in one member.

    Raises:
        UserError: the file cannot be written.
    """
    names = list(dict.fromkeys(name for case in cases for name in case.arrays))
    header = {"format": _FORMAT, "inputs": list(INPUTS), "arrays": names, "cases": [case.facts for case in cases]}
    members: dict[str, NDArray] = {HEADER: np.array(json.dumps(header))}
    for i, name in enumerate(names):
        where = [k for k, case in enumerate(cases) if name in case.arrays]
        found = [cases[k].arrays[name] for k in where]
        members[f"{i}.case"] = np.array(where, np.int64)
        members[f"{i}.shape"] = np.array([a.shape for a in found], np.int64)
        members[f"{i}.data"] = np.concatenate([a.ravel() for a in found])
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **members)  # type: ignore[arg-type]


def holds_components(arrays: Iterable[str]) -> bool:
    """Whether names of arrays are those of a file of components."""
    return HEADER in arrays


def load_components(path: Path) -> list[Components]:
    """Components of all cases of a file.

    Raises:
        UserError: missing, damaged, no file of components, or of a later format.
    """
    return components_from(path, read_npz(path))


def components_from(path: Path, members: dict[str, NDArray]) -> list[Components]:
    """Components in the arrays of a file; see `load_components`."""
    if not holds_components(members):
        raise UserError(f"{path} holds no components; write them with multirater score FILE --components OUT.npz")
    try:
        header = json.loads(str(members[HEADER]))
        if header["format"] != _FORMAT:
            raise UserError(f"{path} has components of format {header['format']!r}, this version reads {_FORMAT}")
        cases: list[dict[str, NDArray]] = [{} for _ in header["cases"]]
        for i, name in enumerate(header["arrays"]):
            data, start = members[f"{i}.data"], 0
            if data.dtype.kind not in "biuf":
                raise ValueError(f"{name} has type {data.dtype}")
            for k, shape in zip(members[f"{i}.case"].tolist(), members[f"{i}.shape"].tolist(), strict=True):
                size = int(np.prod(shape, dtype=np.int64))
                cases[k][name] = data[start : start + size].reshape(shape)
                start += size
            if start != len(data):
                raise ValueError(f"{name} has {len(data)} numbers, its shapes ask for {start}")
        out = [Components(facts, arrays) for facts, arrays in zip(header["cases"], cases, strict=True)]
        for case in out:
            _check(case)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); write the components again") from error
    return out


def _check(case: Components) -> None:
    """Raise `ValueError` or `KeyError` unless facts and arrays fit each other."""
    lacking = [name for name in FACTS if name not in case.facts]
    if lacking:
        raise ValueError(f"{lacking[0]} is not stated")
    view = case.view()
    if not view.void:
        masks = view.R + view.S * (1 + view.left_differ)
        for label in view.classes:
            if case.arrays[f"{_COUNTS} {label}"].shape != (masks, masks):
                raise ValueError(f"counts of class {label} are not {masks} x {masks}")
    if not set(case.facts["given"]) <= set(INPUTS) or not _below(view.present, view.slots) or case.facts["pixels"] < 0:
        raise ValueError("facts contradict each other")


def _below(indices: NDArray[np.intp], limit: int) -> bool:
    """Whether indices are ascending and in [0, limit)."""
    return bool((np.diff(indices) > 0).all() and indices.min(initial=0) >= 0 and indices.max(initial=-1) < limit)
