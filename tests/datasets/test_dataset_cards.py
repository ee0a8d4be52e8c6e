"""Every registered data set has a whole card, and names that stand for options mean what they say."""

from __future__ import annotations

import pytest
from multirater.benchmark.cards import card
from multirater.benchmark.config import resolve
from multirater.core.errors import UserError
from multirater.datasets import DATASETS, list_datasets, open_dataset


@pytest.mark.parametrize("name", list_datasets())
def test_cards_are_whole(name):
    facts = card("datasets", name)
    for key in ("title", "how_to_get", "identity", "splits", "summary"):
        assert facts[key], key
    if not facts["embedded"] and name not in ("folder", "manifest", "hdf5"):
        assert facts["citation"]
        assert facts["licence"]
        assert "tried on" in facts["how_to_get"].lower()  # the state of its verification
        assert f"multirater prepare {name} --root FOLDER" in facts["how_to_get"]
    options = {row["option"]: row for row in facts["options"]}
    assert all(row["meaning"] for row in options.values())
    if not facts["embedded"]:
        assert {"root", "identity", "split"} <= options.keys()


def test_names_that_stand_for_options():
    assert open_dataset("lidc-mm").options["preparation"] == "mm"
    assert open_dataset("drive", halves="both").options["set"] == "drive"
    assert open_dataset("stare", set="stare").name == "retina"
    with pytest.raises(UserError, match=r"'lidc-mm' means 'lidc' with dataset\.preparation=mm, but 'png' was given"):
        open_dataset("lidc-mm", preparation="png")
    config = resolve("unet_majority", "lidc-png", "smoke", {"dataset": {"root": "/data"}})
    assert config["dataset"]["name"] == "lidc"
    assert config["dataset"]["options"]["preparation"] == "png"
    assert config["dataset"]["options"]["crop"] == 64  # of the preset
    assert "lidc-mm" not in DATASETS.names()
