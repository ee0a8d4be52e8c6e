"""Options are signatures."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from multirater.core.errors import UserError
from multirater.core.hashing import canonical_json
from multirater.core.options import check_value, options_of, resolve_options
from pydantic import Field


class Base:
    def __init__(self, data, width: Annotated[int, Field(ge=1), "channels"] = 32, mode: Literal["a", "b"] = "a"):
        pass


class Child(Base):
    def __init__(self, data, latent: Annotated[int, "size of z"] = 6, mode: Literal["a", "b"] = "b", **kwargs):
        super().__init__(data, **kwargs)


class Closed(Base):
    def __init__(self, data, sizes: tuple[int, ...] = (1, 2), rate: float | None = None):
        super().__init__(data)


def test_names_types_defaults_and_help_come_from_the_signature():
    options = options_of(Child)
    assert list(options) == ["latent", "mode", "width"]
    assert (options["latent"].default, options["latent"].help) == (6, "size of z")
    assert options["mode"].default == "b", "the subclass decides"
    assert options["width"].help == "channels"
    assert list(options_of(Closed)) == ["sizes", "rate"], "no **kwargs, no options of the base"


def test_resolving_overlays_and_checks():
    assert resolve_options(Child, {"latent": "8", "width": 4}, "method") == {"latent": 8, "mode": "b", "width": 4}
    resolved = resolve_options(Closed, {"sizes": [3, 4]}, "method")
    assert resolved == {"sizes": [3, 4], "rate": None}
    assert canonical_json(resolve_options(Closed, {}, "m")) == '{"rate":null,"sizes":[1,2]}'


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"latnt": 6}, ["method.latnt", "'latent'"]),
        ({"latent": "six"}, ["method.latent = 'six'", "integer"]),
        ({"width": 0}, ["method.width = 0", "greater than or equal to 1"]),
        ({"mode": "c"}, ["method.mode = 'c'", "'a' or 'b'"]),
        ({"latent": 1.5}, ["method.latent"]),
        ({"data": 1}, ["method.data"]),
    ],
)
def test_mistakes_are_one_sentence(given, words):
    with pytest.raises(UserError) as caught:
        resolve_options(Child, given, "method")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_an_option_without_default_is_the_author_s_mistake():
    class Wrong:
        def __init__(self, data, latent: int):
            pass

    with pytest.raises(TypeError, match="latent"):
        options_of(Wrong)


def test_check_value_accepts_what_it_should():
    assert check_value("k", float, 1) == 1.0
    assert check_value("k", int | None, None) is None
