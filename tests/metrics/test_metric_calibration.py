"""Calibration against a slow reference, on traps of floating point, and regions."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import metric_reference_calibration as slow
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from multirater.metrics import Convention, info_of, list_metrics, score_case
from multirater.metrics.bins import bin_index, edges, edges_below, equal_mass
from multirater.metrics.calibration import bins_case

ECE = "ece ece.top ece.each ece.disagree mce ace ace.width".split()
OF_MAP = [*ECE, "brier", "brier.raters", "nll", "nll.excess", "ece.each.list"]
OF_RATERS = ["ece.rater", "brier.rater", "nll.rater"]
ALL = [n + mark for n in OF_MAP + OF_RATERS for mark in ("", ".full")]
SHAPES = [(4, 5), (1, 7), (3, 2, 4), (40, 3), (2, 45), (1, 1)]
quick = settings(max_examples=80, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -- against the reference ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_reference(seed):
    """One thousand cases in all: 2D and 3D, missing raters, pixels that do not count, spacing, weights, bins."""
    rng = np.random.default_rng(seed)
    for trial in range(50):
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        slots = int(rng.integers(1, 5))
        raters, p = slow.random_raters(rng, slots, shape), slow.random_probs(rng, shape)
        own = np.stack([slow.random_probs(rng, shape) for _ in range(slots)])
        options, valid, spacing, weights = {}, None, None, None
        present = np.ones(slots, bool)
        if trial % 3 == 0:
            present = rng.random(slots) < 0.6
            present[rng.integers(slots)] = True
            options["rater_valid"] = present
        if trial % 4 == 0:
            valid = rng.random(shape) < 0.7
            valid.flat[rng.integers(valid.size)] = True
            options["valid"] = valid
        if trial % 5 == 0:
            spacing = rng.choice([0.5, 0.7, 1.0, 10 / 3, 12.0], len(shape)).tolist()
            options["spacing"] = spacing
        if trial % 7 == 0 and present.all():
            parts = rng.integers(0, 4, slots) + (np.arange(slots) == 0)
            weights = [Fraction(int(w), int(parts.sum())) for w in parts]
            options["rater_weights"] = [float(w) for w in weights]
        bins = int(rng.choice([10, 10, 15, 20, 50, 1]))
        got = score_case(raters, mean_prob=p, rater_probs=own, metrics=ALL, variant=Convention(bins=bins), **options)
        y = [slow.where(m) for m in raters[present]]
        if valid is not None:
            y = [m & slow.where(valid) for m in y]
        if weights is not None and 0 in weights:  # a rater without weight has no say in where raters disagree
            assert weights[0] > 0
        for mark in ("", ".full"):
            pixels = slow.region(shape, y, None if valid is None else slow.as_dict(valid), spacing, full=bool(mark))
            want = slow.of_map(slow.as_dict(p), y, pixels, weights, bins)
            listed = iter(want.pop("ece.each.list"))
            want["ece.each.list"] = [next(listed) if there else math.nan for there in present]
            slow.agree(got, want, mark, (seed, trial))
            maps = [slow.as_dict(m) for m in own[present]]
            slow.agree(got, slow.of_raters(maps, y, pixels, weights, bins), mark, (seed, trial))


def _averaged(values):
    """Their mean; of several it carries rounding, which is no reason to lie above an edge."""
    mean = sum(values) / len(values)
    edge = round(mean, 1)
    return edge if len(values) > 1 and abs(mean - edge) < 1e-12 else mean


@pytest.mark.parametrize("seed", range(3))
def test_samples_and_their_probabilities(seed):
    """Hard samples are shares k/S, exact on the edges; probabilities are averaged in float64; weights repeat."""
    rng = np.random.default_rng(50 + seed)
    for _ in range(15):
        shape, count = (5, 4), int(rng.choice([1, 4, 5, 10, 20]))
        raters, samples = slow.random_raters(rng, 3, shape), rng.random((count, *shape)) < rng.random(shape)
        y = [slow.where(m) for m in raters]
        pixels = slow.region(shape, y)
        share = {x: float(Fraction(int(samples[(slice(None), *x)].sum()), count)) for x in pixels}
        want = slow.of_map(share, y, pixels)
        slow.agree(score_case(raters, samples, metrics=list(want)), want, "", seed)
        times = rng.integers(0, 4, count) + (np.arange(count) == 0)
        weighted = score_case(raters, samples, sample_weights=times / times.sum(), metrics=list(want))
        slow.agree(weighted, score_case(raters, samples.repeat(times, axis=0), metrics=list(want)), "", seed)
        probs = np.stack([slow.random_probs(rng, shape) for _ in range(count)])
        p = {x: _averaged(probs[(slice(None), *x)].tolist()) for x in pixels}
        slow.agree(score_case(raters, probs=probs, metrics=list(want)), slow.of_map(p, y, pixels), "", seed)


@pytest.mark.parametrize("seed", range(3))
def test_several_classes(seed):
    """Each class against the rest in its own box, mean over the list; the top label in the box of all classes."""
    rng = np.random.default_rng(80 + seed)
    shape = (36, 3)
    for trial in range(8):
        raters = np.zeros((3, *shape), int)
        for label in (1, 2, 3):
            low = int(rng.integers(30))
            raters[:, low : low + 3][rng.random((3, 3, 3)) < rng.random()] = label
        probs = rng.dirichlet([1, 0.3, 0.3, 0.3], (2, *shape)).transpose(0, 3, 1, 2)
        probs[:, :, rng.random(shape) < 0.2] = 0.25
        mean = probs.sum(0) / 2
        classes = [1, 2, 3] if trial % 2 else [1, 3]
        got = score_case(raters, probs=probs, classes=classes, metrics=[n for n in ALL if "rater" not in n.split(".")])
        for mark in ("", ".full"):
            rows = []
            for c in classes:
                y = [slow.where(m == c) for m in raters]
                pixels = slow.region(shape, y, full=bool(mark))
                rows.append(slow.of_map(slow.as_dict(mean[c]), y, pixels))
            want = {name: np.nanmean([float(row[name]) for row in rows]) for name in rows[0] if name in OF_MAP[:-1]}
            union = [slow.where(np.isin(m, classes)) for m in raters]
            pixels = slow.region(shape, union, full=bool(mark))
            maps = {k: slow.as_dict(mean[k]) for k in range(4)}
            want["ece.top"] = slow.top_label(maps, range(4), [slow.as_dict(m) for m in raters], pixels)
            want["ece.each.list"] = np.mean([[float(v) for v in row["ece.each.list"]] for row in rows], axis=0).tolist()
            slow.agree(got, want, mark, (seed, trial))


def test_hard_class_maps_and_personal_maps():
    rng = np.random.default_rng(9)
    raters, samples = rng.integers(0, 4, (3, 4, 4)), rng.integers(0, 4, (5, 4, 4))
    hot = (samples[:, None] == np.arange(4)[:, None, None]).astype(float)
    names = [n for n in ALL if "rater" not in n.split(".")]
    hard = score_case(raters, samples, classes=[1, 2], metrics=names)
    slow.agree(hard, score_case(raters, probs=hot, classes=[1, 2], metrics=names), "", "one-hot")
    maps = rng.dirichlet([1, 1, 1, 1], (3, 4, 4)).transpose(0, 3, 1, 2)
    got = score_case(
        raters, rater_probs=maps, classes=[1, 2, 3], metrics=[n for n in ALL if n.split(".full")[0] in OF_RATERS]
    )
    rows = []
    for c in (1, 2, 3):
        y = [slow.where(m == c) for m in raters]
        rows.append(slow.of_raters([slow.as_dict(m[c]) for m in maps], y, slow.region((4, 4), y)))
    slow.agree(got, {name: np.mean([row[name] for row in rows]) for name in rows[0]}, "", "personal")
    labels = maps.argmax(1)
    one = (labels[:, None] == np.arange(4)[:, None, None]).astype(float)
    for variant in (None, "curvas", "mose"):
        got = score_case(raters, rater_probs=labels, classes=[1, 2, 3], metrics=OF_RATERS, variant=variant)
        slow.agree(
            got, score_case(raters, rater_probs=one, classes=[1, 2, 3], metrics=OF_RATERS, variant=variant), "", variant
        )


def test_two_channels_are_their_own_background():
    raters = np.array([[[True, False, False]]])
    two = np.array([[[[0.4, 0.6, 0.5]], [[0.5, 0.3, 0.5]]]])
    top = score_case(raters, probs=two, metrics=["ece.top"])["ece.top"]
    # Confidence 0.5 (foreground, right), 0.6 (background, right), 0.5 (tie: background, right).
    assert top == pytest.approx((0.4 + 0.5 + 0.5) / 3)
    assert score_case(raters, probs=two, metrics=["brier"])["brier"] == pytest.approx((0.25 + 0.09 + 0.25) / 3)


# -- bins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [10, 15, 20, 50])
def test_edges_belong_to_the_bin_below(bins):
    p = np.arange(bins + 1) / bins
    index, width = bin_index(p, bins, "upper")
    assert width == bins
    assert index.tolist() == [0, *range(bins)]
    above = np.nextafter(p[:-1], 1)
    assert bin_index(above, bins, "upper")[0].tolist() == list(range(bins))
    rng = np.random.default_rng(bins)
    values = np.concatenate([rng.random(500), p, above, np.nextafter(p[1:], 0)])
    upper = np.arange(1, bins + 1) / bins
    assert (bin_index(values, bins, "upper")[0] == np.searchsorted(upper, values, side="left")).all()


def test_multiplying_would_be_wrong():
    """0.7·10 is 7.000000000000001 after rounding up, and 3·0.1 lies above the edge 0.3."""
    assert bin_index(np.array([0.7, 0.3, 0.1 + 0.2]), 10, "upper")[0].tolist() == [6, 2, 3]
    assert bin_index(np.array([0.7, 0.3, 0.1 + 0.2]), 10, "metrics_reloaded")[0].tolist() == [6, 2, 2]
    # A float32 map is converted exactly: float32(0.3) is above 0.3, float32(0.7) below 0.7.
    raters = np.array([[[True, False]]])
    one = bins_case(raters, mean_prob=np.array([[0.3, 0.7]], np.float32))["ece"]
    assert np.flatnonzero(one.count[0]).tolist() == [3, 6]


def test_rules_differ_on_the_edges():
    p = np.array([0.0, 0.1, 0.5, 1.0])
    assert bin_index(p, 10, "upper")[0].tolist() == [0, 0, 4, 9]
    assert bin_index(p, 10, "mose")[0].tolist() == [10, 0, 4, 9]
    assert bin_index(p, 10, "metrics_reloaded")[0].tolist() == [10, 0, 4, 9]
    assert bin_index(p, 10, "values")[0].tolist() == [0, 0, 4, 9]  # the edges are 1e-9 to 1e-8 higher
    index, width = bin_index(np.array([0.0, 0.1, 0.5, 1.0], np.float32).astype(float), 10, "torchmetrics")
    assert (index.tolist(), width) == ([0, 1, 5, 10], 11)
    assert bin_index(np.array([1.0]), 49, "metrics_reloaded")[0].tolist() == [49]  # 49·(1/49) < 1: in no bin


def test_float32_edges_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for bins in (5, 10, 15, 20, 50):
        exact = torch.linspace(0, 1, bins + 1).numpy().astype(np.float64)
        # With and without fused multiply-add the edges may differ by one unit in the last place.
        assert np.abs(edges(bins, "mose") - exact).max() <= 2**-24
    assert (edges(10, "mose")[[3, 7, 9]] == np.array([0.3, 0.7, 1 - np.float32(0.1)], np.float32)).all()


@quick
@given(
    hnp.arrays(float, st.integers(1, 60), elements=st.sampled_from(slow.TRAPS) | st.floats(0, 1)), st.integers(1, 70)
)
def test_counting_edges_is_a_binary_search(values, count):
    limits = np.arange(count) / count
    assert (edges_below(values, limits) == np.searchsorted(limits, values, side="left")).all()
    assert (edges_below(values, limits, equal=True) == np.searchsorted(limits, values, side="right")).all()


@quick
@given(
    hnp.arrays(float, st.integers(1, 60), elements=st.sampled_from(slow.TRAPS) | st.floats(0, 1)), st.integers(1, 70)
)
def test_equal_mass_is_a_stable_sort_cut_into_runs(p, bins):
    q = np.arange(len(p)) % 3 / 3
    order = np.argsort(p, kind="stable")
    count, sum_p, sum_q = equal_mass(p, q, bins)
    runs = np.array_split(order, bins)
    assert count.tolist() == [len(run) for run in runs]
    assert count.sum() == len(p)  # every pixel once
    np.testing.assert_allclose(sum_p, [p[run].sum() for run in runs], atol=1e-12)
    np.testing.assert_allclose(sum_q, [q[run].sum() for run in runs], atol=1e-12)


# -- properties --------------------------------------------------------------------------------------

cases = st.integers(0, 10_000).map(np.random.default_rng)


@quick
@given(cases)
def test_identities_and_bounds(rng):
    shape = SHAPES[int(rng.integers(4))]
    raters, p = slow.random_raters(rng, int(rng.integers(1, 5)), shape), slow.random_probs(rng, shape)
    got = score_case(raters, mean_prob=p, rater_probs=np.stack([p] * len(raters)), metrics=ALL)
    q = raters.mean(0)
    assert got["brier.raters.full"] == pytest.approx(got["brier.full"] + (q * (1 - q)).mean(), abs=1e-12)
    for name, value in got.items():
        low, high = info_of(name)["range"]
        assert np.isnan(value).any() or (low <= np.min(value) <= np.max(value) <= high), name
    for mark in ("", ".full"):
        assert got["ece" + mark] <= got["mce" + mark] + 1e-12
        assert got["ece" + mark] <= got["ece.each" + mark] + 1e-12  # |mean of gaps| <= mean of |gaps|
        assert got["ece.each" + mark] == pytest.approx(got["ece.rater" + mark], abs=1e-12)
        assert got["brier.rater" + mark] == pytest.approx(got["brier.raters" + mark], abs=1e-12)
        assert got["nll.rater" + mark] == pytest.approx(got["nll" + mark], abs=1e-9)


@quick
@given(cases)
def test_order_of_pixels_and_raters(rng):
    raters, p = slow.random_raters(rng, 3, (5, 8)), slow.random_probs(rng, (5, 8))
    order = rng.permutation(40)
    names = [n for n in ALL if n.endswith(".full") and n.split(".full")[0] in OF_MAP and not n.startswith("ace.full")]
    shuffled = [a.reshape(*a.shape[:-2], 40)[..., order].reshape(a.shape) for a in (raters, p)]
    want = score_case(raters, mean_prob=p, metrics=names)
    slow.agree(score_case(shuffled[0], mean_prob=shuffled[1], metrics=names), want, "", "pixels")
    swapped = score_case(raters[[2, 0, 1]], mean_prob=p, metrics=[*OF_MAP[:-1], "ece.each.list"])
    plain = score_case(raters, mean_prob=p, metrics=[*OF_MAP[:-1], "ece.each.list"])
    assert swapped.pop("ece.each.list") == [plain["ece.each.list"][i] for i in (2, 0, 1)]
    slow.agree(swapped, {k: v for k, v in plain.items() if k != "ece.each.list"}, "", "raters")


def test_a_perfect_map():
    rng = np.random.default_rng(3)
    raters = rng.random((30, 30)) < np.array([0.2, 0.4, 0.6, 0.8])[:, None, None]  # from careful to generous
    got = score_case(raters, mean_prob=raters.mean(0), metrics=ALL[: 2 * len(OF_MAP)])
    for name in ("brier", "ece", "mce", "ace", "ace.width", "ece.disagree"):
        assert got[name] == pytest.approx(0, abs=1e-11), name
    assert 0 < got["nll.excess"] < 1e-6  # the clipping of 0 and 1
    assert got["ece.each"] > 0.05  # what no map can avoid where the raters disagree
    assert got["nll"] > 0.3


# -- the region --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spacing", "rows", "columns"), [(None, 33, 33), ((2.0, 5.0), 11, 5), ((10 / 3, 100.0), 7, 3)])
def test_box(spacing, rows, columns):
    """A single marked pixel in the middle: the box reaches 16 pixels or 10 mm on every side."""
    raters, p = np.zeros((2, 61, 61), bool), np.full((61, 61), 0.25)
    raters[0, 30, 30] = True
    found = bins_case(raters, mean_prob=p, spacing=spacing)
    assert found["ece"].pixels.tolist() == [rows * columns]
    assert found["ece.full"].pixels.tolist() == [61 * 61]
    p[30 + rows // 2 + 1, :] = 1.0  # the first row outside
    assert score_case(raters, mean_prob=p, metrics=["brier"], spacing=spacing)["brier"] == pytest.approx(
        (0.25**2 * (rows * columns - 1) + 0.25**2) / (rows * columns)
    )


def test_box_is_clipped_needs_a_rater_and_counts_valid_pixels_only():
    raters, p = np.zeros((2, 40, 40), bool), np.zeros((40, 40))
    assert bins_case(raters, mean_prob=p)["ece"].pixels.tolist() == [1600]  # all raters empty: everything
    raters[1, 0, 39] = True
    assert bins_case(raters, mean_prob=p)["ece"].pixels.tolist() == [17 * 17]
    valid = np.ones((40, 40), bool)
    valid[:, 30:] = False
    assert bins_case(raters, mean_prob=p, valid=valid)["ece"].pixels.tolist() == [1200]  # the mark does not count
    raters[0, 20, 28] = True
    assert bins_case(raters, mean_prob=p, valid=valid)["ece"].pixels.tolist() == [33 * 18]
    missing = bins_case(raters, mean_prob=p, rater_valid=[True, False])
    assert missing["ece"].pixels.tolist() == [33 * 28]


# -- undefined ---------------------------------------------------------------------------------------


def test_agreeing_raters_leave_no_pixel_to_disagree_on():
    from multirater.benchmark.directions import BY_DATA, BY_METHOD, undefined_by

    raters = np.zeros((3, 4, 4), bool)
    raters[:, 0] = True
    got = score_case(raters, mean_prob=np.full((4, 4), 0.3), metrics=["ece.disagree", "ece"], reasons=True)
    assert math.isnan(got["ece.disagree"])
    assert got["reasons"] == {"ece.disagree": "data: the raters agree on every pixel"}
    assert undefined_by(got["reasons"]["ece.disagree"]) == BY_DATA
    zero = score_case(
        raters, mean_prob=np.zeros((4, 4)), metrics=["ece", "mce"], variant="metrics_reloaded", reasons=True
    )
    assert math.isnan(zero["ece"])
    assert undefined_by(zero["reasons"]["ece"]) == BY_METHOD
    mose = score_case(raters, mean_prob=np.zeros((4, 4)), metrics=["ece", "mce"], variant="mose", reasons=True)
    assert mose["ece"] == 0  # no bin has a pixel: the released sum is empty
    assert undefined_by(mose["reasons"]["mce"]) == BY_METHOD
    nobody = score_case(raters, mean_prob=np.zeros((4, 4)), rater_valid=[False] * 3, metrics=["ece", "ece.each.list"])
    assert math.isnan(nobody["ece"])
    assert np.isnan(nobody["ece.each.list"]).all()


def test_metadata():
    names = [n for n in list_metrics() if n in ALL]
    assert sorted(names) == sorted(ALL)
    for name in names:
        info = info_of(name)
        assert info["direction"] == "lower"
        assert info["region"] == ("full" if name.endswith(".full") else "box")
        assert info["base"] == (name.removesuffix(".full") if name.endswith(".full") else "")
        log = name.startswith("nll")
        assert info["unit"] == ("nats" if log else "")
        assert info["worst"] == (-math.log(1e-6) if log else 1)
        assert info["values"] == ("rater" if ".list" in name else "scalar")
        assert info["needs"] == (
            ("rater_probs",) if name.split(".full")[0] in OF_RATERS else ("samples|probs|mean_prob",)
        )
    worst = score_case(np.ones((1, 2, 2), bool), mean_prob=np.zeros((2, 2)), metrics=["nll", "brier", "ece"])
    assert worst == {"nll": info_of("nll")["worst"], "brier": 1, "ece": 1}


@pytest.mark.perf
def test_time_of_the_whole_section():
    """Measured 0.9 ms for the box and 2.3 ms with all pixels on one core; several times that on a slow machine."""
    import time

    y, x = np.mgrid[:128, :128]
    raters = np.stack([(y - 64) ** 2 + (x - 60) ** 2 < r**2 for r in (14, 18, 21, 25)])
    p = np.clip(1 / (1 + np.exp((np.hypot(y - 64, x - 60) - 20) / 3)) + 0.02 * np.sin(x * y), 0, 1)
    names = [n + mark for n in OF_MAP for mark in ("", ".full")]
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        score_case(raters, mean_prob=p, metrics=names)
        best = min(best, time.perf_counter() - start)
    assert best < 0.012
