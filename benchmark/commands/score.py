"""``multirater score``: metrics of predictions made by anybody, without the rest of the suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import UserError
from .options import json_option, list_option, names

if TYPE_CHECKING:
    from ..score import Source

_OUTPUT = click.Path(path_type=Path, dir_okay=False)


class Numbers(click.ParamType):
    """Numbers separated by commas."""

    def __init__(self, kind: type, example: str) -> None:
        self.kind, self.example = kind, example
        self.name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return [self.kind(part) for part in value.split(",")]
        except ValueError:
            return self.fail(f"{value!r} cannot be read; give numbers such as {self.example}", param, ctx)


@click.command("score")
@click.argument("file", metavar="FILE.npz|FOLDER", type=click.Path(path_type=Path))
@click.option("--raters", metavar="PATTERN", help="Folder: masks of the raters, with {case} and {rater}.")
@click.option("--samples", metavar="PATTERN", help="Folder: masks of the samples, with {case} and {sample}.")
@click.option("--probs", metavar="PATTERN", help="Folder: probability maps of the samples, in place of --samples.")
@click.option("--rater-probs", metavar="PATTERN", help="Folder: the map meant for each rater, with {case} and {rater}.")
@click.option("--mean-prob", metavar="PATTERN", help="Folder: the mean map, with {case}.")
@click.option("--uncertainty", metavar="PATTERN", help="Folder: a map of uncertainty of any scale, with {case}.")
@click.option("--foreground", metavar="RULE", help="Folder: mask values that are foreground: '> 127', or 1,2.")
@click.option("--ignore-case", is_flag=True, help="Folder: match names without regard to case.")
@click.option(
    "--variant", default="canonical", metavar="V|all", help="Convention of a released code, or all side by side."
)
@list_option("--metrics", metavar="A,B", help="Metric ids; default: all that the inputs allow.")
@list_option("--classes", type=Numbers(int, "1,2,3"), metavar="1,2", help="Labels to evaluate; masks are class maps.")
@list_option("--spacing", type=Numbers(float, "1,0.5"), metavar="Y,X", help="Millimetres per pixel of each axis.")
@click.option("--spatial-dims", type=click.IntRange(2, 3), default=2, show_default=True, help="3 for volumes.")
@json_option("Print per-case values and summaries as JSON; undefined is null.")
@click.option("--csv", "case_csv", type=_OUTPUT, metavar="FILE", help="Write the values of every case, a row each.")
@click.option("--summary-csv", type=_OUTPUT, metavar="FILE", help="Write the summaries, a row each.")
@click.option("--components", type=_OUTPUT, metavar="OUT.npz", help="Write counts that can be scored again.")
def command(
    file: Path,
    foreground: str | None,
    ignore_case: bool,
    variant: str,
    metrics: str | None,
    classes: list[int] | None,
    spacing: list[float] | None,
    spatial_dims: int,
    as_json: bool,
    case_csv: Path | None,
    summary_csv: Path | None,
    components: Path | None,
    **patterns: str | None,
) -> int:
    """Score the predictions in FILE.npz, or in the files of a FOLDER.

    \b
    Arrays of FILE.npz (a case axis N in front of all of them is optional):
      raters        R x H x W        booleans, or integers for a class map
      samples       S x H x W        masks of the samples, or
      probs         S x H x W        their probabilities (S x C x H x W, background first)
      rater_probs   R x H x W        optional: the output meant for each rater
      mean_prob     H x W            optional: the mean map, if it is not the mean of the samples
      mean_log C x H x W, uncertainty H x W: optional, for ncc
      rater_valid R, sample_weights S, rater_weights R, valid H x W, classes, case_ids, spacing: optional

    \b
    Patterns of a FOLDER are those of the folder data set (docs/folder.md): paths below it with {case}, {rater},
    {sample}, * and **/. A rater without a file did not see the case; a mask without foreground is an answer. Read are
    png, tif, jpg, gif, bmp, npy and nii(.gz), whose spacing is taken; 8- and 16-bit probabilities are divided by 255
    and 65535.

    \b
    A file written by --components is scored like any other; metrics that need pixels cannot be computed from it.

    \b
    Examples:
      np.savez("mine.npz", raters=masks, probs=probabilities)
      multirater score mine.npz --metrics ged,dice_match,dice_soft
      multirater score study --raters 'gt/{case}_r{rater}.png' --samples 'pred/{case}_s{sample}.png'
    """
    from ...metrics.components import save_components
    from ...metrics.registry import info_of
    from ...metrics.variants import variant_summary
    from ..score import score_source
    from ..score_output import as_json as to_json
    from ..score_output import write_case_csv, write_summary_csv
    from ..score_pooled import split_pooled

    if variant != "all":
        variant_summary(variant)  # an unknown name ends here
    wanted = None if metrics is None else names(metrics)
    if wanted is not None and not wanted:
        raise UserError(f"--metrics {metrics!r} names no metric; give ids such as ged,dice_soft")
    for name in split_pooled(wanted)[0] or ():
        info_of(name)
    for path in (case_csv, summary_csv, components):
        if path is not None and path.exists() and file.exists() and path.samefile(file):
            raise UserError(f"{path} is the input; write to another file")
    given = {role: text for role, text in patterns.items() if text is not None}
    source = _source(file, given, spatial_dims, classes, spacing, foreground, ignore_case)
    for note in source.notes:
        click.echo(note, err=True)

    result = score_source(source, variant, wanted, keep_components=components is not None)
    rater_ids = source.rater_ids
    if components is not None:
        save_components(components, result.components)
    if case_csv is not None:
        write_case_csv(case_csv, result, rater_ids)
    if summary_csv is not None:
        write_summary_csv(summary_csv, result, rater_ids)
    if as_json:
        document = to_json(file, result, variant == "all", rater_ids)
        click.echo(json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False))
        return 0
    from ..score_table import print_scores

    print_scores(file.name, result, wanted, rater_ids)
    return 0


def _source(
    file: Path,
    patterns: dict[str, str],
    spatial_dims: int,
    classes: list[int] | None,
    spacing: list[float] | None,
    foreground: str | None,
    ignore_case: bool,
) -> Source:
    from ...metrics.inputs import spacing_of
    from ..score import read_score_file
    from ..score_files import foreground_of
    from ..score_folder import ScoreFolder, option

    if spacing is not None:
        spacing_of(spacing, spatial_dims)
    if file.is_dir():
        if classes is not None and foreground is not None:
            raise UserError("--foreground makes masks of one class, --classes reads class maps; give one of the two")
        rule = foreground_of(foreground)
        return ScoreFolder(file, patterns, spatial_dims, classes, rule, spacing, ignore_case)
    only = [
        *map(option, patterns),
        *(["--foreground"] if foreground else []),
        *(["--ignore-case"] if ignore_case else []),
    ]
    if only and file.exists():
        raise UserError(f"{', '.join(only)} concern a folder, and {file} is a file; leave them out")
    return read_score_file(file, spatial_dims, classes, spacing)
