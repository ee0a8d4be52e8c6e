"""The suite's loop on a tiny method: budget, seeds, frozen parameters, selection, non-finite losses, resuming."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from multirater.benchmark.progress import Heartbeat
from multirater.benchmark.trainer import Diverged, Trainer, finite_means, lr_scale
from multirater.datasets import open_dataset
from multirater.methods import Method, Prediction


class Tiny(Method):
    """Two stages of one parameter each, and a record of what the loop handed over."""

    stages = ("first", "second")
    stage_gives: ClassVar = {"first": "mean", "second": "mean"}

    def __init__(self, data):
        super().__init__(data)
        self.a = torch.nn.Parameter(torch.zeros(1))
        self.b = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.noise, self.bad = [], [], set()

    def parameters_for(self, stage):
        return [self.a] if stage == "first" else [{"params": [self.b], "lr_scale": 0.5}]

    def training_step(self, batch, stage=None):
        self.seen.append(list(batch["case_id"]))
        self.noise.append(torch.rand(1).item())
        which = self.a if stage == "first" else self.b
        assert which.requires_grad
        assert not (self.b if stage == "first" else self.a).requires_grad
        loss = (which - 1).square().sum()
        return (loss * float("nan") if len(self.seen) in self.bad else loss), {"noise": self.noise[-1]}

    def predict(self, images, n_samples=1, generator=None):
        torch.rand(3)  # a method that draws from the global generator must not change the training that follows
        return Prediction(mean=torch.sigmoid(self.a).expand(len(images), *images.shape[2:]))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = open_dataset("synthetic", cases=40, size=32)
        data.prepare()
        yield data


def make(dataset, tmp_path, seed=0, **changes):
    config = {
        "schedule": "constant", "optimizer": "sgd", "weight_decay": 0.0, "augment": "flips", "select": "last",
        "validate_every": 1, "validate_samples": 2, "grad_clip": None, "max_nonfinite": 2, "channels_last": True,
    } | changes  # fmt: skip
    spec = {"method": {"name": "tiny"}, "train": config, "fold": 0, "seed": seed}
    method = Tiny(dataset.describe())
    return Trainer(method, dataset, spec, torch.device("cpu"), Heartbeat(tmp_path / "beat.json")), method


def budget(name="first", **changes):
    return {"name": name, "steps": 12, "epochs": None, "lr": 0.1, "warmup_steps": 0, "batch_size": 5} | changes


def test_budget_order_and_noise_follow_the_seed(dataset, tmp_path):
    trainer, method = make(dataset, tmp_path)
    record = trainer.run_stage(budget())
    assert record.steps == len(method.seen) == 12
    per_epoch = len(trainer.split.train) // 5
    first = [case for batch in method.seen[:per_epoch] for case in batch]
    assert len(set(first)) == per_epoch * 5  # an epoch is a permutation
    train_ids = {dataset.records[i].case_id for i in trainer.split.train}
    assert {case for batch in method.seen for case in batch} <= train_ids
    same, other = make(dataset, tmp_path)[1], make(dataset, tmp_path, seed=1)
    trainer_again, same = make(dataset, tmp_path)
    trainer_again.run_stage(budget())
    assert (same.seen, same.noise) == (method.seen, method.noise)
    other[0].run_stage(budget())
    assert other[1].seen != method.seen


def test_validation_does_not_disturb_training(dataset, tmp_path):
    often, method_often = make(dataset, tmp_path, validate_every=1)
    never, method_never = make(dataset, tmp_path, validate_every=0)
    often.run_stage(budget())
    never.run_stage(budget())
    assert method_often.noise == method_never.noise


def test_stages_are_seeded_on_their_own_and_groups_scale_the_rate(dataset, tmp_path):
    trainer, method = make(dataset, tmp_path)
    trainer.run_stage(budget())
    a, noise = method.a.item(), len(method.noise)
    trainer.run_stage(budget("second"))
    assert method.a.item() == a  # frozen
    assert 0 < method.b.item() < a  # half the rate
    alone, method_alone = make(dataset, tmp_path)
    alone.run_stage(budget("second"))
    assert method_alone.noise == method.noise[noise:]


def test_best_checkpoint_is_the_best_on_validation(dataset, tmp_path):
    trainer, _ = make(dataset, tmp_path, select="best")
    record = trainer.run_stage(budget(steps=30, lr=0.2))
    scores = [value for _, _, _, key, value in trainer.history.rows if key == "val_dice_soft"]
    assert record.val_score == max(scores)
    assert record.selected_epoch is not None


def test_a_few_non_finite_steps_are_skipped_and_counted(dataset, tmp_path):
    trainer, method = make(dataset, tmp_path)
    method.bad = {2, 5}
    record = trainer.run_stage(budget())
    assert record.nonfinite_steps == 2
    assert all(math.isfinite(value) for *_, value in trainer.history.rows)
    assert math.isfinite(method.a.item())


def test_more_are_a_divergence(dataset, tmp_path):
    trainer, method = make(dataset, tmp_path)
    method.bad = {2, 5, 6}
    with pytest.raises(Diverged, match="3 steps with a non-finite loss"):
        trainer.run_stage(budget())


def test_weights_that_are_not_finite_are_a_divergence(dataset, tmp_path):
    trainer, _ = make(dataset, tmp_path)
    with pytest.raises(Diverged, match="a is not finite after step 1"):
        trainer.run_stage(budget(lr=3e38, steps=1))  # the loss was finite; the step overflows


def test_polynomial_schedule_per_epoch():
    scales = [lr_scale("poly_epoch", step, 95, 10, 0) for step in range(95)]  # ten epochs, the last cut short
    assert scales[0] == scales[9] == 1
    assert scales[10] == pytest.approx(0.9**0.9)
    assert scales[94] == pytest.approx(0.1**0.9)
    assert len(set(scales)) == 10


def test_means_leave_out_what_is_not_finite():
    log = {"loss": [1.0, math.nan, 3.0], "kl": [torch.tensor(2.0)], "gone": [math.inf]}
    assert finite_means(log) == {"loss": 2.0, "kl": 2.0}


@pytest.mark.parametrize("schedule", ["cosine_step", "cosine_epoch", "constant"])
def test_learning_rate_schedules(schedule):
    scales = np.array([lr_scale(schedule, step, 100, 10, 5) for step in range(100)])
    assert np.allclose(scales[:5], np.arange(1, 6) / 5)
    if schedule == "constant":
        assert (scales[5:] == 1).all()
    elif schedule == "cosine_step":
        assert scales[5] == 1
        assert (np.diff(scales[5:]) < 0).all()
        assert scales[-1] < 1e-3
    else:
        assert len(set(scales[10:20])) == 1  # one value an epoch
        assert scales[10] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.1)))
