"""A plug-in of toy methods, processes that start in no time, and grids to run them on."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from multirater.benchmark.cell import Cell
from multirater.methods import METHODS

TOYS = {"toy": "Toy", "two_stages": "TwoStages", "poison": "Poison", "poison_evaluation": "PoisonEvaluation"}
PRELOAD = [
    "torch", "torch._dynamo", "pandas", "psutil", "safetensors.torch", "toys", "forks", "multirater.benchmark.worker",
    "multirater.benchmark.trainer", "multirater.benchmark.evaluation", "multirater.benchmark.runner",
    "multirater.benchmark.provenance", "multirater.benchmark.config", "multirater.datasets.synthetic",
    "multirater.benchmark.predictions",
]  # fmt: skip


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of installed packages that brings the toys by entry points."""
    folder = tmp_path_factory.mktemp("site")
    here = Path(__file__).parent
    for name in ("toys.py", "forks.py"):
        shutil.copy(here / name, folder / name)
    info = folder / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    lines = [f"{name} = toys:{cls}" for name, cls in TOYS.items()]
    executors = "[multirater.executors]\nforks = forks:ForkExecutor\n"
    (info / "entry_points.txt").write_text("[multirater.methods]\n" + "\n".join(lines) + "\n" + executors)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def environment(site: Path, cache: Path) -> dict[str, str]:
    """Of every process that the tests start."""
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "MULTIRATER_CACHE": str(cache),
        "MULTIRATER_SAVE_SECONDS": "0",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "150",
    }


@pytest.fixture(scope="session")
def processes(environment: dict[str, str]) -> Iterator[Any]:
    """A context of processes that are forked from one that has imported everything."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        yield context


@pytest.fixture
def toys(site: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The toys in this process."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, cls in TOYS.items():
        if name not in METHODS:
            METHODS.add(name, f"toys:{cls}")


@dataclass
class Grid:
    """Arguments of `run`."""

    results: Path
    methods: list[str] = field(default_factory=lambda: ["toy"])
    seeds: tuple[int, ...] = (0,)
    steps: int = 8
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        overrides = {
            "dataset": {"cases": 40, "size": 32},
            "train": {"steps": self.steps, "batch_size": 4, "validate_every": 0, "max_nonfinite": 2},
            "eval": {"n_samples": 2, "max_cases": 3},
        }
        if self.options:
            overrides["method"] = self.options
        return {
            "methods": self.methods,
            "dataset": "synthetic",
            "preset": "smoke",
            "seeds": list(self.seeds),
            "overrides": overrides,
            "results": str(self.results),
            "executor": "forks",
            "threads": 1,
            "device": "cpu",
            "quiet": True,
            **self.settings,
        }

    def cells(self, method: str = "*") -> list[Cell]:
        return [Cell(p.parent) for p in sorted(self.results.glob(f"cells/{method}/*/*/spec.json"))]

    def numbers(self) -> dict[str, bytes]:
        """All that a run computes and that must not depend on what happened meanwhile."""
        files = [*self.results.glob("cells/**/metrics.csv"), *self.results.glob("cells/**/weights.safetensors")]
        return {str(p.relative_to(self.results)): p.read_bytes() for p in files if "superseded" not in p.parts}


@pytest.fixture
def grid(tmp_path: Path) -> Callable[..., Grid]:
    """A grid in a results folder of the test."""

    def make(name: str = "results", **changes: Any) -> Grid:
        return Grid(tmp_path / name, **changes)

    return make


@pytest.fixture
def start(processes: Any) -> Iterator[Callable[..., Any]]:
    """Starts ``forks.coordinate`` for a grid in a process of its own."""
    import forks

    started = []

    def begin(grid: Grid, log: Path | None = None, **environment: str) -> Any:
        target = log or grid.results.with_suffix(".json")
        process = processes.Process(target=forks.coordinate, args=(grid.arguments, str(target), environment))
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()


@pytest.fixture
def finish(start: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Runs a grid to its end and returns what the report says."""

    def complete(grid: Grid, timeout: float = 240, **environment: str) -> dict[str, Any]:
        target = grid.results.with_suffix(".json")
        target.unlink(missing_ok=True)
        process = start(grid, **environment)
        process.join(timeout)
        assert process.exitcode is not None, "the run did not end"
        return json.loads(target.read_text())

    return complete
