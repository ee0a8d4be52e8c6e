"""Options that take a comma list: given twice, nothing of the first is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from multirater.benchmark.cli import COMMANDS, cli
from multirater.benchmark.commands.figures import command as figures
from multirater.benchmark.commands.options import cell_options, list_option, names


def test_parts_of_a_list() -> None:
    assert names("a, b,,c ,") == ["a", "b", "c"]
    assert names(",") == names("") == names(None) == []


def _takes_a_list(option: click.Option) -> bool:
    return "Comma list" in (option.help or "") or option.metavar in ("A,B", "0,1", "1,2", "Y,X")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_with_a_comma_list_may_be_repeated(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = [o for o in command.params if isinstance(o, click.Option) and _takes_a_list(o)]
    once = {o.name for o in options if not o.multiple}
    assert not once
    if name in ("run", "plan", "submit"):
        assert {o.name for o in options} >= {"method", "fold", "seed"}


def test_repeated_lists_add_up() -> None:
    seen: dict[str, Any] = {}

    @click.command()
    @cell_options
    @list_option("--gpus", type=str)
    def command(**given: Any) -> int:
        seen.update(given)
        return 0

    called = CliRunner().invoke(command, "-m a,b -m c --fold 0 --fold 2,3".split(), standalone_mode=False)
    assert called.exception is None
    assert seen["asked"]["methods"] == ["a", "b", "c"]
    assert seen["asked"]["folds"] == [0, 2, 3]
    assert seen["asked"]["seeds"] == [0]
    assert seen["gpus"] is None
    both = CliRunner().invoke(command, "-m a --fold all --fold 1".split(), standalone_mode=False)
    assert "--fold 'all,1' is not a list of whole numbers" in str(both.exception)
    assert CliRunner().invoke(command, []).exit_code == 2  # a method is still asked for


def test_numbers_that_a_type_reads_add_up_too() -> None:
    from multirater.benchmark.commands.score import Numbers

    seen: list[Any] = []

    @click.command()
    @list_option("--classes", type=Numbers(int, "1,2"))
    def command(classes: list[int] | None) -> None:
        seen.append(classes)

    for arguments in (["--classes", "1,2", "--classes", "4"], []):
        assert CliRunner().invoke(command, arguments).exit_code == 0
    assert seen == [[1, 2, 4], None]


def test_figures_of_two_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "multirater.benchmark.figures.book.draw_figures", lambda *given, said: asked.append(given) or []
    )
    called = CliRunner().invoke(figures, ["--results", "r", "-m", "one", "-m", "two"])
    assert called.exit_code == 0, called.output
    assert asked == [(Path("r"), [], False, ["one", "two"], [])]
