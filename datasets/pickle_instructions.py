"""The instructions of `safe_pickle`: all of plain data, and by name those that are refused."""

from __future__ import annotations

from collections.abc import Callable

from .pickle_machine import Machine, Refused
from .pickle_values import Damaged, shown, unquote

_DIGITS = 300  # of an integer


def _latin(data: bytes) -> str:
    return data.decode("latin-1")


def _raw_unicode(line: bytes) -> str:
    return line.decode("raw-unicode-escape")


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _integer(m: Machine) -> None:
    line = m.short_line(_DIGITS)
    m.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))


def _long(m: Machine, length: int) -> None:
    if not 0 <= length <= _DIGITS:
        raise Damaged("an integer that is too long")
    m.push(int.from_bytes(m.take(length), "little", signed=True))


def _text(code: str) -> Callable[[Machine], None]:
    return lambda m: m.string(m.number(code), _utf8, "utf-8", True)


def _bytes(code: str) -> Callable[[Machine], None]:
    return lambda m: m.string(m.number(code), bytes, "raw", False)


def _python2(code: str) -> Callable[[Machine], None]:
    return lambda m: m.string(m.number(code), _latin, "raw", False)


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.above_mark()


def _append(m: Machine) -> None:
    item = m.stack.pop()
    m.add([item])


def _appends(m: Machine) -> None:
    items = m.above_mark()
    m.add(items)


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.put_items([key, value])


def _set_items(m: Machine) -> None:
    items = m.above_mark()
    m.put_items(items)


def _dict(m: Machine) -> None:
    items = m.above_mark()
    m.push({})
    m.put_items(items)


def _global(m: Machine) -> None:
    module, name = (m.short_line().decode("utf-8") for _ in range(2))
    m.look_up(module, name)


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.look_up(module, name)


def _protocol(m: Machine) -> None:
    if (version := m.take(1)[0]) > 5:
        raise Damaged(f"pickle protocol {version}; 0 to 5 are read")


def _frame(m: Machine) -> None:
    if m.number("<Q") > m.size - m.at:
        raise Damaged("a frame that is longer than the file")


def _instance(m: Machine) -> None:
    module, name = (m.short_line().decode("utf-8") for _ in range(2))
    raise Refused(f"it makes an instance of {shown(f'{module}.{name}')} (instruction INST)")


def _object(name: str) -> Callable[[Machine], None]:
    def refuse(m: Machine) -> None:
        raise Refused(f"it makes an instance (instruction {name})")

    return refuse


def _unsupported(name: str) -> Callable[[Machine], None]:
    def refuse(m: Machine) -> None:
        raise Refused(f"it uses the instruction {name}")

    return refuse


INSTRUCTIONS: dict[int, Callable[[Machine], None]] = {
    ord(letter): step
    for letter, step in {
        "\x80": _protocol,
        "\x95": _frame,
        # numbers and constants
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "I": _integer,
        "J": lambda m: m.push(m.number("<i")),
        "K": lambda m: m.push(m.take(1)[0]),
        "M": lambda m: m.push(m.number("<H")),
        "L": lambda m: m.push(int(m.short_line(_DIGITS).removesuffix(b"L"))),
        "\x8a": lambda m: _long(m, m.take(1)[0]),
        "\x8b": lambda m: _long(m, m.number("<i")),
        "F": lambda m: m.push(float(m.short_line(_DIGITS))),
        "G": lambda m: m.push(m.number(">d")),
        # strings
        "S": lambda m: m.string_line(lambda line: _latin(unquote(line)), "escape", False),
        "T": _python2("<i"),
        "U": _python2("<B"),
        "B": _bytes("<I"),
        "C": _bytes("<B"),
        "\x8e": _bytes("<Q"),
        "\x96": _bytes("<Q"),
        "V": lambda m: m.string_line(_raw_unicode, "unicode-escape", True),
        "X": _text("<I"),
        "\x8c": _text("<B"),
        "\x8d": _text("<Q"),
        # stack and memory
        "(": Machine.mark,
        "0": _pop,
        "1": lambda m: m.above_mark(),
        "2": lambda m: m.push(m.stack[-1]),
        "p": lambda m: m.remember(int(m.short_line(_DIGITS))),
        "q": lambda m: m.remember(m.take(1)[0]),
        "r": lambda m: m.remember(m.number("<I")),
        "\x94": lambda m: m.remember(len(m.memo)),
        "g": lambda m: m.push(m.memo[int(m.short_line(_DIGITS))]),
        "h": lambda m: m.push(m.memo[m.take(1)[0]]),
        "j": lambda m: m.push(m.memo[m.number("<I")]),
        # containers
        "]": lambda m: m.push([]),
        ")": lambda m: m.push(()),
        "}": lambda m: m.push({}),
        "\x8f": lambda m: m.push([]),
        "l": lambda m: m.push(m.above_mark()),
        "t": lambda m: m.push(tuple(m.above_mark())),
        "\x91": lambda m: m.push(m.above_mark()),
        "\x85": lambda m: m.replace(1),
        "\x86": lambda m: m.replace(2),
        "\x87": lambda m: m.replace(3),
        "d": _dict,
        "a": _append,
        "e": _appends,
        "\x90": _appends,
        "s": _set_item,
        "u": _set_items,
        # globals
        "c": _global,
        "\x93": _stack_global,
        "R": Machine.reduce,
        "b": Machine.build,
        # what plain data never needs
        "i": _instance,
        "o": _object("OBJ"),
        "\x81": _object("NEWOBJ"),
        "\x92": _object("NEWOBJ_EX"),
        "\x82": _unsupported("EXT1"),
        "\x83": _unsupported("EXT2"),
        "\x84": _unsupported("EXT4"),
        "P": _unsupported("PERSID"),
        "Q": _unsupported("BINPERSID"),
        "\x97": _unsupported("NEXT_BUFFER"),
        "\x98": _unsupported("READONLY_BUFFER"),
    }.items()
}
