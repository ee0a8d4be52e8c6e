import numpy as np
from multirater.benchmark import derived
from multirater.core.sequences import van_der_corput


def thresholds(mean, masks, valid):
    """Of each rater and of all together."""
    return derived.best_thresholds([derived.dice_at_thresholds(*case) for case in zip(mean, masks, strict=True)], valid)


def disc(radius, size=32):
    y, x = np.mgrid[:size, :size] - size / 2
    return y**2 + x**2 < radius**2


def test_van_der_corput_starts_as_defined():
    assert van_der_corput(7).tolist() == [1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]


def test_level_sets_are_nested_and_their_prefix_does_not_depend_on_their_number():
    mean = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    levels = derived.level_sets(mean, 50)
    by_area = levels[np.argsort(levels.reshape(50, -1).sum(1))]
    assert (by_area[:-1] <= by_area[1:]).all()
    assert np.array_equal(levels[:16], derived.level_sets(mean, 16))


def test_own_thresholds_find_the_level_each_rater_draws_at():
    # A map that falls from 1 to 0 outwards; rater r marks exactly the pixels above level r.
    y, x = np.mgrid[:32, :32] - 16
    mean = np.clip(1 - np.sqrt(y**2 + x**2) / 16, 0, 1).astype(np.float32)[None].repeat(3, 0)
    wanted = np.array([0.7, 0.5, 0.3])
    masks = mean[:, None] > wanted[None, :, None, None]
    found, common = thresholds(mean, masks, np.ones((3, 3), bool))
    assert np.abs(found - wanted).max() <= 0.04
    assert 0.3 <= common <= 0.7


def test_missing_raters_do_not_enter_a_threshold():
    mean = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8).repeat(2, 0)
    masks = np.zeros((2, 1, 8, 8), bool)
    masks[0, 0] = mean[0] > 0.5
    masks[1, 0] = mean[1] > 0.9  # the rater never saw this case: its mask is meaningless
    alone = thresholds(mean[:1], masks[:1], np.ones((1, 1), bool))
    with_missing = thresholds(mean, masks, np.array([[True], [False]]))
    assert alone == with_missing


def test_a_rater_missing_everywhere_gets_the_common_threshold():
    mean = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    masks = np.stack([mean[0] > 0.3, np.zeros((8, 8), bool)])[None]
    own, common = thresholds(mean, masks, np.array([[True, False]]))
    assert own[1] == common > 0.1


def test_area_ranks_take_the_samples_7_19_32_44_of_50():
    samples = np.zeros((50, 10, 10), bool)
    for k, s in enumerate(np.random.default_rng(1).permutation(50)):
        samples[k].reshape(-1)[: s + 1] = True
    picked = derived.area_ranks(samples, np.arange(4))
    assert picked.reshape(4, -1).sum(1).tolist() == [7, 19, 32, 44]


def test_area_ranks_count_the_pixels_of_the_region():
    samples = np.zeros((2, 4, 4), bool)
    samples[0, :1] = samples[1, 2:] = True  # the larger one lies outside
    region = np.arange(4)[:, None].repeat(4, 1) < 2
    assert np.array_equal(derived.area_ranks(samples, np.array([0, 1]), region), samples[::-1])
    assert np.array_equal(derived.area_ranks(samples, np.array([0, 1])), samples)


def test_raters_are_ranked_by_relative_area_and_missing_ones_left_out():
    masks = np.stack([[disc(9), disc(5), disc(7)], [disc(12), disc(7), disc(9)], [disc(1), disc(3), disc(4)]])
    valid = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1]], bool)
    assert derived.rater_area_ranks(masks.sum((2, 3)), valid).tolist() == [2, 0, 1]


def test_vote_levels_are_unanimity_to_union_in_area_order():
    masks = np.stack([disc(8), disc(4), disc(6), disc(10)])
    levels = derived.vote_levels(masks, np.array([2, 0, 1, 3]))
    assert np.array_equal(levels[1], masks.all(0))
    assert np.array_equal(levels[3], masks.any(0))
    assert np.array_equal(levels, masks)  # concentric discs are their own vote levels
