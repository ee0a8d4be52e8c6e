"""One registry class for methods, data sets, metrics and executors.

Entries are lazy: a ``"module:object"`` string and static metadata, so that listing needs no torch.
Third-party packages add entries through an entry-point group; nothing of theirs is imported before use.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from .errors import UserError, unknown

T = TypeVar("T")


@dataclass
class Entry:
    """A registered name: where its object is and what is known of it without importing it."""

    name: str
    target: str | Any
    origin: str
    info: Mapping[str, Any] = field(default_factory=dict)
    local: bool = False  # registered as an object: only this process knows it

    def same_target(self, other: Entry) -> bool:
        return self.target_name == other.target_name

    @property
    def target_name(self) -> str:
        if isinstance(self.target, str):
            return self.target
        module = getattr(self.target, "__module__", "?")
        return f"{module}:{getattr(self.target, '__qualname__', self.target)}"


class Registry(Generic[T]):
    """Names to objects.

    Args:
        kind: singular noun for messages, for example ``"method"``.
        group: entry-point group of third-party packages.
        base: ``"module:Class"`` that every object must subclass; None if there is no such class.
    """

    def __init__(self, kind: str, group: str, base: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._entries: dict[str, Entry] = {}
        self._aliases: dict[str, str] = {}
        self._implied: dict[str, dict[str, Any]] = {}
        self._plugins_read = False

    # -- adding ---------------------------------------------------------------------------------

    def add(self, name: str, target: str | Any, origin: str | None = None, **info: Any) -> None:
        """Register an object or a lazy ``"module:object"``.

        Raises:
            UserError: the name is taken by something else; the message shows both origins.
        """
        entry = Entry(name, target, origin or _origin(target), info, local=not isinstance(target, str))
        if not isinstance(target, str):
            self._check(entry, target)
        old = self._entries.get(name)
        if old is not None and not old.same_target(entry):
            raise UserError(
                f"{self.kind} {name!r} is registered twice: by {old.origin} ({old.target_name}) and by "
                f"{entry.origin} ({entry.target_name}); rename one of them or uninstall its package"
            )
        if old is None or not isinstance(target, str):
            self._entries[name] = (
                entry if old is None else Entry(name, target, old.origin, {**old.info, **info}, old.local)
            )

    def alias(self, alias: str, name: str, **options: Any) -> None:
        """Another spelling of a registered name, with options that it stands for; accepted but not listed."""
        self._aliases[alias] = name
        self._implied[alias] = options

    def register(self, name: str, **info: Any) -> Any:
        """Decorator form of `add`."""

        def decorate(obj: Any) -> Any:
            self.add(name, obj, **info)
            return obj

        return decorate

    def aliases(self) -> dict[str, str]:
        """Other spellings and the names that they stand for."""
        return dict(self._aliases)

    # -- reading --------------------------------------------------------------------------------

    def names(self) -> list[str]:
        self._read_plugins()
        return sorted(self._entries)

    def entries(self) -> Iterator[Entry]:
        for name in self.names():
            yield self._entries[name]

    def entry(self, name: str) -> Entry:
        """Metadata of a name, without importing its object.

        Raises:
            UserError: unknown name, with the nearest valid one.
        """
        self._read_plugins()
        name = self._aliases.get(name, name)
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def with_implied(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """`options`, and those that the name stands for (`alias`).

        Raises:
            UserError: an option contradicts the name.
        """
        implied = self._implied.get(name, {})
        for key, value in implied.items():
            if options.get(key, value) != value:
                raise UserError(
                    f"{name!r} means {self._aliases[name]!r} with {self.kind}.{key}={value}, but {options[key]!r} was "
                    f"given; leave the option out, or use {self._aliases[name]!r}"
                )
        return {**implied, **options}

    def get(self, name: str) -> T:
        """The object of a name, imported if need be and checked against the base class."""
        entry = self.entry(name)
        if isinstance(entry.target, str):
            module, _, attribute = entry.target.partition(":")
            try:
                obj = getattr(importlib.import_module(module), attribute)
            except Exception as error:  # a plug-in may raise anything while it is imported
                raise UserError(
                    f"{self.kind} {entry.name!r} of {entry.origin} cannot be loaded from {entry.target!r} "
                    f"({type(error).__name__}: {error}); "
                    f"reinstall or repair that package"
                ) from error
            self._check(entry, obj)
            entry.target = obj
        return entry.target

    def __contains__(self, name: str) -> bool:
        self._read_plugins()
        return self._aliases.get(name, name) in self._entries

    # -- inside ---------------------------------------------------------------------------------

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        for point in entry_points(group=self.group):
            dist = point.dist
            self.add(point.name, point.value, f"package {dist.name} {dist.version}" if dist else "an entry point")

    def _check(self, entry: Entry, obj: Any) -> None:
        if self._base is None:
            return
        module, _, attribute = self._base.partition(":")
        base = getattr(importlib.import_module(module), attribute)
        if not (isinstance(obj, type) and issubclass(obj, base)):
            raise UserError(
                f"{self.kind} {entry.name!r} of {entry.origin} must be a subclass of {self._base.replace(':', '.')}, "
                f"but is {obj!r}; derive it from that class"
            )


def _origin(target: Any) -> str:
    if isinstance(target, str):
        return target.partition(":")[0]
    return str(getattr(target, "__module__", "?"))
