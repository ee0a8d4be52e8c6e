"""Lists of cells: a line each in a pipe, whole names on a narrow terminal."""

from __future__ import annotations

import json

import pytest
from bundle_support import make
from click.testing import CliRunner
from multirater.benchmark import listing
from multirater.benchmark.attempts import write_attempt
from multirater.benchmark.commands import status
from rich.console import Console

WORDS = "the loss of [stage] \n" + "was not finite " * 12 + "[/end]"


@pytest.fixture
def results(tmp_path):
    for seed in range(2):
        cell = make(tmp_path, method="unet_label_sampling", seed=seed, done=False)
        attempt = cell.folder / "attempts" / "1"
        attempt.mkdir(parents=True)
        write_attempt(attempt, "error", WORDS)
    return tmp_path


def shown(results) -> list[str]:
    done = CliRunner().invoke(status.command, ["--results", str(results), "--why"], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.output.splitlines()


def cells(results) -> list[str]:
    return [p.parent.name for p in sorted(results.glob("cells/*/*/*/spec.json"))]


@pytest.mark.parametrize("columns", ["80", "40", ""])
def test_in_a_pipe_a_cell_is_one_line(results, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    lines = shown(results)
    for name in cells(results):
        (line,) = (line for line in lines if name in line)
        assert line.endswith("error: " + " ".join(WORDS.split()))
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [80, 50])
def test_on_a_narrow_terminal_a_name_is_whole_and_the_reason_stands_below(results, monkeypatch, width):
    def narrow():
        return Console(markup=False, highlight=False, width=width, force_terminal=True, color_system=None)

    monkeypatch.setattr(listing, "listing_console", narrow)
    lines = shown(results)
    assert all(len(line) <= max(width, len("unet_label_sampling/toy/f0-s0-00000000:")) for line in lines)
    for name in cells(results):
        assert sum(name in line for line in lines) == 2
        assert f"unet_label_sampling/toy/{name}: error:" in " ".join(lines)
    assert " ".join(" ".join(lines).split()).count(" ".join(WORDS.split())) == 2


def test_json_says_the_same(results):
    done = CliRunner().invoke(status.command, ["--results", str(results), "--why", "--json"], standalone_mode=False)
    assert [row["why"] for row in json.loads(done.output)] == ["error: " + WORDS] * 2
