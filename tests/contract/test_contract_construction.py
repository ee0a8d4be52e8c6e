"""Broken classes: options, construction, stages, and what the registry says."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
import torch
from contract_sound import Faults, Plain, Sound, assert_fails, run
from multirater.core.errors import UnsupportedPair
from multirater.methods import METHODS, Method
from pydantic import Field
from torch import nn

FAULTS = Faults()
breaks = FAULTS.breaks


# options


@breaks("options", "'width' is not explained")
class Unexplained(Sound):
    def __init__(self, data, width: int = 8):
        super().__init__(data, width)


@breaks("options", "the default 4 of option 'width'")
class DefaultNotAllowed(Sound):
    def __init__(self, data, width: Annotated[int, Field(ge=8), "channels"] = 4):
        super().__init__(data, width)


@breaks("options", "needs a default")
class NoDefault(Sound):
    def __init__(self, data, width: Annotated[int, "channels"]):
        super().__init__(data, width)


@breaks("options", "no JSON form")
class DefaultOfNoJson(Sound):
    def __init__(self, data, mode: Annotated[complex, "a number"] = 1j):
        super().__init__(data)


# constructs, defaults


@breaks("constructs", "call super().__init__(data, ...)")
class NoSuper(Sound):
    def __init__(self, data):
        nn.Module.__init__(self)
        self.layer = nn.Linear(1, 1)


@breaks("constructs", "ValueError: no such layer (test_contract_construction.py:")
class RaisesInInit(Sound):
    def __init__(self, data):
        raise ValueError("no such layer")


@breaks("constructs", "nothing to train")
class NoParameters(Sound):
    def __init__(self, data):
        Method.__init__(self, data)


@breaks("constructs", "changes the option values")
class ChangesOptions(Sound):
    def __init__(self, data, widths: Annotated[list[int], "channels of the levels"] = [8]):  # noqa: B006
        super().__init__(data, widths[0])
        widths.append(16)


@breaks("constructs", "refuses everything")
class RefusesMadeData(Sound):
    @classmethod
    def check_supported(cls, data, hparams):
        raise UnsupportedPair("this method refuses everything")


@breaks("defaults", "KeyError: 'large'")
class DefaultCannotBeBuilt(Sound):
    def __init__(self, data, backbone: Annotated[Literal["unet_small", "large"], "trunk"] = "large"):
        super().__init__(data, {"unet_small": 8}[backbone])


# stages


@breaks("stages", "'other', which is not in stages")
class UnknownStage(Sound):
    @classmethod
    def stages_for(cls, hparams):
        return ("diverse", "other")


@breaks("stages", "one or more different names")
class NoStages(Sound):
    @classmethod
    def stages_for(cls, hparams):
        return ()


@breaks("stages", "'everything'; allowed are samples, raters, mean")
class StageGivesNonsense(Sound):
    stage_gives = {"diverse": "everything"}  # noqa: RUF012


@breaks("stages", "'last', which is not in stages")
class StageGivesOfNoStage(Sound):
    stage_gives = {"last": "raters"}  # noqa: RUF012


@breaks("stages", "gives_raters is False")
class StageGivesUnclaimed(Plain):
    stage_gives = {"main": "raters"}  # noqa: RUF012


@breaks("stages", "sets lr in a group")
class OwnLearningRate(Plain):
    def parameters_for(self, stage):
        return [{"params": super().parameters_for(stage), "lr": 1.0}]


@breaks("stages", "mixes parameters and groups")
class MixedGroups(Plain):
    def parameters_for(self, stage):
        return [{"params": list(self.head.parameters())}, *self.trunk.parameters()]


@breaks("stages", "trains nothing")
class EmptyStage(Plain):
    def parameters_for(self, stage):
        return []


@breaks("stages", "names a parameter twice")
class Twice(Plain):
    def parameters_for(self, stage):
        return super().parameters_for(stage) * 2


@breaks("stages", "would never be saved")
class ForeignParameter(Plain):
    def parameters_for(self, stage):
        return [*super().parameters_for(stage), nn.Parameter(torch.zeros(1))]


@breaks("stages", "spatial_dims=(2, 4)")
class FourDimensions(Plain):
    spatial_dims = (2, 4)


@breaks("stages", "version=0")
class VersionZero(Plain):
    version = 0


@breaks("stages", "label gives None")
class LabelNone(Plain):
    @classmethod
    def label(cls, hparams):
        return None


@FAULTS.parametrize()
def test_a_broken_method_fails_its_check(check, method, words):
    assert_fails(check, method, words)


# -- metadata: what the registry says needs more than a class -----------------------------------


@pytest.fixture
def registered():
    names = []

    def register(cls, target=None, **info):
        name = f"contract_{cls.__name__.lower()}"
        METHODS.add(name, cls if target is None else target, **info)
        names.append(name)
        return name

    yield register
    for name in names:
        del METHODS._entries[name]


def test_metadata_of_a_class(registered):
    found = run(registered(Plain, summary="plain", gives_samples=False), "metadata")["metadata"]
    assert (found.outcome, found.message) == ("pass", "1 capabilities agree")
    found = run(registered(Sound, gives_samples=True, multiclass=False), "metadata")["metadata"]
    assert found.outcome == "fail"
    assert found.message == "the registry says multiclass=False, but the class says True"


def test_metadata_of_a_lazy_entry_are_complete(registered):
    where = "contract_sound:Sound"
    name = registered(Sound, where, gives_samples=True, gives_raters=True, multiclass=True)
    found = run(name, "metadata")["metadata"]
    assert found.outcome == "fail"
    assert found.message == "the registry says needs_identity=False, but the class says True"
    METHODS.entry(name).info["needs_identity"] = True
    assert run(name, "metadata")["metadata"].outcome == "pass"
    METHODS.entry(name).info.clear()
    METHODS.entry(name).info["summary"] = "no capability is said"
    assert run(name, "metadata")["metadata"].outcome == "skip"
