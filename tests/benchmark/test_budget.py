"""The sentence that says what every row of a table was given."""

from __future__ import annotations

from method_support import BUILT_IN
from multirater.benchmark.budget import budget_note
from multirater.benchmark.config import resolve


def rows(*names, preset="quick", **changed):
    return [(n, resolve(n, "synthetic", preset, {"train": changed.get(n, {})})) for n in names]


def test_equal_rows_are_one_clause():
    assert budget_note(rows("unet_soft", "unet_majority")) == (
        "budget: 600 updates, batch 12, learning rate 0.003, 50 warm-up steps, schedule cosine_step, adam, "
        "augmentation flips_transpose"
    )
    assert budget_note([]) == ""
    assert budget_note([("old", {"train": {"steps": 3}})]) == ""  # a cell that says nothing of its stages


def test_every_difference_is_named():
    note = budget_note(rows("unet_soft", "dpersona", "prob_unet", "unet_majority", unet_majority={"precision": "bf16"}))
    rule, _, others = note.partition("; otherwise ")
    assert rule.startswith("budget: 600 updates, batch 12, learning rate 0.003")
    assert others.split("; ") == [
        "dpersona personalised: 200 updates",
        "prob_unet: learning rate 0.001",
        "unet_majority: precision bf16",
    ]


def test_the_quick_preset_gives_all_built_in_methods_one_budget():
    """Exceptions are decisions, each with its reason in the preset of the method."""
    others = budget_note(rows(*BUILT_IN)).partition("; otherwise ")[2]
    assert others.split("; ") == ["dpersona personalised: 200 updates", "prob_unet: learning rate 0.001"]
