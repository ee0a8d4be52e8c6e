"""Loading and augmenting a batch against a training step of the quick preset, and against MONAI's transforms.

Measured in one run on two threads: D-Persona stage 1 at 12×128² with four raters, from memory-mapped arrays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from multirater.benchmark.augment_cases import augment_cases
from multirater.benchmark.augment_kinds import parts_of
from multirater.benchmark.config import resolve
from multirater.benchmark.progress import Heartbeat
from multirater.benchmark.trainer import Progress, StageRecord, Trainer
from multirater.core.seeding import numpy_generator
from multirater.datasets import open_dataset
from multirater.methods import create_method

pytestmark = pytest.mark.perf
EVERYTHING = "flips+rotate20+scale+elastic+gamma+contrast+noise"


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = open_dataset("synthetic", cases=120, size=128)
        data.prepare()
        spec: dict[str, Any] = resolve("dpersona", "synthetic", "quick", {"dataset": {"cases": 120, "size": 128}})
        spec |= {"fold": 0, "seed": 0}
        torch.manual_seed(0)
        method = create_method("dpersona", data.describe(), **spec["method"]["options"]).train()
        yield Trainer(method, data, spec, torch.device("cpu"), Heartbeat(tmp_path_factory.mktemp("b") / "beat.json"))


def least(action: Callable[[], Any], rounds: int) -> float:
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        spent.append(time.perf_counter() - start)
    return min(spent)


@pytest.mark.parametrize(
    ("kind", "share"), [("flips_transpose", 0.05), ("flips+rotate20+noise", 0.1), (EVERYTHING, 0.15)]
)
def test_share_of_a_training_step(trainer: Trainer, kind: str, share: float) -> None:
    trainer.config = {**trainer.config, "augment": kind}
    batches = trainer._batches("diverse", 12, len(trainer.split.train) // 12, Progress(StageRecord("diverse")))
    batch = next(batches)
    assert batch["image"].shape == (12, 1, 128, 128)

    def step() -> None:
        trainer.method.zero_grad()
        trainer.method.training_step(batch, stage="diverse")[0].backward()

    step()
    loading, training = [], []
    for _ in range(4):
        loading.append(least(lambda: next(batches), 5))
        training.append(least(step, 1))
    print(f"{kind}: {min(loading) * 1e3:.1f} ms of {min(training) * 1e3:.0f} ms, {min(loading) / min(training):.1%}")
    assert min(loading) < share * min(training)


def test_against_transforms_of_one_case_at_a_time(trainer: Trainer) -> None:
    from monai.transforms import Compose, Rand2DElasticd, RandAdjustContrastd, RandGaussianNoised

    images, masks, _ = (torch.from_numpy(a) for a in trainer.dataset.arrays(range(12)))
    chain = Compose(
        [
            Rand2DElasticd(
                ["image", "masks"], spacing=(25, 25), magnitude_range=(0, 2.5), prob=1, rotate_range=(0.35,),
                scale_range=(0.2, 0.2), mode=["bilinear", "nearest"], padding_mode="zeros",
            ),
            RandAdjustContrastd(["image"], prob=1, gamma=(0.7, 1.5)),
            RandGaussianNoised(["image"], prob=1),
        ]
    )  # fmt: skip

    def monai() -> None:
        for i in range(12):
            chain.set_random_state(i)
            chain({"image": images[i], "masks": masks[i]})

    def ours() -> None:
        streams = [numpy_generator("perf", case=i) for i in range(12)]
        augment_cases(images, masks, parts_of("rotate20+scale+elastic+gamma+noise"), streams)

    ours(), monai()
    ratio = least(monai, 3) / least(ours, 10)
    print(f"MONAI's transforms take {ratio:.1f} times as long")
    assert ratio > 4
