"""``multirater predict``: a cell with weights on new pictures and volumes, and back to the image's own grid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from multirater.benchmark.commands.predict import command
from multirater.benchmark.predict_files import predict_files
from multirater.benchmark.predict_images import NewImage, Scaling, predict_image, read_image
from multirater.core.errors import UserError
from multirater.core.options import resolve_options
from multirater.datasets import DATASETS, DataDescription, open_dataset
from multirater.datasets.image_files import to_unit_range
from multirater.datasets.qubiq import SOFT_TISSUE
from multirater.methods.base import Method, Prediction
from PIL import Image

Make = Callable[..., Any]
SIZE = 32


class Threshold(Method):
    """Samples and maps that follow the image: whatever place a bright pixel has, a mask has."""

    gives_samples = gives_raters = True

    def training_step(self, batch: Any, stage: str | None = None) -> Any:
        raise NotImplementedError

    def predict(self, images: torch.Tensor, n_samples: int = 1, generator: torch.Generator | None = None) -> Prediction:
        bright = images[:, 0]
        noise = 0.02 * torch.rand(n_samples, generator=generator)
        samples = (bright[:, None] - noise[None, :, None, None]).clamp(0, 1)
        raters = torch.stack([bright * (1 - 0.3 * r) for r in range(self.data.raters)], 1)
        return Prediction(samples=samples, raters=raters, mean=bright)


@pytest.fixture
def method() -> Threshold:
    return Threshold(DataDescription(raters=2, rater_ids=("first", "second/x"), size=(SIZE, SIZE)))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    values = np.zeros((50, 48), np.uint8)
    values[10:20, 30:40] = 255
    path = tmp_path / "lesion.png"
    Image.fromarray(values).save(path)
    return path


def volume(path: Path, affine: np.ndarray) -> np.ndarray:
    """A volume x×y×z with one bright block; its stored values."""
    values = np.zeros((40, 36, 3), np.float32)
    values[5:15, 20:30, 1] = 1.0
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return values


def test_masks_lie_where_the_image_has_them(method: Threshold, picture: Path) -> None:
    found = predict_image(method, read_image(picture, 1), 5, 0, torch.device("cpu"), stretch=True)
    assert found.mean.shape == (1, 50, 48)
    assert found.samples is not None
    assert found.samples.shape == (5, 1, 50, 48)
    assert found.raters is not None
    assert found.raters.shape == (2, 1, 50, 48)
    truth = np.zeros((50, 48), bool)
    truth[10:20, 30:40] = True
    overlap = (found.samples[0, 0] & truth).sum() / (found.samples[0, 0] | truth).sum()
    assert overlap > 0.75  # through 32×32 and back


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_volumes_come_back_on_their_own_grid(
    method: Threshold, tmp_path: Path, signs: tuple[int, ...], order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.diag(np.array(signs) * (1.0, 1.5, 3.0))[:, list(order)]
    path = tmp_path / "scan.nii.gz"
    values = volume(path, affine)
    image = read_image(path, 1)
    method.data = DataDescription(raters=2, rater_ids=("a", "b"), size=image.planes[0].shape[1:])
    from multirater.benchmark.predict_files import _nifti

    found = predict_image(method, image, 3, 0, torch.device("cpu"))
    files = _nifti(tmp_path / "out", image, found)
    assert set(files) == {"mean.nii.gz", "samples.nii.gz", "raters.nii.gz", "rater_masks.nii.gz"}
    mean = nibabel.load(tmp_path / "out" / "mean.nii.gz")
    np.testing.assert_allclose(np.asarray(mean.dataobj), values, atol=1e-6)
    np.testing.assert_allclose(mean.affine, affine)
    samples = np.asarray(nibabel.load(tmp_path / "out" / "samples.nii.gz").dataobj)
    assert samples.shape == (*values.shape, 3)
    np.testing.assert_array_equal(samples[..., 0] > 0, values > 0.5)


def test_all_slices_of_a_volume_share_the_noise(method: Threshold, tmp_path: Path) -> None:
    image = NewImage(tmp_path / "x.nii", [np.full((1, SIZE, SIZE), 0.51, np.float32)] * 3)
    found = predict_image(method, image, 40, 7, torch.device("cpu"))
    assert found.samples is not None
    assert (found.samples == found.samples[:, :1]).all()
    assert 0 < found.samples.mean() < 1
    again = predict_image(method, image, 40, 7, torch.device("cpu"))
    other = predict_image(method, image, 40, 8, torch.device("cpu"))
    assert again.samples is not None
    assert other.samples is not None
    assert (again.samples == found.samples).all()
    assert (other.samples != found.samples).any()


def test_values_become_zero_to_one_as_declared(tmp_path: Path) -> None:
    path = tmp_path / "ct.npy"
    np.save(path, np.linspace(-1000, 400, SIZE * SIZE).reshape(SIZE, SIZE))
    plane = read_image(path, 1, Scaling((-1000.0, 400.0))).planes[0]
    assert (plane.min(), plane.max()) == (0, 1)
    np.testing.assert_allclose(plane[0, SIZE // 2, 0], 0.5, atol=0.02)
    three = tmp_path / "mri.npy"
    np.save(three, np.zeros((2, SIZE, SIZE)))
    assert read_image(three, 2).planes[0].shape == (2, SIZE, SIZE)
    with pytest.raises(UserError, match="1 channels, but the cell was trained on 2"):
        read_image(path, 2)
    np.save(three, np.full((2, SIZE, SIZE), 7.0))
    with pytest.raises(UserError, match=r"outside \[0, 1\]"):
        read_image(three, 2)


def test_another_shape_is_refused_unless_stretched(method: Threshold, tmp_path: Path) -> None:
    image = NewImage(tmp_path / "w.png", [np.zeros((1, 20, 60), np.float32)])
    with pytest.raises(UserError, match="has 20×60 pixels, but the cell works on 32×32: it would be stretched"):
        predict_image(method, image, 1, 0, torch.device("cpu"))
    assert predict_image(method, image, 1, 0, torch.device("cpu"), stretch=True).mean.shape == (1, 20, 60)


@pytest.fixture
def cell(fabricate: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained network stored as the weights of a cell."""
    from multirater.benchmark.training import save_weights
    from multirater.methods import create_method

    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    options = resolve_options(DATASETS.get("synthetic"), {"size": SIZE, "cases": 40, "raters": 3}, "dataset")
    dataset = open_dataset("synthetic", **options)
    own = {"backbone": "unet_small"}
    train = {"steps": 1, "select": "last", "channels_last": False, "stages": [{"name": "main", "steps": 1}]}
    folder = fabricate().cell(
        "unet_soft", None, dataset="synthetic", data_options=options, fingerprint=dataset.fingerprint, options=own,
        train=None, eval={"n_samples": 4, "max_cases": None},
    )  # fmt: skip
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**spec, "train": train}))
    save_weights(folder / "weights.safetensors", create_method("unet_soft", dataset.describe(), **own))
    return folder


def test_images_of_the_data_set_are_predicted_as_the_evaluation_sees_them(cell: Path, tmp_path: Path) -> None:
    from multirater.benchmark.worker import load_cell

    spec = json.loads((cell / "spec.json").read_text())
    dataset = open_dataset("synthetic", **spec["dataset"]["options"])
    image = dataset.arrays([5])[0][0]
    assert 0 < image.min() < image.max() < 1
    expected = predict_image(load_cell(cell), NewImage(tmp_path / "own", [image]), 1, 0, torch.device("cpu")).mean[0]
    np.save(tmp_path / "npy.npy", image[0])
    Image.fromarray(image[0]).save(tmp_path / "tif.tif")
    nibabel.save(nibabel.Nifti1Image(image[0].T, np.eye(4)), tmp_path / "nifti.nii.gz")
    Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(tmp_path / "png.png")
    Image.fromarray((image[0] * 4095).round().astype(np.uint16)).save(tmp_path / "deep.png")
    said: list[str] = []
    files = [tmp_path / name for name in ("npy.npy", "tif.tif", "nifti.nii.gz", "png.png", "deep.png")]
    folders = predict_files(cell, files, tmp_path / "out", formats=["npz"], say=said.append)
    means = [np.load(folder / "prediction.npz")["mean"].reshape(SIZE, SIZE) for folder in folders]
    for mean in means[:3]:
        np.testing.assert_allclose(mean, expected, atol=1e-6)
    np.testing.assert_allclose(means[3], expected, atol=0.02)
    records = [json.loads((folder / "prediction.json").read_text())["scaling"] for folder in folders]
    assert records[:3] == [{"low": 0.0, "high": 1.0, "rule": "as stored"}] * 3
    assert records[3] == {"low": 0.0, "high": 255.0, "rule": "range of uint8"}
    low, high = np.percentile(np.round(image[0] * 4095), [0.5, 99.5])
    assert records[4] == {"low": low, "high": high, "rule": "percentiles 0.5 and 99.5"}
    (sentence,) = said
    assert sentence.startswith(f"{files[4]}: its percentiles 0.5 and 99.5, grey values {low:g} and {high:g}, became")
    predict_files(cell, files[4:], tmp_path / "out", formats=["npz"], window=(0, 4095), say=said.append)
    np.testing.assert_allclose(np.load(folders[4] / "prediction.npz")["mean"], expected, atol=0.02)
    assert len(said) == 1
    np.save(tmp_path / "flat.npy", np.full((SIZE, SIZE), 7))
    predict_files(cell, [tmp_path / "flat.npy"], tmp_path / "out", formats=["npz"], say=said.append)
    assert "both grey value 7, became 0 like all others" in said[1]
    assert "0.5th and 99.5th percentiles" in " ".join(run("--help").output.split())


def test_files_are_scaled_as_a_data_set_of_such_files_does(tmp_path: Path) -> None:
    values = np.linspace(0.2, 0.6, SIZE * SIZE).reshape(SIZE, SIZE)
    np.save(tmp_path / "x.npy", values)
    found = read_image(tmp_path / "x.npy", 1, Scaling(from_files=True))
    np.testing.assert_array_equal(found.planes[0][0], to_unit_range(values, None))
    assert found.rule == "percentiles 0.5 and 99.5"
    own = read_image(tmp_path / "x.npy", 1, Scaling((0.0, 2.0), "window of the cell's data set"))
    assert (own.low, own.high, own.rule) == (0, 2, "window of the cell's data set")
    np.testing.assert_allclose(own.planes[0][0], values / 2, rtol=1e-6)


def test_windows_that_data_sets_declare(tmp_path: Path) -> None:
    assert open_dataset("qubiq", root=str(tmp_path), set="kidney").window == SOFT_TISSUE
    assert open_dataset("qubiq", root=str(tmp_path), set="kidney", window=(0.0, 9.0)).window == (0, 9)
    assert open_dataset("qubiq", root=str(tmp_path), set="brain-growth").window is None
    assert open_dataset("synthetic", size=SIZE).window is None


def test_standardised_images_cannot_be_made_from_files(tmp_path: Path, picture: Path) -> None:
    scaling = Scaling(standardised="which are not in [0, 1] but reach from -2 to 5")
    with pytest.raises(UserError, match=r"cannot be scaled like the cell's images.*from -2 to 5; give it prepared"):
        read_image(picture, 1, scaling)
    values = np.random.default_rng(0).normal(size=(1, SIZE, SIZE)).astype(np.float32)
    np.save(tmp_path / "z.npy", values)
    np.testing.assert_array_equal(read_image(tmp_path / "z.npy", 1, scaling).planes[0], values)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


def test_command_writes_every_format_and_the_same_bytes_again(cell: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run(cell, picture, "--out", out, "--format", "nifti,png,npz", "--stretch")
    assert found.exit_code == 0, found.output
    folder = out / "lesion"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {"mean.png", "sample_001.png", "sample_004.png", "mean.nii.gz", "samples.nii.gz", "prediction.npz"} <= set(
        before
    )
    record = json.loads((folder / "prediction.json").read_text())
    assert (record["n_samples"], record["size"]) == (4, {"image": [50, 48], "network": [SIZE, SIZE]})
    assert set(record["files"]) == set(before) - {"prediction.json"}
    with np.load(folder / "prediction.npz") as arrays:
        assert arrays["mean"].shape == (50, 48)
        assert arrays["samples"].shape == (4, 50, 48)
        assert "raters" not in arrays  # not claimed, not written
        png = np.asarray(Image.open(folder / "sample_002.png"))
        np.testing.assert_array_equal(png > 0, arrays["samples"][1])
        stored = np.asarray(nibabel.load(folder / "mean.nii.gz").dataobj)
        np.testing.assert_allclose(stored[..., 0].T, arrays["mean"])
    run(cell, picture, "--out", out, "--format", "nifti,png,npz", "--stretch")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"formats": ["jpg"]}, "unknown format of predictions 'jpg'"),
        ({"images": []}, "no image given"),
        ({"images": ["lesion.png", "lesion.png"]}, "have one name"),
        ({"images": ["none.png"]}, "does not exist"),
        ({"cell": "nowhere"}, "no trained weights"),
        ({"window": (400.0, -1000.0)}, "--window 400 -1000 is not allowed: give two rising numbers"),
    ],
)
def test_wrong_input_is_one_sentence(cell: Path, picture: Path, change: dict[str, Any], said: str) -> None:
    images = [picture.parent / name for name in change.get("images", ["lesion.png"])]
    folder = picture.parent / change["cell"] if "cell" in change else cell
    with pytest.raises(UserError, match=said):
        predict_files(
            folder, images, picture.parent / "out", formats=change.get("formats", ()), window=change.get("window")
        )
