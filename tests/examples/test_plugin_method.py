"""The example of a third-party method: installed as a package, listed, created, trained, run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="70.1")  # builds the wheel; the first that needs no package `wheel`
pytest.importorskip("pip")

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin-method"

TRAIN = """
import torch
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from multirater.methods import create_method, list_methods

assert "basic_unet" in list_methods()
data = open_dataset("synthetic", size=32, cases=8, missing=0.3)
torch.manual_seed(0)
method = create_method("basic_unet", data.describe(), width=8)
assert method.hparams == {"width": 8}
images, masks, valid = map(torch.as_tensor, data.arrays(range(4)))
batch = {"image": images, "masks": masks, "rater_valid": valid}
optimizer = torch.optim.Adam(method.parameters(), 1e-2)
losses = []
for _ in range(3):
    loss, scalars = method.training_step(batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(float(scalars["bce"]))
assert losses[2] < losses[0], losses
method.eval()
with torch.no_grad():
    mean = method.predict(images, n_samples=3).mean
assert mean.shape == (4, 32, 32) and 0 <= mean.min() and mean.max() <= 1
try:
    create_method("basic_unet", data.describe(), widht=8)
except UserError as error:
    assert "'width'" in str(error)
else:
    raise AssertionError("a misspelled option was accepted")

from multirater.benchmark.cards import card

shown = card("methods", "basic_unet")
assert shown["options"] == [
    {"option": "width", "type": "int", "default": "16", "meaning": "channels of the first level"}
], shown
assert shown["gives"] == ["mean"] and "raters who saw the case" in shown["paper"], shown
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of a process that has the example installed."""
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "source"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(target), str(source)], check=True, timeout=120)
    return {
        **os.environ,
        "PYTHONPATH": str(target),
        "MULTIRATER_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }


def call(environment, *arguments, timeout=120):
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_with_its_package(environment):
    rows = json.loads(call(environment, "-m", "multirater.benchmark", "list", "methods", "--json"))["methods"]
    row = next(row for row in rows if row["name"] == "basic_unet")
    assert row["origin"] == "package multirater-basic-unet 0.1.0"


def test_it_trains_and_its_card_shows_the_option(environment):
    call(environment, "-c", TRAIN)


def test_it_keeps_the_contract(environment):
    shown = call(environment, "-m", "multirater.benchmark", "check-method", "basic_unet", "--size", "32", "--json")
    document = json.loads(shown)
    assert document["counts"]["fail"] == 0
    outcomes = {check["name"]: check["outcome"] for check in document["checks"]}
    assert {name: outcomes[name] for name in ("trains", "missing_raters", "save_load")} == {
        "trains": "pass",
        "missing_raters": "pass",
        "save_load": "pass",
    }


@pytest.mark.slow
def test_it_runs_end_to_end(environment, tmp_path):
    request = ["run", "--method", "basic_unet", "--dataset", "synthetic", "--preset", "smoke", "--threads", "1"]
    shown = call(
        environment, "-m", "multirater.benchmark", *request, "--results", str(tmp_path), "--no-figures", timeout=300
    )
    assert "basic_unet" in shown
    (metrics,) = tmp_path.glob("cells/basic_unet/synthetic/f0-s0-*/eval/*/metrics.csv")
    with metrics.open() as stream:
        rows = [row for row in csv.DictReader(stream) if (row["output"], row["metric"]) == ("consensus", "dice_soft")]
    assert len({row["case_id"] for row in rows}) == 24, "the smoke preset scores 24 cases"
    assert all(0 <= float(row["value"]) <= 1 for row in rows)


def test_the_example_stays_short():
    lines = (EXAMPLE / "multirater_basic_unet.py").read_text().splitlines()
    assert len(lines) <= 40
    assert len((EXAMPLE / "README.md").read_text().splitlines()) <= 20
