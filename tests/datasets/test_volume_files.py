"""Volumes: orientation, laziness, grids of masks, label codes, and files that are not what they say."""

from __future__ import annotations

import gzip
import itertools

import nibabel
import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets.volume_files import check_finite, codes, match_layout, open_volume


def save(path, values, affine=None, **header):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, np.diag([-0.5, -0.75, 3.0, 1.0]) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def as_seen(volume, layout=None):
    layout = layout or volume.layout
    out = np.zeros(volume.shape(layout), np.float64)
    for k, plane in volume.planes(layout):
        out[k] = plane
    return out


PATIENT = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)  # slice from feet, row from front, column from right


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product([1, -1], repeat=3)))
def test_every_stored_orientation_looks_the_same(tmp_path, order, signs):
    suffix = ".nii" if signs[0] > 0 else ".nii.gz"
    world = PATIENT.transpose(2, 1, 0)  # (left, back, head)
    direction = np.diag([-0.5, -0.75, 3.0])  # those in RAS+ mm
    for axis, sign in enumerate(signs):
        world = np.flip(world, axis) if sign < 0 else world
        direction[:, axis] *= sign
    affine = np.eye(4)
    affine[:3, :3] = direction[:, order]
    volume = open_volume(save(tmp_path / f"v{suffix}", np.ascontiguousarray(world.transpose(order)), affine))
    np.testing.assert_array_equal(as_seen(volume), PATIENT)
    assert volume.spacing(volume.layout) == pytest.approx((3.0, 0.75, 0.5))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_slope_and_intercept_are_applied(tmp_path, order):
    """Read slice by slice, and, where the slices lie across the file, cut from the whole."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1.0, -1.0, 1.0])[:, order]
    path = save(tmp_path / "v.nii.gz", PATIENT.transpose(2, 1, 0).transpose(order).copy(), affine)
    volume = open_volume(_patched(path, 112, np.array([0.5, -3], "<f4").tobytes()))
    assert volume.dtype == np.int16
    np.testing.assert_array_equal(as_seen(volume), PATIENT * 0.5 - 3)


def test_slices_are_read_one_by_one(tmp_path):
    """A compressed file damaged near its end gives its first slices: nothing was read ahead of them."""
    noise = np.random.default_rng(0).integers(0, 1000, (64, 64, 40)).astype(np.int16)
    path = save(tmp_path / "v.nii.gz", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    volume = open_volume(path)
    slices = volume.planes(volume.layout)
    for k in range(20):
        index, plane = next(slices)
        assert index == k
        np.testing.assert_array_equal(plane, noise[:, :, k].T)
    with pytest.raises(UserError, match=r"v\.nii\.gz is damaged"):
        list(slices)


def test_a_mask_stored_in_another_order_is_turned(tmp_path):
    image = open_volume(save(tmp_path / "image.nii.gz", PATIENT.transpose(2, 1, 0).copy()))
    turned = nibabel.as_closest_canonical(nibabel.load(tmp_path / "image.nii.gz"))
    nibabel.save(turned, tmp_path / "mask.nii.gz")
    mask = open_volume(tmp_path / "mask.nii.gz")
    layout, differs = match_layout(mask, image, image.layout)
    assert not differs
    assert layout != image.layout
    np.testing.assert_array_equal(as_seen(mask, layout), PATIENT)


def test_a_mask_with_an_odd_header_is_matched_by_voxel(tmp_path):
    image = open_volume(save(tmp_path / "image.nii.gz", PATIENT.transpose(2, 1, 0).copy()))
    odd = np.diag([0.5, 0.75, 2.0, 1.0])  # other spacing and direction
    mask = open_volume(save(tmp_path / "mask.nii.gz", PATIENT.transpose(2, 1, 0).copy(), odd))
    layout, differs = match_layout(mask, image, image.layout)
    assert differs
    np.testing.assert_array_equal(as_seen(mask, layout), PATIENT)


def test_a_mask_of_another_shape_is_refused(tmp_path):
    image = open_volume(save(tmp_path / "image.nii.gz", np.zeros((4, 3, 2), np.uint8)))
    mask = open_volume(save(tmp_path / "mask.nii.gz", np.zeros((4, 3, 3), np.uint8)))
    with pytest.raises(UserError, match=r"mask\.nii\.gz has 4×3×3 voxels.*image\.nii\.gz has 4×3×2"):
        match_layout(mask, image, image.layout)


def test_codes(tmp_path):
    table = {0: 0, 1: 1, 3: 2}
    np.testing.assert_array_equal(codes(np.array([0, 1, 3], np.int16), table, tmp_path), [0, 1, 2])
    np.testing.assert_array_equal(codes(np.array([2e-4, 0.9999, 3.0001]), table, tmp_path), [0, 1, 2])
    np.testing.assert_array_equal(codes(np.array([False, True]), table, tmp_path), [0, 1])
    for wrong in ([0, 2], [-1, 0], [256, 1], [70000, 0]):
        with pytest.raises(UserError, match=f"holds the value {max(wrong, key=abs)}.*only 0, 1, 3"):
            codes(np.array(wrong, np.int32), table, tmp_path)
    with pytest.raises(UserError, match=r"holds the value 0\.5"):
        codes(np.array([0.0, 0.5]), table, tmp_path)


def test_values_must_be_finite(tmp_path):
    values = np.zeros((4, 4, 4), np.float32)
    values[1, 2, 3] = np.nan
    volume = open_volume(save(tmp_path / "v.nii.gz", values))
    with pytest.raises(UserError, match="not finite"):
        list(volume.planes(volume.layout))
    with pytest.raises(UserError, match="not finite"):
        volume.array()
    with pytest.raises(UserError, match="not finite"):
        check_finite(np.array([np.inf]), tmp_path)


def _patched(path, offset, data):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[offset : offset + len(data)] = data
    path.write_bytes(gzip.compress(bytes(raw)))
    return path


def test_absurd_headers_are_refused_before_reading(tmp_path):
    big = _patched(save(tmp_path / "big.nii.gz", PATIENT), 42, np.array([30000, 30000, 30000], "<i2").tobytes())
    with pytest.raises(UserError, match=r"big\.nii\.gz announces shape 30000×30000×30000"):
        open_volume(big)
    long = _patched(save(tmp_path / "long.nii.gz", PATIENT), 42, np.array([900, 900, 900], "<i2").tobytes())
    with pytest.raises(UserError, match=r"long\.nii\.gz is cut short: it announces 900×900×900"):
        open_volume(long)
    none = _patched(save(tmp_path / "none.nii.gz", PATIENT), 42, np.array([0, 3, 4], "<i2").tobytes())
    with pytest.raises(UserError, match=r"none\.nii\.gz"):
        open_volume(none)
    minus = _patched(save(tmp_path / "minus.nii.gz", PATIENT), 42, np.array([-2, 3, 4], "<i2").tobytes())
    with pytest.raises(UserError, match=r"minus\.nii\.gz"):
        open_volume(minus)
    kind = _patched(save(tmp_path / "kind.nii.gz", PATIENT), 70, np.array([999], "<i2").tobytes())
    with pytest.raises(UserError, match=r"kind\.nii\.gz"):
        open_volume(kind)


@pytest.mark.parametrize("name", ["text.nii.gz", "text.nii", "empty.nii", "empty.nii.gz", "half.nii.gz", "folder.nii"])
def test_what_is_no_nifti(tmp_path, name):
    path = tmp_path / name
    if name.startswith("folder"):
        path.mkdir()
    elif name.startswith("half"):
        path.write_bytes(save(tmp_path / "v.nii.gz", PATIENT).read_bytes()[:60])
    else:
        path.write_bytes(b"" if name.startswith("empty") else b"no volume at all, only text" * 30)
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
        open_volume(path)
    assert "\n" not in str(caught.value)


def test_kinds_that_are_not_read(tmp_path):
    with pytest.raises(UserError, match="unknown kind"):
        open_volume(tmp_path / "v.mgz")
    with pytest.raises(UserError, match="does not exist"):
        open_volume(tmp_path / "v.nii")
    with pytest.raises(UserError, match="type complex64"):
        open_volume(save(tmp_path / "c.nii", PATIENT.astype(np.complex64)))
    with pytest.raises(UserError, match="3 axes are expected"):
        open_volume(save(tmp_path / "f.nii", np.zeros((2, 3, 4, 5), np.float32)))
    bent = _patched(save(tmp_path / "a.nii.gz", PATIENT), 280, np.array([np.inf], "<f4").tobytes())
    with pytest.raises(UserError, match="affine"):
        open_volume(bent)
    assert open_volume(save(tmp_path / "t.nii", PATIENT[..., None])).stored == (2, 3, 4)
    flat = open_volume(save(tmp_path / "p.nii", PATIENT[0]))
    assert flat.stored == (3, 4, 1)
    np.testing.assert_array_equal(as_seen(flat), PATIENT[0].T[None])


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files_end_in_one_sentence(tmp_path, seed):
    draw = np.random.default_rng(seed)
    good = save(tmp_path / "v.nii", draw.integers(0, 9, (6, 5, 4)).astype(np.int16)).read_bytes()
    path = tmp_path / "m.nii"
    for _ in range(60):
        bad = bytearray(good)
        for place in draw.integers(0, 352, draw.integers(1, 6)):
            bad[place] = draw.integers(0, 256)
        path.write_bytes(bytes(bad[: draw.integers(300, len(bad) + 1)]))
        message = ""
        try:
            volume = open_volume(path)
            shape = volume.shape(volume.layout)
            seen = list(volume.planes(volume.layout))
        except UserError as error:
            message = str(error)
        if message:
            assert "m.nii" in message
            assert "\n" not in message
        else:
            assert len(seen) == shape[0]
            assert seen[0][1].shape == shape[1:]
