"""NPC-170 and MMIS-2024: a miniature with single slices for training and volumes for the rest."""

from __future__ import annotations

from functools import partial

import dataset_support
import h5py
import numpy as np
import pytest
from dataset_support import opened
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from scipy.ndimage import zoom

RATERS = ("a1", "a2", "a3", "a4")
pytestmark = pytest.mark.usefixtures("own_cache")
npc = partial(opened, "npc")
refused = partial(dataset_support.refused, "npc")


def h5(path, shape, seed=0, raters=RATERS, empty=False, **changes):
    """A file as the challenge makes it; returns what it holds."""
    draw = np.random.default_rng([seed, *path.name.encode()])
    content = {key: draw.normal(size=shape).astype(np.float32) + 3 for key in ("t1", "t1c", "t2")}
    for key in ("t1", "t1c", "t2"):
        content[key][..., :2] = 0
    for r, rater in enumerate(raters):
        mask = np.zeros(shape, np.uint8)
        mask[..., 4 : 8 + r, 5:9] = not empty
        if len(shape) == 3:
            mask[0] = mask[-1] = 0
        content[f"label_{rater}"] = mask
    content.update(changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            if values is not None:
                file[key] = values
    return content


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "npc"
    for patient in range(4):
        for k in (9, 10, 11):
            h5(root / f"training_2d/Sample_{patient}_slice_{k}.h5", (20, 16), empty=k == 10)
    h5(root / "validation/7.h5", (4, 20, 16))
    h5(root / "testing/8.h5", (5, 18, 16), voxel_spacing=np.array([3.0, 0.5, 0.75]))
    return root


def test_slices_and_volumes(root):
    data = npc(root, size=[20, 16], intensity="as_stored")
    assert len(data) == 4 * 3 + 4 + 5
    described = data.describe()
    assert (described.channels, described.raters, described.identity) == (3, 4, "consistent")
    assert described.rater_ids == RATERS
    rows = [i for i, r in enumerate(data.records) if r.meta["volume"] == "training_2d/Sample_2"]
    assert [data.records[i].meta["slice"] for i in rows] == [0, 1, 2]
    assert data.records[rows[0]].meta["numbers"] == [9, 10, 11]  # not 10, 11, 9
    images, masks, valid = data.arrays(rows)
    assert valid.all()
    for i, k in enumerate((9, 10, 11)):
        with h5py.File(root / f"training_2d/Sample_2_slice_{k}.h5") as file:
            np.testing.assert_array_equal(images[i], [file[key][()] for key in ("t1", "t1c", "t2")])
            np.testing.assert_array_equal(masks[i], [file[f"label_{r}"][()] for r in RATERS])
    rows = [i for i, r in enumerate(data.records) if r.meta["volume"] == "validation/7"]
    with h5py.File(root / "validation/7.h5") as file:
        np.testing.assert_array_equal(data.arrays(rows)[1][:, 2], file["label_a3"][()])


def test_spacing_follows_the_size(root):
    data = npc(root, size=[9, 32])
    spacing = {r.meta["volume"]: r.spacing for r in data.records}
    assert spacing["testing/8"] == pytest.approx([3.0, 1.0, 0.375])
    assert spacing["validation/7"] is None


def test_intensities_are_standardised_over_a_patient(root):
    data = npc(root, size=[20, 16])
    rows = [i for i, r in enumerate(data.records) if r.meta["volume"] == "training_2d/Sample_0"]
    images = data.arrays(rows)[0]
    raw = npc(root, size=[20, 16], intensity="as_stored").arrays(rows)[0]
    for c in range(3):
        inside = raw[:, c][raw[:, c] != 0]
        np.testing.assert_allclose(images[:, c], (raw[:, c] - inside.mean()) / inside.std(), atol=1e-4)


def test_the_zoom_of_d_persona(root):
    exact = npc(root, size=8, resize="order0", intensity="as_stored")
    smooth = npc(root, size=8, intensity="as_stored")
    with h5py.File(root / "training_2d/Sample_0_slice_9.h5") as file:
        t1, label = file["t1"][()], file["label_a4"][()]
    row = next(i for i, r in enumerate(exact.records) if r.meta["volume"] == "training_2d/Sample_0")
    images, masks, _ = exact.arrays([row])
    np.testing.assert_array_equal(images[0, 0], zoom(t1, (8 / 20, 8 / 16), order=0))
    np.testing.assert_array_equal(masks[0, 3], zoom(label, (8 / 20, 8 / 16), order=0))
    assert not np.array_equal(smooth.arrays([row])[0], images)
    assert exact.fingerprint != smooth.fingerprint


def test_published_split(root):
    data = npc(root, size=16, split="compat")
    split = data.split(0)
    parts = {p: {data.records[i].meta["volume"] for i in getattr(split, p)} for p in ("train", "val", "test")}
    assert parts["train"] == {f"training_2d/Sample_{i}" for i in range(4)}
    assert parts["val"] == {"validation/7"}
    assert parts["test"] == {"testing/8"}
    assert len(split.train) == 12
    assert data.full_notice == ""
    (root / "testing/8.h5").unlink()
    with pytest.raises(UserError, match="needs the official test part"):
        npc(root, size=16, split="compat").split(0)
    without = npc(root, size=16, split="compat-val")
    split = without.split(0)
    assert (len(split.train), len(split.val), len(split.test)) == (9, 3, 4)
    assert "not public" in without.full_notice
    by_rule = npc(root, size=16)
    by_rule.prepare()
    assert "those slices only" in by_rule.full_notice


def test_empty_slices_are_kept_unless_dropped(root):
    kept, dropped = (npc(root, size=16, split="compat", drop_empty=d) for d in (False, True))
    assert kept.cache_folder == dropped.cache_folder
    assert (len(kept.split(0).train), len(dropped.split(0).train)) == (12, 8)
    assert {dropped.records[i].meta["slice"] for i in dropped.split(0).train} == {0, 2}


def test_the_layout_of_the_challenge(tmp_path):
    """Volumes for training too, with their spacing; slices without tumour are stored but not trained on."""
    for n in range(3):
        h5(tmp_path / f"training/Sample_{n}.h5", (5, 16, 16), voxel_spacing=np.array([4.0, 0.5, 0.5]))
    h5(tmp_path / "validation/Sample_0.h5", (5, 16, 16))
    h5(tmp_path / "testing/Sample_0.h5", (5, 16, 16))
    data = npc(tmp_path, split="compat")
    assert len(data.split(0).train) == 9
    assert len(npc(tmp_path, split="compat", train_slices="all").split(0).train) == 15
    assert len(data.split(0).test) == 5
    assert not data.split(0).shared
    assert data.full_notice == ""


def test_one_label_a_case(tmp_path):
    """MMIS-2024 task 2: each training case has the label of one of the raters."""
    for n in range(4):
        h5(tmp_path / f"training/Sample_{n}.h5", (3, 16, 16), raters=(RATERS[n],))
    h5(tmp_path / "validation/Sample_9.h5", (3, 16, 16))
    h5(tmp_path / "testing/Sample_9.h5", (3, 16, 16), raters=())
    data = npc(tmp_path)
    valid = {r.meta["volume"]: data.store.rater_valid[i].tolist() for i, r in enumerate(data.records)}
    for n in range(4):
        assert valid[f"training/Sample_{n}"] == [r == n for r in range(4)]
    assert valid["validation/Sample_9"] == [True] * 4
    assert data.leftovers()["left_out"] == ["testing/Sample_9"]
    assert data.describe().has_missing


def test_aliases(root):
    for name in ("npc170", "mmis2024"):
        assert open_dataset(name, root=str(root)).name == "npc"


def test_files_that_are_wrong(root):
    path = root / "validation/7.h5"
    good = h5(path, (4, 20, 16))
    for changes, match in (
        ({"t1c": None}, r"7\.h5 holds no 't1c', but label_a1"),
        ({"t2": good["t2"][:, :8]}, r"7\.h5 holds 't2' of shape 4×8×16 beside 't1' of 4×20×16"),
        ({"t1": good["t1"] * np.nan}, r"7\.h5 holds values that are not finite"),
        ({"label_a2": good["label_a2"] * 2}, r"7\.h5 holds the value 2"),
        ({"label_a2": np.array([b"x", b"y"])}, r"7\.h5 holds 'label_a2' of type"),
        ({"t1": h5py.Empty("f4")}, r"7\.h5 holds 't1' of type"),
        ({"t1": h5py.ExternalLink("secret.h5", "/t1")}, r"7\.h5 holds 't1', but not as an array of its own"),
        ({"t1": h5py.SoftLink("/t2")}, r"7\.h5 holds 't1', but not as an array of its own"),
    ):
        h5(path, (4, 20, 16), **changes)
        refused(root, match, size=16)
    h5(path, (4, 20))
    refused(root, "all must have one shape of 3 axes", size=16)
    with h5py.File(path, "w") as file:
        file.create_dataset("t1", (1 << 20, 1 << 20, 1 << 10), "u1", chunks=(64, 64, 64))
    refused(root, r"7\.h5 announces 't1' of shape 1048576×1048576×1024", size=16)
    h5(path, (4, 20, 16))
    path.write_bytes(path.read_bytes()[:3000])
    refused(root, r"7\.h5 is damaged", size=16)
    path.write_bytes(b"no hdf5")
    refused(root, r"7\.h5 is damaged or no HDF5", size=16)
    path.unlink()
    h5(root / "training_2d/Sample_1_slice_10.h5", (20, 18))
    refused(
        root, r"Sample_1_slice_10\.h5 has 20×18 pixels.*Sample_1_slice_9\.h5 of the same patient has 20×16", size=16
    )
    (root / "training_2d/Sample_1_slice_10.h5").rename(root / "training_2d/Sample_1.h5")
    refused(root, r"Sample_1\.h5 has an unexpected name", size=16)


def test_nothing_there(tmp_path):
    refused(tmp_path, "holds no training_2d")
