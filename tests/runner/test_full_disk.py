"""A disk that is full: the cell that finds it so is stopped, what is done stays, and the next run goes on."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest

ROOM = 80  # MB: more than the 64 below which no new cell is started


@pytest.fixture
def disk(tmp_path):
    """A small file system of the test's own."""
    if sys.platform != "linux":
        pytest.skip("tmpfs is mounted on Linux only")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def call(processes, tmp_path):
    """The command ``run`` on a grid, in a process of its own: its exit code, and what it printed."""
    import forks

    def run(grid, **environment):
        overrides = grid.arguments["overrides"]
        sets = [f"--set={part}.{k}={v}" for part, options in overrides.items() for k, v in options.items()]
        arguments = ["run", "-m", ",".join(grid.methods), "-d", "synthetic", "-p", "smoke", *sets]
        arguments += ["--results", str(grid.results), "--executor", "forks", "--threads", "1", "--device", "cpu"]
        target = tmp_path / "printed"
        target.unlink(missing_ok=True)
        process = processes.Process(target=forks.command, args=([*arguments, "--no-figures"], str(target), environment))
        process.start()
        process.join(240)
        assert process.exitcode is not None, "the run did not end"
        return process.exitcode, target.read_text()

    return run


def test_a_full_disk_stops_the_grid_and_loses_nothing(grid, call, disk):
    one = grid("disk/results", methods=["toy", "poison", "two_stages"])
    filler = disk / "filler"
    code, printed = call(one, POISON="fills", FILL=str(filler))
    assert filler.stat().st_size > 2**20 * (ROOM - 20)
    assert "Traceback" not in printed
    assert "no new cells" in printed
    assert "disk_full: " in printed
    assert "1 cells were not tried" in printed
    assert code == 1
    assert {cell.folder.parts[-3]: str(cell.state()) for cell in one.cells() if cell.folder.parts[-3] != "poison"} == {
        "human": "done", "toy": "done", "two_stages": "pending",
    }  # fmt: skip
    (cell,) = one.cells("poison")
    assert cell.claim() is None
    numbers = one.numbers()
    assert len(numbers) == 3  # case values of the readers and of `toy`, and its weights

    filler.unlink()
    code, printed = call(one)
    assert code == 0, printed
    assert {str(cell.state()) for cell in one.cells()} == {"done"}
    assert numbers.items() <= one.numbers().items()


def test_a_disk_that_is_full_from_the_start_is_one_sentence(grid, call, disk):
    one = grid("disk/results")
    one.results.mkdir()
    (disk / "filler").write_bytes(bytes(2**20 * (ROOM - 1)))
    with open(disk / "rest", "wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(bytes(4096)):
            pass
    code, printed = call(one)
    assert code == 2
    assert "no space left on device" in printed
    assert "Traceback" not in printed
    assert not list(one.results.glob("**/*"))
