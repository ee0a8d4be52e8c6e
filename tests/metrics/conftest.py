"""The slow reference and the worked examples, for all tests of the metrics."""

from __future__ import annotations

import json
from pathlib import Path

import metric_reference
import numpy as np
import pytest

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def reference():
    return metric_reference


@pytest.fixture
def discs():
    """Binary discs on a 32×32 grid: ``discs(radius, row, column)``."""

    def make(radius, row=16, column=16):
        y, x = np.mgrid[:32, :32]
        return (y - row) ** 2 + (x - column) ** 2 < radius**2

    return make


@pytest.fixture
def pair():
    """A and B of the worked examples: 8 pixels each, 4 shared (IoU 1/3, Dice 1/2)."""
    a = np.zeros((4, 4), bool)
    a[:, :2] = True
    return a, a.T.copy()


@pytest.fixture(scope="session")
def examples():
    return json.loads((FOLDER / "examples.json").read_text())["examples"]
