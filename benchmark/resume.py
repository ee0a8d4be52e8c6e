"""The state of a training in the middle of a stage: what it holds, how it is kept, when it is saved.

One safetensors file with the tensors and, in its header, JSON: nothing in it can run code. The file is written beside
the old one, read back and compared, and only then takes its place; a process may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import replacing

FORM = 1  # of the file; a state of another form is not used: its stage starts again, with the same numbers


class StateKeeper:
    """Saves the state of a running stage into one file and decides when.

    A save is due at the end of an epoch, or after `most` seconds without one, but never before `least` seconds and
    never so soon that saving would take more than `share` of the time.

    Args:
        path: the file.
        most: seconds after which a save is due in the middle of an epoch (specification: 10 minutes).
        least: seconds before which none is; ``MULTIRATER_SAVE_SECONDS`` sets it.
        share: largest part of the time that saving may take.
    """

    def __init__(self, path: Path, most: float = 600.0, least: float | None = None, share: float = 0.02) -> None:
        self.path = path
        self.most = most
        self.least = float(os.environ.get("MULTIRATER_SAVE_SECONDS", "10")) if least is None else least
        self.share = share
        self.cost = 0.0
        self._last = time.monotonic()

    def start(self, size: int) -> None:
        """A stage begins whose state has about `size` bytes."""
        self.cost = size / 100e6  # a slow disk, until the first save has been timed
        self._last = time.monotonic()

    def due(self, epoch_end: bool) -> bool:
        """Whether to save after this step."""
        waited = time.monotonic() - self._last
        if self.least > 0 and waited < self.cost / self.share:
            return False
        return waited >= (self.least if epoch_end else self.most)

    def save(self, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write a state and put it in the place of the last one once it has been read back.

        Raises:
            UserError: it cannot be written; the last one is still there.
        """
        started = time.monotonic()
        write_state(self.path, facts, tensors)
        self._last = time.monotonic()
        self.cost = self._last - started

    def load(self, stage: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The last state of a stage; None if there is none that can be used."""
        found = read_state(self.path)
        return found if found is not None and found[0].get("stage") == stage else None

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def write_state(path: Path, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Keep `facts` (JSON values) and `tensors` in one file; see `StateKeeper.save`."""
    from safetensors.torch import save_file

    # A copy each: modules may share tensors, which the format refuses. Its layout does not survive the file.
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    header = {"form": str(FORM), "facts": json.dumps(facts)}
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata=header)
        kept = _read(temporary)
        if kept is None or kept[0] != header or not _same(kept[1], plain):
            raise UserError(f"cannot write {path}: what was written reads back differently; check that disk")


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Facts and tensors of a file of `write_state`; None if it is missing, damaged or of another form."""
    found = _read(path) if path.is_file() else None
    if found is None or found[0].get("form") != str(FORM):
        return None
    return json.loads(found[0]["facts"]), found[1]


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None


def _same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    """Equal bit for bit: a NaN equals itself here."""
    return one.keys() == two.keys() and all(
        a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        for a, b in ((one[k], two[k]) for k in one)
    )


# -- parts of a state -------------------------------------------------------------------------------------------------


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below a prefix, under their own names."""
    return {k.removeprefix(f"{prefix}/"): v for k, v in tensors.items() if k.startswith(f"{prefix}/")}


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """What an optimiser remembers of each parameter: plain values, and tensors by ``index/name``."""
    values: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{index}/{name}": value for name, value in state.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
        values.append({"index": index, "values": plain})
    return values, tensors


def restore_optimizer(
    optimizer: torch.optim.Optimizer, values: list[dict[str, Any]], tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_state`, on an optimiser built anew for the same parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {entry["index"]: {**entry["values"], **part(str(entry["index"]), tensors)} for entry in values}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter in parameters:
        for name, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim:
                # As the optimiser makes it: in the layout of its parameter, which decides which kernel runs.
                optimizer.state[parameter][name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def generator_states() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The global generators of Python, NumPy and torch (every CUDA device)."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - a method may draw from it
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_initialized():  # asking would start CUDA in a run on the CPU
        tensors |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    facts = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), int(position), int(has_gauss), float(cached)],
    }
    return facts, tensors


def restore_generators(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    version, numbers, gauss = facts["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, position, has_gauss, cached = facts["numpy"]
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(tensors["torch"])
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            if f"cuda{device}" in tensors:  # a node with fewer devices than the last one
                torch.cuda.set_rng_state(tensors[f"cuda{device}"], device)


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
