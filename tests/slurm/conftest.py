"""One cluster for all tests of this folder, and the toys of the runner's tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import cluster  # noqa: E402

SETS = [
    "dataset.cases=40", "dataset.size=32", "train.batch_size=4", "train.validate_every=0", "eval.n_samples=2",
    "eval.max_cases=3",
]  # fmt: skip


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that reaches a cluster of one node with two CPUs."""
    if cluster.missing():
        pytest.skip(f"no SLURM cluster can be started here: {cluster.missing()}")
    folder = tmp_path_factory.mktemp("cluster")
    for parent in (folder, *folder.parents[:2]):  # the daemons look at their files under their own rights
        parent.chmod(0o755)
    try:
        variables = cluster.start(folder)
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no SLURM cluster can be started here: {error}")
    yield variables
    cluster.stop(folder)


@pytest.fixture(scope="session")
def environment(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of every command: the cluster, a data cache, and a package with the toys."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(HERE.parent / "runner" / "toys.py", site)
    info = site / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[multirater.methods]\ntoy = toys:Toy\ntwo_stages = toys:TwoStages\npoison = toys:Poison\n"
    )
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        **slurm,
        "PYTHONPATH": os.pathsep.join(paths),
        "MULTIRATER_CACHE": str(tmp_path_factory.mktemp("cache")),
        "MULTIRATER_SAVE_SECONDS": "0",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "150",
    }


@pytest.fixture
def begin(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a multirater command."""
    started = []

    def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "multirater.benchmark", *arguments],
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def call(begin: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str, str]]:
    """Runs a multirater command to its end: exit code, output, errors."""

    def complete(*arguments: str, **variables: str) -> tuple[int, str, str]:
        process = begin(*arguments, **variables)
        out, err = process.communicate(timeout=900)
        return process.returncode, out, err

    return complete


@pytest.fixture
def asked() -> Callable[..., list[str]]:
    """Arguments that choose cells of the toys."""

    def make(results: Path, methods: str, *sets: str, seeds: str = "0") -> list[str]:
        options = [word for text in (*SETS, *sets) for word in ("--set", text)]
        return [
            "-m", methods, "-d", "synthetic", "-p", "smoke", "--seed", seeds, "--results", str(results),
            "--threads", "1", "--device", "cpu", *options,
        ]  # fmt: skip

    return make
