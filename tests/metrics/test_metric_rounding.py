"""Where the last bit decides: float32 sums of released code, products of probabilities, many cases in threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from multirater.core.errors import UserError
from multirater.metrics import score as score_module
from multirater.metrics import score_case, score_cases
from multirater.metrics.matching import balanced_match
from multirater.metrics.overlap import intersections
from multirater.metrics.rounding import torch_sum
from scipy.optimize import linear_sum_assignment


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="other registers")
@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (1, 8), (5, 7), (6, 6), (8, 8), (13, 5), (17, 19), (64, 64)])
def test_sums_have_the_bits_of_torch(shape):
    rng = np.random.default_rng(0)
    for count in (1, 3, 4, 5, 10, 16, 17, 33, 50, 100, 300):
        tenths = np.round(rng.random((count, *shape)), 1).astype(np.float32)
        assert (torch_sum(tenths) == torch.tensor(tenths).sum(0).numpy()).all(), count
        channels = np.stack([1 - tenths, tenths], axis=1)
        want = torch.tensor(channels).sum(0).numpy()
        pixels = tenths[0].size
        assert (torch_sum(channels[:, 1], first=pixels, total=2 * pixels) == want[1]).all(), count


def soft_dice(mean, share):
    """Of TAB and BerDiff, smoothed by 1e-6."""
    values = []
    for t in (0.1, 0.3, 0.5, 0.7, 0.9):
        a, b = mean > t, share > t
        values.append((2 * (a & b).sum() + 1e-6) / (a.sum() + b.sum() + 1e-6))
    return np.mean(values)


def test_a_mean_on_a_threshold_passes_it_as_released():
    """Ten times 0.3: torch's float32 mean is 0.3 or the next number, by where in the image the pixel lies."""
    rng = np.random.default_rng(1)
    probs = np.round(rng.random((10, 6, 7)), 1).astype(np.float32)
    raters = rng.random((4, 6, 7)) < 0.5
    share, mean = raters.mean(0), torch.tensor(probs).mean(0).numpy()
    got = score_case(raters, probs=probs, variant="tab", metrics=["dice_soft"])["dice_soft"]
    assert got == pytest.approx(soft_dice(mean, share), abs=2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_berdiff_compares_the_mean_in_its_own_precision(dtype):
    rng = np.random.default_rng(2)
    for _ in range(10):
        probs = np.round(rng.random((8, 9, 9)), 1).astype(dtype)
        raters = rng.random((4, 9, 9)) < 0.5
        want = soft_dice(probs.mean(axis=0), raters.mean(axis=0))
        got = score_case(raters, probs=probs, variant="berdiff", metrics=["dice_soft"])["dice_soft"]
        assert got == pytest.approx(want, abs=1e-12)


def test_car_skips_absent_classes_in_both_metrics():
    raters, samples = np.array([[[1, 0], [0, 0]]]), np.array([[[1, 1], [0, 0]]])
    got = score_case(raters, samples, classes=[1, 2, 3], variant="car", metrics=["ged", "hm_iou"])
    assert got == pytest.approx({"ged": 1.0, "hm_iou": 0.5})  # classes 2 and 3 are nowhere
    nothing = np.zeros((1, 2, 2), int)
    assert np.isnan(score_case(nothing, nothing, classes=[1, 2], variant="car", metrics=["hm_iou"])["hm_iou"])


@pytest.mark.parametrize(("count", "dtype"), [(1, np.float64), (33, np.float64), (100, np.float32)])
def test_ncc_by_products_of_probabilities(count, dtype):
    """Zeros, ones and 1e-30 among a hundred factors: no product runs out of range or loses digits."""
    rng = np.random.default_rng(count)
    probs = rng.random((count, 8, 8)).astype(dtype)
    probs[:, :3] = rng.choice([0, 1, 1e-30], (count, 3, 8))
    probs[:, 3] = 0
    raters = rng.random((3, 8, 8)) < 0.5
    p = np.stack([1 - probs.astype(np.float64), probs.astype(np.float64)])
    logs = np.log(p + 1e-8).mean(axis=1).reshape(2, -1)
    own = -(p.mean(axis=1).reshape(2, -1) * logs).sum(axis=0)
    want = [np.corrcoef(own, np.where(y.ravel(), -logs[1], -logs[0]))[0, 1] for y in raters]
    got = score_case(raters, probs=probs, metrics=["ncc"])["ncc"]
    assert got == pytest.approx(np.mean(want), abs=1e-12)
    two = score_case(raters, probs=np.moveaxis(p, 0, 1), metrics=["ncc"])["ncc"]
    assert two == pytest.approx(got, abs=1e-12)


@pytest.mark.parametrize("shape", [(40, 4), (4, 48), (300, 3), (320, 20), (50, 50)])
@pytest.mark.parametrize("kind", ["distinct", "equal rows", "all equal", "zeros and ones"])
def test_matching_by_prices_is_the_assignment(shape, kind):
    rng = np.random.default_rng(sum(shape))
    similarity = rng.random(shape)
    if kind == "equal rows":
        similarity[:] = similarity[rng.integers(0, 3, shape[0])]
    elif kind == "all equal":
        similarity[:] = 0.5
    elif kind == "zeros and ones":
        similarity = np.round(similarity)
    rows, columns = max(shape), min(shape)
    tall = similarity if shape[0] >= shape[1] else similarity.T
    square = tall.repeat(rows // columns, axis=1)
    want = square[linear_sum_assignment(square, maximize=True)].mean()
    assert balanced_match(similarity) == pytest.approx(want, abs=1e-12)


def test_bytes_that_all_masks_share_are_counted():
    masks = np.zeros((5, 40, 64), bool)
    masks[:, 10:20] = True
    masks[:, 20:30] = np.random.default_rng(0).random((5, 10, 64)) < 0.4
    flat = masks.reshape(5, -1).astype(int)
    assert (intersections([masks]) == flat @ flat.T).all()
    for same in (np.ones_like(masks), np.zeros_like(masks)):
        assert (intersections([same]) == same[0].sum()).all()


@pytest.fixture
def many():
    rng = np.random.default_rng(4)
    return rng.random((40, 3, 9, 9)) < 0.5, rng.random((40, 5, 9, 9)).astype(np.float32)


def test_cases_in_threads_have_the_bits_of_single_cases(many, monkeypatch):
    raters, probs = many
    monkeypatch.setattr(score_module, "usable_cores", lambda: 4)
    seen = set()
    read = score_module.read_case

    def noting(*args, **kwargs):
        seen.add(threading.get_ident())
        return read(*args, **kwargs)

    monkeypatch.setattr(score_module, "read_case", noting)
    weights = np.random.default_rng(0).dirichlet(np.ones(5), 40)  # transport problems are solved side by side too
    names = ["ged", "hm_iou", "dice_match", "dice_soft", "ncc", "ece", "hd95.mean", "mode_tv", "human.oracle_hm_iou"]
    for variant in ("canonical", "mose"):
        frame = score_cases(raters, probs=probs, sample_weights=weights, variant=variant, metrics=names)
        for i, row in enumerate(frame.to_dict("records")):
            alone = score_case(raters[i], probs=probs[i], sample_weights=weights[i], variant=variant, metrics=names)
            assert str(row) == str(alone), (variant, i)
    assert threading.main_thread().ident in seen  # the cases alone
    assert len(seen) > 1


def test_the_first_bad_case_is_named_whatever_thread_meets_it(many, monkeypatch):
    raters, probs = many
    monkeypatch.setattr(score_module, "usable_cores", lambda: 4)
    probs[[7, 12, 39]] = 2
    with pytest.raises(UserError, match="case 7: probs holds values"):
        score_cases(raters, probs=probs, metrics=["ged"])
