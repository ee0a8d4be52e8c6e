"""Hostile files of every format: each ends in one sentence with the file's name, nothing runs, nothing is left over.

Every case damages one file of a fresh miniature (``hostile_layouts.py``) by one mutation (``hostile_mutations.py``) and
calls ``multirater prepare`` in this process. The default suite runs a part of the cases, `slow` all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache as remembered
from pathlib import Path
from typing import Any

import pytest
from dataset_support import little_memory
from hostile_layouts import LAYOUTS
from hostile_mutations import of_any_file, of_kind
from multirater.benchmark.cli import main

PART = 6  # the default suite takes one case in so many


def cases() -> list[tuple[str, int]]:
    """Every layout and the number of its mutation."""
    nowhere = Path("nowhere")
    found = []
    for name, layout in LAYOUTS.items():
        found += [(name, i) for i in range(len(of_any_file()) + len(of_kind(layout.suffix, nowhere)))]
    return found


ALL = cases()


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @remembered
    def written_once(name: str) -> Path:
        root = tmp_path_factory.mktemp("miniature") / "data"
        root.mkdir()
        LAYOUTS[name].write(root)
        return root

    return written_once


def attack(name: str, number: int, miniature: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    layout, root, canary = LAYOUTS[name], folder / "data", folder / "executed"
    shutil.copytree(miniature, root)
    files = sorted(root.glob(layout.files))
    mutation = [*of_any_file(), *of_kind(layout.suffix, canary)][number]
    target = files[(7 * number) % len(files)]
    mutation.apply(target)
    cache = folder / "cache"
    monkeypatch.setenv("MULTIRATER_CACHE", str(cache))
    sets = [argument for option in layout.options for argument in ("--set", option)]
    before = sorted(p.name for p in folder.iterdir())
    with little_memory(), pytest.raises(SystemExit) as ended:
        main(["prepare", layout.dataset, "--root", str(root / layout.root), *sets])
    error = capsys.readouterr().err
    what = f"{name}, {mutation.name}, {target.name}"
    assert not canary.exists(), what
    assert sorted(p.name for p in folder.iterdir()) in (before, sorted([*before, "cache"])), what
    stored = [p for p in cache.glob(f"{layout.dataset}/*") if not (p / "meta.json").is_file()]
    assert not stored, what
    if ended.value.code == 0:
        assert mutation.harmless, f"{what}: accepted"
        return "accepted"
    assert ended.value.code == 2, f"{what}: {error}"
    assert error.startswith("multirater: "), f"{what}: {error}"
    assert error.count("\n") == 1, f"{what}: {error}"
    assert len(error) < 1500, f"{what}: {len(error)} characters"
    named = {target.name, target.stem, target.parent.name, layout.root or root.name}
    assert any(part in error for part in named if part), f"{what}: {error}"
    assert not list(cache.glob(f"{layout.dataset}/*")), what
    return error


@pytest.mark.parametrize(("name", "number"), ALL[::PART])
def test_a_part(
    name: str, number: int, miniatures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    attack(name, number, miniatures(name), tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_all(name: str, miniatures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = []
    for layout, number in ALL:
        if layout == name:
            folder = tmp_path / str(number)
            folder.mkdir()
            found.append(attack(name, number, miniatures(name), folder, monkeypatch, capsys))
            shutil.rmtree(folder)
    assert sum(error != "accepted" for error in found) > len(found) / 3


def test_there_are_more_than_500() -> None:
    assert len(ALL) >= 500
    assert len(LAYOUTS) >= 25
