"""The simulated CT: reader order, seeds, and each ingredient of the recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from multirater.datasets import simulated_ct
from multirater.datasets.lidc_personas import persona_masks
from multirater.datasets.simulated_ct import (
    FRAME,
    Consensus,
    Scene,
    frame_shift,
    signed_distance,
    simulate,
    simulate_hu,
)

RATINGS = {
    "subtlety": 5.0,
    "internal_structure": 1.0,
    "calcification": 6.0,
    "sphericity": 4.0,
    "margin": 4.0,
    "lobulation": 1.0,
    "spiculation": 1.0,
    "texture": 5.0,
    "malignancy": 3.0,
}
SCENE = Scene("123", 7, spacing=0.7, thickness=1.25, distance=1.25, ratings=RATINGS, first_slice=40)


def disc(radius: float, x: float = 64, y: float = 60) -> np.ndarray:
    rows, columns = np.indices((FRAME, FRAME))
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def stack(*radii: float) -> np.ndarray:
    """Readers×3×128×128: each reader's disc on three slices."""
    return np.stack([np.repeat(disc(r)[None], 3, 0) for r in radii])


MASKS = stack(9, 10, 11, 13)
CORE = disc(5)


def rated(**ratings: float) -> Scene:
    return replace(SCENE, ratings={**RATINGS, **ratings})


@pytest.mark.parametrize("partial_volume", [False, True])
def test_the_order_of_the_readers_changes_no_bit(partial_volume: bool) -> None:
    rng = np.random.default_rng(0)
    masks = np.stack([np.repeat((disc(r, *rng.normal(62, 2, 2)))[None], 2, 0) for r in (7.3, 8.1, 9.7, 5.2)])
    masks[2, 1] = False  # a reader who did not draw this slice
    scene = rated(spiculation=3.0, margin=2.75, texture=3.3)
    images = [
        simulate(scene, masks[list(order)], 1, partial_volume=partial_volume).tobytes()
        for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0), (1, 0, 3, 2))
    ]
    assert len(set(images)) == 1


def test_same_seed_same_bytes_and_other_slices_differ() -> None:
    first, again, other = (simulate(SCENE, MASKS, i) for i in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert np.abs(first - other).max() > 0.05
    assert (first.dtype, first.shape) == (np.float32, (FRAME, FRAME))
    assert first.min() >= 0
    assert first.max() <= 1


def test_image_is_windowed_hu() -> None:
    hu = simulate_hu(SCENE, MASKS, 0)
    np.testing.assert_allclose(simulate(SCENE, MASKS, 0), np.clip((hu + 1000) / 1400, 0, 1), atol=1e-6)
    assert hu[CORE].mean() == pytest.approx(20, abs=60)
    assert np.median(hu) == pytest.approx(-860, abs=90)


def test_slices_of_a_scan_share_scanner_and_nodule() -> None:
    scanner = simulated_ct._Scanner.of(SCENE)
    assert scanner == simulated_ct._Scanner.of(replace(SCENE, nodule=99, first_slice=3))
    assert scanner != simulated_ct._Scanner.of(replace(SCENE, scan="124"))
    assert simulated_ct._Lesion.of(SCENE) == simulated_ct._Lesion.of(replace(SCENE, first_slice=3))
    assert 0.9 <= scanner.fwhm <= 1.5
    assert 12 <= scanner.noise <= 48


def test_frame_shift_is_seeded_and_stays_within_eight_pixels() -> None:
    shifts = np.array([frame_shift("123", nodule) for nodule in range(300)])
    assert frame_shift("123", 5) == frame_shift("123", 5)
    assert (shifts.min(), shifts.max()) == (-8, 8)


def test_signed_distance_is_zero_on_the_pixel_edge() -> None:
    mask = np.zeros((9, 9), bool)
    mask[:, 4:] = True
    np.testing.assert_allclose(signed_distance(mask, 0.7)[0], 0.7 * (np.arange(9) - 3.5))
    assert signed_distance(mask, 5.0).max() == 8


def test_consensus_matches_a_computation_without_the_crop() -> None:
    masks = np.stack([disc(4, 3, 2), disc(6, 5, 2), np.zeros((FRAME, FRAME), bool), disc(5, 4, 4)])  # at the border
    field = Consensus.of(masks, 0.6)
    whole = np.stack([signed_distance(m, 0.6) if m.any() else np.full(m.shape, -8.0) for m in masks])
    np.testing.assert_allclose(field.signed, whole.mean(0))
    np.testing.assert_allclose(field.spread, whole.std(0), atol=1e-12)
    np.testing.assert_allclose(field.nearest, whole.max(0))
    assert field.drawn == 0.75


def test_disagreement_widens_the_edge_only_through_the_gain() -> None:
    """More spread about the same boundary: a softer edge with gain 1.5, hardly any change with gain 0."""

    def width(masks: np.ndarray, gain: float) -> int:
        fraction = Consensus.of(masks, 0.7).fraction(margin=3, ambiguity=gain, spacing=0.7)
        return int(np.count_nonzero((fraction > 0.1) & (fraction < 0.9)))

    agree, disagree = stack(10, 10, 10, 10)[:, 0], stack(6, 8, 12, 14)[:, 0]
    assert width(disagree, 0) == pytest.approx(width(agree, 0), rel=0.25)
    assert width(agree, 1.5) == width(agree, 0)
    assert width(disagree, 1.5) > 2 * width(agree, 1.5)


def test_poor_margin_widens_the_edge_and_absent_readers_fade_the_nodule() -> None:
    field = Consensus.of(stack(10, 10, 10, 10)[:, 0], 0.7)
    soft, sharp = (field.fraction(margin, 1.5, 0.7) for margin in (1, 5))
    assert np.count_nonzero((soft > 0.1) & (soft < 0.9)) > 2 * np.count_nonzero((sharp > 0.1) & (sharp < 0.9))
    two = stack(10, 10, 0, 0)[:, 0]
    two[2:] = False
    assert Consensus.of(two, 0.7).fraction(5, 0, 0.7).max() <= np.sqrt(0.5)


def test_texture_subtlety_and_calcification_set_the_attenuation() -> None:
    def core(**ratings: float) -> float:
        return float(simulate_hu(rated(**ratings), MASKS, 1)[CORE].mean())

    assert core(texture=1.0) == pytest.approx(-610, abs=130)
    assert core(texture=1.0) < core(texture=3.0) <= core(texture=5.0) + 15
    assert core(subtlety=1.0) == pytest.approx(0.55 * core() + 0.45 * -860, abs=60)
    assert core(calcification=3.0) > core() + 120
    assert core(internal_structure=4.0) < core() - 300


def test_part_solid_nodules_have_a_denser_centre() -> None:
    lesion = simulated_ct._Lesion.of(rated(texture=3.0))
    hu = lesion.attenuation(Consensus.of(MASKS[:, 0], 0.7).signed)
    assert hu[60, 64] > -100
    assert hu[60, 64 + 9] < -450


def test_spicules_reach_two_to_five_millimetres_beyond_the_edge() -> None:
    field = Consensus.of(MASKS[:, 0], 0.7)
    lesion = simulated_ct._Lesion.of(rated(spiculation=5.0))
    rays = lesion._spicules(np.random.default_rng(0), field)
    reach = -field.nearest[rays > 0.3]
    assert 2 < reach.max() < 5.01
    assert not simulated_ct._Lesion.of(SCENE)._spicules(np.random.default_rng(0), field).any()


def test_the_chest_wall_stays_clear_of_every_outline() -> None:
    field = Consensus.of(MASKS[:, 0], 0.7)
    seen = 0
    for nodule in range(40):
        lesion = replace(simulated_ct._Lesion.of(replace(SCENE, nodule=nodule)), wall_edge=22.0)
        image = np.full((FRAME, FRAME), -860.0)
        lesion.add_wall(image, np.random.default_rng(0), field)
        assert np.abs(image[field.nearest > -2] + 860).max() < 10
        seen += bool(lesion.wall and image.max() > 0)
        assert lesion.wall or (image == -860).all()
    assert 4 <= seen <= 22  # about 30 %


def test_partial_volume_weighs_contiguous_slices_by_one_and_four_sixths() -> None:
    masks = MASKS.copy()
    masks[:, 2] = False
    own = Consensus.of(masks[:, 0], 0.7).fraction(4.0, 1.5, 0.7)
    middle, end = (simulated_ct._through_slices(SCENE, masks, i, 1.5) for i in (0, 1))
    np.testing.assert_allclose(middle, own * (4 / 6 + 1 / 6), atol=1e-3)  # no slice before the first
    np.testing.assert_allclose(end, own * (1 / 6 + 4 / 6), atol=1e-3)  # nothing drawn on the third
    assert np.abs(simulate(SCENE, masks, 0, partial_volume=True) - simulate(SCENE, masks, 0)).max() > 0.02


def test_random_fields_have_the_stated_variance() -> None:
    rng = np.random.default_rng(0)
    for spectrum, sd in (
        (simulated_ct._noise_spectrum(), 1.0),
        (simulated_ct._gaussians((2.0, 20)), 20.0),
        (simulated_ct._gaussians((1.2, 18), (4.0, 16), (14.0, 22)), np.sqrt(18**2 + 16**2 + 22**2)),
    ):
        fields = np.stack([simulated_ct._random_field(rng, spectrum) for _ in range(60)])
        assert np.sqrt(np.mean(fields**2)) == pytest.approx(sd, rel=0.06)


def test_thin_slices_are_noisier() -> None:
    """Where there is only lung, the high frequencies are the scanner's noise."""

    def roughness(thickness: float) -> float:
        image = simulate_hu(replace(SCENE, thickness=thickness), MASKS, 0)
        return float(np.std(np.diff(image[:20], axis=1)))

    assert 1.2 < roughness(0.6) / roughness(5.0) < (5 / 0.6) ** 0.25 + 0.05


def test_personas_are_nested_and_reproducible() -> None:
    readers = MASKS[:, 0]
    made = persona_masks(readers, 0.7, np.random.default_rng(1))
    again = persona_masks(readers, 0.7, np.random.default_rng(1))
    np.testing.assert_array_equal(made, again)
    strict, majority, generous, smooth = made.sum((1, 2)).tolist()
    assert strict < majority < generous
    assert smooth > majority
    assert not persona_masks(np.zeros_like(readers), 0.7, np.random.default_rng(1)).any()
