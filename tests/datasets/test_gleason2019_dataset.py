"""Gleason 2019: maps of three to six pathologists with the codes and names of the challenge."""

from __future__ import annotations

from functools import partial

import dataset_support
import numpy as np
import pytest
from dataset_support import opened
from multirater.datasets import open_dataset
from PIL import Image

SHAPE = (40, 48)
CODES = np.array([0, 1, 3, 4, 5, 6], np.uint8)
MEANING = {0: 0, 1: 1, 6: 1, 3: 2, 4: 3, 5: 4}
pytestmark = pytest.mark.usefixtures("own_cache")
gleason = partial(opened, "gleason2019")
refused = partial(dataset_support.refused, "gleason2019")


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def map_of(core, rater):
    return CODES[np.random.default_rng([*core.encode(), rater]).integers(0, 6, SHAPE)]


def readers(k):
    """Three to six of the six pathologists."""
    return [r for r in range(1, 7) if r <= 3 or (k + r) % 3]


def challenge(root, slides=range(1, 8), cores=(3, 12), images="Train Imgs", suffix="_classimg_nonconvex"):
    names = [f"slide{s:03d}_core{c:03d}" for s in slides for c in cores]
    for k, core in enumerate(names):
        image = np.random.default_rng(k).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
        save(root / images / f"{core}.jpg", image, quality=100, subsampling=0)
        for r in readers(k):
            save(root / f"Maps{r}_T" / f"{core}{suffix}.png", map_of(core, r))
    return names


@pytest.mark.parametrize("images", ["Train Imgs", "Train_imgs"])
def test_maps_of_the_challenge(tmp_path, images):
    names = challenge(tmp_path, images=images)
    data = gleason(tmp_path)
    described = data.describe()
    assert (described.raters, described.classes, described.overlapping, described.identity) == (
        6,
        4,
        False,
        "consistent",
    )
    assert [r.case_id for r in data.records] == sorted(names)
    _, masks, valid = data.arrays(range(len(names)))
    for i, core in enumerate(sorted(names)):
        k = names.index(core)
        assert [r + 1 for r in np.flatnonzero(valid[i])] == readers(k)  # not read is not empty
        for r in readers(k):
            np.testing.assert_array_equal(masks[i, r - 1], np.vectorize(MEANING.get)(map_of(core, r)))
    assert {r.patient_id for r in data.records} == {f"slide{s:03d}" for s in range(1, 8)}
    assert open_dataset("gleason19", root=str(tmp_path)).name == "gleason2019"


def test_resizing_keeps_the_codes(tmp_path):
    challenge(tmp_path, slides=(1, 2))
    small = gleason(tmp_path, size=[20, 24])
    images, masks, _ = small.arrays([0])
    nearest = Image.fromarray(map_of("slide001_core003", 2)).resize((24, 20), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(masks[0, 1], np.vectorize(MEANING.get)(np.asarray(nearest)))
    stored = Image.open(tmp_path / "Train Imgs/slide001_core003.jpg").resize((24, 20), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(images[0], np.moveaxis(np.asarray(stored), 2, 0) / 255, atol=1e-6)


def test_stray_values_are_counted_and_other_codes_refused(tmp_path):
    challenge(tmp_path, slides=(1, 2))
    path = tmp_path / "Maps1_T/slide001_core003_classimg_nonconvex.png"
    stored = map_of("slide001_core003", 1)
    stray = stored.copy()
    stray[4, 5] = 2
    save(path, stray)
    data = gleason(tmp_path)
    assert data.arrays([0])[1][0, 0, 4, 5] == 0
    assert [r.meta.get("stray_pixels") for r in data.records] == [1, None, None, None]
    stray[:10] = 2
    save(path, stray)
    refused(tmp_path, r"slide001_core003_classimg_nonconvex\.png holds the value 2 in \d+ pixels.*values=pionono")
    stored[0, 0] = 9
    save(path, stored)
    refused(tmp_path, r"slide001_core003_classimg_nonconvex\.png holds the value 9; .*only 0, 1, 2, 3, 4, 5, 6")


def test_maps_as_pionono_leaves_them(tmp_path):
    save(tmp_path / "Train_imgs/slide001_core001.png", np.zeros((*SHAPE, 3), np.uint8))
    stored = np.random.default_rng(0).integers(0, 5, SHAPE, dtype=np.uint8)
    save(tmp_path / "Maps/Maps2_T/slide001_core001.png", stored)
    masks = gleason(tmp_path, values="pionono").arrays([0])[1][0]
    np.testing.assert_array_equal(masks[1], np.array([1, 2, 3, 4, 0])[stored])
    refused(tmp_path, "value 2 in")


def test_splits_never_part_a_slide_unless_asked(tmp_path):
    names = challenge(tmp_path, cores=(9, 10, 140, 143))
    data = gleason(tmp_path)
    assert all(not data.split(fold).shared for fold in range(4))
    published = gleason(tmp_path, split="compat")
    assert published.folds == 4
    tests = [set(published.split(fold).test.tolist()) for fold in range(4)]
    assert sorted(set().union(*tests)) == list(range(len(names)))
    assert sum(map(len, tests)) == len(names)
    # the four cores with pattern 5 that are here are spread over the folds
    grade5 = {"slide002_core009", "slide002_core010", "slide001_core010", "slide002_core140", "slide002_core143"}
    counts = [len({published.records[i].case_id for i in t} & grade5) for t in tests]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == 5
    assert "may part a patient" in published.full_notice
    assert {r.patient_id for r in gleason(tmp_path, group="core").records} == set(names)


def test_files_that_are_wrong(tmp_path):
    refused(tmp_path, r"holds no Maps1_T/slide001_core003_classimg_nonconvex\.png")
    challenge(tmp_path, slides=(1, 2))
    save(tmp_path / "Train Imgs/slide009_core001.jpg", np.zeros((*SHAPE, 3), np.uint8))
    assert gleason(tmp_path).leftovers()["left_out"] == ["slide009_core001"]
    save(tmp_path / "Maps3_T/slide001_core003_classimg_nonconvex.png", np.zeros((4, 4), np.uint8))
    refused(tmp_path, r"slide001_core003_classimg_nonconvex\.png has 4×4 pixels, but its image .*40×48")
    (tmp_path / "Train Imgs/slide001_core003.jpg").unlink()
    refused(tmp_path, r"slide001_core003_classimg_nonconvex\.png has no image in 'Train Imgs'")
