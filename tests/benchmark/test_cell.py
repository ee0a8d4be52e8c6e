import hashlib
import json
import lzma
import os
import socket

import pytest
from multirater.benchmark.cell import Cell, State, open_results, owner_alive, train_key
from multirater.core.errors import UserError


def spec(**changes):
    base = {
        "schema": {"name": "cell", "version": 1},
        "method": {"name": "m", "version": 1, "options": {"a": 1}},
        "dataset": {
            "name": "d",
            "version": 1,
            "options": {"root": "/here", "size": 64},
            "fingerprint": "f",
            "notice": "",
        },
        "train": {"steps": 1},
        "eval": {"n_samples": 2},
        "fold": 0,
        "seed": 0,
        "protocol": 1,
        "eval_key": "e" * 64,
    }
    base |= changes
    base["train_key"] = train_key(base)
    return base


def test_the_train_key_ignores_where_the_data_lie_and_follows_what_changes_numbers():
    one = spec()
    moved = spec(dataset={**one["dataset"], "options": {"root": "/there", "size": 64}})
    assert one["train_key"] == moved["train_key"]
    assert one["train_key"] == spec(eval={"n_samples": 9})["train_key"]  # evaluation never costs a training
    for change in (
        {"seed": 1},
        {"fold": 1},
        {"train": {"steps": 2}},
        {"method": {"name": "m", "version": 2, "options": {"a": 1}}},
        {"dataset": {**one["dataset"], "fingerprint": "g"}},
    ):
        assert spec(**change)["train_key"] != one["train_key"]


def test_claims_are_exclusive_while_their_owner_lives(tmp_path):
    cell = Cell.plan(tmp_path, spec())
    assert cell.state() is State.PENDING
    assert cell.take()
    assert cell.state() is State.RUNNING
    assert not cell.take()
    cell.release()
    assert cell.take()


def test_a_claim_that_another_contender_won_is_given_back(tmp_path):
    """B reads a lost claim; before B moves it aside, A has taken the cell over."""
    cell = Cell.plan(tmp_path, spec())
    lost = {"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0, "time": 0}
    winner = {"host": socket.gethostname(), "pid": os.getppid(), "started": 5.0}
    claim = cell.folder / "claim.json"
    claim.write_text(json.dumps(winner))
    cell._move_aside(claim, lost)
    assert json.loads(claim.read_text()) == winner
    cell.release()  # not ours
    assert json.loads(claim.read_text()) == winner


def test_a_lost_claim_is_taken_over_and_kept_aside(tmp_path):
    cell = Cell.plan(tmp_path, spec())
    dead = {"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0, "time": 0}  # a reused process id
    (cell.folder / "claim.json").write_text(json.dumps(dead))
    assert not owner_alive(dead)
    assert cell.state() is State.LOST
    assert cell.take()
    assert cell.state() is State.RUNNING
    assert len(list(cell.folder.glob("attempts/1/lost-claim-*.json"))) == 1


def test_a_claim_cut_off_while_written_counts_as_lost(tmp_path):
    cell = Cell.plan(tmp_path, spec())
    (cell.folder / "claim.json").write_text('{"host": "a')
    assert cell.state() is State.LOST
    assert cell.take()


def test_a_result_counts_only_with_its_key_and_checksum(tmp_path):
    cell = Cell.plan(tmp_path, spec())
    folder = cell.eval_folder("e" * 64)
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("a\n1\n")
    record = {"schema": {"name": "result", "version": 1}, "eval_key": "e" * 64, "metrics_sha256": "0"}
    (folder / "result.json").write_text(json.dumps(record))
    assert cell.result("e" * 64) is None
    record["metrics_sha256"] = hashlib.sha256(b"a\n1\n").hexdigest()
    (folder / "result.json").write_text(json.dumps(record))
    assert cell.state() is State.DONE
    (folder / "metrics.csv").write_text("a\n")  # cut off
    assert cell.state() is State.PENDING


def test_a_newer_results_folder_is_refused_with_advice(tmp_path):
    (tmp_path / "index.json").write_text(json.dumps({"schema": {"name": "multirater-results", "version": 99}}))
    with pytest.raises(UserError, match=r"newer multirater .*upgrade"):
        open_results(tmp_path)
    for damaged in ("[]", '{"schema": {"name": "multirater-results"}}', '{"schema": {"name": "other", "version": 1}}'):
        (tmp_path / "index.json").write_text(damaged)
        with pytest.raises(UserError, match="is not a 'multirater-results' record"):
            open_results(tmp_path)
    with pytest.raises(UserError, match="no results in"):
        open_results(tmp_path / "absent")


def test_packed_metrics_count_as_a_result(tmp_path):
    cell = Cell.plan(tmp_path, spec())
    folder = cell.eval_folder("e" * 64)
    folder.mkdir(parents=True)
    record = {"schema": {"name": "result", "version": 1}, "eval_key": "e" * 64}
    record["metrics_sha256"] = hashlib.sha256(b"a\n1\n").hexdigest()
    (folder / "result.json").write_text(json.dumps(record))
    packed = lzma.compress(b"a\n1\n")
    (folder / "metrics.csv.xz").write_bytes(packed)
    assert cell.state() is State.DONE
    (folder / "metrics.csv.xz").write_bytes(packed[:-4])  # cut off
    assert cell.state() is State.PENDING
