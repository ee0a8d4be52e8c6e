"""Checks of the class itself: options, construction, stages, and what the registry says of it."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import nn

from ...core.hashing import canonical_json
from ...core.options import options_of, resolve_options
from ...methods.base import Method
from ..catalogue import METHOD_FACTS
from .check import Fault, Skip, contract, require
from .subject import Subject

_OUTPUTS = ("samples", "raters", "mean")
_GROUP_KEYS = {"params", "lr_scale", "weight_decay"}


@contract("options", "every option is explained, and its default is a value of its type that JSON can hold")
def options(subject: Subject) -> str:
    found = options_of(subject.cls)
    for name, option in found.items():
        require(
            bool(option.help.strip()),
            f'option {name!r} is not explained; write {name}: Annotated[{_type_name(option.type)}, "what it is"]',
        )
        try:
            TypeAdapter(option.type).validate_python(option.default)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise Fault(f"the default {option.default!r} of option {name!r} is not of its type: {why}") from error
        try:
            canonical_json(resolve_options(subject.cls, {}, "method")[name])
        except (TypeError, ValueError) as error:
            raise Fault(f"the default {option.default!r} of option {name!r} has no JSON form ({error})") from error
    return f"{len(found)} options" if found else "no options"


@contract("constructs", "it is built from a data description and keeps the description and its options")
def constructs(subject: Subject) -> str:
    data = subject.describe()
    before = canonical_json(subject.options)
    method = subject.build(data)
    require(
        getattr(method, "data", None) == data, "method.data is not the description; call super().__init__(data, ...)"
    )
    require(canonical_json(subject.options) == before, "its __init__ changes the option values it is given")
    require(any(True for _ in method.parameters()), "it has no parameters, so that there is nothing to train")
    count = sum(p.numel() for p in method.parameters())
    return f"{count:,} parameters under the smoke preset"


@contract("defaults", "it is built with the default of every option", needs=("constructs",))
def defaults(subject: Subject) -> str:
    method = subject.build(options=resolve_options(subject.cls, {}, "method"))
    return f"{sum(p.numel() for p in method.parameters()):,} parameters by default"


@contract("metadata", "what the registry says of it without importing it is what its class says")
def metadata(subject: Subject) -> str:
    if subject.entry is None:
        raise Skip("the class is not registered")
    said = {key: subject.entry.info[key] for key in METHOD_FACTS if key in subject.entry.info}
    if not said:
        raise Skip("the registry says nothing of its capabilities")
    # A lazy entry that says something says the rest too: what it leaves out is listed as the default.
    keys = said if subject.entry.local else METHOD_FACTS
    for key in keys:
        listed, own = said.get(key, METHOD_FACTS[key]), getattr(subject.cls, key)
        same = tuple(listed) == tuple(own) if key == "spatial_dims" else listed == own
        require(same, f"the registry says {key}={listed!r}, but the class says {own!r}")
    return f"{len(list(keys))} capabilities agree"


@contract("stages", "stages are named, and each says what it optimises and what it is judged by", needs=("constructs",))
def stages(subject: Subject) -> str:
    cls, names = subject.cls, subject.stages
    require(
        bool(names) and all(isinstance(n, str) and n for n in names) and len(set(names)) == len(names),
        f"stages_for gives {names!r}; give one or more different names",
    )
    for name in names:
        require(name in cls.stages, f"stages_for gives {name!r}, which is not in stages={cls.stages!r}")
    for name, output in cls.stage_gives.items():
        require(name in cls.stages, f"stage_gives names the stage {name!r}, which is not in stages={cls.stages!r}")
        require(output in _OUTPUTS, f"stage_gives[{name!r}] is {output!r}; allowed are {', '.join(_OUTPUTS)}")
        claimed = output == "mean" or getattr(cls, f"gives_{output}")
        require(claimed, f"stage_gives[{name!r}] is {output!r}, but gives_{output} is False")
    require(
        bool(cls.spatial_dims) and set(cls.spatial_dims) <= {2, 3},
        f"spatial_dims={cls.spatial_dims!r}; allowed are (2,), (3,) and (2, 3)",
    )
    require(isinstance(cls.version, int) and cls.version >= 1, f"version={cls.version!r}; give a number from 1")
    label = cls.label(dict(subject.options))
    require(isinstance(label, str) and "\n" not in label, f"label gives {label!r} instead of a line of text")
    method = subject.build()
    for name in names:
        _check_parameters(method, name)
    return f"{', '.join(names)}"


def _check_parameters(method: Method, stage: str) -> None:
    given = list(method.parameters_for(stage))
    groups = [g for g in given if isinstance(g, dict)]
    where = f"parameters_for({stage!r})"
    require(len(groups) in (0, len(given)), f"{where} mixes parameters and groups; put all of them into groups")
    for group in groups:
        unknown = sorted(set(group) - _GROUP_KEYS)
        require(not unknown, f"{where} sets {', '.join(unknown)} in a group; allowed are lr_scale and weight_decay")
        require("params" in group, f"{where} has a group without params")
    chosen: list[Any] = [p for group in groups for p in group["params"]] if groups else given
    require(bool(chosen), f"{where} is empty, so that the stage trains nothing")
    require(all(isinstance(p, nn.Parameter) for p in chosen), f"{where} holds something that is no parameter")
    ids = [id(p) for p in chosen]
    require(len(ids) == len(set(ids)), f"{where} names a parameter twice")
    own = {id(p) for p in method.parameters()}
    require(set(ids) <= own, f"{where} holds a parameter that is not the module's own and would never be saved")


def _type_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))
