"""Pictures and masks of every kind of file, and what is said of files that cannot be used."""

from __future__ import annotations

import gc
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets.image_files import (
    read_array,
    read_picture,
    resize_image,
    resize_labels,
    to_channels,
    to_unit_range,
)
from PIL import Image

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4)


def unit(values, window=None):
    return to_unit_range(values, window)


def refused(path, *words, labels=False):
    with pytest.raises(UserError) as caught:
        read_picture(path, labels)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif", "npy", "nii", "nii.gz"])
def test_grey_8_bit_is_the_same_in_every_format(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, RAMP)
    elif suffix.startswith("nii"):
        nibabel.save(nibabel.Nifti1Image(RAMP.T, np.diag([0.5, 0.7, 1, 1])), path)
    else:
        Image.fromarray(RAMP).save(path)
    picture = read_picture(path)
    grey = to_channels(unit(picture.values), "grey")
    assert grey.shape == (1, 3, 4)
    np.testing.assert_allclose(grey[0], RAMP / 255, atol=1e-7)
    if suffix.startswith("nii"):
        assert picture.spacing == pytest.approx((0.7, 0.5)), "row spacing first"
    assert (read_picture(path, labels=True).values == RAMP).all()


def test_sixteen_bit_and_float_use_percentiles_and_windows_are_absolute(tmp_path):
    values = (np.arange(10_000).reshape(100, 100) * 5).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    read = read_picture(tmp_path / "x.png").values
    np.testing.assert_array_equal(read, values)
    scaled = unit(read)
    assert scaled.dtype == np.float32
    assert scaled.min() == 0
    assert scaled.max() == 1
    assert scaled[50, 0] == pytest.approx((25_000 - 0.005 * 49_995) / (0.99 * 49_995), abs=1e-4)
    hu = np.array([[-2000.0, -1000.0], [-300.0, 900.0]])
    np.testing.assert_allclose(unit(hu, (-1000, 400)), [[0, 0], [0.5, 1]])
    assert not unit(np.full((2, 2), 7.0)).any()


def test_one_bit_palette_colour_and_alpha(tmp_path):
    bits = RAMP % 2 == 0
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert (unit(read_picture(tmp_path / "bits.png").values) == bits).all()

    palette = Image.fromarray(RAMP % 3).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")
    assert (read_picture(tmp_path / "palette.png", labels=True).values == RAMP % 3).all(), "indices, not colours"
    colours = read_picture(tmp_path / "palette.png").values
    assert colours.shape == (3, 4, 3)
    assert tuple(colours[0, 1]) == (255, 0, 0)

    rgba = np.zeros((3, 4, 4), np.uint8)
    rgba[..., 1], rgba[..., 3] = 200, RAMP
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    values = unit(read_picture(tmp_path / "rgba.png").values)
    np.testing.assert_allclose(to_channels(values, "grey"), 0.587 * 200 / 255, rtol=1e-6)
    assert to_channels(values, "rgb").shape == (3, 3, 4)
    assert to_channels(values, "as_stored").shape == (3, 3, 4)
    refused(tmp_path / "rgba.png", "colour", labels=True)


def test_resizing_keeps_the_mean_of_images_and_the_values_of_masks():
    checker = (np.indices((64, 64)).sum(0) % 2).astype(np.float32)
    small = resize_image(checker[None], (16, 16))
    assert small.shape == (1, 16, 16)
    assert np.abs(small - 0.5).max() < 0.05, "antialiased: a checkerboard becomes grey, not black"
    labels = np.array([[0, 0, 3, 3], [0, 0, 3, 3], [7, 7, 9, 9], [7, 7, 9, 9]], np.uint8)
    np.testing.assert_array_equal(resize_labels(labels, (2, 2)), [[0, 3], [7, 9]])
    np.testing.assert_array_equal(resize_labels(np.stack([labels, labels]), (8, 4))[1, 2], [0, 0, 3, 3])
    assert resize_image(checker[None], (64, 64)) is not None
    np.testing.assert_array_equal(resize_image(checker[None], (64, 64))[0], checker)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "npy", "nii", "nii.gz"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_files_are_named(tmp_path, suffix, damage):
    path = tmp_path / f"x.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    if suffix == "npy":
        np.save(path, noise)
    elif suffix.startswith("nii"):
        nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
    else:
        Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"not a picture\n" * 9}[damage])
    refused(path, "damaged")


def test_what_cannot_be_read_says_why(tmp_path):
    volume = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), volume)
    refused(volume, "4×5×6", "slices")
    slice_ = tmp_path / "slice.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 1), np.uint8), np.diag([2, 3, 9, 1])), slice_)
    assert read_picture(slice_).values.shape == (5, 4)
    assert read_picture(slice_).spacing == (3, 2)

    stack = tmp_path / "stack.tif"
    Image.fromarray(RAMP).save(stack, save_all=True, append_images=[Image.fromarray(RAMP)])
    refused(stack, "2 frames")
    np.save(tmp_path / "cube.npy", np.zeros((5, 5, 5)))
    refused(tmp_path / "cube.npy", "5×5×5")
    (tmp_path / "x.dcm").write_bytes(b"")
    refused(tmp_path / "x.dcm", "unknown kind", ".nii.gz")
    refused(tmp_path / "gone.png", "does not exist")


def test_a_pickle_in_an_npy_file_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    refused(tmp_path / "trap.npy")
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Trap()))
    refused(tmp_path / "raw.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("dtype", ["U3", "S3", "c8", "M8[D]", "m8[s]", "V4", "i4,f4"])
def test_npy_holds_real_numbers(tmp_path, dtype):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((4, 4), dtype))
    refused(path, "real numbers")
    refused(path, "real numbers", labels=True)


def test_npy_is_an_array_with_pixels(tmp_path):
    np.save(tmp_path / "none.npy", np.zeros((0, 32)))
    refused(tmp_path / "none.npy", "0×32", "no pixel")
    with (tmp_path / "archive.npy").open("wb") as stream:
        np.savez(stream, a=RAMP)
    refused(tmp_path / "archive.npy", "not what its name says")
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04 nothing else")
    refused(tmp_path / "zip.npy", "not what its name says")
    header = b"{'descr': '<f4', ((\n"
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header)
    refused(tmp_path / "header.npy", "not what its name says")


def test_npy_is_read_in_threads(tmp_path):
    """Python code that runs during a garbage collection lets another thread in, in the middle of a header."""

    def callback(phase, info):
        for _ in range(300):
            pass

    path = tmp_path / "0.npy"
    np.save(path, np.eye(4))
    before, switching = gc.get_threshold(), sys.getswitchinterval()
    gc.callbacks.append(callback)
    gc.set_threshold(10)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda _: read_array(path), range(3000)):
                np.testing.assert_array_equal(found, np.eye(4))
    finally:
        sys.setswitchinterval(switching)
        gc.set_threshold(*before)
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_and_masks_are_finite(tmp_path, value):
    values = np.zeros((4, 4), np.float32)
    values[1, 1] = value
    np.save(tmp_path / "x.npy", values)
    Image.fromarray(values).save(tmp_path / "x.tif")
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "x.nii")
    for suffix in ("npy", "tif", "nii"):
        for labels in (False, True):
            refused(tmp_path / f"x.{suffix}", "not finite", labels=labels)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.complex64), np.eye(4)), tmp_path / "complex.nii")
    refused(tmp_path / "complex.nii", "complex64", "real numbers", labels=True)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("values", [RAMP, RAMP.astype(np.uint16) * 300, RAMP > 5], ids=["8-bit", "16-bit", "1-bit"])
def test_exif_orientation_is_applied(tmp_path, suffix, values):
    path = tmp_path / f"x.{suffix}"
    for orientation, shown in ((1, values), (3, values[::-1, ::-1]), (6, np.rot90(values, -1)), (5, values.T)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(values).save(path, exif=exif)
        for labels in (False, True):
            np.testing.assert_array_equal(read_picture(path, labels).values, shown)
