"""Every registered method keeps the contract: the fast checks here, all of them at 64 pixels among the slow tests."""

from __future__ import annotations

import pytest
import torch
from method_support import BUILT_IN
from multirater.benchmark import check_method
from multirater.benchmark.contract import contract_names
from multirater.methods import METHODS

# Full-size networks, and trainings that are longer than the others together.
LONG = {"defaults", "follows_raters"}
SMALLEST = {"tab": 64}  # its stride of 32 needs more than one position
SMALLER = {"ensemble": {"members": 2}}


def problems(checks):
    return {check.name: check.message for check in checks if check.outcome == "fail"}


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks gain nothing from a second thread, and tests run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_contract_in_short(name):
    checks = check_method(
        name,
        {"method": SMALLER.get(name, {})},
        device="cpu",
        size=SMALLEST.get(name, 32),
        only=[c for c in contract_names() if c not in LONG],
    )
    assert problems(checks) == {}
    assert len(checks) == len(contract_names()) - len(LONG)
    cls = METHODS.get(name)
    skipped = {check.name for check in checks if check.outcome == "skip"}
    assert ("samples_differ" in skipped) is not cls.gives_samples
    assert ("raters_differ" in skipped) is not cls.gives_raters
    assert "volume_noise" not in skipped or not cls.gives_samples
    assert skipped <= {"samples_differ", "sample_prefix", "raters_differ", "volume_noise", "devices"}


def test_slices_that_the_authors_draw_apart_are_said_to_be_so():
    checks = check_method("dpersona", {"method": {"fidelity": "authors"}}, device="cpu", size=32, only=["volume_noise"])
    last = checks[-1]
    assert (last.name, last.outcome) == ("volume_noise", "skip"), last
    assert "each slice is drawn for itself" in last.message


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_whole_contract(name):
    checks = check_method(name, device="auto")
    assert problems(checks) == {}
    assert [check.name for check in checks] == contract_names()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpersona", {"stages": "diverse"}),
        ("dpersona", {"fidelity": "authors"}),
        ("prob_unet", {"variant": "tf"}),
        ("prob_unet", {"variant": "dp"}),
        ("mrnet", {"fidelity": "authors"}),
        ("unet_majority", {"ties": "random"}),
        ("unet_staple", {"soft_target": True}),
    ],
)
def test_the_contract_under_other_options(name, options):
    assert problems(check_method(name, {"method": options}, device="auto")) == {}
