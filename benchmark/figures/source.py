"""Images, readers' masks and stored predictions of the scored cases of a cell."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError
from ...core.hashing import digest
from ..cell_values import cell_values
from ..class_layout import ClassLayout
from ..collect import StoredCell
from .distances import rater_diversity

if TYPE_CHECKING:
    from ...datasets.base import Dataset
    from ..predictions import StoredPredictions


class LeftOut(Exception):
    """A figure that cannot or need not be drawn; the message is the reason, shown in the index."""


@dataclass
class Scored:
    """The scored cases of one cell, in the order of their case ids, seen as binary masks of one class.

    Attributes:
        dataset: the opened data set.
        layout: of its classes.
        k: the class, from 0.
        indices: N indices into it.
        case_ids, patient_ids: N ids.
        masks: N×R×H×W bool, readers in the order of the cell's identity.
        valid: N×R bool.
        stored: predictions of these cases for this class, as many samples as the evaluation used.
        maps: their mean maps with all channels.
    """

    dataset: Dataset
    layout: ClassLayout
    k: int
    indices: NDArray[np.intp]
    case_ids: list[str]
    patient_ids: list[str]
    masks: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    stored: StoredPredictions
    maps: NDArray[np.float32]

    def levels(self, i: int, n: int) -> NDArray[np.bool_]:
        """n nested level sets of the i-th mean map."""
        return np.asarray(self.layout.level_sets(self.maps[i], n)[:, self.k])

    def image(self, i: int) -> NDArray[np.float32]:
        """C×H×W of the i-th scored case."""
        return np.asarray(self.dataset.arrays([self.indices[i]])[0][0])


_open: ContextVar[dict[Any, Any] | None] = ContextVar("open data sets", default=None)


@contextmanager
def open_once() -> Iterator[None]:
    """Within this block a data set is opened once, however many figures use it."""
    token = _open.set({})
    try:
        yield
    finally:
        _open.reset(token)


def kept(key: Hashable, make: Callable[[], Any]) -> Any:
    """What several figures of one drawing share: made once within `open_once`, else at every call."""
    cache = _open.get()
    if cache is None:
        return make()
    if key not in cache:
        cache[key] = make()
    return cache[key]


def dataset_of(cell: StoredCell) -> Dataset:
    """The data set of a cell.

    Raises:
        LeftOut: it cannot be opened here, or its data are not those that the cell was scored on.
    """
    from ...datasets import open_dataset

    data = cell.spec["dataset"]

    def opened() -> Dataset | LeftOut:  # that it cannot be opened is found out once, too
        try:
            found = open_dataset(data["name"], **data["options"])
        except UserError as error:
            return LeftOut(f"the data cannot be opened: {error}")
        if found.fingerprint != data["fingerprint"]:
            return LeftOut(f"the data of {data['name']} are not those of the cell (another fingerprint)")
        return found

    found: Dataset | LeftOut = kept(("data set", digest([data["name"], data["options"], data["fingerprint"]])), opened)
    if isinstance(found, LeftOut):
        raise found
    return found


def patients_of(cell: StoredCell) -> dict[str, str]:
    """Case id to patient id of the scored cases of a finished cell."""

    def read() -> dict[str, str]:
        found = cell_values(cell)
        return dict(zip(found.cases, found.patients, strict=True))

    found: dict[str, str] = kept(("patients", cell.folder), read)
    return found


def diversity_of(found: Scored) -> NDArray[np.float64]:
    """The readers' diversity in every scored case, which depends on the data alone."""
    key = ("diversity", found.dataset.fingerprint, found.k, tuple(found.case_ids))
    values: NDArray[np.float64] = kept(key, lambda: rater_diversity(found.masks, found.valid))
    return values


def scored(cell: StoredCell, k: int = 0) -> Scored:
    """Masks and predictions of the scored cases of a finished cell, for the k-th class (from 0).

    Raises:
        LeftOut: no stored predictions, data that cannot be opened, or cases that are no 2D images.
    """
    return _scored(cell, (k,))[0]


def scored_classes(cell: StoredCell) -> list[Scored]:
    """`scored` for every class, the predictions read once."""
    return _scored(cell, None)


def _scored(cell: StoredCell, classes: Sequence[int] | None) -> list[Scored]:
    from ..cell import Cell
    from ..predictions import read_predictions

    path = Cell(cell.folder).predictions("test")
    if not path.is_file():
        raise LeftOut(f"{cell.name} stores no predictions")
    dataset = dataset_of(cell)
    description = dataset.describe()
    if description.spatial_dims != 2 or any("volume" in record.meta for record in dataset.records):
        raise LeftOut("drawn for 2D images only")
    layout = ClassLayout.of(description)
    patient_of = patients_of(cell)
    position = {record.case_id: i for i, record in enumerate(dataset.records)}
    case_ids = sorted(c for c in patient_of if c in position)
    if not case_ids:
        raise LeftOut(f"{cell.name} has no scored case that is in the data set")
    try:
        stored = read_predictions(path)
    except UserError as error:
        raise LeftOut(str(error)) from error
    count = int(cell.spec["eval"]["n_samples"])
    if not stored.covers(case_ids, count):
        raise LeftOut(
            f"the predictions of {cell.name} are of {stored.requested} samples of {len(stored.case_ids)} cases, its "
            f"scores of {count} of {len(case_ids)}"
        )
    indices = np.array([position[c] for c in case_ids])
    masks, valid = dataset.arrays(indices)[1:]
    chosen = stored.select(case_ids, count)
    patients = [patient_of[c] for c in case_ids]
    return [
        Scored(
            dataset,
            layout,
            k,
            indices,
            case_ids,
            patients,
            layout.plane(masks, k),
            valid,
            _of_class(chosen, layout, k),
            chosen.mean,
        )
        for k in (range(layout.classes) if classes is None else classes)
    ]


def _of_class(stored: StoredPredictions, layout: ClassLayout, k: int) -> StoredPredictions:
    """The predictions of one class as binary ones; a rater's mask of exclusive classes is the most probable class."""
    if not layout.channels:
        return stored
    raters = None
    if stored.raters is not None:
        maps = layout.foreground(stored.raters) if layout.kind == "overlapping" else layout.hard(stored.raters)
        raters = maps[:, :, k].astype(np.float32)
    return replace(
        stored,
        mean=layout.foreground(stored.mean)[:, k],
        samples=None if stored.samples is None else stored.samples[:, :, k],
        raters=raters,
        sample_mean=None,
    )
