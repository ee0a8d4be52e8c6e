"""Ids that carry a value: ``nsd@2``, ``hd@50.each``."""

from __future__ import annotations

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.metrics import METRICS, info_of, list_metrics, score_case


def test_ids_with_a_value():
    a = np.zeros((2, 6, 6), bool)
    a[0, 1:3, 1:3] = a[1, 2:5, 2:5] = True
    got = score_case(a, a, metrics=["nsd@1", "nsd", "hd@95", "hd95", "hd@100", "hd", "nsd@0.5.each"])
    assert got["nsd@1"] == got["nsd"]
    assert got["hd@95"] == got["hd95"]
    assert got["hd@100"] == got["hd"]
    assert "nsd@2.match" in METRICS
    assert "nsd@2" not in list_metrics()
    info = info_of("nsd@2.5.each")
    assert info["summary"].endswith("tolerance in mm 2.5")
    assert {**info, "summary": ""} == {**info_of("nsd.each"), "summary": ""}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nsd@x", "'x' is no number"),
        ("nsd@", "'' is no number"),
        ("nsd@-1", "'-1' is no number"),
        ("nsd@1e3", "'1e3' is no number"),
        ("hd@100.5", "give a percentile >= 0 and <= 100, such as 'hd@50'"),
        ("ged@2", "'ged' takes no value"),
        ("hd95@90", "'hd95' takes no value"),
        ("nsd@2.0", "write 'nsd@2'"),
        ("hd@050.each", "write 'hd@50.each'"),
        ("nsdd@2", "did you mean 'nsd'"),
        ("nsd@2.worst", "unknown metric 'nsd.worst'"),
    ],
)
def test_nonsense_ids(name, message):
    mask = np.ones((1, 3, 3), bool)
    with pytest.raises(UserError) as error:
        score_case(mask, mask, metrics=[name])
    assert message in str(error.value)
    assert name not in METRICS
