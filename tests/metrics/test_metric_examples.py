"""Worked examples with exact fractions, D-Persona's published check values, and the examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from multirater.metrics import Convention, score_case

EXAMPLES = json.loads((Path(__file__).parent / "examples.json").read_text())["examples"]
CHECKS = [
    pytest.param(example, check, id=f"{example['name']}-{check['metric']}-{check.get('variant', 'canonical')}")
    for example in EXAMPLES
    for check in example["checks"]
]


def masks(rows):
    return np.array([[[int(c) for c in line] for line in mask] for mask in rows])


def number(text):
    return float("nan") if text == "nan" else float(Fraction(text))


@pytest.mark.parametrize(("example", "check"), CHECKS)
def test_example(example, check):
    raters = masks(example["raters"])
    samples = masks(example["samples"]) if "samples" in example else None
    if "classes" not in example:
        raters, samples = raters.astype(bool), None if samples is None else samples.astype(bool)
    options = {"classes": example.get("classes")}
    if "sample_weights" in example:
        options["sample_weights"] = [number(w) for w in example["sample_weights"]]
    if check.get("rater_probs") == "samples":
        options["rater_probs"] = samples.astype(float)
    if "mean_prob" in example:
        options["mean_prob"] = np.array([[number(p) for p in row.split()] for row in example["mean_prob"]])
    wanted = check["value"]
    variants = [check.get("variant", "canonical")]
    if "thresholds" in check:
        variants = [Convention(thresholds=(t,)) for t in check["thresholds"]]
    elif isinstance(wanted, str):
        wanted = [wanted]
    got = [
        score_case(
            raters,
            samples,
            metrics=[check["metric"]],
            variant=variant,
            n_samples=check.get("n_samples"),
            **options,
        )[check["metric"]]
        for variant in variants
    ]
    got = got[0] if isinstance(got[0], list) else got
    np.testing.assert_allclose(got, [number(w) for w in wanted], rtol=0, atol=check.get("tolerance", 1e-9))


def test_every_example_is_checked():
    assert [e["name"][:2] for e in EXAMPLES] == ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12"]
    assert len(CHECKS) > 80


class TestDPersonaValues:
    """Discs scored by D-Persona's released functions; reversed predictions show what its matched list hides."""

    @pytest.fixture
    def labels(self, discs):
        return np.stack([discs(r) for r in (4, 6, 8, 10)])

    @pytest.fixture
    def probs(self, discs):
        return 0.9 * np.stack([discs(5), discs(7), discs(9), discs(9, 17, 18), discs(3, 10, 10)])

    def test_areas(self, labels):
        assert labels.sum((1, 2)).tolist() == [45, 109, 193, 305]

    def test_reversed_order(self, labels):
        reversed_ = labels[::-1].astype(float)
        released = score_case(labels, probs=reversed_, variant="dpersona")
        assert released["ged"] == pytest.approx(0, abs=1e-9)
        assert released["dice_match"] == pytest.approx(1, abs=2e-6)
        np.testing.assert_allclose(released["dice_each"], 1, atol=2e-6)
        diagonal = [0.25714, 0.72185, 0.72185, 0.25714]
        identity = score_case(labels, probs=reversed_, variant="dpersona_identity", metrics=["dice_each"])
        np.testing.assert_allclose(identity["dice_each"], diagonal, atol=6e-6)
        personal = score_case(labels, rater_probs=reversed_)
        np.testing.assert_allclose(personal["dice_rater.each"], diagonal, atol=6e-6)
        assert personal["dice_rater"] == pytest.approx(0.48950, abs=6e-6)

    def test_released_numbers(self, labels, probs):
        got = score_case(labels, probs=probs, variant="dpersona")
        expected = {
            "ged": 0.133092844,
            "cross": 0.574809518,
            "diversity_raters": 0.456440448,
            "diversity_samples": 0.560085745,
            "dice_max_sample_to_rater": 0.701083124,  # the code's "Dice_max"
            "dice_max_rater_to_sample": 0.854990393,  # the code's "reverse"
            "dice_match": 0.840284511,
            "dice_soft": 0.689328,
        }
        for name, value in expected.items():
            assert got[name] == pytest.approx(value, abs=2e-6), name
        np.testing.assert_allclose(got["dice_each"], [0.78947, 0.85827, 0.81448, 0.89892], atol=6e-6)
        canonical = score_case(labels, probs=probs)
        for name, value in expected.items():
            assert canonical[name] == pytest.approx(value, abs=2e-6), name  # no empty mask: no difference

    def test_four_empty_masks(self, labels):
        empty = np.zeros((4, 32, 32))
        assert score_case(labels, probs=empty, variant="dpersona")["ged"] == pytest.approx(0.543559552, abs=1e-8)
        assert score_case(labels, probs=empty)["ged"] == pytest.approx(1.543559552, abs=1e-8)

    @pytest.mark.parametrize("variant", ["canonical", "dpersona"])
    def test_nothing_anywhere(self, variant):
        empty = np.zeros((4, 32, 32))
        got = score_case(empty, probs=empty, variant=variant)
        assert got["ged"] == pytest.approx(0, abs=1e-8)
        assert got["dice_match"] == pytest.approx(1)
        assert got["dice_soft"] == pytest.approx(1)


@pytest.mark.parametrize(
    "name", ["multirater.metrics", "multirater.metrics.score", "multirater.metrics.human", "multirater.metrics.bins"]
)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted > 0
