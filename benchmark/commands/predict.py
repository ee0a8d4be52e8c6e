"""``multirater predict CELL IMAGE…``: a trained cell on new images."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import json_option, list_option, names


@click.command("predict")
@click.argument("cell", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("predictions"), show_default=True)
@click.option("--samples", type=click.IntRange(min=1), help="Number of samples; default: as the cell was evaluated.")
@list_option("--format", "form", help="Comma list of nifti, png, npz; default: by the kind of image, and npz.")
@click.option("--window", nargs=2, type=float, help="Grey values that become 0 and 1, such as -1000 400; see above.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--stretch", is_flag=True, help="Allow images of another shape than the cell's.")
@click.option("--device", default="cpu", show_default=True)
@json_option("Print the folders as JSON.")
def command(
    cell: Path,
    images: tuple[Path, ...],
    out: Path,
    samples: int | None,
    form: str | None,
    window: tuple[float, float] | None,
    seed: int,
    stretch: bool,
    device: str,
    as_json: bool,
) -> int:
    """Write samples, the mask for each reader and the mean map of a trained cell for new images.

    CELL is a cell folder (results/cells/METHOD/DATASET/f0-s0-…). IMAGE is png, tif, jpg, npy, nii or nii.gz; a volume
    is predicted slice by slice.

    Most networks know grey values from 0 to 1 alone. Without --window these become so as in the cell's data set, if
    that was read from files of yours or has a window (CT). Otherwise values that already lie in [0, 1] stay, 8-bit
    ones are divided by 255, and of all others (16-bit, float) the 0.5th and 99.5th percentiles of the image become 0
    and 1, which is then said. A cell of standardised images takes npy arrays made in the same way alone.
    prediction.json records what was done.
    """
    from ..predict_files import predict_files

    tick = (lambda folder: None) if as_json else click.echo
    folders = predict_files(
        cell, images, out, n_samples=samples, formats=names(form), window=window or None, seed=seed, stretch=stretch,
        device=device, tick=tick, say=lambda sentence: click.echo(sentence, err=True),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps([str(folder) for folder in folders], indent=1))
    return 0
