"""A cell that goes wrong is retired with its reason; the others finish, and the exit code says so."""

from __future__ import annotations

import json

import pytest

# What `POISON` says, the outcome, a part of the reason, and attempts within one run.
POISONS = [
    ("raises", "error", "RuntimeError: this method is broken", 1),
    ("kills", "lost", "was killed by SIGKILL", 3),
    ("memory", "oom", "can't allocate memory", 2),
    ("nan", "diverged", "non-finite loss", 1),
    ("disk", "disk_full", "nothing more could be written", 1),
]


@pytest.mark.parametrize(("what", "outcome", "reason", "attempts"), POISONS, ids=[p[0] for p in POISONS])
def test_a_poison_cell_is_retired_and_the_others_finish(grid, finish, what, outcome, reason, attempts):
    # A state in every epoch would be progress, which a killed cell is given credit for.
    one = grid(methods=["poison", "toy"])
    report = finish(one, POISON=what, MULTIRATER_SAVE_SECONDS="60" if what != "disk" else "0")
    assert report["exit_code"] == 1
    ((path, message),) = report["failed"]
    assert path.startswith("poison/")
    assert message.startswith(outcome)
    assert reason in message.lower() or reason in message
    assert {cell.folder.parts[-3]: cell.state().value for cell in one.cells()} == {
        "human": "done", "poison": "lost" if what == "kills" else "failed", "toy": "done",
    }  # fmt: skip
    (cell,) = one.cells("poison")
    assert len(cell.attempts()) == attempts
    assert all(json.loads((a / "attempt.json").read_text())["outcome"] == outcome for a in cell.attempts())
    assert cell.claim() is None

    again = finish(one, POISON=what, MULTIRATER_SAVE_SECONDS="60" if what != "disk" else "0")
    assert again["exit_code"] == 1
    # What the same code would repeat is not repeated; what another day may mend is tried.
    assert len(cell.attempts()) == attempts * (1 if what in ("raises", "nan") else 2)
    assert finish(grid(methods=["poison", "toy"], settings={"overwrite": "failed"}))["exit_code"] == 0
    assert cell.state() == "done"


def test_a_cell_that_hangs_is_ended(grid, finish):
    one = grid(methods=["poison", "toy"], settings={"stall": 3.0})
    report = finish(one, POISON="hangs", MULTIRATER_SAVE_SECONDS="60")
    ((path, message),) = report["failed"]
    assert path.startswith("poison/")
    assert message.startswith("hung: no sign of life for")
    assert report["exit_code"] == 1
    (cell,) = one.cells("poison")
    assert len(cell.attempts()) == 2
    assert cell.state() == "failed"


def test_a_cell_that_dies_when_it_predicts_keeps_its_training(grid, finish):
    one = grid(methods=["poison_evaluation"])
    report = finish(one, POISON="predict")
    assert report["failed"][0][1].startswith("lost")
    (cell,) = one.cells("poison_evaluation")
    weights = cell.weights.stat().st_mtime_ns
    # The first attempt trained, which is progress; three more did nothing.
    assert len(cell.attempts()) == 4
    assert finish(one)["exit_code"] == 0
    assert cell.weights.stat().st_mtime_ns == weights


def test_retries_are_given_to_a_method_that_raises(grid, finish):
    one = grid(methods=["poison"], settings={"retries": 2})
    assert finish(one, POISON="raises")["exit_code"] == 1
    assert len(one.cells("poison")[0].attempts()) == 3


def test_a_method_that_is_mended_while_it_trains_is_tried_again(grid, finish):
    one = grid(methods=["poison"])
    assert finish(one, POISON="mended")["exit_code"] == 1
    assert finish(one, POISON="mended")["exit_code"] == 1
    assert len(one.cells("poison")[0].attempts()) == 2


def test_fail_fast_starts_nothing_after_a_failure(grid, finish):
    one = grid(methods=["poison", "toy", "two_stages"], settings={"fail_fast": True})
    report = finish(one, POISON="raises")
    assert report["exit_code"] == 1
    assert report["left"] == 2


def test_tables_show_a_failure_and_a_divergence(grid, finish, toys):
    from multirater.benchmark.collect import collect

    one = grid(methods=["poison", "toy"])
    finish(one, POISON="nan")
    values, missing = collect(one.results)
    assert set(values.method) == {"human", "toy"}
    assert missing[["method", "state"]].values.tolist() == [["poison", "diverged"]]
    assert "non-finite" in missing.why[0]
