"""Options are the keyword parameters of a class: their names, types, defaults and one-line explanations.

A method or data set writes ``def __init__(self, data, latent: Annotated[int, "size of z"] = 6)`` and thereby has a
validated, documented option ``latent``; nothing is declared twice.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from .errors import UserError, unknown


@dataclass(frozen=True)
class Option:
    name: str
    type: Any
    default: Any
    help: str


def options_of(cls: type, skip: tuple[str, ...] = ("self", "data")) -> dict[str, Option]:
    """The keyword options of ``cls.__init__``, following ``**kwargs`` into its base classes."""
    found: dict[str, Option] = {}
    for owner in cls.__mro__:
        init = owner.__dict__.get("__init__")
        if init is None:
            continue
        hints = get_type_hints(init, include_extras=True)
        parameters = inspect.signature(init).parameters.values()
        for parameter in parameters:
            if parameter.name in skip or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if parameter.default is parameter.empty:
                raise TypeError(f"{cls.__name__}: option {parameter.name!r} needs a default")
            hint = hints.get(parameter.name, Any)
            text = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, str)), "")
            found.setdefault(parameter.name, Option(parameter.name, hint, parameter.default, text))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def resolve_options(cls: type, given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Defaults of `cls` overlaid with `given`, every value checked against its type.

    Args:
        cls: a method or data set class.
        given: option names to values as they come from YAML or the command line.
        prefix: ``"method"`` or ``"dataset"``, for messages.

    Raises:
        UserError: unknown key (with the nearest valid one) or a value of the wrong type.
    """
    options = options_of(cls)
    resolved = {name: option.default for name, option in options.items()}
    for name, value in given.items():
        if name not in options:
            raise unknown(f"override {prefix}.{name}: option", name, options)
        resolved[name] = check_value(f"{prefix}.{name}", options[name].type, value)
    return {name: _plain(value) for name, value in resolved.items()}


def check_value(key: str, type_: Any, value: Any) -> Any:
    """`value` coerced to `type_` by pydantic, or one sentence why not."""
    from pydantic import TypeAdapter, ValidationError

    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key} = {value!r} is not allowed: give a finite number")
    try:
        return TypeAdapter(type_).validate_python(value)
    except ValidationError as error:
        what = "; ".join(dict.fromkeys(e["msg"] for e in error.errors()))
        raise UserError(f"{key} = {value!r} is not allowed: {what}") from error


def _plain(value: Any) -> Any:
    """JSON form (tuples as lists), so that a resolved configuration hashes the same before and after a file."""
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value
