"""Seeds by name: adding a stream never moves another."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from multirater.core.seeding import numpy_generator, seed_for, torch_generator


def test_a_seed_is_a_hash_of_its_names():
    text = b'{"case":"c1","fold":0,"purpose":"predict"}'
    assert seed_for("predict", fold=0, case="c1") == int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
    assert seed_for("predict", case="c1", fold=0) == seed_for("predict", fold=0, case="c1")


def test_seeds_differ_and_fit_every_library():
    seeds = {seed_for("order", seed=s, epoch=e) for s in range(40) for e in range(40)}
    assert len(seeds) == 1600
    assert seed_for("order", seed=0) != seed_for("init", seed=0)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat_and_are_independent():
    first = numpy_generator("x", case=1).random(1000)
    np.testing.assert_array_equal(first, numpy_generator("x", case=1).random(1000))
    assert abs(np.corrcoef(first, numpy_generator("x", case=2).random(1000))[0, 1]) < 0.15
    torch = pytest.importorskip("torch")
    draws = [torch.rand(5, generator=torch_generator("x", case=c)) for c in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_global_generators_are_left_alone():
    np.random.seed(0)  # noqa: NPY002 - the global state itself is what is tested
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    numpy_generator("x").random(10)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
