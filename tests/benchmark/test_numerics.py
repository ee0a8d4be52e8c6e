"""Options of how numbers are computed: recorded, and without effect on keys and numbers at their defaults."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from multirater.benchmark import numerics
from multirater.benchmark.cell import train_key
from multirater.benchmark.config import TrainConfig
from multirater.benchmark.monitor import Monitor
from multirater.benchmark.progress import Heartbeat
from multirater.benchmark.runner import plan
from multirater.benchmark.training import train_cell
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from safetensors.torch import load_file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))


def trained(results, method="unet_soft", **train):
    overrides = {"dataset": {"cases": 40, "size": 32}, "train": {"steps": 3, "batch_size": 4, **train}}
    cell = plan([method], "synthetic", "smoke", [0], [0], overrides, results, Monitor(quiet=True)).cells[1]
    spec = cell.spec
    data = open_dataset("synthetic", **spec["dataset"]["options"])
    train_cell(cell, spec, data, torch.device("cpu"), Heartbeat(cell.folder / "beat.json"))
    return cell


def loss_of(cell):
    rows = list(csv.DictReader((cell.folder / "history.csv").open()))
    return float(next(row["value"] for row in rows if row["key"] == "loss"))


def test_defaults_are_in_no_key_and_other_values_are():
    base = {"method": {"name": "m", "options": {}}, "dataset": {"options": {}}, "fold": 0, "seed": 0, "protocol": 1}
    older = train_key({**base, "train": {"steps": 1}})
    neutral = {"precision": "fp32", "tf32": False, "compile": False, "processes": 1}
    assert train_key({**base, "train": {"steps": 1, **neutral}}) == older
    others = [{"precision": "bf16"}, {"tf32": True}, {"compile": True}, {"processes": 2}]
    keys = {train_key({**base, "train": {"steps": 1, **neutral, **other}}) for other in others}
    assert len({older, *keys}) == 5
    defaults = TrainConfig(steps=1).model_dump()
    assert {k: defaults[k] for k in neutral} == neutral


def test_bf16_trains_with_single_precision_weights_near_those_of_fp32(tmp_path):
    whole, half = trained(tmp_path / "a"), trained(tmp_path / "b", precision="bf16")
    assert whole.folder.name != half.folder.name
    one, two = load_file(whole.weights), load_file(half.weights)
    assert all(v.dtype == one[k].dtype for k, v in two.items())
    assert any(not torch.equal(one[k], two[k]) for k in one)
    assert loss_of(half) == pytest.approx(loss_of(whole), rel=0.02)
    record = json.loads(half.train_record.read_text())["numerics"]
    assert record == {"precision": "bf16", "tf32": False, "channels_last": True, "compile": False, "processes": 1}


def test_tf32_is_off_unless_asked_for():
    torch.backends.cudnn.allow_tf32 = True  # cuDNN's default
    numerics.apply({})
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    numerics.apply({"tf32": True})
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "high"
    numerics.apply({})


def test_an_unknown_precision_is_refused_with_what_is_allowed(tmp_path):
    with pytest.raises(UserError, match=r"train.precision = 'fp16' is not allowed: .*'fp32' or 'bf16'"):
        trained(tmp_path, precision="fp16")


@pytest.mark.slow
def test_a_compiled_step_trains_to_nearly_the_same_weights(tmp_path):
    whole, fast = trained(tmp_path / "a"), trained(tmp_path / "b", compile=True)
    assert loss_of(fast) == pytest.approx(loss_of(whole), rel=1e-3)
    assert json.loads(fast.train_record.read_text())["numerics"]["compile"]


def test_a_compiler_that_fails_is_one_sentence(monkeypatch):
    def broken(step):
        def run(*arguments, **named):
            raise torch._dynamo.exc.TorchDynamoException("no compiler\nlong trace")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UserError, match=r"train.compile=true, but torch.compile fails here \(no compiler\)"):
        numerics.compiled(lambda batch: None, {"compile": True})({})
