"""Hundreds of masks: threads, tiles and priced columns give what the plain computation gives."""

import numpy as np
import pytest
from multirater.metrics.matching import balanced_match, transport
from multirater.metrics.overlap import intersections


@pytest.mark.parametrize(("count", "shape"), [(3, (5, 7)), (70, (40, 41)), (40, (12, 64, 48)), (260, (96, 128))])
def test_intersections_equal_the_matrix_product(count, shape):
    masks = np.random.default_rng(count).random((count, *shape)) < 0.4
    flat = masks.reshape(count, -1).astype(np.float64)
    np.testing.assert_array_equal(intersections([masks[:2], masks[2:]]), flat @ flat.T)


def test_full_masks_do_not_overflow_a_lane():
    masks = np.ones((3, 2048 * 64 * 2 + 5), bool)
    assert (intersections([masks]) == masks.shape[1]).all()


@pytest.mark.parametrize(("samples", "raters"), [(300, 3), (500, 4), (512, 2), (4, 400)])
@pytest.mark.parametrize("kind", ["plain", "ties", "constant"])
def test_priced_columns_reach_the_optimum(samples, raters, kind):
    similarity = np.random.default_rng(samples).random((samples, raters))
    if kind != "plain":
        similarity = np.round(similarity) if kind == "ties" else np.full_like(similarity, 0.25)
    want = transport(similarity, np.full(samples, 1 / samples), np.full(raters, 1 / raters))
    assert balanced_match(similarity) == pytest.approx(want, abs=1e-9)
