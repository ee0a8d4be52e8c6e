"""``multirater submit``: hand cells to a scheduler and return at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import cell_options, engine_options, overwrite_option, settings


@click.command("submit")
@cell_options
@engine_options
@overwrite_option
def command(asked: dict[str, Any], results: Path, **engine: Any) -> int:
    """Submit the cells without a result (--executor slurm), or print their commands (--executor script).

    \b
    What becomes of them is in the results folder, whatever happens to this process:
      multirater status --why
    """
    from ..report import finish
    from ..runner import run

    return finish(run(**asked, results=results, wait=False, **settings(**engine)), figures=False)
