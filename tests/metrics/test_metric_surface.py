"""Surface metrics against distances of all border pixels, MONAI's functions, and values of surface-distance."""

from __future__ import annotations

import math
import warnings
from itertools import permutations

import metric_reference_surface
import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.metrics import Convention, info_of, list_metrics, score_case, score_cases
from multirater.metrics.inputs import read_case
from multirater.metrics.surface import image_diagonal, tolerance_of
from multirater.metrics.surface_elements import border_pixels, element_sizes, neighbourhood_codes

SETS = ("mean", "best", "match")
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def slow():
    return metric_reference_surface


def random_mask(rng, shape):
    """Empty, a pixel, noise, full, or a block with specks: holes, islands, masks at the edge of the image."""
    kind = rng.integers(0, 6)
    out = np.zeros(shape, bool)
    if kind == 1:
        out.flat[rng.integers(out.size)] = True
    elif kind == 2:
        out = rng.random(shape) < rng.uniform(0.02, 0.98)
    elif kind == 3:
        out[:] = True
    elif kind > 3:
        corner = [int(rng.integers(n)) for n in shape]
        out[tuple(slice(i, i + int(rng.integers(1, 8))) for i in corner)] = True
        out |= rng.random(shape) < (0.05 if kind == 5 else 0)
    return out


def random_spacing(rng, dims):
    choice = rng.integers(3)
    if choice == 0:
        return (1.0,) * dims
    values = rng.uniform(0.3, 3, dims) if choice == 1 else rng.choice([0.1, 0.5, 0.7, 1, 1.25], dims)
    return tuple(float(v) for v in values)


def random_shape(rng, dims):
    return tuple(int(n) for n in rng.integers(1, 11 if dims == 2 else 6, dims))


def same(got, want, tolerance=1e-9, **context):
    assert got == pytest.approx(want, abs=tolerance, rel=tolerance, nan_ok=True), context


def sphere(slow, shape, centre, radii):
    out = np.zeros(shape, bool)
    out[tuple(zip(*slow.ball(shape, centre, radii), strict=True))] = True
    return out


# -- definition ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_against_all_distances(slow, seed):
    """Five hundred random cases with several raters and samples, two and three dimensions, uneven pixels."""
    rng = np.random.default_rng(seed)
    for _ in range(50):
        dims = int(rng.integers(2, 4))
        shape, spacing = random_shape(rng, dims), random_spacing(rng, dims)
        raters, samples = (np.stack([random_mask(rng, shape) for _ in range(rng.integers(1, 4))]) for _ in range(2))
        tolerance = float(rng.choice([0, 0.3, 0.5, 1, 2.1]))
        pairs = [
            [slow.Pair(slow.pixels_of(y), slow.pixels_of(s), shape, spacing) for s in samples] for y in raters
        ]  # fmt: skip
        measures = {
            "hd": lambda pair: pair.hd(),
            "hd95": lambda pair: pair.hd(95),
            "hd@50": lambda pair: pair.hd(50),
            "assd": lambda pair: pair.assd(),
            f"nsd@{tolerance:g}": lambda pair, t=tolerance: pair.nsd(t),
            "nsd": lambda pair, t=spacing: pair.nsd(max(t)),
        }
        names = [f"{name}.{form}" for name in measures for form in SETS]
        got = score_case(raters, samples, spacing=spacing, metrics=names)
        for name, value in measures.items():
            matrix = np.array([[value(pair) for pair in row] for row in pairs])
            sign = 1 if name.startswith("nsd") else -1
            same(got[f"{name}.mean"], matrix.mean(), name=name, shape=shape, spacing=spacing)
            same(got[f"{name}.best"], (sign * matrix).max(1).mean() * sign, name=name, shape=shape, spacing=spacing)
            copies = matrix.repeat(-(-len(raters) // len(samples)), axis=1) if len(samples) < len(raters) else matrix
            rows = np.arange(len(raters))
            choices = permutations(range(copies.shape[1]), len(raters))
            best = max((sign * copies[rows, list(columns)]).mean() for columns in choices)
            same(got[f"{name}.match"], best * sign, name=name, shape=shape, spacing=spacing)


def test_maps_meant_for_raters(slow):
    """By identity for a personalised output, else the common mask; missing raters are nan and leave the mean."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        shape, spacing = random_shape(rng, 2), random_spacing(rng, 2)
        raters, own = (np.stack([random_mask(rng, shape) for _ in range(4)]) for _ in range(2))
        present = np.array([True, True, False, True])
        names = ["hd95", "hd95.each", "assd", "assd.each", "hd@30.each", "nsd@0.7", "nsd@0.7.each"]
        options = {"spacing": spacing, "metrics": names, "rater_valid": present, "reasons": True}
        personal = score_case(raters, rater_probs=own, **options)
        common = score_case(raters, own, **options)
        mask = own.sum(0) > 2
        for got, maps in ((personal, own), (common, [mask] * 4)):
            pairs = [
                slow.Pair(slow.pixels_of(y), slow.pixels_of(m), shape, spacing)
                for y, m in zip(raters, maps, strict=True)
            ]
            for name, values in {
                "hd95": [p.hd(95) for p in pairs],
                "assd": [p.assd() for p in pairs],
                "hd@30": [p.hd(30) for p in pairs],
                "nsd@0.7": [p.nsd(0.7) for p in pairs],
            }.items():
                want = np.where(present, values, np.nan)
                np.testing.assert_allclose(got[f"{name}.each"], want, rtol=1e-9, atol=1e-9)
                if name in got:
                    same(got[name], np.nanmean(want))
        assert common["reasons"]["hd95"].startswith("common mask")
        assert "common" not in personal["reasons"].get("hd95", "")


def test_a_distance_of_exactly_the_tolerance_counts():
    """3 · 0.1 mm is 0.30000000000000004 in float64."""
    masks = np.zeros((2, 1, 8), bool)
    masks[0, 0, 1] = masks[1, 0, 4] = True
    got = score_case(masks[:1], masks[1:], spacing=(0.1, 0.1), metrics=["nsd@0.3", "nsd@0.29", "nsd"])
    assert got == {"nsd@0.3": 1.0, "nsd@0.29": 0.0, "nsd": 0.0}


def test_border():
    mask = np.ones((1, 4, 5), bool)
    assert border_pixels(mask)[0].sum() == 14  # outside of the image is background
    mask[0, 1, 2] = False
    assert not border_pixels(mask)[0, 1, 2]
    assert border_pixels(np.ones((1, 3, 3, 3), bool)).sum() == 26
    given = np.random.default_rng(0).random((2, 4, 5)) < 0.5
    before = given.copy()
    border_pixels(given)
    neighbourhood_codes(given)
    np.testing.assert_array_equal(given, before)


# -- empty masks, classes, valid pixels --------------------------------------------------------------


def test_empty_masks_and_their_count():
    full = np.zeros((6, 8), bool)
    full[2:4, 2:5] = True
    nothing = np.zeros_like(full)
    raters, own = np.stack([full, nothing, nothing, full]), np.stack([full, nothing, full, nothing])
    names = ["hd", "hd95", "assd", "nsd@1"]
    got = score_case(
        raters, rater_probs=own, spacing=(0.5, 2), metrics=[f"{n}.each" for n in names] + names, reasons=True
    )
    diagonal = math.hypot(3, 16)
    for name in names[:3]:
        assert got[f"{name}.each"] == [0, 0, diagonal, diagonal]
        assert got[name] == diagonal / 2
    assert got["nsd@1.each"] == [1, 1, 0, 0]
    note = "both empty: 1 of 4 pairs; one empty: 2 of 4 pairs"
    assert got["reasons"] == {name: note for name in got if name != "reasons"}
    nowhere = score_case(raters[1:2], raters[1:3], metrics=["hd95.mean", "assd.match", "nsd.best"], reasons=True)
    assert [nowhere[n] for n in ("hd95.mean", "assd.match", "nsd.best")] == [0, 0, 1]
    assert nowhere["reasons"]["hd95.mean"] == "both empty: 2 of 2 pairs"
    assert "hd95" not in score_case(full[None], full[None], metrics=["hd95.mean"], reasons=True)["reasons"]


def test_several_classes_are_a_mean_over_the_fixed_list():
    rng = np.random.default_rng(3)
    names = [f"{n}.{form}" for n in ("hd95", "assd", "nsd@1") for form in ("mean", "each")]
    for _ in range(20):
        raters, samples = rng.integers(0, 3, (3, 6, 7)), rng.integers(0, 3, (2, 6, 7))
        own = rng.integers(0, 3, (3, 6, 7))
        several = score_case(raters, samples, rater_probs=own, classes=[1, 2, 3], metrics=names)
        single = [
            score_case(raters == c, samples == c, rater_probs=own == c, metrics=names) for c in (1, 2, 3)
        ]  # fmt: skip
        for name in names:  # class 3 is absent everywhere: an agreement
            np.testing.assert_allclose(several[name], np.mean([one[name] for one in single], axis=0), atol=1e-12)
    note = score_case(raters, samples, classes=[1, 3], metrics=["hd95.mean"], reasons=True)["reasons"]["hd95.mean"]
    assert note == "both empty: 6 of 12 pairs"


def test_pixels_that_do_not_count_are_background():
    rng = np.random.default_rng(9)
    names = [n for n in list_metrics() if info_of(n)["family"] == "surface"]
    for shape in ((7, 8), (4, 5, 6)):
        for _ in range(10):
            raters, samples = (np.stack([random_mask(rng, shape) for _ in range(3)]) for _ in range(2))
            valid = rng.random(shape) < 0.7
            spacing = random_spacing(rng, len(shape))
            got = score_case(raters, samples, valid=valid, spacing=spacing, metrics=names)
            assert got == score_case(raters & valid, samples & valid, spacing=spacing, metrics=names)


def test_diagonal_of_the_image():
    raters = np.zeros((1, 3, 4), bool)
    assert image_diagonal(read_case(raters)) == 5
    assert image_diagonal(read_case(raters, valid=np.eye(3, 4, dtype=bool), spacing=(2, 2))) == 10


def test_no_rater_and_no_pixel():
    masks = np.ones((2, 3, 3), bool)
    names = ["hd95", "hd95.each", "nsd@2.match"]
    for options in ({"rater_valid": [False, False]}, {"valid": np.zeros((3, 3), bool)}):
        got = score_case(masks, masks, metrics=names, reasons=True, **options)
        assert np.isnan(got["hd95"])
        assert np.isnan(got["hd95.each"]).all()
        assert set(got["reasons"]) == set(names)


# -- properties ----------------------------------------------------------------------------------------


def test_properties():
    rng = np.random.default_rng(11)
    names = [n for n in list_metrics() if info_of(n)["family"] == "surface" and "each" not in n] + ["nsd@1.2.mean"]
    lengths = [n for n in names if not n.startswith("nsd")]
    for i in range(60):
        dims = 2 + i % 2
        shape, spacing = random_shape(rng, dims), random_spacing(rng, dims)
        raters, samples = (np.stack([random_mask(rng, shape) for _ in range(3)]) for _ in range(2))
        before = raters.copy(), samples.copy()
        got = score_case(raters, samples, spacing=spacing, metrics=names)
        np.testing.assert_array_equal(raters, before[0])
        np.testing.assert_array_equal(samples, before[1])
        double = score_case(raters, samples, spacing=tuple(2 * s for s in spacing), metrics=lengths)
        for name in lengths:
            assert double[name] == 2 * got[name], name
        mixed = score_case(raters[[2, 0, 1]], samples[[1, 2, 0]], spacing=spacing, metrics=names)
        swapped = score_case(samples, raters, spacing=spacing, metrics=["hd95.mean", "assd.match", "nsd@1.2.mean"])
        for name in names:
            same(mixed[name], got[name], 1e-12, name=name)
        for name in swapped:
            same(swapped[name], got[name], 1e-12, name=name)
        assert got["hd95.best"] <= got["hd95.match"] + 1e-12
        assert got["assd.mean"] <= got["hd.mean"] + 1e-12
        assert got["nsd.match"] <= got["nsd.best"] + 1e-12
        itself = score_case(
            raters, raters[[1, 2, 0]], spacing=spacing, metrics=["hd.match", "assd.best", "nsd@0.match"]
        )
        assert list(itself.values()) == [0, 0, 1]


def test_weights():
    rng = np.random.default_rng(1)
    raters, samples = rng.random((2, 5, 5)) < 0.5, rng.random((3, 5, 5)) < 0.5
    u, w = [0.25, 0.75], [0.5, 0.25, 0.25]
    got = score_case(
        raters, samples, rater_weights=u, sample_weights=w, metrics=["assd.mean", "assd.best", "assd.match"]
    )
    pairs = [[score_case(y[None], s[None], metrics=["assd.mean"])["assd.mean"] for s in samples] for y in raters]
    matrix = np.array(pairs)
    same(got["assd.mean"], np.array(u) @ matrix @ np.array(w))
    same(got["assd.best"], np.array(u) @ matrix.min(1))
    same(got["assd.match"], min(u[0] * matrix[0, i] + u[1] * matrix[1, j] for i, j in permutations(range(3), 2)))


def test_many_cases_have_the_bits_of_one():
    rng = np.random.default_rng(2)
    raters, samples = rng.random((4, 3, 9, 10)) < 0.4, rng.random((4, 5, 9, 10)) < 0.4
    samples[1, 2] = raters[2, 0] = False
    names = [n for n in list_metrics() if info_of(n)["family"] == "surface"] + ["hd@50.each", "nsd@2"]
    for variant in ("canonical", "monai", "medpy", "deepmind"):
        asked = [
            name for name in names if variant != "medpy" or not name.startswith("nsd")
        ]  # MedPy has no surface Dice
        frame = score_cases(raters, samples, spacing=(0.7, 1.1), metrics=asked, variant=variant)
        for i in range(4):
            one = score_case(raters[i], samples[i], spacing=(0.7, 1.1), metrics=asked, variant=variant)
            for name in asked:
                np.testing.assert_array_equal(frame[name][i], one[name])


# -- released implementations -----------------------------------------------------------------------------


def test_monai():
    """MONAI's own functions, its results for empty masks included."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.metrics import (
            compute_average_surface_distance,
            compute_hausdorff_distance,
            compute_surface_dice,
        )

    rng = np.random.default_rng(4)
    for i in range(120):
        dims = 2 + i % 2
        shape, spacing = tuple(n + 1 for n in random_shape(rng, dims)), random_spacing(rng, dims)
        y, s = random_mask(rng, shape), random_mask(rng, shape)
        tolerance = float(rng.choice([0.1, 0.5, 1, 2.1]))
        a, b = (torch.tensor(m)[None, None].float() for m in (s, y))
        options = {"include_background": True, "spacing": spacing}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty masks
            want = {
                "hd": compute_hausdorff_distance(a, b, **options),
                "hd95": compute_hausdorff_distance(a, b, percentile=95, **options),
                "hd@50": compute_hausdorff_distance(a, b, percentile=50, **options),
                "hd@0": compute_hausdorff_distance(a, b, percentile=0, **options),
                "assd": compute_average_surface_distance(a, b, symmetric=True, **options),
                f"nsd@{tolerance:g}": compute_surface_dice(a, b, [tolerance], **options),
            }
        got = score_case(y[None], s[None], spacing=spacing, metrics=list(want), variant="monai")
        for name, value in want.items():
            same(got[name], float(value), 2e-6, name=name, shape=shape, spacing=spacing)


def test_monai_means_leave_out_what_is_undefined():
    y = np.zeros((3, 5, 5), bool)
    y[0, 1:3, 1:3] = y[1, 2:4, 2:5] = True
    s = np.stack([y[1], y[2]])
    names = ["hd95.mean", "hd95.best", "hd95.match", "hd.best", "hd.mean", "assd.mean", "nsd@1.mean"]
    got = score_case(y, s, metrics=names, variant="monai", reasons=True)
    one = score_case(y[:1], s[:1], metrics=["hd95"])["hd95"]
    assert got["hd95.mean"] == pytest.approx(one / 2)
    assert got["hd95.best"] == pytest.approx(one / 2)  # the third rater has no defined pair
    assert np.isnan(got["hd95.match"])
    assert got["hd.mean"] == got["assd.mean"] == math.inf
    assert got["hd.best"] == math.inf  # of the empty rater and a mask
    assert got["reasons"]["hd95.match"].startswith("method: MONAI")
    nothing = score_case(y[2:], s, metrics=["hd95.mean", "nsd@1.best"], variant="monai", reasons=True)
    assert np.isnan(nothing["hd95.mean"])
    assert nothing["reasons"]["hd95.mean"].startswith("data: ")
    assert nothing["nsd@1.best"] == 0


def test_medpy(slow):
    rng = np.random.default_rng(6)
    for i in range(100):
        dims = 2 + i % 2
        shape, spacing = random_shape(rng, dims), random_spacing(rng, dims)
        y, s = (np.stack([random_mask(rng, shape) for _ in range(2)]) for _ in range(2))
        names = ["hd", "hd95", "hd@30", "assd"]
        got = score_case(
            y, rater_probs=s, spacing=spacing, variant="medpy", metrics=[f"{n}.each" for n in names], reasons=True
        )
        pairs = [
            slow.Pair(slow.pixels_of(a), slow.pixels_of(b), shape, spacing) for a, b in zip(y, s, strict=True)
        ]  # fmt: skip
        for name, p in zip(names, (100, 95, 30, None), strict=True):
            want = [pair.medpy(p) for pair in pairs]
            np.testing.assert_allclose(got[f"{name}.each"], want, atol=1e-9)
            assert ("MedPy raises" in got["reasons"].get(f"{name}.each", "")) == np.isnan(want).any()


def test_who_left_a_distance_undefined():
    y = np.zeros((2, 5, 5), bool)
    y[0, 1:3, 1:3] = True
    names = ["hd95", "assd"]
    by_rater = score_case(y, y[:1], metrics=names, variant="medpy", reasons=True)["reasons"]
    by_sample = score_case(y[:1], y[1:], metrics=names, variant="medpy", reasons=True)["reasons"]
    assert by_rater["hd95"] == "data: MedPy raises where a mask is empty"
    assert by_sample["assd"] == "method: MedPy raises where a mask is empty"


@pytest.mark.parametrize(
    ("shape", "first", "second", "spacing", "want", "medpy"),
    [
        (
            (20, 24),
            ((9, 10), (6, 5)),
            ((11, 12), (5, 8)),
            (1.0, 1.0),
            [5.0990195135927845, 5.0, 2.23606797749979, 1.9179387653339792, 0.5338967180959068],
            [5.0990195135927845, 5.0],
        ),
        (
            (20, 24),
            ((9, 10), (6, 5)),
            ((11, 12), (5, 8)),
            (0.7, 1.5),
            [7.532595834106593, 7.5, 2.0518284528683193, 1.850871777706753, 0.5851003423318409],
            [7.532595834106593, 7.5],
        ),
        (
            (10, 12, 14),
            ((4, 5, 6), (3, 4, 5)),
            ((5, 6, 6), (4, 3, 4)),
            (2.5, 0.8, 1.1),
            [5.0, 5.0, 0.8, 0.8509808360811495, 0.7897252997423889],
            [5.0, 5.0],
        ),
    ],
)
def test_values_of_the_released_packages(slow, shape, first, second, spacing, want, medpy):
    """surface-distance 0.1 (ASSD: mean of its two averages) and MedPy 0.5.2 on two ellipses, two ellipsoids."""
    y, s = sphere(slow, shape, *first), sphere(slow, shape, *second)
    names = ["hd", "hd95", "hd@60", "assd", "nsd@1.5"]
    got = score_case(y[None], s[None], spacing=spacing, metrics=names, variant="deepmind")
    assert list(got.values()) == pytest.approx(want, abs=1e-12)
    got = score_case(y[None], s[None], spacing=spacing, metrics=["hd", "hd95"], variant="medpy")
    assert list(got.values()) == pytest.approx(medpy, abs=1e-12)


def test_surface_elements_in_the_plane(slow):
    rng = np.random.default_rng(8)
    for _ in range(150):
        shape, spacing = random_shape(rng, 2), random_spacing(rng, 2)
        y, s = random_mask(rng, shape), random_mask(rng, shape)
        pair = slow.Surfaces(slow.pixels_of(y), slow.pixels_of(s), spacing)
        want = {
            "hd": pair.hd(100),
            "hd95": pair.hd(95),
            "hd@47.3": pair.hd(47.3),  # a share that equal elements do not meet exactly
            "assd": pair.assd(),
            "nsd@1": pair.nsd(1),
        }
        got = score_case(y[None], s[None], spacing=spacing, metrics=list(want), variant="deepmind")
        for name, value in want.items():
            same(got[name], value, 1e-9, name=name, shape=shape, spacing=spacing)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 1.3, 2.5), (3, 0.5, 1), (1, 0.4), (2, 2)])
def test_sizes_of_elements(spacing):
    """All blocks of pixels, against the table that MONAI ships (float32)."""
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.metrics.utils import get_code_to_measure_table
    table, kernel = get_code_to_measure_table(tuple(map(float, spacing)))
    np.testing.assert_allclose(element_sizes(spacing), table.numpy(), rtol=1e-6, atol=1e-7)
    dims = len(spacing)
    block = np.random.default_rng(0).random((5, *(2,) * dims)) < 0.5
    codes = neighbourhood_codes(block)[(slice(None), *(1,) * dims)]
    want = (block * kernel.numpy().reshape((2,) * dims)).reshape(5, -1).sum(1)
    np.testing.assert_array_equal(codes, want)


def test_elements_of_a_box():
    """A box of 2 × 3 × 4 pixels: flat sides between rounded edges and corners."""
    mask = np.zeros((1, 4, 5, 6), bool)
    mask[0, 1:3, 1:4, 1:5] = True
    area = element_sizes((1, 1, 1))[neighbourhood_codes(mask)].sum()
    sides, edges, corners = 2 * (1 * 2 + 1 * 3 + 2 * 3), 4 * (1 + 2 + 3), 8
    assert area == pytest.approx(sides + edges * math.sqrt(0.5) + corners * math.sqrt(3) / 8)


def test_bad_convention():
    with pytest.raises(UserError, match=r"Convention\.surface"):
        Convention(surface="itk")


# -- tolerance of a data set ------------------------------------------------------------------------------------


def test_tolerance_of_a_data_set():
    """Bars of one row whose borders lie 0, 2, 3 pixels apart: mean of pairs 10/3, 2 (one missing), and none."""
    cases = np.zeros((3, 3, 1, 20), bool)
    for case, starts in enumerate(((0, 2, 5), (0, 2, None), (4, None, None))):
        for rater, start in enumerate(starts):
            if start is not None:
                cases[case, rater, 0, start] = True
    assert tolerance_of(cases) == 2.5  # median of 10/3 and 2 is 8/3; a pair with an empty mask says nothing
    assert tolerance_of(cases, spacing=(0.1, 0.1)) == 0.5  # 0.27
    assert tolerance_of(cases[:2], spacing=(0.075, 0.075)) == 0.075  # 0.2 rounds to 0: one pixel
    assert tolerance_of(cases[:2], spacing=[(1, 0.5), (1, 0.5)]) == 1.5  # 1.33
    assert tolerance_of(cases[:2], spacing=(3, 0.5)) == 3  # never below a pixel's largest side
    assert tolerance_of(cases[2:], spacing=(0.8, 0.4)) == 0.8  # nothing to learn from
    valid = [[True, True, False]] * 2
    assert tolerance_of(cases[:2], rater_valid=valid) == 2
    assert tolerance_of(cases[:1, :2] * 2, spacing=(0.625, 0.625)) == 1.5  # 1.25: halves go up
    with pytest.raises(UserError, match="no case"):
        tolerance_of([])
