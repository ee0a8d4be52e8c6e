"""``--set a.b=c`` of the command line as nested dictionaries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from .errors import UserError, unknown

SECTIONS = ("dataset", "method", "train", "eval")


class CoreLoader(yaml.SafeLoader):
    """YAML 1.2 core scalars. PyYAML's own rules (YAML 1.1) read 1e-3 as text, `no` as false and 1:30 as 90."""


CoreLoader.yaml_implicit_resolvers = {}
for _tag, _expression, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    for _character in _first:
        CoreLoader.yaml_implicit_resolvers.setdefault(_character.strip("\0"), []).append(
            (f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_expression})\\Z"))
        )
CoreLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
CoreLoader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(node.value))


def parse_value(text: str) -> Any:
    """A value as written on the command line: null, true, 3, 1e-3, text, ``[1, 2]`` or ``{a: 1}``.

    Raises:
        UserError: not a YAML value.
    """
    try:
        return yaml.load(text, Loader=CoreLoader)  # a SafeLoader: builds plain values only
    except (yaml.YAMLError, ValueError) as error:
        why = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{text!r} cannot be read as a value ({why}); quote it, as in \"a.b='text'\"") from error


def parse_sets(
    sets: Iterable[str], sections: tuple[str, ...] = SECTIONS, default: str | None = None
) -> dict[str, dict[str, Any]]:
    """``["method.latent=6", "train.stage.diverse.steps=5"]`` as ``{"method": {"latent": 6}, "train": {"stage": …}}``.

    A later override of the same key wins.

    Args:
        sets: ``section.key=value``, deeper keys with more dots.
        sections: allowed first parts.
        default: section of keys that name none.

    Raises:
        UserError: no ``=``, empty parts, an unknown section (with the nearest), or a key both value and section.
    """
    nested: dict[str, dict[str, Any]] = {}
    for given in sets:
        key, sign, text = given.partition("=")
        parts = key.strip().split(".")
        if not sign or not all(parts):
            raise UserError(
                f"--set {given!r} is not of the form a.b=c; write for example --set {sections[-1]}.key=value"
            )
        if default is not None and (parts[0] not in sections or len(parts) == 1):
            parts.insert(0, default)
        if parts[0] not in sections:
            raise unknown(f"section in --set {given!r}:", parts[0], sections)
        if len(parts) == 1:
            raise UserError(f"--set {given!r} names no option; write for example --set {parts[0]}.key={text}")
        where: dict[str, Any] = nested
        for part in parts[:-1]:
            where = where.setdefault(part, {})
            if not isinstance(where, dict):
                raise UserError(
                    f"--set {given!r} contradicts an earlier --set of {part!r} itself; give only one of them"
                )
        where[parts[-1]] = parse_value(text.strip())
    return nested
