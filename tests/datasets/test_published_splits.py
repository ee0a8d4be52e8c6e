"""Published splits: how a data set gives them, what is refused, and how leaks reach the tables."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

import numpy as np
import pytest
from multirater.benchmark.commands.prepare import prepare
from multirater.core.errors import UserError
from multirater.datasets.file_dataset import Decoded, FileDataset, RawCase
from multirater.datasets.splits import published_split

CASES, PATIENTS = ["a", "b", "c", "d", "e"], ["p", "p", "q", "r", "s"]


class Published(FileDataset):
    """``<patient>-<case>.npy``; three published splits: clean, leaking, and selecting on the test part."""

    name = "published"
    notice = "made up"
    rater_names = ("a", "b")
    compat_splits: ClassVar[dict[str, str]] = {
        "compat": "",
        "compat-leaky": "of Nobody et al., by slices",
        "compat-select": "no validation set",
    }
    compat_folds: ClassVar[dict[str, int]] = {"compat": 2}

    def __init__(
        self,
        root: str | None = None,
        identity: Literal["none", "as_stored"] | None = None,
        split: Annotated[Literal["cv4", "fixed", "compat", "compat-leaky", "compat-select"], "split"] = "cv4",
    ) -> None:
        super().__init__(root=root, identity=identity, split=split)

    def list_cases(self, root):
        return [RawCase(p.stem, p.stem.split("-")[0], (p,)) for p in root.glob("*.npy")]

    def decode(self, raw):
        masks = np.load(raw.files[0])
        return Decoded(masks.mean(0, dtype=np.float32)[None], masks, np.ones(2, bool))

    def published(self, name, fold):
        rows = list(range(len(self)))
        if name == "compat-leaky":
            return {"train": rows[1:], "test": rows[:1]}
        if name == "compat-select":
            return {"train": rows[2:], "val": rows[:2], "test": rows[:2]}
        return {"train": rows[2:], "test": rows[:2]} if fold == 0 else {"train": rows[:2], "test": rows[2:]}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    for i, name in enumerate(["p1-1", "p1-2", "p2-1", "p3-1", "p4-1", "p5-1"]):
        masks = np.zeros((2, 8, 8), np.uint8)
        masks.reshape(2, -1)[:, : i + 1] = 1
        np.save(folder / f"{name}.npy", masks)
    return str(folder)


def test_a_published_split_is_used_fold_by_fold(root):
    data = Published(root=root, split="compat")
    assert data.folds == 2
    assert data.split(0).test.tolist() == [0, 1]
    assert data.split(1).test.tolist() == [2, 3, 4, 5]
    assert data.split(0).hash != data.split(1).hash
    assert data.full_notice == "made up"
    with pytest.raises(UserError, match="folds 0-1"):
        data.split(2)
    with pytest.raises(UserError, match="only fold 0"):
        Published(root=root, split="compat-leaky").split(1)
    assert Published(root=root).folds == 4
    assert Published(root=root).split(3).hash != data.split(0).hash


def test_leaks_are_found_and_printed(root):
    leaky = Published(root=root, split="compat-leaky")
    assert leaky.split().shared == ("p1",)
    assert leaky.full_notice == (
        "made up; split compat-leaky: of Nobody et al., by slices; split compat-leaky: training shares patients with "
        "the other parts, so scores are too high"
    )
    select = Published(root=root, split="compat-select")
    assert (select.split().shared, select.split().selected) == ((), ("p1",))
    assert "validation shares patients with the test part" in select.full_notice
    facts = prepare(leaky, quiet=True)
    assert facts["notice"] == leaky.full_notice
    assert facts["splits"][0]["shared_patients"] == 1


def test_prepare_writes_a_file_for_each_fold(root):
    facts = prepare(Published(root=root, split="compat"), quiet=True)
    assert [p.rpartition("/")[2] for p in facts["split_files"]] == ["compat-f0.json", "compat-f1.json"]
    with open(facts["split_files"][1]) as stream:
        found = json.load(stream)
    assert (found["train"], found["test"]) == (["p1-1", "p1-2"], ["p2-1", "p3-1", "p4-1", "p5-1"])
    assert (found["fold"], found["split"], found["dataset"]) == (1, "compat", "published")
    assert found["hash"] == Published(root=root, split="compat").split(1).hash
    assert found["multirater"]
    by_rule = prepare(Published(root=root), quiet=True)
    with open(by_rule["split_files"][3]) as stream:
        assert "md5" in json.load(stream)["rule"]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"train": [0, 1], "test": [1]}, "'b' stands in part train and in part test"),
        ({"train": [0], "test": [2, 2]}, "'c' stands twice in part test"),
        ({"train": [0, 5]}, "row 5, but there are 5 cases"),
        ({"train": [0], "testing": [1]}, "has a part 'testing'"),
    ],
)
def test_impossible_parts_are_refused(parts, words):
    with pytest.raises(UserError, match=words):
        published_split("compat", 0, parts, CASES, PATIENTS)


def test_cases_may_stand_in_no_part():
    split = published_split("compat", 0, {"train": [3], "test": [0]}, CASES, PATIENTS)
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist(), split.shared) == ([3], [], [0], ())
