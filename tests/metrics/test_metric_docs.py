"""docs/metrics.md and docs/conventions.md are what docs/generate.py makes of the registry."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from multirater.metrics import list_metrics, list_variants, score_case

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(DOCS))
    try:
        yield importlib.import_module("generate"), importlib.import_module("conventions")
    finally:
        sys.path.remove(str(DOCS))
        for name in ("generate", "conventions"):
            sys.modules.pop(name, None)


def words(text):
    """Numbers apart from text: the last digit may hang on the version of NumPy."""
    number = re.compile(r"-?\d+\.\d{4}")
    return number.sub("#", text), [float(n) for n in number.findall(text)]


@pytest.mark.parametrize("page", ["metrics.md", "conventions.md"])
def test_pages_are_current(scripts, page):
    generate, conventions = scripts
    made = generate.metrics_page() if page == "metrics.md" else conventions.page()
    stored = (DOCS / page).read_text(encoding="utf-8")
    hint = "run .venv/bin/python docs/generate.py"
    assert words(stored)[0] == words(made)[0], hint
    np.testing.assert_allclose(words(stored)[1], words(made)[1], atol=2e-4, err_msg=hint)


def test_every_metric_and_variant_is_described(scripts):
    metrics = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for name in list_metrics():
        base = name.removesuffix(".full")
        row = next(line for line in metrics.splitlines() if line.startswith(f"| `{base}`"))
        assert base == name or "`.full`" in row.split("|")[1]
    conventions = (DOCS / "conventions.md").read_text(encoding="utf-8")
    for variant in list_variants()[1:]:
        assert f"### `{variant}`" in conventions


def test_the_worked_case_has_what_conventions_differ_in(scripts):
    raters, probs = scripts[0].worked_case()
    assert not raters[3].any()
    assert raters[:3].any((1, 2)).all()
    assert [i for i, p in enumerate(probs) if not (p > 0.5).any()] == [5, 11, 17, 23]
    assert probs[5].any()  # empty as a mask, not as a map
    got = score_case(raters, probs=probs, metrics=["ged", "empty_gap"])
    other = score_case(raters, probs=probs, metrics=["ged"], variant="dpersona")["ged"]
    assert other == pytest.approx(got["ged"] - got["empty_gap"] ** 2, abs=1e-6)
    assert (DOCS / "conventions.png").stat().st_size > 20_000
