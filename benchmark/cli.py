"""The ``multirater`` command: a thin, lazy group; each command lives in ``benchmark/commands/``.

A command's module is imported when it is called, so that ``--help`` and ``list`` stay below half a second.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback

import click

from .. import __version__
from ..core.errors import UserError, unknown

COMMANDS = {
    "list": "Methods, data sets, metrics, presets and executors, one line each.",
    "info": "The card of one entry: paper, options with defaults, deviations, licence.",
    "check-method": "Contract tests of a method, also of one in a package of your own.",
    "prepare": "Build or verify a data set and cache its arrays.",
    "data": "Check a data set, look at it, convert pickles to HDF5.",
    "plan": "Cells of a run, their states, estimated hours; starts nothing.",
    "run": "Train and evaluate cells; skips what is done.",
    "submit": "Hand cells to a scheduler and return at once.",
    "status": "States of the cells of a results folder.",
    "retry": "Try again what failed or was lost.",
    "cancel": "Stop what runs or waits for a results folder.",
    "clean": "Remove what killed processes left behind.",
    "evaluate": "Metrics again from stored predictions, without training.",
    "export": "A bundle of results for others: records and case values, ids hashed.",
    "merge": "Bundles of others into a results folder; conflicts are reported.",
    "verify": "Run a finished cell again and compare.",
    "leaderboard": "Tables from stored results.",
    "figures": "Figures from stored results.",
    "compare": "Two methods or outputs, case by case: test, effect size, deciding cases.",
    "cite": "BibTeX of the methods, data and metrics that a table used.",
    "predict": "Samples, masks for the readers and mean map of a trained cell for new images.",
    "report": "The HTML report from stored results.",
    "score": "Metrics of predictions made by anybody.",
}


class LazyGroup(click.Group):
    """Commands by name, imported at first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            raise unknown("command", name, COMMANDS)
        return importlib.import_module(f".commands.{name.replace('-', '_')}", __package__).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="multirater")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Benchmark suite for multi-rater medical image segmentation.

    Does a method cover the experts' diversity, and can it personalise to one expert?
    """


def main(argv: list[str] | None = None) -> None:
    """Entry point: 0 fine, 1 some cell failed, 2 wrong usage or input, 130 Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv or bool(os.environ.get("MULTIRATER_DEBUG"))
    argv = [a for a in argv if a != "--debug"]
    try:
        code = cli.main(args=argv, prog_name="multirater", standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except KeyboardInterrupt:
        click.echo("\ninterrupted", err=True)
        code = 130
    except click.ClickException as error:
        if debug:
            traceback.print_exc()
        click.echo(f"multirater: {error.format_message()}", err=True)
        code = 2
    except UserError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"multirater: {error}", err=True)
        code = 2
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
