import hashlib
import json
import lzma
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from multirater.benchmark import claims, squeue
from multirater.benchmark.cell import Cell, State, open_results, owner_alive, train_key
from multirater.benchmark.progress import Heartbeat
from multirater.benchmark.stopping import StopFlag, Stopped
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


DEAD = {"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0}  # a reused process id


def test_the_claim_of_a_contender_that_was_quicker_is_left_alone(tmp_path):
    """B reads a lost claim; before B moves it aside, A has taken the cell over."""
    cell = Cell.plan(tmp_path, spec())
    winner = {"host": socket.gethostname(), "pid": os.getppid(), "started": 5.0, "id": "a"}
    claim = cell.folder / "claim.json"
    claim.write_text(json.dumps(winner))
    assert not claims.move_aside(cell.folder, {**DEAD, "id": "lost"})
    assert json.loads(claim.read_text()) == winner
    cell.release()  # not ours
    assert json.loads(claim.read_text()) == winner
    assert sorted(os.listdir(cell.folder)) == ["claim.json", "spec.json"]


def test_one_contender_moves_a_lost_claim_aside_even_if_an_earlier_one_died_meanwhile(tmp_path):
    cell = Cell.plan(tmp_path, spec())
    lost = {**DEAD, "id": "lost"}
    (cell.folder / "claim.json").write_text(json.dumps(lost))
    mine = {k: claims.owner()[k] for k in claims.OWNER}
    (cell.folder / ".lost-lost-1.json").write_text(json.dumps(mine))  # somebody living is at it
    assert not claims.move_aside(cell.folder, lost)
    assert cell.take() is None
    (cell.folder / ".lost-lost-1.json").write_text(json.dumps(DEAD))
    assert claims.move_aside(cell.folder, lost)
    assert not claims.move_aside(cell.folder, lost)
    assert cell.claim() is None
    assert cell.take()
    assert not list(cell.folder.glob(".lost-*"))


def test_contenders_take_each_lost_claim_once(tmp_path):
    """Threads stand for processes: each has an owner of its own only in name, but files decide."""
    cells = [Cell.plan(tmp_path, spec(seed=seed)) for seed in range(20)]
    for cell in cells:
        (cell.folder / "claim.json").write_text(json.dumps({**DEAD, "id": f"lost{cell.folder.name}"}))
    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(lambda cell: cell.take(), cells * 6))
    winners = [ident for ident in taken if ident]
    assert len(winners) == len(set(winners)) <= 20
    for cell in cells:  # who came too early to a claim that was being moved comes back
        assert cell.claim() is None or cell.claim()["id"] in winners
        if cell.claim() is None:
            assert cell.take()


def test_an_owner_on_another_host_lives_while_it_shows_signs_of_life(tmp_path, monkeypatch):
    cell = Cell.plan(tmp_path, spec())
    path = cell.folder / "claim.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 1.0, "id": "x"}))
    assert cell.state() is State.RUNNING
    os.utime(path, (time.time() - 4000,) * 2)
    assert cell.state() is State.LOST
    monkeypatch.setenv("MULTIRATER_LOST_SECONDS", "5000")
    assert cell.state() is State.RUNNING
    # A job of SLURM lives as long as the queue lists it, whatever its heartbeat.
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 1.0, "id": "x", "job": "7_1"}))
    monkeypatch.setattr(squeue, "jobs", lambda newer_than=None: {"7_2": "RUNNING"})
    assert cell.state() is State.LOST
    monkeypatch.setattr(squeue, "jobs", lambda newer_than=None: {"7_1": "COMPLETING"})
    assert cell.state() is State.RUNNING
    monkeypatch.setenv("SLURM_JOB_ID", "7_1")  # that job was requeued, and finds its own earlier claim
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    claims.owner.cache_clear()
    assert cell.take()
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    claims.owner.cache_clear()


def test_the_queue_is_asked_only_for_what_it_can_know(tmp_path, monkeypatch):
    """Its answer may be half a minute old, and shows this user's jobs alone."""
    cell = Cell.plan(tmp_path, spec())
    path = cell.folder / "claim.json"
    monkeypatch.setattr(squeue, "_ask", dict)
    monkeypatch.setattr(squeue, "_last", (float("-inf"), None))
    claim = {"host": "elsewhere", "pid": 1, "started": 1.0, "id": "x", "job": "7", "taken": time.time() - 9}
    path.write_text(json.dumps(claim))
    assert cell.state() is State.LOST  # asked now, and the job has been there for nine seconds
    path.write_text(json.dumps({**claim, "taken": time.time()}))  # begun since
    assert cell.state() is State.RUNNING
    path.write_text(json.dumps(claim))
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)  # a colleague looks at it
    assert cell.state() is State.RUNNING
    os.utime(path, (time.time() - 4000,) * 2)
    assert cell.state() is State.LOST


def test_facts_are_added_to_a_claim_and_nothing_else(tmp_path):
    cell = Cell.plan(tmp_path, spec())
    ident = cell.take()
    path = cell.folder / "claim.json"
    before = json.loads(path.read_text())
    claims.note(cell.folder, ident, attempt=3)
    assert json.loads(path.read_text()) == {**before, "attempt": 3}


def test_who_was_given_up_for_dead_stops(tmp_path):
    cell = Cell.plan(tmp_path, spec())
    ident = cell.take()
    stop = StopFlag()
    beat = Heartbeat(tmp_path / "beat", claim=cell.folder / "claim.json", ident=ident, stop=stop)
    beat("train", 1, 2, force=True)
    (cell.folder / "claim.json").write_text(json.dumps({**DEAD, "id": "another"}))
    beat.write("train", 2, 2, force=True)
    with pytest.raises(Stopped, match="took the cell over"):
        beat("train", 2, 2, force=True)


def test_a_killed_attempt_and_a_finished_cell_with_a_lost_claim(tmp_path):
    cell = Cell.plan(tmp_path, spec())
    (cell.folder / "attempts" / "1").mkdir(parents=True)  # killed before its first word, and its claim gone
    assert cell.state() is State.LOST
    evaluated(cell)
    assert cell.state() is State.DONE
    (cell.folder / "claim.json").write_text(json.dumps(DEAD))  # killed between the result and the release
    assert cell.state() is State.DONE


def evaluated(cell):
    folder = cell.eval_folder("e" * 64)
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("a\n1\n")
    record = {"schema": {"name": "result", "version": 1}, "eval_key": "e" * 64}
    record["metrics_sha256"] = hashlib.sha256(b"a\n1\n").hexdigest()
    (folder / "result.json").write_text(json.dumps(record))
    return folder


def test_a_lost_claim_is_taken_over_and_kept_aside(tmp_path):
    cell = Cell.plan(tmp_path, spec())
    dead = {"host": socket.gethostname(), "pid": os.getpid(), "started": 1.0, "time": 0}  # a reused process id
    (cell.folder / "claim.json").write_text(json.dumps(dead))
    assert not owner_alive(dead)
    assert cell.state() is State.LOST
    assert cell.take()
    assert cell.state() is State.RUNNING
    assert len(list(cell.folder.glob("attempts/1/lost-claim-*.json"))) == 1
    assert cell.last_attempt()["outcome"] == "lost"


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
