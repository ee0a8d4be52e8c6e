"""The runner of the contract tests: order, needs, options, documentation; and the made data."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
from contract_sound import Loss, Plain, Sound, run
from multirater.benchmark import Check, check_method
from multirater.benchmark.contract import contract_names
from multirater.benchmark.contract.answers import _soft_dice
from multirater.benchmark.contract.check import is_one_sentence
from multirater.benchmark.contract.data import describe, make_batch
from multirater.core.errors import UserError
from multirater.methods import Prediction
from multirater.methods.latent import seeded_noise
from torch import nn


class RaisesInInit(Sound):
    def __init__(self, data):
        raise ValueError("no such layer")


class LossRises(Loss):
    def change(self, loss):
        return 2 * loss.detach() - loss


def test_a_sound_method_passes_every_check():
    found = run(Sound)
    assert list(found) == contract_names()
    assert {c.name: c.message for c in found.values() if c.outcome == "fail"} == {}
    skipped = {c.name for c in found.values() if c.outcome == "skip"}
    assert skipped == {"metadata", "devices"} - ({"devices"} if torch.cuda.is_available() else set())
    for check in found.values():
        assert isinstance(check, Check)
        assert check.about
        assert check.message
        assert check.seconds >= 0


def test_a_sound_method_without_samples_and_rater_maps_passes_every_check():
    found = run(Plain)
    assert {c.name: c.message for c in found.values() if c.outcome == "fail"} == {}
    assert {"sample_prefix", "samples_differ", "raters_differ", "follows_raters"} <= {
        c.name for c in found.values() if c.outcome == "skip"
    }
    assert found["identity"].message == "works"
    assert found["exclusive_classes"].message == "refused, as it says"


def test_every_check_is_seen_to_fail():
    files = Path(__file__).parent.glob("test_contract_*.py")
    seen = {name for file in files for name in re.findall(r'^@?breaks\("(\w+)"', file.read_text(), re.MULTILINE)}
    assert seen | {"metadata", "devices"} == set(contract_names())  # those two have tests of their own


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU shows the fault")
def test_a_method_that_fails_on_the_gpu_fails_the_check_of_devices(monkeypatch):
    assert run(Plain, "devices")["devices"].outcome == "skip"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", list)
    found = run(Plain, "devices")["devices"]
    assert found.outcome == "fail"
    assert found.message.startswith("on cuda: ")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_noise_on_the_wrong_device_fails_the_check_of_devices():
    class Host(Sound):
        def noise(self, images, n, generator):
            return torch.stack([seeded_noise(n, 2, 0, torch.zeros(1)) for _ in images])

    assert run(Plain, "devices")["devices"].outcome == "pass"
    assert run(Host, "devices")["devices"].outcome == "fail"


# -- the runner ---------------------------------------------------------------------------------


def test_what_builds_on_a_failed_check_is_skipped():
    found = run(RaisesInInit)
    assert [c.name for c in found.values() if c.outcome == "fail"] == ["constructs"]
    assert "ValueError: no such layer" in found["constructs"].traceback
    assert found["samples_differ"].message == "needs the check 'trains'"
    assert found["channels"].message == "needs the check 'constructs'"


def test_a_loss_that_does_not_fall_stops_nothing_else():
    found = run(LossRises)
    assert [c.name for c in found.values() if c.outcome == "fail"] == ["loss_falls"]


def test_only_runs_what_it_needs_too():
    assert list(run(Sound, "logs")) == ["constructs", "stages", "trains", "logs"]
    with pytest.raises(UserError, match="unknown check 'lgos': did you mean 'logs'"):
        run(Sound, "lgos")


def test_overrides_reach_the_method_and_the_learning_rate():
    few, many = (run(Sound, "constructs", overrides={"method": {"width": w}})["constructs"].message for w in (2, 16))
    assert few != many
    slow = run(Plain, "loss_falls", overrides={"train": {"lr": 1e-6}})["loss_falls"].message
    assert slow != run(Plain, "loss_falls")["loss_falls"].message
    with pytest.raises(UserError, match="did you mean 'width'"):
        run(Sound, "constructs", overrides={"method": {"widht": 2}})


def test_options_chosen_by_hand_may_lift_a_refusal():
    class Lifts(Sound):
        """As D-Persona: without its second stage it needs no identity, and gives no rater maps."""

        def __init__(self, data, both: Annotated[bool, "the second stage too"] = True):
            super().__init__(data)
            self.both = both

        @classmethod
        def stages_for(cls, hparams):
            return cls.stages if hparams["both"] else cls.stages[:1]

        @classmethod
        def check_supported(cls, data, hparams):
            if data.identity == "none" and hparams["both"]:
                super().check_supported(data, hparams)

        def predict(self, images, n_samples=1, generator=None):
            found = super().predict(images, n_samples, generator)
            return found if self.both else Prediction(samples=found.samples)

    assert run(Lifts, "identity")["identity"].message == "refused, as it says"
    found = run(Lifts, "identity", "prediction", "raters_differ", overrides={"method": {"both": False}})
    assert found["identity"].message == "works"
    assert found["prediction"].outcome == "pass"
    assert found["raters_differ"].message == "no stage that gives rater maps runs"


def test_the_callers_random_numbers_stay():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    run(Sound, "training_seed")
    drawn = float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    assert drawn == (float(torch.rand(1)), float(np.random.rand()), random.random())  # noqa: NPY002


def test_no_method():
    with pytest.raises(UserError, match="unknown method 'prob_une': did you mean 'prob_unet'"):
        check_method("prob_une")
    with pytest.raises(UserError, match="no method; give a registry name or a subclass"):
        check_method(nn.Linear)


def test_a_class_of_a_notebook_has_no_file():
    scope = {"Plain": Plain, "__name__": "__main__"}
    exec("class Mine(Plain):\n    pass", scope)
    assert run(scope["Mine"], "loss_falls")["loss_falls"].outcome == "pass"


DOCS = Path(__file__).parents[2] / "docs" / "adding-a-method.md"


def test_the_documentation_lists_every_check():
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])] == contract_names()


def test_the_method_of_the_documentation_is_sound():
    scope = {"__name__": "__main__"}
    exec(re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[1], scope)
    found = run(scope["MyUNet"], "loss_falls", "missing_raters", "prediction", "gradients")
    assert {c.name: c.message for c in found.values() if c.outcome != "pass"} == {}


# -- the made data ------------------------------------------------------------------------------


def test_made_raters_differ_and_are_learnable():
    data = describe(64)
    batch = make_batch(data)
    areas = batch["masks"].flatten(2).sum(2).float()
    assert (areas[:, 1:] > 1.5 * areas[:, :-1]).all()
    assert areas.max() < 0.7 * 64 * 64
    maps = batch["masks"].flatten(2).float()
    dice = _soft_dice(maps, maps)
    assert torch.allclose(dice.diag(), torch.ones(3))
    assert dice[0, 2] < 0.4
    inside, outside = (batch["image"][:, 0][batch["masks"][:, 1] == m].mean() for m in (1, 0))
    assert inside > outside + 0.5


@pytest.mark.parametrize("dims", [2, 3])
def test_made_classes(dims):
    exclusive = make_batch(describe(32, dims, classes=3))["masks"]
    assert exclusive.shape == (4, 3, *(32,) * dims)
    assert exclusive.unique().tolist() == [0, 1, 2, 3]
    nested = make_batch(describe(32, dims, classes=2, overlapping=True))["masks"]
    assert nested.shape == (4, 3, 2, *(32,) * dims)
    assert (nested[:, :, 0] >= nested[:, :, 1]).all()
    assert 0 < nested[:, :, 1].sum() < nested[:, :, 0].sum()


def test_made_data_are_the_same_every_time():
    data = describe((32, 40), raters=2, channels=3)
    first, second, other = make_batch(data), make_batch(data), make_batch(data, seed=1)
    assert first["image"].shape == (4, 3, 32, 40)
    assert torch.equal(first["image"], second["image"])
    assert not torch.equal(first["image"], other["image"])
    valid = torch.tensor([[True, False], [False, True]])
    assert make_batch(data, 2, valid=valid)["masks"][~valid].sum() == 0


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("it works on 2D data, but this is 3D; choose another method", True),
        ("give for example 1.5 or U.S. data", True),
        ("Bad size. Try again.", False),
        ("no", False),
        ("one line of text\nand another one", False),
    ],
)
def test_what_one_sentence_is(text, one):
    assert is_one_sentence(text) is one
