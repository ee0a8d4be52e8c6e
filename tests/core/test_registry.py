"""The registry: lazy, checked, and clear about duplicates and misspelled names."""

from __future__ import annotations

import sys

import pytest
from multirater.core.errors import UserError
from multirater.core.registry import Registry

BASE = "test_registry_plugin:Base"
PLUGIN = """
class Base: ...
class Good(Base): ...
class Other(Base): ...
class Stranger: ...
thing = 3
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "test_registry_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "test_registry_plugin"
    sys.modules.pop("test_registry_plugin", None)


def fresh(base=None):
    return Registry("method", "multirater.test-group", base)


def test_entries_are_lazy(plugin):
    registry = fresh(BASE)
    registry.add("good", f"{plugin}:Good", summary="s", gives_samples=True)
    registry.add("gone", "no_such_module_at_all:Thing")
    assert registry.names() == ["gone", "good"]
    assert "good" in registry
    assert registry.entry("good").info == {"summary": "s", "gives_samples": True}
    assert plugin not in sys.modules, "listing imports nothing"
    assert registry.get("good").__name__ == "Good"
    assert registry.get("good") is registry.get("good")


def test_what_cannot_be_loaded_is_named(plugin):
    registry = fresh()
    registry.add("gone", "no_such_module_at_all:Thing", origin="package p 1.0")
    registry.add("missing", f"{plugin}:Nothing")
    with pytest.raises(UserError, match=r"'gone' of package p 1\.0 .*no_such_module_at_all"):
        registry.get("gone")
    with pytest.raises(UserError, match=r"'missing'.*Nothing"):
        registry.get("missing")


def test_base_class_is_checked_at_registration_and_at_use(plugin):
    registry = fresh(BASE)
    registry.add("stranger", f"{plugin}:Stranger")
    registry.add("thing", f"{plugin}:thing")
    for name in ("stranger", "thing"):
        with pytest.raises(UserError, match=r"subclass of test_registry_plugin\.Base"):
            registry.get(name)
    with pytest.raises(UserError, match="subclass"):
        registry.add("int", int)
    assert "int" not in registry
    from test_registry_plugin import Good

    registry.add("object", Good)
    assert registry.get("object") is Good


def test_duplicates_show_both_origins(plugin):
    registry = fresh()
    registry.add("m", f"{plugin}:Good", origin="package one 1.0")
    registry.add("m", f"{plugin}:Good", origin="package one 1.0")  # the same again is harmless
    with pytest.raises(UserError) as caught:
        registry.add("m", f"{plugin}:Other", origin="package two 2.0")
    for word in ("'m'", "package one 1.0", "package two 2.0", "Good", "Other", "rename"):
        assert word in str(caught.value)
    assert registry.get("m").__name__ == "Good"


def test_decorating_a_listed_class_keeps_its_metadata(plugin):
    registry = fresh()
    registry.add("m", f"{plugin}:Good", summary="kept")
    from test_registry_plugin import Good

    assert registry.register("m", extra=1)(Good) is Good
    assert registry.get("m") is Good
    assert registry.entry("m").info == {"summary": "kept", "extra": 1}


def test_aliases_are_accepted_but_not_listed(plugin):
    registry = fresh()
    registry.add("bu-bil", f"{plugin}:Good")
    registry.alias("bu_bil", "bu-bil")
    assert registry.entry("bu_bil").name == "bu-bil"
    assert registry.get("bu_bil") is registry.get("bu-bil")
    assert "bu_bil" in registry
    assert registry.names() == ["bu-bil"]


@pytest.mark.parametrize(("given", "near"), [("prob_une", "prob_unet"), ("probunet", "prob_unet"), ("xyz", None)])
def test_unknown_names_get_the_nearest(given, near):
    registry = fresh()
    registry.add("prob_unet", "a:b")
    registry.add("dpersona", "a:c")
    with pytest.raises(UserError, match="unknown method") as caught:
        registry.get(given)
    assert ("did you mean" in str(caught.value)) == (near is not None)
    if near:
        assert f"did you mean {near!r}" in str(caught.value)
    assert "valid: dpersona, prob_unet" in str(caught.value)
    assert given not in registry


def install(tmp_path, name, points, group="multirater.test-group"):
    """Metadata of an installed package, as pip leaves it."""
    info = tmp_path / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")


def test_entry_points_of_other_packages(plugin, tmp_path):
    install(tmp_path, "thirdparty", {"theirs": f"{plugin}:Good", "wrong": f"{plugin}:Stranger"})
    registry = fresh(BASE)
    registry.add("ours", f"{plugin}:Other")
    assert registry.names() == ["ours", "theirs", "wrong"]
    assert registry.entry("theirs").origin == "package thirdparty 1.5"
    assert plugin not in sys.modules
    assert registry.get("theirs").__name__ == "Good"
    with pytest.raises(UserError, match=r"package thirdparty 1\.5"):
        registry.get("wrong")


def test_an_entry_point_cannot_take_a_built_in_name(plugin, tmp_path):
    install(tmp_path, "greedy", {"ours": f"{plugin}:Good"})
    registry = fresh(BASE)
    registry.add("ours", "multirater.methods.ours:Ours")
    with pytest.raises(UserError, match=r"twice.*multirater\.methods\.ours.*package greedy 1\.5"):
        registry.names()
