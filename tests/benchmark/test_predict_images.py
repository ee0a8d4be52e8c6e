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
from multirater.benchmark.predict_images import NewImage, predict_image, read_image
from multirater.core.errors import UserError
from multirater.core.options import resolve_options
from multirater.datasets import DATASETS, DataDescription, open_dataset
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
    plane = read_image(path, 1, (-1000.0, 400.0)).planes[0]
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
    ],
)
def test_wrong_input_is_one_sentence(cell: Path, picture: Path, change: dict[str, Any], said: str) -> None:
    images = [picture.parent / name for name in change.get("images", ["lesion.png"])]
    folder = picture.parent / change["cell"] if "cell" in change else cell
    with pytest.raises(UserError, match=said):
        predict_files(folder, images, picture.parent / "out", formats=change.get("formats", ()))
