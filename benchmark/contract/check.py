"""What a check is, and the table of all of them."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from ...core.errors import UserError

if TYPE_CHECKING:
    from .subject import Subject

Outcome = Literal["pass", "fail", "skip"]
CheckFunction = Callable[["Subject"], str]


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: as in ``--only``.
        about: what it asks of a method.
        outcome: ``pass``, ``fail`` or ``skip``.
        message: one sentence: what was found, what is wrong, or why it does not apply.
        seconds: wall time.
        traceback: of the exception that ended it, if one did.
    """

    name: str
    about: str
    outcome: Outcome
    message: str
    seconds: float = 0.0
    traceback: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Contract:
    """One entry of the table: a function that returns what it found, or raises `Fault` or `Skip`."""

    name: str
    about: str
    function: CheckFunction
    needs: tuple[str, ...]


class Fault(Exception):
    """The method breaks its contract; the message is the sentence that is shown."""


class Skip(Exception):
    """The check does not apply; the message is the reason."""


CONTRACTS: dict[str, Contract] = {}


def contract(name: str, about: str, needs: tuple[str, ...] = ()) -> Callable[[CheckFunction], CheckFunction]:
    """Add a check to the table, in the order in which they run; `needs` names earlier ones that it builds on."""

    def decorate(function: CheckFunction) -> CheckFunction:
        CONTRACTS[name] = Contract(name, about, function, needs)
        return function

    return decorate


def require(condition: bool, message: str) -> None:
    """Go on if the condition holds.

    Raises:
        Fault: it does not; the message says what is wrong.
    """
    if not condition:
        raise Fault(message)


@contextmanager
def situation(words: str) -> Iterator[None]:
    """What goes wrong inside is a fault that says in which situation, such as ``"with 3 channels"``.

    Raises:
        Fault: anything was raised inside.
    """
    try:
        yield
    except Exception as error:  # the code of a third party may raise anything
        raise Fault(f"{words}: {sentence(error)}") from error


def few(names: Iterable[str]) -> str:
    """The first three names and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


def sentence(error: BaseException) -> str:
    """An exception in one line: a user error as it stands, any other with its type and the place it came from."""
    text = " ".join(str(error).split())
    if isinstance(error, (UserError, Fault)):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    # The last frame of the method's own code says more than the depths of torch.
    library = str(Path(torch.__file__).parent)
    own = [frame for frame in frames if not frame.filename.startswith(library)]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


def is_one_sentence(text: str) -> bool:
    """Whether a message is one sentence of several words on one line."""
    return len(text.split()) >= 4 and "\n" not in text.strip() and not re.search(r"[.!?]\s+[A-Z]", text)
