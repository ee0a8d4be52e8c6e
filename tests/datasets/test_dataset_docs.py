"""docs/datasets.md is what docs/generate.py makes of the cards."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from multirater.datasets import list_datasets

DOCS = Path(__file__).parents[2] / "docs"
GENERIC = {"folder", "hdf5", "manifest"}  # pages of their own


@pytest.fixture(scope="module")
def pages():
    sys.path.insert(0, str(DOCS))
    try:
        yield importlib.import_module("dataset_pages")
    finally:
        sys.path.remove(str(DOCS))
        for name in ("dataset_pages", "generate"):
            sys.modules.pop(name, None)


def test_the_page_is_current_and_whole(pages):
    stored = (DOCS / "datasets.md").read_text(encoding="utf-8")
    assert stored == pages.page(), "run .venv/bin/python docs/generate.py"
    assert set(re.findall(r"^## (\S+)$", stored, re.MULTILINE)) == set(list_datasets()) - GENERIC


def test_every_data_set_of_files_has_its_layout(pages):
    made = {"lidc-contours", "synthetic", "synthetic-confusion"}
    assert set(pages.LAYOUTS) == set(list_datasets()) - GENERIC - made
    assert set(pages.TRAPS) <= set(pages.LAYOUTS)
