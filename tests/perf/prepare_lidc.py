"""Time and memory of ``multirater prepare`` of a file like the Probabilistic U-Net's ``data_lidc.pickle``.

``python tests/perf/prepare_lidc.py FOLDER`` writes 15,096 made slices (128², 4 masks, about 3 GB) into FOLDER, prepares
them with an empty cache in a process of its own, and prints wall time, processor time and peak memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SIDE = 128


def write_pickle(path: Path, cases: int) -> None:
    """Discs of four sizes on noise: images float64 in [0, 1], masks uint8, every array its own."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    distance = rows**2 + columns**2
    noise = rng.random((SIDE, SIDE))
    found = {}
    for i in range(cases):
        radius = 4 + i % 30
        masks = [(distance < (radius + k) ** 2).astype(np.uint8) for k in range(4)]
        image = 0.5 * np.roll(noise, i, axis=0) + 0.5 * masks[1]
        uid = f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{10**20 + i // 17}"
        found[f"{i // 17}_{i}"] = {"image": image, "masks": masks, "series_uid": uid}
    with path.open("wb") as stream:
        pickle.dump(found, stream, protocol=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=15096)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "data_lidc.pickle"
    if not path.exists():
        # In a process of its own: the peak memory of a child starts at what its parent holds when it is started.
        writer = multiprocessing.get_context("spawn").Process(target=write_pickle, args=(path, given.cases))
        writer.start()
        writer.join()
    command = [
        "-m",
        "multirater.benchmark",
        "prepare",
        "lidc",
        "--root",
        str(path),
        "--set",
        "preparation=pickle",
        "--json",
    ]
    cache = given.folder / f"cache-{os.getpid()}"
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *command], env={**os.environ, "MULTIRATER_CACHE": str(cache)}, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit("prepare failed")
    facts = json.loads(printed)
    print(
        f"{facts['cases']} slices of a file of {path.stat().st_size / 1e9:.2f} GB: {wall:.1f} s, "
        f"{used.ru_utime + used.ru_stime:.1f} s of processor time, {used.ru_maxrss / 1e6:.2f} GB at most"
    )


if __name__ == "__main__":
    main()
