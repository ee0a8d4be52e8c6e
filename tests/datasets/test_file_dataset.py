"""The machinery that loaders share, through a loader of two tiny formats."""

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets.file_dataset import Decoded, FileDataset, RawCase


class Planes(FileDataset):
    """``<case>.npy`` of R×H×W masks; the image is their mean."""

    name = "planes"
    rater_names = ("a", "b", "c")

    def list_cases(self, root):
        return [RawCase(p.stem, p.stem[:2], (p,)) for p in root.glob("*.npy")]

    def decode(self, raw):
        masks = np.load(raw.files[0])
        valid = masks.reshape(3, -1).max(1) < 2
        masks = masks * valid[:, None, None].astype(np.uint8)
        return Decoded(masks.mean(0, dtype=np.float32)[None], masks, valid, (0.5, 0.5))


class Volumes(Planes):
    """``<case>.npy`` of D×R×H×W masks."""

    name = "volumes"
    declared = "consistent"

    def list_cases(self, root):
        return [RawCase(p.stem, p.stem, (p,), slices=len(np.load(p))) for p in root.glob("*.npy")]

    def decode(self, raw):
        masks = np.load(raw.files[0])
        return Decoded(masks.mean(1, keepdims=True, dtype=np.float32), masks, np.ones(3, bool), (3.0, 0.5, 0.5))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def _areas(*areas):
    masks = np.zeros((len(areas), 16, 16), np.uint8)
    for mask, area in zip(masks, areas, strict=True):
        mask.flat[:area] = 1
    return masks


def test_cases_orders_and_missing_raters(root):
    missing = _areas(120, 30, 60)
    missing[2] = 2
    np.save(root / "p1-1.npy", _areas(120, 30, 60))
    np.save(root / "p1-2.npy", missing)
    data = Planes(root=str(root), identity="by_area", size=8)
    images, masks, valid = data.arrays([0, 1])
    assert images.shape == (2, 1, 8, 8)
    assert images.dtype == np.float32
    assert valid.tolist() == [[True, True, True], [True, True, False]]
    assert (np.diff(masks[0].reshape(3, -1).sum(1)) > 0).all()
    assert not masks[1, 2].any()
    assert data.describe().identity == "derived"
    assert data.describe().rater_ids == ("area1", "area2", "area3")
    assert data.records[0].spacing == [1.0, 1.0]
    assert data.describe().has_missing
    assert Planes(root=str(root), size=8).describe().identity == "none"


def test_shuffled_slots_hold_the_same_masks(root):
    for i in range(12):
        np.save(root / f"p{i:02d}.npy", _areas(1, 2, 3))
    data = Planes(root=str(root))
    areas = data.arrays(range(12))[1].reshape(12, 3, -1).sum(-1)
    assert (np.sort(areas, axis=1) == [1, 2, 3]).all()
    assert len(np.unique(areas, axis=0)) > 1
    assert (areas == Planes(root=str(root)).arrays(range(12))[1].reshape(12, 3, -1).sum(-1)).all()


def test_volumes_fill_one_row_a_slice_and_keep_one_order(root):
    volume = np.stack([_areas(9, 1, 5), _areas(0, 2, 5)])
    np.save(root / "v.npy", volume)
    data = Volumes(root=str(root), identity="by_area")
    assert len(data) == 2
    assert [r.case_id for r in data.records] == ["v/z0000", "v/z0001"]
    assert [r.meta["volume"] for r in data.records] == ["v", "v"]
    assert data.records[0].spacing == [3.0, 0.5, 0.5]
    assert data.arrays([0, 1])[1].reshape(2, 3, -1).sum(-1).tolist() == [[1, 9, 5], [2, 0, 5]]  # 3, 9, 10 in all
    by_slice = Volumes(root=str(root), identity="by_area_slice")
    assert by_slice.arrays([0, 1])[1].reshape(2, 3, -1).sum(-1).tolist() == [[1, 5, 9], [0, 2, 5]]
    assert Volumes(root=str(root)).describe().identity == "consistent"


def test_fingerprint_follows_bytes_not_place(root, tmp_path):
    np.save(root / "p1.npy", _areas(1, 2, 3))
    first = Planes(root=str(root)).fingerprint
    moved = root.rename(tmp_path / "elsewhere")
    assert Planes(root=str(moved)).fingerprint == first
    np.save(moved / "p1.npy", _areas(1, 2, 4))
    assert Planes(root=str(moved)).fingerprint != first


def test_user_mistakes(root):
    with pytest.raises(UserError, match="needs its root"):
        Planes().prepare()
    with pytest.raises(UserError, match="not a folder"):
        Planes(root=str(root / "nowhere")).prepare()
    with pytest.raises(UserError, match="no case of planes"):
        Planes(root=str(root)).prepare()
    np.save(root / "p1.npy", _areas(1, 2, 3))
    np.save(root / "p2.npy", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(UserError, match="differ in size"):
        Planes(root=str(root)).prepare()
