"""A thousand random cases against the slow reference, and what holds of every registered metric, without a warning."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multirater.metrics import human_case, info_of, list_metrics, list_variants, score_case, score_cases
from multirater.metrics.inputs import read_case
from multirater.metrics.matching import balanced_match
from multirater.metrics.score import INPUTS, evaluate, missing_input
from multirater.metrics.variants import conventions_of
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

pytestmark = pytest.mark.filterwarnings("error")

SHAPES = [(3, 4), (4, 5), (5, 5), (2, 3, 3)]
CASES, AT_ONCE = 1000, 50
# Draws of the oracle name raters by index; STAPLE stops by a tolerance, which the order of a sum may cross.
LOOSE = {"human.oracle_dice_match": None, "human.oracle_hm_iou": None, "staple.dice": 1e-6}


def agree(got, want, where):
    for name, value in want.items():
        if value is not None:  # None: the reference could not try every assignment
            assert got[name] == pytest.approx(float(value), abs=1e-9, nan_ok=True), (where, name)


@pytest.mark.parametrize("seed", range(CASES // AT_ONCE))
def test_a_thousand_cases(reference, seed):
    """Sets, mean maps, personalised maps and human baselines of one case each time."""
    rng = np.random.default_rng([20240229, seed])
    for trial in range(AT_ONCE):
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        everywhere = range(math.prod(shape))
        raters = reference.random_masks(rng, int(rng.integers(1, 5)), shape)
        samples = reference.random_masks(rng, int(rng.integers(1, 5)), shape)
        maps = reference.random_masks(rng, len(raters), shape)
        y, s, m = [list(map(reference.pixels, masks)) for masks in (raters, samples, maps)]
        where = (seed, trial)
        want = reference.set_metrics(s, y, everywhere)
        agree(score_case(raters, samples, metrics=want), want, where)
        want = reference.rater_metrics(m, y)
        agree(score_case(raters, rater_probs=maps * 0.9, metrics=want), want, where)
        if len(raters) > 1:
            agree(human_case(raters, 3), reference.human_metrics(y, everywhere), where)


def test_the_reference_is_used_whole(reference):
    """Each table of the reference stands above; a new one fails here until it is compared."""
    tables = {name for name in vars(reference) if name.endswith("_metrics")}
    assert tables == {"set_metrics", "rater_metrics", "human_metrics"}


# -- what the cases are made of ------------------------------------------------------------------------


def kinds(mask):
    """empty, full, pixel, whole (one piece), pieces."""
    if not mask.any():
        return "empty"
    if mask.all():
        return "full"
    if mask.sum() == 1:
        return "pixel"
    return "pieces" if ndimage.label(mask)[1] > 1 else "whole"


def test_random_masks_are_of_every_kind(reference):
    rng = np.random.default_rng(0)
    found = [kinds(reference.random_mask(rng, (6, 7))) for _ in range(400)]
    assert all(found.count(kind) >= 20 for kind in ("empty", "full", "pixel", "whole", "pieces")), found


def test_strategies_make_every_kind():
    path = Path(__file__).with_name("test_metric_properties.py")
    spec = importlib.util.spec_from_file_location("metric_properties", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = []

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(module.masks(1, 4))  # sets, of which no two are equal, though their masks may be
    def collect(masks):
        found.extend(map(kinds, masks))

    collect()
    assert all(found.count(kind) >= 10 for kind in ("empty", "full", "pixel", "whole", "pieces")), found


# -- every registered metric ---------------------------------------------------------------------------


def everything(seed, cases=1, several=False):
    """All inputs there are, for `cases` cases: probabilities, personal maps, a mean map, its logs, uncertainty."""
    rng = np.random.default_rng(seed)
    shape = (9, 8)
    raters = rng.random((cases, 4, *shape)) < 0.4
    raters[:, 1] &= rng.random((cases, *shape)) < 0.5
    raters[0, 2] = False
    if several:
        raters = rng.integers(0, 4, (cases, 4, *shape))
        probs = np.moveaxis(rng.dirichlet([1] * 4, (cases, 5, *shape)), -1, 2)
        personal = np.moveaxis(rng.dirichlet([1] * 4, (cases, 4, *shape)), -1, 2)
        logs = np.log(probs + 1e-8).mean(1)
    else:
        probs = rng.random((cases, 5, *shape))
        probs[rng.random(probs.shape) < 0.2] = 0
        probs[0, 3] = 0
        personal = rng.random((cases, 4, *shape))
        logs = np.log(np.stack([1 - probs, probs], 2) + 1e-8).mean(1)
    out = {
        "raters": raters,
        "probs": probs,
        "samples": probs.argmax(2) if several else probs > 0.5,
        "rater_probs": personal,
        "mean_prob": probs.mean(1),
        "mean_log": logs,
        "uncertainty": rng.random((cases, *shape)),
        "rater_valid": rng.random((cases, 4)) < 0.8,
        "valid": rng.random((cases, *shape)) < 0.9,
        "spacing": np.tile([1.0, 0.5], (cases, 1)),
    }
    out["rater_valid"][:, :2] = True
    return out


def options(several):
    return {"classes": [1, 2, 3]} if several else {}


def test_all_inputs_are_tried():
    assert set(INPUTS) <= set(everything(0))
    asked = {name for metric in list_metrics() for group in info_of(metric)["needs"] for name in group.split("|")}
    assert asked <= set(everything(0))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("metric", list_metrics())
def test_no_metric_modifies_its_inputs(metric, several):
    """Writable inputs keep every byte, read-only ones are taken, and a second call gives the same."""
    given_ = {name: value[0] for name, value in everything(3, several=several).items()}
    before = {name: value.tobytes() for name, value in given_.items()}
    asked = {**options(several), "metrics": [metric], "variant": "dpersona" if metric == "dice_each" else None}
    values = [score_case(**given_, **asked) for _ in range(2)]
    assert {name: value.tobytes() for name, value in given_.items()} == before
    for array in given_.values():
        array.flags.writeable = False
    values.append(score_case(**given_, **asked))
    assert len({repr(value) for value in values}) == 1


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("variant", list_variants())
def test_a_batch_changes_no_value(variant, several):
    """Every metric of two cases together, of each alone, and asked for by itself: the same bits."""
    given_ = everything(4, cases=2, several=several)
    frame = score_cases(**given_, **options(several), variant=variant, reasons=True)
    assert set(frame) - {"reasons"} >= {
        n for n in list_metrics() if n != "dice_each" and info_of(n)["values"] != "class"
    }
    for i, row in enumerate(frame.to_dict("records")):
        alone = score_case(**{k: v[i] for k, v in given_.items()}, **options(several), variant=variant, reasons=True)
        assert repr(row) == repr(alone)
    if variant in ("canonical", "dpersona"):
        one = {k: v[0] for k, v in given_.items()}
        whole = score_case(**one, **options(several), variant=variant)
        for name, value in whole.items():
            by_itself = score_case(**one, **options(several), variant=variant, metrics=[name])[name]
            assert repr(by_itself) == repr(value), name  # what other metrics computed before does not matter


@pytest.mark.parametrize("several", [False, True])
def test_order_of_samples_and_raters(several):
    """Section 15: any order gives the same value, lists per rater follow their raters; not where maps have owners."""
    rng = np.random.default_rng(5)
    for seed in range(4):
        given_ = {k: v[0] for k, v in everything(seed, several=several).items()}
        i, j = rng.permutation(4), rng.permutation(5)
        moved = dict(given_)
        for name, order in (("raters", i), ("rater_probs", i), ("rater_valid", i), ("probs", j), ("samples", j)):
            moved[name] = given_[name][order]
        first, second = (score_case(**g, **options(several)) for g in (given_, moved))
        for name, value in first.items():
            tolerance = LOOSE.get(name.removesuffix(".each"), 1e-6 if name.startswith("staple") else 1e-9)
            if tolerance is None:
                continue
            want = np.array(value)[i] if info_of(name)["values"] == "rater" else np.array(value)
            np.testing.assert_allclose(second[name], want, rtol=0, atol=tolerance, equal_nan=True, err_msg=name)


@pytest.mark.parametrize("several", [False, True])
def test_order_of_pixels(several):
    """No metric of counts looks at neighbours: pixels may be shuffled where no box or line is cut out."""
    rng = np.random.default_rng(6)
    given_ = {k: v[0] for k, v in everything(7, several=several).items()}
    given_["raters"][..., 0, 0] = given_["raters"][..., -1, -1] = 1  # the box is the whole image
    given_["valid"][:] = True
    order = rng.permutation(72)

    def shuffled(name, value):
        if name in ("rater_valid", "spacing"):
            return value
        return value.reshape(*value.shape[:-2], 72)[..., order].reshape(value.shape)

    moved = {name: shuffled(name, value) for name, value in given_.items()}
    first, second = (score_case(**g, **options(several)) for g in (given_, moved))
    for name, value in first.items():
        if info_of(name)["family"] in ("surface",):
            continue
        tolerance = 1e-6 if name.startswith("staple") else 1e-9
        np.testing.assert_allclose(second[name], value, rtol=1e-9, atol=tolerance, equal_nan=True, err_msg=name)


def test_memory_layout_does_not_matter():
    given_ = {k: v[0] for k, v in everything(8).items()}
    turned = {k: np.asfortranarray(v) for k, v in given_.items()}
    sliced = {k: np.repeat(v, 2, axis=-1)[..., ::2] for k, v in given_.items()}
    first = score_case(**given_)
    for other in (turned, sliced):
        got = score_case(**other)
        for name, value in first.items():
            np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-9, equal_nan=True, err_msg=name)


@pytest.mark.parametrize("shape", ["empty", "full", "pixel", "one rater", "one sample", "one pixel"])
def test_extreme_cases_warn_nowhere(shape):
    """Every metric under every variant, of masks at the edge: a value or nan with a reason, never a warning."""
    size = (1, 1) if shape == "one pixel" else (5, 6)
    masks = {"empty": np.zeros, "full": np.ones}.get(shape, np.zeros)((3, *size), bool)
    if shape == "pixel":
        masks[:, 2, 3] = True
    count = 1 if shape == "one rater" else 3
    raters, samples = masks[:count], masks[: 1 if shape == "one sample" else 3]
    probs = samples * 0.75
    for variant in list_variants():
        got = score_case(
            raters,
            probs=probs,
            rater_probs=np.zeros(raters.shape),
            mean_prob=probs.mean(0),
            uncertainty=np.zeros(size),
            variant=variant,
            reasons=True,
        )
        reasons = got.pop("reasons")
        for name, value in got.items():
            low, high = info_of(name)["range"]
            assert not np.isnan(value).all() or name in reasons, (variant, name)
            if variant == "canonical" and not np.isnan(value).all():
                assert low - 1e-9 <= np.nanmin(value) <= np.nanmax(value) <= high + 1e-9, name


# -- properties of section 15 that stand nowhere else -----------------------------------------------------


def test_repeated_samples_leave_ncc_as_it_is():
    for seed in range(5):
        given_ = {k: v[0] for k, v in everything(seed).items()}
        y, p = given_["raters"], given_["probs"]
        names = ["ncc", "ncc.variance", "ece", "brier", "nll", "combined_sensitivity", "mode_tv", "entropy_mean"]
        once, often = (score_case(y, probs=x, metrics=names) for x in (p, p.repeat(3, axis=0)))
        assert once == pytest.approx(often, abs=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 7), st.randoms(use_true_random=False))
def test_matching_of_equally_many_is_the_plain_assignment(size, random):
    similarity = np.array([[random.random() for _ in range(size)] for _ in range(size)])
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    assert balanced_match(similarity) == pytest.approx(similarity[rows, columns].mean(), abs=1e-12)


def test_brier_against_raters_is_brier_and_their_variance():
    for seed in range(5):
        case = {k: v[0] for k, v in everything(seed).items() if k in ("raters", "probs")}
        got = score_case(**case, metrics=["brier.full", "brier.raters.full"])
        q = case["raters"].mean(0)
        assert got["brier.raters.full"] == pytest.approx(got["brier.full"] + (q * (1 - q)).mean(), abs=1e-12)


def test_oracle_sampler_over_many_draws():
    """Mean of `ged` over 20 000 draws is v_R / S within 2 %, of `ged.debiased` 0 within 0.005; one is an empty mask."""
    rng = np.random.default_rng(11)
    raters = rng.random((4, 5, 5)) < [[[0.2]], [[0.4]], [[0.6]], [[0.0]]]
    for count in (2, 5):
        drawn = rng.integers(0, 4, (20_000, count))
        ordered, where = np.unique(np.sort(drawn, axis=1), axis=0, return_inverse=True)
        times = np.bincount(where.ravel())
        names = ["ged", "ged.debiased", "diversity_raters"]
        found = np.array([list(score_case(raters, raters[row], metrics=names).values()) for row in ordered])
        ged, debiased = times @ found[:, :2] / times.sum()
        assert ged == pytest.approx(found[0, 2] / count, rel=0.02)
        assert debiased == pytest.approx(0, abs=0.005)


def test_family_tells_which_convention_applies():
    """A metric changes with the convention of its own family alone, which tables of variants rely on."""
    # The common mask of metrics per rater is cut out of the mean map; dice_each by identity takes personal maps.
    also = {"rater": {"map"}}
    given_ = {k: v[0] for k, v in everything(9).items()}
    del given_["mean_prob"], given_["mean_log"], given_["rater_probs"]
    view = read_case(**given_)
    names = [name for name in list_metrics() if missing_input(name, view.given) is None and name != "dice_each"]
    plain = evaluate(view, names)
    canonical = conventions_of(None)
    given_by = {pair: variant for variant in list_variants()[1:] for pair in conventions_of(variant).items()}
    for (family, convention), variant in given_by.items():
        if convention == canonical[family]:
            continue
        one = view.again()
        one.conventions = {**canonical, family: convention}
        others = [n for n in names if family not in {info_of(n)["family"], *also.get(info_of(n)["family"], ())}]
        for name, value in evaluate(one, others).items():
            assert repr(value) == repr(plain[name]), (variant, family, name)
