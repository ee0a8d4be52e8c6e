"""The command line end to end, as a user calls it, at smoke sizes."""

import csv
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "multirater.benchmark"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "MULTIRATER_CACHE": str(cache), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}


def call(environment, *arguments, **options):
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=900, **options
    )


def run(environment, results, *arguments, method="unet_soft"):
    return call(
        environment, "run", "-m", method, "-d", "synthetic", "-p", "smoke", "--results", str(results), "--threads", "1",
        *arguments,
    )  # fmt: skip


def metrics_of(results, method):
    path = next(results.glob(f"cells/{method}/synthetic/*/eval/*/metrics.csv"))
    return path, list(csv.DictReader(path.open()))


@pytest.fixture(scope="module")
def first(environment, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    done = run(environment, results, method="dpersona")
    assert done.returncode == 0, done.stderr
    return results, done


def test_a_run_writes_records_table_leaderboard_and_figures(first):
    results, done = first
    assert "dpersona" in done.stdout
    assert "GED" in done.stdout
    derived = results / "derived"
    assert (derived / "leaderboard.md").is_file()
    header = (derived / "leaderboard.csv").read_text().splitlines()[0]
    assert header.startswith("dataset,set,identity,split,preset,method,output,method_variant,track,metric")
    assert list((derived / "figures").glob("qualitative__synthetic__dpersona.p*"))
    cell = next(results.glob("cells/dpersona/synthetic/f0-s0-*"))
    record = json.loads((cell / "train.json").read_text())
    assert [s["name"] for s in record["stages"]] == ["diverse", "personalised"]
    assert record["machine"]["threads"] == 1
    assert not (cell / "claim.json").exists()
    assert not (cell / "state").exists()


def test_outputs_and_rows_are_those_of_the_contract(first):
    results, _ = first
    _, rows = metrics_of(results, "dpersona")
    columns = "case_id patient_id output rater label metric variant region n_samples value reason"
    assert list(rows[0]) == columns.split()
    outputs = {r["output"] for r in rows}
    assert outputs == {
        "diverse", "personalised", "consensus", "levels", "own_threshold", "common_threshold", "area_ranks",
    }  # fmt: skip
    assert len({r["case_id"] for r in rows}) == 24
    assert len({r["patient_id"] for r in rows}) >= 12
    undefined = [r for r in rows if r["value"] == ""]
    assert all(r["reason"] for r in undefined)
    each = [r for r in rows if r["output"] == "personalised" and r["metric"] == "dice_rater.each"]
    assert {r["rater"] for r in each} == {f"rater {k}" for k in range(1, 5)}
    _, human = metrics_of(results, "human")
    assert {r["output"] for r in human} == {"human", "oracle", "oracle_majority", "oracle_levels"}


def test_a_second_run_does_nothing_and_says_so(first, environment):
    results, _ = first
    before = {p: p.stat().st_mtime_ns for p in results.glob("cells/**/*") if p.is_file()}
    started = time.monotonic()
    again = run(environment, results, "--no-figures", method="dpersona")
    assert again.returncode == 0
    assert "2 of 2 cells are done already" in again.stderr
    assert time.monotonic() - started < 30  # a training would not fit beside the imports
    assert before == {p: p.stat().st_mtime_ns for p in results.glob("cells/**/*") if p.is_file()}


def test_same_seed_same_bits(first, environment, tmp_path):
    results, _ = first
    done = run(environment, tmp_path / "again", "--no-figures", method="dpersona")
    assert done.returncode == 0, done.stderr
    one, two = (
        hashlib.sha256(metrics_of(r, "dpersona")[0].read_bytes()).hexdigest() for r in (results, tmp_path / "again")
    )
    assert one == two


def test_evaluate_scores_again_without_training(first, environment):
    results, _ = first
    path, rows = metrics_of(results, "dpersona")
    before, weights = path.read_bytes(), next(results.glob("cells/dpersona/**/weights.safetensors"))
    stamp = weights.stat().st_mtime_ns
    path.unlink()
    done = call(environment, "evaluate", "--results", str(results))
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == before
    assert weights.stat().st_mtime_ns == stamp
    assert rows


def test_status_lists_states(first, environment):
    results, _ = first
    rows = json.loads(call(environment, "status", "--results", str(results), "--json").stdout)
    assert {(r["method"], r["state"]) for r in rows} == {("dpersona", "done"), ("human", "done")}


def test_a_killed_worker_is_tried_again(environment, tmp_path):
    results = tmp_path / "results"
    process, claim = start_long_run(environment, results)
    os.kill(json.loads(claim.read_text())["pid"], signal.SIGKILL)
    attempt = _wait_for(results, "cells/unet_soft/*/*/attempts/2/progress.json").parent.parent / "1" / "attempt.json"
    assert json.loads(attempt.read_text())["message"].startswith("the process was killed by SIGKILL")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "trying again" in stderr
    assert "Traceback" not in stderr


def test_ctrl_c_stops_the_worker_and_exits_with_130(environment, tmp_path):
    results = tmp_path / "results"
    process, claim = start_long_run(environment, results)
    pid = json.loads(claim.read_text())["pid"]
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130, stderr
    assert "goes on where it stopped" in stderr
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
    assert not claim.exists()


def start_long_run(environment, results):
    """A run that is still training, and the claim of its cell."""
    arguments = ["run", "-m", "unet_soft", "-d", "synthetic", "-p", "smoke", "--results", str(results), "--no-figures"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--set", "train.steps=4000"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, _wait_for(results, "cells/unet_soft/**/claim.json")


def _wait_for(folder, pattern, seconds=600):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = list(folder.glob(pattern))
        if found:
            time.sleep(0.5)
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"no {pattern} within {seconds} s")


@pytest.fixture(scope="module")
def prepared(environment):
    """The data that these commands would prepare first, and say so."""
    done = call(environment, "plan", "-m", "unet_soft", "-d", "synthetic", "-p", "smoke")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "-m", "dpersone"], "unknown method 'dpersone': did you mean 'dpersona'"),
        (
            ["run", "-m", "dpersona", "-d", "lidc-contour"],
            "unknown dataset 'lidc-contour': did you mean 'lidc-contours'",
        ),
        (["run", "-m", "dpersona", "-p", "quik"], "unknown preset 'quik': did you mean 'quick'"),
        (["run", "-m", "dpersona", "--set", "method.latnt=6"], "method.latnt"),
        (["run", "-m", "dpersona", "--set", "trian.steps=6"], "did you mean 'train'"),
        (["run", "-m", "dpersona", "--set", "nonsense"], "nonsense"),
        (["run", "-m", "dpersona", "--fold", "x"], "--fold 'x' is not a list of whole numbers"),
        (["run", "-m", "unet_soft", "-d", "synthetic", "-p", "smoke", "--fold", "7"], "fold 7 does not exist"),
        (
            ["run", "-m", "dpersona", "-d", "synthetic", "-p", "smoke", "--set", "dataset.identity=none"],
            "`multirater info synthetic` lists",
        ),
        (["run", "-m", "unet_soft", "-d", "synthetic", "-p", "smoke", "--device", "cuda"], "no CUDA device"),
        (["run", "-m", "unet_soft", "--executor", "locl"], "unknown executor 'locl': did you mean 'local'"),
        (["run", "-m", ","], "no method given"),
        (
            ["run", "-m", "unet_soft", "-d", "synthetic", "-p", "smoke", "--set", "method.backbone_weights=/nope"],
            "'/nope' is not a file",
        ),
        (["ruun"], "unknown command 'ruun': did you mean 'run'"),
        (["run"], "--method"),
        (["status", "--results", "nowhere"], "no results in nowhere"),
        (["leaderboard", "--results", "nowhere"], "no results in nowhere"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(environment, prepared, tmp_path, arguments, message):
    if arguments[0] == "run":
        arguments = [*arguments, "--results", str(tmp_path / "r")]
    done = call(environment, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_results_folder_of_a_newer_schema_is_refused(environment, tmp_path):
    (tmp_path / "index.json").write_text(json.dumps({"schema": {"name": "multirater-results", "version": 2}}))
    for arguments in (["status"], ["leaderboard"], ["run", "-m", "unet_soft", "-d", "synthetic", "-p", "smoke"]):
        done = call(environment, *arguments, "--results", str(tmp_path))
        assert done.returncode == 2
        assert "newer multirater" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_write_permission_is_one_sentence(environment, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    done = run(environment, locked / "results")
    assert done.returncode == 2
    assert "permission denied" in done.stderr


def test_a_file_where_the_results_should_be_is_one_sentence(environment, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    for results, message in ((blocked, "is a file, not a folder"), (blocked / "results", "not a directory")):
        done = run(environment, results)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert blocked.read_text() == "mine"
    done = run({**environment, "MULTIRATER_CACHE": str(blocked / "cache")}, tmp_path / "results")
    assert done.returncode == 2
    assert "set MULTIRATER_CACHE to a folder you may write to" in done.stderr


def test_a_refused_method_in_a_list_is_skipped_with_its_reason(environment, tmp_path):
    done = run(
        environment, tmp_path, "--no-figures", "--set", "dataset.identity=none", method="dpersona,unet_soft"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "skipped dpersona" in done.stderr
    assert "identity" in done.stderr
    assert metrics_of(tmp_path, "unet_soft")


def test_a_method_that_raises_fails_alone_with_exit_code_1(environment, tmp_path):
    plugin = tmp_path / "site"
    (plugin / "brokenplugin-1.0.dist-info").mkdir(parents=True)
    (plugin / "brokenplugin.py").write_text(
        "from multirater.methods import Method\n"
        "import torch\n"
        "class Broken(Method):\n"
        "    def __init__(self, data):\n"
        "        super().__init__(data)\n"
        "        self.w = torch.nn.Parameter(torch.zeros(1))\n"
        "    def training_step(self, batch, stage=None):\n"
        "        raise RuntimeError('this method is broken')\n"
    )
    (plugin / "brokenplugin-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: brokenplugin\nVersion: 1.0\n"
    )
    (plugin / "brokenplugin-1.0.dist-info" / "entry_points.txt").write_text(
        "[multirater.methods]\nbroken = brokenplugin:Broken\n"
    )
    results = tmp_path / "results"
    done = run({**environment, "PYTHONPATH": str(plugin)}, results, "--no-figures", method="broken,unet_soft")
    assert done.returncode == 1
    assert "this method is broken" in done.stderr
    assert "Traceback" not in done.stderr
    assert metrics_of(results, "unet_soft")
