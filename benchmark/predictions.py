"""Predictions of a cell: made one case at a time with that case's generator, stored packed, read back exactly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..core.errors import UserError
from ..core.files import replacing
from ..core.seeding import torch_generator
from ..datasets.base import Dataset
from ..methods.base import Method, Prediction
from .class_layout import ClassLayout
from .scored_cases import as_case, rows_of

LOG_EPSILON = 1e-8  # inside the log of the mean-log map (metrics.md 2.5)
_SUM_SLACK = 1e-2  # of softmax channels, which half precision rounds
_CODES = ("sample_codes", "rater_codes")
_SAME_MEAN = 1e-6  # up to this the mean map is the mean of the samples


@dataclass
class StoredPredictions:
    """What a cell keeps of its predictions; the channel axes C, K and L of several classes are those of `ClassLayout`.

    Attributes:
        case_ids: N ids of rows: cases, or the slices of volumes, a volume's slices one after another.
        mean: N×[C×]H×W float32, mean probability.
        mean_log: N×[L…×]H×W float32, mean over the samples of log(p+ε): binary 2×H×W of 1-p and p, overlapping
            K×2×H×W, exclusive (K+1)×H×W.
        samples: N×S×[K×]H×W bool, hard masks of the foreground classes, or None.
        raters: N×R×[C×]H×W float32 probabilities, or None.
        requested: number of samples asked of the method; it may give fewer.
        seconds: wall time of the prediction of all cases.
        sample_mean: like `mean`, the mean of the samples' probabilities where the method gives another map as its mean
            (the consensus of all raters, say); None: it is `mean`. Goes with `mean_log` (NCC).
        sample_codes, rater_codes: N×S×D and N×R×D float32 latent codes of samples and rater maps, or None.
    """

    case_ids: list[str]
    mean: np.ndarray
    mean_log: np.ndarray
    samples: np.ndarray | None = None
    raters: np.ndarray | None = None
    requested: int = 0
    seconds: float = 0.0
    sample_mean: np.ndarray | None = None
    sample_codes: np.ndarray | None = None
    rater_codes: np.ndarray | None = None

    def select(self, case_ids: Sequence[str], n_samples: int) -> StoredPredictions:
        """Some of the cases and the first `n_samples` of the samples."""
        position = {c: i for i, c in enumerate(self.case_ids)}
        index = [position[c] for c in case_ids]
        return replace(
            self,
            case_ids=list(case_ids),
            mean=self.mean[index],
            mean_log=self.mean_log[index],
            samples=None if self.samples is None else self.samples[index, :n_samples],
            raters=None if self.raters is None else self.raters[index],
            sample_mean=None if self.sample_mean is None else self.sample_mean[index],
            sample_codes=None if self.sample_codes is None else self.sample_codes[index, :n_samples],
            rater_codes=None if self.rater_codes is None else self.rater_codes[index],
        )

    def case(self, rows: slice, volume: bool) -> CasePrediction:
        """What is stored of the case that fills these rows."""

        def cut(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else as_case(values[rows], volume)

        mean, logs = as_case(self.mean[rows], volume), as_case(self.mean_log[rows], volume)
        return CasePrediction(
            mean=mean,
            mean_log=logs,
            samples=cut(self.samples),
            raters=cut(self.raters),
            sample_mean=cut(self.sample_mean),
        )

    def covers(self, case_ids: Sequence[str], n_samples: int) -> bool:
        """Whether an evaluation of these cases with so many samples needs no network.

        Of more samples the first ones could be taken, but not their mean map: that was made of all. A number would
        then depend on what was predicted earlier.
        """
        return set(case_ids) <= set(self.case_ids) and n_samples == self.requested


@dataclass
class CasePrediction:
    """`StoredPredictions` of one case: an image, or a volume with its slices as the axis D before H×W."""

    mean: np.ndarray
    mean_log: np.ndarray
    samples: np.ndarray | None = None
    raters: np.ndarray | None = None
    sample_mean: np.ndarray | None = None


def predict_case(method: Method, images: np.ndarray, n_samples: int, device: torch.device, **axes: Any) -> Prediction:
    """Prediction of one case: one image, or all slices of a volume (B×C×H×W), for which a sample is one draw.

    Its noise depends on the data set, the case and the seed, not on method or order.
    """
    generator = torch_generator("predict", device=device.type, **axes)
    method.slices_share_noise = len(images) > 1
    try:
        with torch.inference_mode():
            return method.predict(torch.from_numpy(images).to(device), n_samples=n_samples, generator=generator)
    finally:
        method.slices_share_noise = False


def predict_cases(
    method: Method,
    dataset: Dataset,
    indices: Sequence[int] | np.ndarray,
    n_samples: int,
    seed: int,
    device: torch.device,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> StoredPredictions:
    """Predict cases one by one, a volume with all its slices at once, and keep what scoring needs.

    Volumes come in the order of their first row in `indices`, each with its slices in order.

    Raises:
        UserError: a prediction has the wrong shape or is not a probability.
    """
    started = time.perf_counter()
    method.eval()
    records = dataset.records
    layout = ClassLayout.of(method.data)
    fields = ("samples", "mean", "mean_log", "raters", "sample_mean", *_CODES)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in fields}
    cases = dataset.volumes(indices)
    for done, case in enumerate(cases):
        images = dataset.arrays(case.rows)[0]
        prediction = predict_case(method, images, n_samples, device, dataset=dataset.name, case=case.case_id, seed=seed)
        check_prediction(prediction, images, case.case_id, method)
        assert prediction.mean is not None
        for i in range(len(images)):
            mean = prediction.mean[i].float()
            source = mean[None] if prediction.samples is None else prediction.samples[i].float()
            kept["mean_log"].append(_mean_log(source, layout).cpu().numpy())
            kept["mean"].append(mean.cpu().numpy())
            if prediction.samples is not None:
                kept["sample_mean"].append(source.mean(0).cpu().numpy())
                kept["samples"].append(_hard(prediction.samples[i], layout))
            if prediction.raters is not None:
                kept["raters"].append(prediction.raters[i].float().cpu().numpy())
            for name in _CODES:
                codes = getattr(prediction, name)
                if codes is not None:
                    kept[name].append(codes[i].detach().float().cpu().numpy())
        tick(done + 1, len(cases))
    stacked = {name: np.stack(values) if values else None for name, values in kept.items()}
    if stacked["mean"] is None or stacked["mean_log"] is None:
        raise UserError(f"no cases to predict in {dataset.name!r}: this part of the split is empty; use another split")
    sample_mean = stacked["sample_mean"]
    if sample_mean is not None and np.abs(sample_mean - stacked["mean"]).max() <= _SAME_MEAN:
        sample_mean = None
    return StoredPredictions(
        case_ids=[records[i].case_id for i in rows_of(cases)],
        mean=stacked["mean"],
        mean_log=stacked["mean_log"],
        samples=stacked["samples"],
        raters=stacked["raters"],
        requested=n_samples,
        seconds=time.perf_counter() - started,
        sample_mean=sample_mean,
        sample_codes=stacked["sample_codes"],
        rater_codes=stacked["rater_codes"],
    )


def _hard(samples: torch.Tensor, layout: ClassLayout) -> np.ndarray:
    """Samples S×[C×]H×W as hard masks S×[K×]H×W."""
    planes = layout.hard(samples.float().cpu().numpy())
    return planes if layout.channels else planes[:, 0]


def _mean_log(probabilities: torch.Tensor, layout: ClassLayout) -> torch.Tensor:
    """Mean over S×[C×]H×W of log(p+ε), in the form of `StoredPredictions.mean_log`."""
    if layout.kind == "exclusive":
        return torch.log(probabilities + LOG_EPSILON).mean(0)
    logs = [torch.log(p + LOG_EPSILON).mean(0) for p in (1 - probabilities, probabilities)]
    return torch.stack(logs, len(layout.channels))


def check_prediction(prediction: Prediction, images: np.ndarray, case: str, method: Method) -> None:
    """Refuse predictions that could be scored only by misreading them."""
    layout = ClassLayout.of(method.data)
    name, count, map_shape = type(method).__name__, len(images), (*layout.channels, *images.shape[2:])
    expected = {
        "samples": (count, None, *map_shape),
        "raters": (count, method.data.raters, *map_shape),
        "mean": (count, *map_shape),
    }
    for field, shape in expected.items():
        value = getattr(prediction, field)
        if value is None:
            continue
        fits = value.ndim == len(shape) and all(e is None or e == v for e, v in zip(shape, value.shape, strict=True))
        if not fits:
            channels = {
                "binary": "",
                "overlapping": f" (a channel for each of the {layout.classes} classes)",
                "exclusive": f" (background and {layout.classes} classes as channels)",
            }[layout.kind]
            raise UserError(
                f"{name}.predict gave {field} of shape {tuple(value.shape)} for case {case}, expected "
                f"{tuple('S' if e is None else e for e in shape)}{channels}; mend predict"
            )
        low, high = (float(v) for v in torch.aminmax(value))
        if not (low >= 0 and high <= 1):  # also false for NaN
            raise UserError(
                f"{name}.predict gave {field} in [{low:g}, {high:g}] for case {case}, but probabilities lie in [0, 1]; "
                f"apply a sigmoid{' or softmax' if layout.channels else ''}"
            )
        if layout.kind == "exclusive":
            low, high = (float(v) for v in torch.aminmax(value.float().sum(-layout.dims - 1)))
            if low < 1 - _SUM_SLACK or high > 1 + _SUM_SLACK:
                raise UserError(
                    f"{name}.predict gave {field} whose channels sum to [{low:g}, {high:g}] for case {case}, but "
                    f"a pixel has one of the exclusive classes of {method.data.name!r}; apply a softmax, not a sigmoid"
                )
    _check_codes(prediction, count, case, method)


def _check_codes(prediction: Prediction, count: int, case: str, method: Method) -> None:
    """One code for each sample and each rater's map, all of one length: they are drawn in one space."""
    name, length = type(method).__name__, None
    for codes, maps in (("sample_codes", "samples"), ("rater_codes", "raters")):
        value, of = getattr(prediction, codes), getattr(prediction, maps)
        if value is None:
            continue
        if of is None:
            raise UserError(f"{name}.predict gave {codes} without {maps} for case {case}; mend predict")
        shape = (count, of.shape[1], length)
        if value.ndim != 3 or value.shape[:2] != shape[:2] or value.shape[2] != (length or value.shape[2]):
            raise UserError(
                f"{name}.predict gave {codes} of shape {tuple(value.shape)} for case {case}, expected "
                f"{(*shape[:2], length or 'D')}: a code for each of the {maps}; mend predict"
            )
        length = value.shape[2]


def write_predictions(path: Path, stored: StoredPredictions) -> None:
    """Store predictions; hard masks take one bit a pixel, maps stay float32."""
    tensors = {"mean": stored.mean, "mean_log": stored.mean_log}
    metadata = {"case_ids": json.dumps(stored.case_ids), "shape": json.dumps(stored.mean.shape[1:]), "n_samples": "0"}
    metadata |= {"requested": str(stored.requested), "seconds": f"{stored.seconds:.3f}"}
    if stored.samples is not None:
        n, count = stored.samples.shape[:2]
        metadata["shape"] = json.dumps(stored.samples.shape[2:])  # of one sample: what the packed bits unfold to
        tensors["samples"] = np.packbits(stored.samples.reshape(n, count, -1), axis=-1)
        metadata["n_samples"] = str(count)
    for name in ("raters", "sample_mean", *_CODES):
        if getattr(stored, name) is not None:
            tensors[name] = getattr(stored, name)
    with replacing(path) as temporary:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, temporary, metadata)


class DamagedPredictions(UserError):
    """A file of predictions that is not whole; it can be made again from the weights."""


def read_predictions(path: Path) -> StoredPredictions:
    """Predictions as they were stored.

    Raises:
        UserError: the file cannot be read.
        DamagedPredictions: it is damaged.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UserError(f"{path} cannot be read: {why}; restore it or make it readable") from error
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedPredictions(
            f"{path} is damaged ({error}); delete it, and `multirater run` with the options of its cell and the eval.* "
            f"that are wanted makes it again from the weights"
        ) from error


def _read(path: Path) -> StoredPredictions:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    shape = tuple(json.loads(metadata["shape"]))
    samples = tensors.get("samples")
    if samples is not None:
        n, count = samples.shape[:2]
        bits = np.unpackbits(samples, axis=-1, count=int(np.prod(shape)))
        samples = bits.astype(bool).reshape(n, count, *shape)
    return StoredPredictions(
        case_ids=json.loads(metadata["case_ids"]),
        mean=tensors["mean"],
        mean_log=tensors["mean_log"],
        samples=samples,
        raters=tensors.get("raters"),
        requested=int(metadata["requested"]),
        seconds=float(metadata["seconds"]),
        sample_mean=tensors.get("sample_mean"),
        sample_codes=tensors.get("sample_codes"),
        rater_codes=tensors.get("rater_codes"),
    )
