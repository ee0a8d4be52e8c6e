"""The table of metrics: complete metadata, no heavy import, third-party metrics."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.metrics import METRICS, info_of, list_metrics, score_case
from multirater.metrics.convention import FAMILIES
from multirater.metrics.score import INPUTS


def test_listing_loads_no_array_library():
    code = (
        "import sys, multirater.metrics as m; assert 'ged' in m.list_metrics(); m.Convention(); m.info_of('ged');"
        "heavy = {'numpy', 'scipy', 'torch', 'pandas'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", list_metrics())
def test_metadata(name):
    info = info_of(name)
    assert info["direction"] in ("lower", "higher", "target 0", "none")
    low, high = info["range"]
    assert low < high
    assert info["worst"] is None or low <= info["worst"] <= high
    if info["direction"] in ("lower", "higher") and info["worst"] is not None:
        assert info["worst"] == (high if info["direction"] == "lower" else low)
    assert info["summary"]
    assert info["section"]
    assert info["version"] >= 1
    assert info["family"] in FAMILIES
    assert info["values"] in ("scalar", "rater", "class", "votes")
    assert isinstance(info["depends_on_samples"], bool)
    assert all(set(group.split("|")) <= set(INPUTS) for group in info["needs"])
    assert METRICS.get(name).__doc__


def test_worst_values_of_the_aggregation():
    assert info_of("ged")["worst"] == 2
    assert info_of("hm_iou")["worst"] == info_of("dice_soft")["worst"] == 0


def test_unknown_and_alias():
    with pytest.raises(UserError, match="did you mean 'hm_iou'"):
        info_of("hm_iuo")
    mask = np.ones((2, 3, 3), bool)
    assert score_case(mask, mask, metrics=["dice_max"]) == {"dice_max": 1}
    assert "dice_max" not in list_metrics()


def test_a_metric_of_a_third_party():
    """A function of the case view, registered with as much metadata as its author likes."""
    from multirater.metrics.case import Undefined

    def largest_sample(view):
        if view.R == 1:
            raise Undefined("only one rater")
        return float(view.samples.sum((1, 2)).max())

    METRICS.add("largest_sample", largest_sample, summary="pixels of the largest sample")
    try:
        masks = np.zeros((2, 3, 3), bool)
        masks[0, 0] = True
        assert score_case(masks, masks, metrics=["largest_sample"]) == {"largest_sample": 3}
        got = score_case(masks[:1], masks, metrics=["largest_sample"], reasons=True)
        assert got["reasons"] == {"largest_sample": "only one rater"}
        with pytest.raises(UserError, match="needs samples or probs"):
            score_case(masks, metrics=["largest_sample"])
    finally:
        METRICS._entries.pop("largest_sample")
