"""`--set a.b=c`."""

from __future__ import annotations

import pytest
from multirater.core.errors import UserError
from multirater.core.overrides import parse_sets, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6", 6), ("-3", -3), ("010", 10), ("1e-3", 1e-3), ("2E5", 2e5), ("1.", 1.0), (".5", 0.5), ("-0.25", -0.25),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("no", "no"), ("on", "on"), ("1:30", "1:30"), ("2024-01-02", "2024-01-02"), ("1_000", "1_000"),
        ("~/data", "~/data"), ("/a b/c", "/a b/c"), ("C:\\x", "C:\\x"), ("'6'", "6"), ("e3", "e3"), ("nan", "nan"),
        ("[64, 1e-1]", [64, 0.1]), ("{a: 1}", {"a": 1}), ("by_area", "by_area"), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_values_read_as_written(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_sections_nest_and_later_wins():
    assert parse_sets(["method.latent=6", "train.stage.a.steps=5", "train.stage.b.steps=7", "method.latent=8"]) == {
        "method": {"latent": 8},
        "train": {"stage": {"a": {"steps": 5}, "b": {"steps": 7}}},
    }
    assert parse_sets([]) == {}
    assert parse_sets(["dataset.root=a=b"]) == {"dataset": {"root": "a=b"}}


def test_prefix_may_be_left_out_with_a_default():
    only = {"sections": ("dataset",), "default": "dataset"}
    assert parse_sets(["size=32", "dataset.cases=8"], **only) == {"dataset": {"size": 32, "cases": 8}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["methd.latent=6"], ["'methd'", "'method'"]),
        (["method.latent"], ["a.b=c"]),
        (["method..latent=6"], ["a.b=c"]),
        (["=6"], ["a.b=c"]),
        (["method=6"], ["names no option"]),
        (["method.a=[1"], ["'[1'", "quote"]),
        (["method.a=!!python/object:os.system x"], ["cannot be read"]),
        (["train.stage=1", "train.stage.a.steps=2"], ["contradicts"]),
    ],
)
def test_mistakes_are_one_sentence(given, words):
    with pytest.raises(UserError) as caught:
        parse_sets(given)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
