"""Raters who err by planted matrices."""

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets import open_dataset


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    return lambda **options: open_dataset("synthetic-confusion", **options)


def test_rates_are_the_planted_ones(make):
    data = make(cases=40, sensitivity=[0.9, 0.6], specificity=[0.99, 0.75])
    masks = data.arrays(np.arange(40))[1]
    truth = data.truth(np.arange(40))
    assert 0.02 < truth.mean() < 0.4
    for rater, matrix in enumerate(data.matrices):
        said = masks[:, rater]
        found = [[(said[truth == true] == answer).mean() for true in (False, True)] for answer in (0, 1)]
        np.testing.assert_allclose(found, matrix, atol=0.01)
    np.testing.assert_allclose(data.matrices.sum(1), 1)
    assert data.describe().identity == "synthetic"


def test_a_longer_set_begins_with_the_shorter_one(make):
    few, many = make(cases=8), make(cases=12)
    np.testing.assert_array_equal(few.arrays(np.arange(8))[1], many.arrays(np.arange(8))[1])
    assert few.fingerprint != many.fingerprint


def test_rates_come_in_pairs(make):
    with pytest.raises(UserError, match="one number a rater"):
        make(sensitivity=[0.9, 0.8], specificity=[0.9])
    with pytest.raises(UserError, match="sensitivity"):
        make(sensitivity=[0.9, 1.8], specificity=[0.9, 0.9])
