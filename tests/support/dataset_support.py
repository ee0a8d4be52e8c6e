"""What the tests of the loaders share."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from multirater.datasets.base import Dataset

MOST_MEMORY = 1 << 20  # KiB that the process may grow by over all cases


@contextmanager
def little_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


@contextmanager
def one_sentence(match: str) -> Iterator[None]:
    """What is inside is refused in one sentence that `match` is found in."""
    with pytest.raises(UserError, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


def opened(name: str, root: Path, **options: Any) -> Dataset:
    """A data set of files, at the files' own size unless the options say otherwise."""
    return open_dataset(name, root=str(root), **{"size": None, **options})


def refused(name: str, root: Path, match: str, **options: Any) -> None:
    with one_sentence(match):
        opened(name, root, **options).prepare()


def write_volume(path: Path, slices: np.ndarray, affine: np.ndarray) -> None:
    """Slices D×H×W (feet to head, front to back, right to left) as a NIfTI file of axes x, y, z."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(slices.transpose(2, 1, 0)), affine), path)
