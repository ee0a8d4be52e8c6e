"""Ten thousand finished cells: a second `run` and `status` take seconds and import no torch."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys

import pytest
from multirater.benchmark import provenance
from multirater.benchmark.monitor import Monitor
from multirater.benchmark.planning import plan
from multirater.benchmark.report import kept_table
from multirater.benchmark.states import scan

CELLS = [2_000, pytest.param(10_000, marks=pytest.mark.slow)]
LIMIT = 3.0  # seconds of the processor: what the machine's other work takes does not count


@pytest.fixture(params=CELLS)
def many(request, tmp_path_factory, environment):
    """A results folder whose cells are finished as far as their files say, and their number."""
    results = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(os, "fsync", lambda number: None)  # thirty thousand of them
        patch.setattr(provenance, "signature", lambda: signature(environment))  # part of the key of the kept plan
        overrides = {"dataset": {"cases": 40, "size": 32}}
        seeds = list(range(request.param - 1))
        made = plan(["unet_soft"], "synthetic", "smoke", [0], seeds, overrides, results, Monitor(quiet=True))
    values = "case_id,patient_id,output,rater,label,metric,variant,region,n_samples,value,reason\n"
    values += "c0001,p0001,diverse,,1,ged,canonical,full,8,0.25,\n"
    record = {
        "schema": {"name": "result", "version": 1},
        "metrics_sha256": hashlib.sha256(values.encode()).hexdigest(),
        "n_cases": 1,
        "n_patients": 1,
        "outputs": {"diverse": {"n_samples": 8, "claims": ["samples", "mean"], "fallback": []}},
        "seconds": {"predict": 1.0, "evaluate": 1.0},
        "peak_memory_mb": 500.0,
    }
    train = {"schema": {"name": "train", "version": 1}, "seconds": {"train": 10.0}, "stages": [], "parameters": 1}
    for cell in made.cells:
        spec = cell.spec
        folder = cell.eval_folder(spec["eval_key"])
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(values)
        (folder / "result.json").write_text(json.dumps({**record, "eval_key": spec["eval_key"]}))
        (cell.folder / "train.json").write_text(json.dumps(train))
    return results, request.param


def call(environment, *arguments):
    """Exit code, output, errors, processor seconds, and whether torch was imported."""
    code = (
        "import atexit, sys; "
        "atexit.register(lambda: print('TORCH' if 'torch' in sys.modules else 'LIGHT', file=sys.stderr)); "
        "from multirater.benchmark.cli import main; main()"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, done.stdout, done.stderr, spent


def signature(environment):
    """Of the code as a new process sees it: this one may have cached another, with a plug-in of some other test."""
    code = "from multirater.benchmark.provenance import signature; print(signature())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def run(environment, results, cells):
    seeds = ",".join(map(str, range(cells - 1)))
    return call(
        environment, "run", "-m", "unet_soft", "-d", "synthetic", "-p", "smoke", "--seed", seeds, "--results",
        str(results), "--set", "dataset.cases=40", "--set", "dataset.size=32", "--no-figures",
    )  # fmt: skip


def test_status_and_a_second_run_over_thousands_of_finished_cells(many, environment, monkeypatch):
    many, cells = many
    monkeypatch.delenv("COLUMNS", raising=False)  # the width of the table that is kept
    monkeypatch.setattr(provenance, "signature", lambda: signature(environment))
    for _ in range(2):
        code, out, err, spent = call(environment, "status", "--results", str(many))
        assert code == 0, err
        assert str(cells - 1) in out
        assert "LIGHT" in err
        assert spent < LIMIT
    # What the first run printed is printed again; making that table of ten thousand rows is not what is timed here.
    found = scan(many)
    human = next(one.path for one in found if one.facts["method"] == "human")
    seeds = {one.facts["seed"]: one.path for one in found if one.facts["method"] != "human"}
    asked = [human, *(seeds[seed] for seed in range(cells - 1))]
    kept = kept_table(many, found, asked, [False, 150, False, False])
    kept.parent.mkdir(parents=True)
    kept.write_text("the table of the first run\n")
    (many / "derived" / "leaderboard.md").write_text("")
    code, out, err, spent = run(environment, many, cells)
    assert code == 0, err
    assert f"{cells} of {cells} cells are done already" in err
    assert out.startswith("the table of the first run")
    assert "LIGHT" in err
    assert spent < LIMIT
