"""`multirater check-method` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from multirater.benchmark.cli import main
from multirater.benchmark.contract import contract_names
from multirater.methods import METHODS, Method, Prediction
from torch import nn


class OneLayer(Method):
    """One map from one convolution; `check-method` finds no fault in it."""

    def __init__(self, data):
        super().__init__(data)
        self.layer = nn.Conv2d(data.channels, 1, 3, padding=1)

    def training_step(self, batch, stage=None):
        print("a method may print")
        seen = batch["rater_valid"][:, :, None, None].float()
        share = (batch["masks"] * seen).sum(1) / seen.sum(1)
        return nn.functional.binary_cross_entropy_with_logits(self.layer(batch["image"])[:, 0], share), {}

    def predict(self, images, n_samples=1, generator=None):
        return Prediction(mean=self.layer(images)[:, 0].sigmoid())


class Fails(OneLayer):
    def predict(self, images, n_samples=1, generator=None):
        if len(images) > 1:
            raise ValueError("one image at a time")
        return super().predict(images)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    METHODS.add("one_layer", OneLayer)
    METHODS.add("fails", Fails)
    yield
    for name in ("one_layer", "fails"):
        del METHODS._entries[name]


@pytest.fixture
def check(capsys):
    """Call the command on images of 32 pixels; exit code, stdout, stderr."""

    def call(*argv):
        with pytest.raises(SystemExit) as done:
            main(["check-method", *argv, "--size", "32", "--device", "cpu"])
        out = capsys.readouterr()
        return done.value.code, out.out, out.err

    return call


def test_a_table_of_all_checks(check):
    code, out, _ = check("one_layer")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].strip() == "one_layer"
    for name in contract_names():
        assert any(line.startswith(f"{name} ") for line in lines), name
    assert "a method may print" not in out
    assert " passed, 0 failed, " in lines[-1]


def test_json(check):
    code, out, _ = check("one_layer", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["method"] == "one_layer"
    assert [c["name"] for c in document["checks"]] == contract_names()
    assert sum(document["counts"].values()) == len(contract_names())
    assert document["counts"]["fail"] == 0
    for one in document["checks"]:
        assert set(one) == {"name", "about", "outcome", "message", "seconds", "traceback"}
        assert one["outcome"] in ("pass", "fail", "skip")
        assert "\n" not in one["message"]


def test_a_fault_exits_with_1_and_its_traceback_is_shown_if_asked_for(check):
    code, out, err = check("fails", "--only", "prediction,channels")
    assert code == 1
    assert "ValueError: one image at a time (test_check_method.py:" in out
    assert "with 3 channels: ValueError" in out
    assert "Traceback" not in out + err
    code, out, err = check("fails", "--only", "prediction", "--traceback", "--json")
    assert code == 1
    assert json.loads(out)["counts"]["fail"] == 1
    assert "-- prediction\nTraceback" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["prob_une"], ["unknown method 'prob_une'", "'prob_unet'"]),
        (["prob_unet", "--set", "latnet=3"], ["method.latnet", "'latent'"]),
        (["prob_unet", "--set", "method.latent=few"], ["method.latent = 'few'"]),
        (["prob_unet", "--set", "train.lr=-1"], ["train.lr"]),
        (["prob_unet", "--set", "latent"], ["a.b=c"]),
        (["prob_unet", "--only", "gradient"], ["unknown check 'gradient'", "'gradients'"]),
        ([], ["Missing argument"]),
    ],
)
def test_mistakes_exit_with_2_and_one_sentence(check, argv, words):
    code, out, err = check(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("multirater: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys):
    with pytest.raises(SystemExit) as done:
        main(["check-method", "one_layer", "--device", "cuda"])
    assert done.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_options_reach_the_method(check):
    counts = []
    for latent in ("2", "3"):
        code, out, _ = check("prob_unet", "--only", "constructs", "--set", f"method.latent={latent}", "--json")
        assert code == 0
        counts.append(json.loads(out)["checks"][0]["message"])
    assert counts[0] != counts[1]


def test_help_names_the_command():
    command = [sys.executable, "-m", "multirater.benchmark"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "check-method" in shown
    shown = subprocess.run([*command, "check-method", "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--set", "--device", "--only", "--size", "--traceback", "--json"):
        assert option in shown
