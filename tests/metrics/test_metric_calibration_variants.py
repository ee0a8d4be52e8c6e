"""Variants of calibration written out as released, pooled data sets, stored sums, and inputs left alone."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise

import metric_reference_calibration as slow
import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.metrics import Convention, info_of, score_case, score_cases
from multirater.metrics.bins import Bins, bin_index, edges, pooled_ece, stack_bins
from multirater.metrics.calibration import bins_case, bins_of
from multirater.metrics.components import components_of, score_components
from multirater.metrics.inputs import read_case
from multirater.metrics.score import score_view

ECE = "ece ece.top ece.each ece.disagree mce ace ace.width".split()
OF_MAP = [*ECE, "brier", "brier.raters", "nll", "nll.excess", "ece.each.list"]
OF_RATERS = ["ece.rater", "brier.rater", "nll.rater"]
ALL = [n + mark for n in OF_MAP + OF_RATERS for mark in ("", ".full")]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -- variants ----------------------------------------------------------------------------------------


def released_mose(conf, q, bins=10, masked=None):
    """(l, u] with float32 edges; the share of a bin is of all pixels."""
    conf, q = conf.astype(np.float32).ravel(), q.ravel()
    limits, total = edges(bins, "mose"), 0.0
    conf = conf if masked is None else np.where(masked.ravel(), conf, np.float32(-1))
    for low, high in pairwise(limits):
        inside = (conf > low) & (conf <= high)
        if inside.any():
            total += abs(conf[inside].mean(dtype=float) - q[inside].mean()) * inside.mean()
    return total


def test_mose():
    rng = np.random.default_rng(12)
    for _ in range(20):
        raters, p = slow.random_raters(rng, 4, (6, 6)), slow.random_probs(rng, (6, 6))
        got = score_case(raters, mean_prob=p, metrics=["ece", "ece.full"], variant="mose")
        assert got["ece"] == got["ece.full"] == pytest.approx(released_mose(p, raters.mean(0)), abs=1e-9)
        labels = rng.integers(0, 4, (3, 6, 6))
        maps = rng.dirichlet([0.5] * 4, (6, 6)).transpose(2, 0, 1).astype(np.float32)
        top = maps.argmax(0)
        right = (labels == top).mean(0)
        for classes in ([1, 2, 3], [1, 3]):
            got = score_case(labels, mean_prob=maps, classes=classes, metrics=["ece", "ece.top"], variant="mose")
            assert got["ece"] == pytest.approx(released_mose(maps.max(0), right, 10, np.isin(top, classes)), abs=1e-9)
            assert got["ece.top"] == pytest.approx(released_mose(maps.max(0), right), abs=1e-9)


def test_mose_adds_in_float32():
    raters = np.zeros((1, 4, 4), bool)
    for given_ in ({"samples": np.ones((10, 4, 4), bool)}, {"probs": np.ones((10, 4, 4))}):
        assert score_case(raters, **given_, metrics=["ece"])["ece"] == 1
        # Ten times float32(0.1) is 1.0000001: in no bin, as released.
        assert score_case(raters, **given_, metrics=["ece"], variant="mose")["ece"] == 0
    given_["probs"] = given_["probs"][:8]
    assert score_case(raters, **given_, metrics=["ece"], variant="mose")["ece"] == 1
    torch = pytest.importorskip("torch")
    probs = np.random.default_rng(2).choice([0, 0.1, 0.3, 0.5, 0.7], (50, 16, 16)).astype(np.float32)
    mean = torch.sum(torch.tensor(probs) * torch.full((50, 1, 1), 1 / 50), dim=0).numpy()
    inside = (mean[..., None] > edges(10, "mose")[:-1]) & (mean[..., None] <= edges(10, "mose")[1:])
    found = bins_case(raters.repeat(4, 1).repeat(4, 2), probs=probs, variant="mose")["ece"]
    assert found.count[0].tolist() == inside.sum((0, 1)).tolist()


def test_values_and_metrics_reloaded():
    rng = np.random.default_rng(13)
    for _ in range(20):
        raters, p = slow.random_raters(rng, 3, (6, 6)), slow.random_probs(rng, (6, 6))
        found = np.digitize(p.ravel(), np.linspace(0, 1 + 1e-8, 21))
        q = raters.mean(0).ravel() * (not raters.all())
        want = np.mean([abs((p.ravel() - q)[found == b].mean()) for b in np.unique(found)])
        got = score_case(raters, mean_prob=p, metrics=["ace.width"], variant="values")["ace.width"]
        assert got == pytest.approx(want, abs=1e-9)
        inside, q, gap = p.ravel() > 0, raters.mean(0).ravel(), 0.0
        for k in range(10):
            member = (p.ravel() > k * 0.1) & (p.ravel() <= (k + 1) * 0.1)
            gap += abs((p.ravel() - q)[member].sum())
        got = score_case(raters, mean_prob=p, metrics=["ece"], variant="metrics_reloaded")["ece"]
        assert got == pytest.approx(gap / inside.sum() if inside.any() else math.nan, abs=1e-9, nan_ok=True)


def test_values_reads_a_full_reference_as_an_empty_one():
    raters, p = np.ones((2, 3, 3), bool), np.full((3, 3), 0.9)
    names = ["ace.width", "ece.each.list"]
    assert score_case(raters, mean_prob=p, metrics=names, variant="values") == {
        "ace.width": pytest.approx(0.9),
        "ece.each.list": [pytest.approx(0.9)] * 2,
    }
    raters[0, 0, 0] = False
    assert score_case(raters, mean_prob=p, metrics=names, variant="values")["ece.each.list"] == [
        pytest.approx(abs(0.9 - 8 / 9)),
        pytest.approx(0.9),
    ]


def released_curvas(foreground, labels):
    """Background 1 − Σ, top label, 50 bins [l, u) and one for 1."""
    maps = np.concatenate([1 - foreground.sum(0, keepdims=True), foreground])
    conf, right = maps.max(0).astype(np.float32).ravel(), (labels == maps.argmax(0)).ravel()
    index = np.searchsorted(edges(50, "torchmetrics"), conf, side="right") - 1
    return sum(abs(conf[index == b].sum(dtype=float) - right[index == b].sum()) for b in np.unique(index)) / conf.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_curvas(dtype):
    rng = np.random.default_rng(14)
    for _ in range(10):
        labels = rng.integers(0, 4, (3, 5, 4, 4))
        maps = rng.dirichlet([1] * 4, (5, 4, 4)).transpose(3, 0, 1, 2).astype(dtype)
        maps[:, 0] = np.array([0, 1, 0, 0], dtype)[:, None, None]
        other = maps.copy()
        other[0] = 0.5  # the background given is not used
        want = [released_curvas(maps[1:], y) for y in labels]
        for given_ in ({"mean_prob": other}, {"probs": other[None]}):
            got = score_case(
                labels, **given_, classes=[1, 2, 3], metrics=["ece.each.list", "ece.each"], variant="curvas"
            )
            assert got["ece.each.list"] == pytest.approx(want, abs=2e-6)
            assert got["ece.each"] == pytest.approx(np.mean(want), abs=2e-6)
        one = maps[1, 0:2] * dtype(0.9)
        got = score_case(labels[:, 0:2] == 1, mean_prob=one, metrics=["ece.each.list"], variant="curvas")
        want = [released_curvas(one[None], (y == 1).astype(int)) for y in labels[:, 0:2]]
        assert got["ece.each.list"] == pytest.approx(want, abs=2e-6)


def test_curvas_sends_a_negative_background_through_a_softmax():
    labels = np.array([[[1, 2]]])
    maps = np.array([[[0.0, 0.1]], [[0.6, 0.4]], [[0.4000001, 0.5]]])
    got = score_case(labels, mean_prob=maps, classes=[1, 2], metrics=["ece.each"], variant="curvas")["ece.each"]
    raised = np.exp([[-1e-7, 0.6, 0.4000001], [0.1, 0.4, 0.5]])
    top = (raised / raised.sum(1, keepdims=True)).max(1)
    assert got == pytest.approx((2 - top.sum()) / 2, abs=1e-6)


def test_float32_sums_stop_where_the_original_stops():
    """One by one in float32: 1 added to 2^24 is lost, and so are small probabilities beside large sums."""
    from multirater.metrics.bins import sums_by_bin

    index = np.zeros(3000, np.intp)
    values = np.full(3000, 0.1)
    want = np.float32(0)
    for _ in range(3000):
        want = np.float32(want + np.float32(0.1))
    assert sums_by_bin(index, 1, values, single=True)[0] == want
    assert want != pytest.approx(300, abs=1e-6)
    assert sums_by_bin(np.zeros((1 << 24) + 5, np.uint8), 1, single=True)[0] == 1 << 24


# -- data sets ---------------------------------------------------------------------------------------


@pytest.fixture
def data_set():
    rng = np.random.default_rng(21)
    raters = np.stack([slow.random_raters(rng, 3, (20, 21)) for _ in range(6)])
    raters[:, :, 3:] = False
    present = np.array([[True, True, i % 2 == 0] for i in range(6)])
    return {
        "raters": raters,
        "mean_prob": rng.random((6, 20, 21)),
        "rater_probs": rng.random((6, 3, 20, 21)),
        "rater_valid": present,
    }


def bins_of_all(data_set, variant=None):
    return [bins_case(**{k: v[i] for k, v in data_set.items()}, variant=variant) for i in range(6)]


def test_bins_give_the_values_of_the_cases(data_set):
    found = bins_of_all(data_set)
    for i, one in enumerate(found):
        scores = score_case(**{k: v[i] for k, v in data_set.items()}, metrics=list(one))
        for name, bins in one.items():
            assert bins.metric == name
            assert bins.region == info_of(name)["region"]
            known = [v for v in bins.ece().ravel() if not math.isnan(v)]
            mean = sum(known) / len(known) if known else math.nan
            assert mean == pytest.approx(scores[name], abs=1e-12, nan_ok=True)
            assert float(pooled_ece([bins])) == pytest.approx(scores[name], abs=1e-12, nan_ok=True)


def test_pooled_over_a_data_set(data_set):
    found = bins_of_all(data_set)
    p, y = data_set["mean_prob"], data_set["raters"]
    q = np.stack([m[v].mean(0) for m, v in zip(y, data_set["rater_valid"], strict=True)])
    flat = bin_index(p.ravel(), 10, "upper")[0]
    want = sum(abs((p - q).ravel()[flat == b].sum()) for b in range(10)) / p.size
    assert float(pooled_ece([b["ece.full"] for b in found])) == pytest.approx(want, abs=1e-12)
    per_rater = []
    for r in range(3):
        there = data_set["rater_valid"][:, r]
        gap = (p[there] - y[there, r]).ravel()
        index = bin_index(p[there].ravel(), 10, "upper")[0]
        per_rater.append(sum(abs(gap[index == b].sum()) for b in range(10)) / gap.size)
    assert float(pooled_ece([b["ece.each.full"] for b in found])) == pytest.approx(np.mean(per_rater), abs=1e-12)
    mose = pooled_ece([b["ece"] for b in bins_of_all(data_set, "mose")])
    assert float(mose) == pytest.approx(released_mose(p, q), abs=1e-9)  # pooled over the test set, as released


def test_bootstrap_sums_the_cases_drawn_again(data_set):
    draws = np.random.default_rng(0).multinomial(6, [1 / 6] * 6, size=40)
    for name in ("ece", "ece.top.full", "ece.each", "ece.rater", "ece.disagree"):
        cases = [b[name] for b in bins_of_all(data_set)]
        table = stack_bins(cases)
        got = pooled_ece(table, draws)
        for row, value in zip(draws, got, strict=True):
            again = [case for case, times in zip(cases, row, strict=True) for _ in range(times)]
            assert value == pytest.approx(float(pooled_ece(again)), abs=1e-12)
        assert np.isnan(pooled_ece(table, np.zeros((1, 6)))).all()


def test_bins_are_plain_arrays(data_set, tmp_path):
    table = stack_bins([b["ece.each"] for b in bins_of_all(data_set)])
    np.savez(tmp_path / "bins.npz", **table.arrays())
    with np.load(tmp_path / "bins.npz", allow_pickle=False) as stored:
        again = Bins.of(stored)
    assert again.metric == "ece.each"
    assert again.count.shape == (6, 1, 3, 10)
    assert float(pooled_ece(again)) == float(pooled_ece(table))
    with pytest.raises(UserError, match="hold no calibration bins"):
        Bins.of({"count": np.zeros(3)})
    with pytest.raises(UserError, match="do not fit"):
        Bins.of({**table.arrays(), "pixels": np.zeros(2)})


def test_bins_that_do_not_belong_together(data_set):
    one, other = bins_of_all(data_set)[0], bins_of_all(data_set, Convention(bins=20))[0]
    for pair in ([one["ece"], other["ece"]], [one["ece"], one["ece.full"]], [one["ece"], one["ece.each"]]):
        with pytest.raises(UserError, match="cannot be pooled"):
            pooled_ece(pair)
    with pytest.raises(UserError, match="at least one case"):
        pooled_ece([])
    with pytest.raises(UserError, match="one column for each"):
        pooled_ece([one["ece"]], np.ones((3, 2)))


def test_a_case_without_raters_adds_nothing(data_set):
    known = bins_of_all(data_set)
    nobody = bins_case(**{k: v[0] for k, v in data_set.items() if k != "rater_valid"}, rater_valid=[False] * 3)
    for name, bins in nobody.items():
        cases = [b[name] for b in known]
        assert float(pooled_ece([*cases, bins])) == pytest.approx(float(pooled_ece(cases)), abs=1e-12)


def test_components_hold_the_same_bits(data_set):
    for i in range(3):
        case = {k: v[i] for k, v in data_set.items()}
        kept = components_of(**case)
        for variant in (None, "mose", "values", "curvas", "metrics_reloaded"):
            want = score_case(**case, metrics=ALL, variant=variant)
            assert str(score_components(kept, ALL, variant)) == str(want)
            stored, fresh = bins_of(kept.view(), variant), bins_case(**case, variant=variant)
            assert all((stored[name].sum_q == bins.sum_q).all() for name, bins in fresh.items())


# -- inputs ------------------------------------------------------------------------------------------


def test_a_case_scored_again_in_the_precision_of_its_probabilities():
    """Variants share the sums of a case, but a mean in float32 lies in other bins than one in float64."""
    rng = np.random.default_rng(4)
    probs = (rng.integers(0, 11, (7, 20, 20)) / 10).astype(np.float32)
    view = read_case(rng.random((4, 20, 20)) < 0.5, probs=probs)
    values = {}
    for dtype in ("float64", "given"):
        asked = {"metrics": ["ece", "brier"], "variant": Convention(dtype=dtype), "reasons": False}
        values[dtype] = score_view(view.again(), view.given, **asked, strict=True)
        again = read_case(view.raters, probs=probs)
        assert values[dtype] == score_view(again, again.given, **asked, strict=True)
    assert values["float64"]["ece"] != values["given"]["ece"]


@pytest.mark.parametrize("variant", ["canonical", "mose", "values", "curvas", "metrics_reloaded"])
def test_inputs_are_left_alone_and_cases_do_not_depend_on_their_batch(data_set, variant):
    before = {k: v.copy() for k, v in data_set.items()}
    for array in data_set.values():
        array.flags.writeable = False
    frame = score_cases(**data_set, metrics=ALL, variant=variant)
    assert all((before[k] == data_set[k]).all() for k in before)
    for i, row in enumerate(frame.to_dict("records")):
        alone = score_case(**{k: v[i] for k, v in data_set.items()}, metrics=ALL, variant=variant)
        assert str(row) == str(alone)  # the same bits
        few = score_case(**{k: v[i] for k, v in data_set.items()}, metrics=ALL[::-1], variant=variant)
        assert all(str(few[name]) == str(row[name]) for name in row)  # whatever else is asked for


@pytest.mark.parametrize(
    "fields",
    [{"bins": 0}, {"bins": 2.5}, {"bins": True}, {"binning": "lower"}, {"confidence": "max"}, {"region": "box"}],
)
def test_bad_conventions(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        Convention(**fields)
