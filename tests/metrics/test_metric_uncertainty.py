"""NCC, likelihood and entropy: against loops over samples, raters and pixels written from the definitions."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multirater.core.errors import UserError
from multirater.metrics import info_of, list_metrics, score_case, score_cases

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ["ncc", "ncc.variance", "sample_nll", "entropy_mean"]
EPSILON = 1e-8
quick = settings(max_examples=60, deadline=None, derandomize=True)


# -- slow reference: lists of pixels, one number at a time --------------------------------------------


def average(values, weights=None):
    values = list(values)
    weights = weights or [1 / len(values)] * len(values)
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)


def deviation(values):
    centre = average(values)
    return math.sqrt(average((v - centre) ** 2 for v in values))


def constant(values):
    return deviation(values) <= 1e-12 * max(1, abs(average(values)))


def correlation(a, b):
    ca, cb = average(a), average(b)
    return average((x - ca) * (y - cb) for x, y in zip(a, b, strict=True)) / (deviation(a) * deviation(b))


def cross_entropy(truth, sample):
    """Per pixel −Σ_k truth_k log(sample_k + ε); arguments are lists of channels for each pixel."""
    return [
        -sum(t * math.log(s + EPSILON) for t, s in zip(a, b, strict=True)) for a, b in zip(truth, sample, strict=True)
    ]


def slow_ncc(labels, samples, w=None, u=None):
    """Labels R×N, samples S×N×C; a map for every pair of sample and rater, as the paper defines it."""
    pixels, channels = range(len(labels[0])), len(samples[0][0])
    mean = [[average([s[x][k] for s in samples], w) for k in range(channels)] for x in pixels]
    maps = [cross_entropy(mean, s) for s in samples]
    own = [average([m[x] for m in maps], w) for x in pixels]
    if constant(own):
        return math.nan if all(y == labels[0] for y in labels) else 0.0
    terms, weights = [], []
    for r, y in enumerate(labels):
        truth = [[float(k == y[x]) for k in range(channels)] for x in pixels]
        maps = [cross_entropy(truth, s) for s in samples]
        crossed = [average([m[x] for m in maps], w) for x in pixels]
        if not constant(crossed):
            terms.append(correlation(own, crossed))
            weights.append(u[r] if u else 1.0)
    return average(terms, weights) if sum(weights) > 0 else math.nan


def slow_variance(labels, mean, u=None):
    """Variance of one label drawn from the raters against that of one drawn from the mean map N×C."""
    channels = range(len(mean[0]))
    share = [[average([float(y[x] == k) for y in labels], u) for k in channels] for x in range(len(mean))]
    spread = [[sum(p * (1 - p) for p in pixel) for pixel in maps] for maps in (share, mean)]
    if constant(spread[0]):
        return math.nan
    return 0.0 if constant(spread[1]) else correlation(*spread)


def slow_nll(labels, samples, w=None, u=None):
    each = []
    for y in labels:
        likelihood = [math.prod(s[x][k] for x, k in enumerate(y)) for s in samples]
        each.append(-math.log(average(likelihood, w)))
    return average(each, u)


def slow_entropy(mean):
    return fmean(-sum(p * math.log(p) for p in pixel if p > 0) for pixel in mean) / math.log(len(mean[0]))


# -- random cases -------------------------------------------------------------------------------------


def random_case(rng, reference):
    """Arguments of `score_case` and the same case as lists for the reference."""
    several, volume = rng.random() < 0.4, rng.random() < 0.2
    shape = (2, 3, 3) if volume else (int(rng.integers(3, 6)), int(rng.integers(3, 6)))
    slots, count = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    channels = int(rng.integers(3, 5)) if several else 2
    flat = (int(np.prod(shape)),)
    if several:
        raters = rng.integers(0, channels, (slots, *shape))
    else:
        raters = reference.random_masks(rng, slots, (1, flat[0])).reshape(slots, *shape)
    probs = rng.dirichlet(np.full(channels, rng.choice([0.3, 1.0, 5.0])), (count, *shape))
    if rng.random() < 0.1:
        probs[:] = probs[:, *[slice(0, 1)] * len(shape)]  # constant maps
    if rng.random() < 0.15:
        raters[:] = raters[:1]
    probs = np.clip(np.moveaxis(probs, -1, 1), 1e-12, 1)
    given_ = {"raters": raters, "probs": probs}
    if several:
        given_["classes"] = list(range(1, channels))
    elif rng.random() < 0.5:
        given_["probs"] = probs[:, 1]
        probs = np.stack([1 - probs[:, 1], probs[:, 1]], axis=1)
    kept, inside = np.ones(slots, bool), np.ones(shape, bool)
    if slots > 1 and rng.random() < 0.3:
        kept[rng.integers(slots)] = False
        given_["rater_valid"] = kept
    if rng.random() < 0.3:
        inside = rng.random(shape) < 0.7
        inside.flat[:2] = True
        given_["valid"] = inside
    w = u = None
    if rng.random() < 0.3:
        w = rng.dirichlet(np.ones(count))
        given_["sample_weights"] = w
    if rng.random() < 0.3:
        weights = rng.dirichlet(np.ones(slots))
        given_["rater_weights"] = weights
        u = (weights[kept] / weights[kept].sum()).tolist()
    labels = raters[kept][:, inside].astype(int).tolist()
    samples = np.moveaxis(probs[..., inside], 1, -1).tolist()
    return given_, labels, samples, None if w is None else w.tolist(), u


def test_against_the_definitions(reference):
    rng = np.random.default_rng(21)
    undefined = 0
    for i in range(350):
        given_, labels, samples, w, u = random_case(rng, reference)
        mean = [
            [average([s[x][k] for s in samples], w) for k in range(len(samples[0][0]))] for x in range(len(labels[0]))
        ]
        want = {
            "ncc": slow_ncc(labels, samples, w, u),
            "ncc.variance": slow_variance(labels, mean, u),
            "sample_nll": slow_nll(labels, samples, w, u),
            "entropy_mean": slow_entropy(mean),
        }
        got = score_case(**given_, metrics=NAMES, reasons=True)
        undefined += math.isnan(want["ncc"])
        for name in NAMES:
            assert got[name] == pytest.approx(want[name], rel=1e-9, abs=1e-9, nan_ok=True), (i, name)
            assert (name in got["reasons"]) == math.isnan(want[name])
    assert undefined > 3


def test_hard_samples_are_probabilities_of_0_and_1(reference):
    rng = np.random.default_rng(22)
    for i in range(80):
        raters, samples = (reference.random_masks(rng, int(rng.integers(1, 5)), (5, 5)) for _ in range(2))
        got = score_case(raters, samples, metrics=["ncc", "ncc.variance", "entropy_mean"])
        soft = score_case(raters, probs=samples.astype(float), metrics=list(got))
        lists = [[[1.0 - v, v] for v in s.ravel().astype(float).tolist()] for s in samples]
        want = slow_ncc(raters.reshape(len(raters), -1).astype(int).tolist(), lists)
        assert got["ncc"] == pytest.approx(want, abs=1e-9, nan_ok=True), i
        for name in got:
            assert got[name] == pytest.approx(soft[name], abs=1e-9, nan_ok=True), (i, name)
    with pytest.raises(UserError, match="'sample_nll' needs probs"):
        score_case(raters, samples, metrics=["sample_nll"])


@pytest.mark.parametrize("channels", [2, 4])
def test_stored_maps_give_the_value_of_the_samples(channels):
    rng = np.random.default_rng(23)
    for _ in range(60):
        probs = rng.dirichlet(np.full(channels, 0.5), (6, 8, 9)).transpose(0, 3, 1, 2).astype(np.float32)
        raters = rng.integers(0, channels, (3, 8, 9))
        if channels == 2:
            raters, probs[:, 0] = raters.astype(bool), 1 - probs[:, 1]
        options = {"classes": list(range(1, channels))} if channels > 2 else {}
        options["valid"] = rng.random((8, 9)) < 0.9
        logs = np.log(probs + np.float32(EPSILON)).mean(0)
        mean = probs.mean(0)
        assert logs.dtype == mean.dtype == np.float32
        want = score_case(raters, probs=probs, **options, metrics=["ncc"])["ncc"]
        got = score_case(raters, mean_prob=mean, mean_log=logs, **options, metrics=["ncc"])["ncc"]
        assert got == pytest.approx(want, abs=1e-5)
        if channels == 2:
            got = score_case(raters, mean_prob=mean[1], mean_log=logs, **options, metrics=["ncc"])["ncc"]
            assert got == pytest.approx(want, abs=1e-5)
    # In double precision it is the same number, and it goes before what else was given.
    logs, mean = np.log(probs.astype(float) + EPSILON).mean(0), probs.astype(float).mean(0)
    other = {"probs": np.full_like(probs, 1 / channels)}
    got = score_case(raters, mean_prob=mean, mean_log=logs, **other, **options, metrics=["ncc"])["ncc"]
    assert got == pytest.approx(want, abs=1e-9)


def test_a_constant_map_stored_in_single_precision_is_constant():
    rng = np.random.default_rng(24)
    raters = rng.random((3, 6, 6)) < 0.4
    noise = rng.uniform(-5e-8, 5e-8, (6, 6))
    mean, logs = (0.3 + noise).astype(np.float32), np.log(np.stack([0.7 - noise, 0.3 + noise])).astype(np.float32)
    assert score_case(raters, mean_prob=mean, mean_log=logs, metrics=["ncc"])["ncc"] == 0
    assert score_case(raters, mean_prob=mean, metrics=["ncc.variance"])["ncc.variance"] == 0


# -- edge cases ---------------------------------------------------------------------------------------


def test_constant_maps(pair):
    a, b = pair
    flat = np.full((2, 4, 4), 0.3)
    assert score_case(np.stack([a, b]), probs=flat, metrics=["ncc"])["ncc"] == 0
    for raters in (a[None], np.stack([a, a])):
        got = score_case(raters, probs=flat, metrics=NAMES[:2], reasons=True)
        assert math.isnan(got["ncc"])
        assert math.isnan(got["ncc.variance"])
        assert got["reasons"]["ncc"].startswith("data: the raters are identical")
    varied = np.linspace(0.1, 0.9, 32).reshape(2, 4, 4)
    assert not math.isnan(score_case(np.stack([a, a]), probs=varied, metrics=["ncc"])["ncc"])


def test_a_rater_with_a_constant_map_is_left_out():
    """Channel 0 has the same mean logarithm at both pixels; an empty rater sees nothing else."""
    probs = np.array([[[[0.6, 0.6]], [[0.3, 0.1]], [[0.1, 0.3]]], [[[0.6, 0.6]], [[0.1, 0.3]], [[0.3, 0.1]]]])
    probs[:, 1:, 0, 1] = [[0.2, 0.2], [0.2, 0.2]]
    empty, full = np.zeros((1, 2), int), np.array([[1, 0]])
    options = {"probs": probs, "classes": [1, 2], "metrics": ["ncc"], "reasons": True}
    alone = score_case(full[None], **options)["ncc"]
    assert score_case(np.stack([full, empty]), **options)["ncc"] == alone
    assert abs(alone) == pytest.approx(1)
    got = score_case(empty[None], **options)
    assert math.isnan(got["ncc"])
    assert "every rater is constant" in got["reasons"]["ncc"]
    weighted = score_case(np.stack([full, empty]), **options, rater_weights=[0.0, 1.0])
    assert math.isnan(weighted["ncc"])


def test_a_perfect_map_of_uncertainty(pair):
    a, b = pair
    mean = (a.astype(float) + b) / 2
    got = score_case(np.stack([a, b]), mean_prob=mean, metrics=["ncc.variance"])
    assert got["ncc.variance"] == pytest.approx(1)
    got = score_case(np.stack([a, b]), uncertainty=7 - 3 * mean * (1 - mean), metrics=["ncc.variance"])
    assert got["ncc.variance"] == pytest.approx(-1)


def test_impossible_labels_have_infinite_likelihood():
    raters = np.array([[[True, False]], [[False, False]]])
    probs = np.array([[[1.0, 0.0]], [[1.0, 0.5]]])
    assert score_case(raters[:1], probs=probs, metrics=["sample_nll"])["sample_nll"] == pytest.approx(-math.log(0.75))
    assert score_case(raters, probs=probs, metrics=["sample_nll"])["sample_nll"] == math.inf
    without = score_case(raters, probs=probs, rater_weights=[1, 0], metrics=["sample_nll"])
    assert without["sample_nll"] == pytest.approx(-math.log(0.75))
    many = score_case(np.ones((1, 60, 60), bool), probs=np.full((3, 60, 60), 0.01), metrics=["sample_nll"])
    assert many["sample_nll"] == pytest.approx(3600 * math.log(100))  # the product itself would be 0


def test_entropy_of_certain_and_uncertain_maps():
    raters = np.ones((1, 3, 3), bool)
    for mean, want in ((0.0, 0.0), (1.0, 0.0), (0.5, 1.0)):
        got = score_case(raters, mean_prob=np.full((3, 3), mean), metrics=["entropy_mean"])["entropy_mean"]
        assert got == pytest.approx(want, abs=1e-12)
    labels = np.zeros((1, 3, 3), int)
    even = score_case(labels, mean_prob=np.full((4, 3, 3), 0.25), classes=[1, 2, 3], metrics=["entropy_mean"])
    assert even["entropy_mean"] == pytest.approx(1)


def test_classes_that_are_not_evaluated_are_background():
    rng = np.random.default_rng(25)
    raters, probs = rng.integers(0, 4, (3, 5, 5)), rng.dirichlet(np.ones(4), (4, 5, 5)).transpose(0, 3, 1, 2)
    merged = np.stack([probs[:, 0] + probs[:, 2], probs[:, 1], probs[:, 3]], axis=1)
    relabelled = np.array([0, 1, 0, 2])[raters]
    got = score_case(raters, probs=probs, classes=[1, 3], metrics=NAMES)
    want = score_case(relabelled, probs=merged, classes=[1, 2], metrics=NAMES)
    assert got == pytest.approx(want)
    one = score_case(raters, probs=probs, classes=[2], metrics=NAMES)
    assert one == pytest.approx(score_case(raters == 2, probs=probs[:, 2], metrics=NAMES))


# -- properties ---------------------------------------------------------------------------------------


@st.composite
def cases(draw):
    count, raters = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    masks = np.zeros((raters, 5, 6), bool)
    for mask in masks:
        kind = draw(st.sampled_from(["empty", "pixel", "full", "parts"]))
        if kind == "pixel":
            mask.flat[draw(st.integers(0, 29))] = True
        elif kind == "full":
            mask[:] = True
        elif kind == "parts":
            mask[:2, :2] = mask[3:, 4:] = True
    probs = rng.random((count, 5, 6))
    return masks, draw(st.sampled_from([probs, (probs > 0.5).astype(float), np.full_like(probs, 0.25)]))


@quick
@given(cases(), st.integers(2, 3), st.randoms(use_true_random=False))
def test_repetition_and_order_change_nothing(case, times, random):
    raters, probs = case
    want = score_case(raters, probs=probs, metrics=NAMES)
    repeated = score_case(raters, probs=probs.repeat(times, axis=0), metrics=NAMES)
    i, j = list(range(len(raters))), list(range(len(probs)))
    random.shuffle(i)
    random.shuffle(j)
    shuffled = score_case(raters[i], probs=probs[j], metrics=NAMES)
    for name in NAMES:
        assert repeated[name] == pytest.approx(want[name], abs=1e-9, nan_ok=True), name
        assert shuffled[name] == pytest.approx(want[name], abs=1e-9, nan_ok=True), name
        low, high = info_of(name)["range"]
        assert math.isnan(want[name]) or low <= want[name] <= high


@quick
@given(cases(), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_weights_are_repetitions(case, times):
    raters, probs = case
    times = np.array(times[: len(probs)])
    times[0] += not times.any()
    weighted = score_case(raters, probs=probs, sample_weights=times / times.sum(), metrics=NAMES)
    repeated = score_case(raters, probs=probs.repeat(times, axis=0), metrics=NAMES)
    assert weighted == pytest.approx(repeated, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("variant", ["canonical", "phiseg", "values", "ssn"])
def test_batches_have_the_same_bits_and_inputs_are_left_alone(dtype, variant):
    rng = np.random.default_rng(26)
    arrays = {
        "raters": rng.random((4, 3, 7, 8)) < 0.4,
        "probs": rng.random((4, 5, 7, 8)).astype(dtype),
        "uncertainty": rng.random((4, 7, 8)).astype(dtype),
    }
    arrays["mean_prob"] = arrays["probs"].astype(np.float32).mean(1)
    arrays["mean_log"] = np.log(np.stack([1 - arrays["mean_prob"], arrays["mean_prob"]], axis=1) + EPSILON)
    before = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    for left_out in ((), ("mean_log",), ("uncertainty", "mean_log", "mean_prob")):
        given_ = {name: array for name, array in arrays.items() if name not in left_out}
        frame = score_cases(**given_, metrics=NAMES, variant=variant)
        for i, row in enumerate(frame.to_dict("records")):
            alone = score_case(**{name: array[i] for name, array in given_.items()}, metrics=NAMES, variant=variant)
            assert str(row) == str(alone)
    assert all((before[name] == arrays[name]).all() for name in arrays)


def test_large_images_are_done_in_blocks():
    rng = np.random.default_rng(27)
    raters, probs = rng.random((2, 300, 301)) < 0.3, rng.uniform(0.01, 0.99, (7, 300, 301))
    got = score_case(raters, probs=probs, metrics=NAMES)
    channels = np.stack([1 - probs, probs])
    logs = np.log(channels + EPSILON).mean(1)
    own = -(channels.mean(1) * logs).sum(0)
    want = np.mean([np.corrcoef(own.ravel(), -np.where(y, logs[1], logs[0]).ravel())[0, 1] for y in raters])
    assert got["ncc"] == pytest.approx(want, abs=1e-9)
    each = [np.logaddexp.reduce(np.log(np.where(y, probs, 1 - probs)).sum((1, 2))) - math.log(7) for y in raters]
    assert got["sample_nll"] == pytest.approx(-np.mean(each), rel=1e-12)


# -- variants -----------------------------------------------------------------------------------------


def released_ncc(raters, probs):
    """Released form: float64 maps of cross entropies rounded in the precision of the probabilities, plain division."""
    channels = np.stack([1 - probs, probs], axis=1)
    mean = channels.mean(0)
    own = np.stack([-(mean * np.log(c + channels.dtype.type(EPSILON))).sum(0) for c in channels]).astype(float).mean(0)
    values = []
    with np.errstate(all="ignore"):
        for y in raters:
            maps = np.stack([-np.log(np.where(y, c[1], c[0]) + channels.dtype.type(EPSILON)) for c in channels])
            other = maps.astype(float).mean(0)
            a = (own.ravel() - own.mean()) / (own.std() * own.size)
            values.append((a * ((other.ravel() - other.mean()) / other.std())).sum())
    return float(np.mean(values))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_phiseg_has_no_guards(dtype, reference):
    rng = np.random.default_rng(28)
    kinds = {"nan": 0, "noise": 0}
    for i in range(120):
        raters = reference.random_masks(rng, int(rng.integers(1, 4)), (6, 7))
        probs = rng.random((int(rng.integers(1, 5)), 6, 7)).astype(dtype)
        if i % 3 == 0:
            probs[:] = probs[:, :1, :1]
        got = score_case(raters, probs=probs, variant="phiseg", metrics=["ncc"], reasons=True)
        want = released_ncc(raters, probs)
        assert got["ncc"] == pytest.approx(want, abs=1e-9, nan_ok=True), i
        assert ("divides by 0" in got["reasons"].get("ncc", "")) == math.isnan(want)
        kinds["nan"] += math.isnan(want)
        kinds["noise"] += i % 3 == 0 and not math.isnan(want)
        assert score_case(raters, probs=probs, variant="unetzoo", metrics=["ncc"])["ncc"] == pytest.approx(
            want, abs=1e-9, nan_ok=True
        )
    assert kinds["nan"] > 0
    assert (kinds["noise"] > 0) == (dtype == np.float64)  # sums of single precision numbers are exact in double


def test_values_factor(reference):
    rng = np.random.default_rng(29)
    for _ in range(60):
        raters, samples = (reference.random_masks(rng, int(rng.integers(2, 5)), (5, 6)) for _ in range(2))
        got = score_case(raters, samples, variant="values", metrics=["ncc", "ncc.variance"])
        observed, predicted = raters.var(0), samples.var(0)
        if observed.std() < 1e-12 or predicted.std() < 1e-12:
            continue
        product = ((observed - observed.mean()) * (predicted - predicted.mean())).sum()
        want = product / (30 * observed.std(ddof=1) * predicted.std(ddof=1))
        assert got["ncc.variance"] == pytest.approx(want, abs=1e-9)
        assert got["ncc"] == got["ncc.variance"]  # the one NCC of that evaluation
        canonical = score_case(raters, samples, metrics=["ncc.variance"])["ncc.variance"]
        assert got["ncc.variance"] == pytest.approx(canonical * 29 / 30, abs=1e-12)
    labels = rng.integers(0, 4, (3, 5, 6))  # the variance of label numbers, as released
    predicted = rng.random((5, 6))
    got = score_case(labels, uncertainty=predicted, classes=[1, 2, 3], variant="values", metrics=["ncc.variance"])
    want = np.corrcoef(labels.var(0).ravel(), predicted.ravel())[0, 1] * 29 / 30
    assert got["ncc.variance"] == pytest.approx(want, abs=1e-9)
    same = score_case(labels[:1], labels[:1], classes=[1, 2, 3], variant="values", metrics=["ncc"], reasons=True)
    assert math.isnan(same["ncc"])
    assert "constant" in same["reasons"]["ncc"]


def test_ssn_adds_to_the_mean_map():
    mean = np.array([[0.0, 0.5]])
    got = score_case(np.ones((1, 1, 2), bool), mean_prob=mean, variant="ssn", metrics=["entropy_mean"])["entropy_mean"]
    channels = np.stack([1 - mean, mean]) + 1e-10
    assert got == pytest.approx(-(channels * np.log(channels)).sum(0).mean() / math.log(2), abs=1e-15)


# -- inputs -------------------------------------------------------------------------------------------

Y = np.zeros((2, 3, 4), bool)
LOG = np.full((2, 3, 4), -0.7)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mean_log": LOG}, "give mean_prob too"),
        ({"mean_log": LOG[0], "mean_prob": Y[0] * 0.5}, r"mean_log has shape \(3, 4\)"),
        ({"mean_log": -LOG, "mean_prob": Y[0] * 0.5}, "values above 0"),
        ({"mean_log": LOG * math.nan, "mean_prob": Y[0] * 0.5}, "mean_log holds nan"),
        ({"uncertainty": LOG}, r"give one map \(3, 4\)"),
        ({"uncertainty": LOG[0] * math.inf}, "uncertainty holds nan or inf"),
        ({"probs": LOG * 0, "metrics": ["ncc"], "variant": "nccc"}, "nccc"),
    ],
)
def test_mistakes_are_one_sentence(arrays, words):
    with pytest.raises(UserError, match=words):
        score_case(Y, **arrays)


def test_mean_log_of_skipped_classes_is_refused():
    raters = np.zeros((2, 3, 4), int)
    with pytest.raises(UserError, match="mean_log goes with classes 1 to 2 in order"):
        score_case(raters, mean_prob=np.full((4, 3, 4), 0.25), mean_log=np.zeros((3, 3, 4)), classes=[1, 3])
    with pytest.raises(UserError, match="needs samples or probs or mean_log"):
        score_case(Y, mean_prob=Y[0] * 0.5, metrics=["ncc"])


def test_metadata():
    assert {n for n in list_metrics() if info_of(n)["family"] == "uncertainty"} == set(NAMES)
    assert info_of("ncc")["worst"] == info_of("ncc.variance")["worst"] == -1
    assert info_of("sample_nll")["direction"] == "lower"
    assert info_of("entropy_mean")["direction"] == "none"
