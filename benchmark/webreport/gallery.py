"""Pictures in the report: copies of the figures, and the samples of a few cases as sprites that a slider moves over."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError
from ...core.files import read_json
from ..collect import DamagedCell
from ..figures.book import table_key
from ..figures.source import LeftOut, Scored, diversity_of, scored
from ..sheet import Sheet
from .records import Names

_SHOWS_CASES = ("qualitative",)  # kinds with images and ids of cases in the picture itself
_FRAME = 160  # pixels a side above which masks are thinned out
_OVERLAY = {"sample": (240, 228, 66), "rater": (86, 180, 233), "mean": (213, 94, 0)}


class Gallery:
    """Copies figures and writes sprites below the report's folder.

    Attributes:
        notes: sentences about what is not there.
        any_samples: whether outlines of any case were written.
    """

    def __init__(self, results: Path, folder: Path, with_ids: bool, with_images: bool, samples: bool) -> None:
        self.folder, self.with_ids, self.with_images, self.samples = folder, with_ids, with_images, samples
        self.source = results / "derived" / "figures"
        made = self.source / "figures.json"
        self.entries: dict[str, dict[str, Any]] = read_json(made) if made.is_file() else {}
        self.notes: list[str] = []
        self.any_samples = False
        if not self.entries:
            self.notes.append("No figures were drawn yet: run `multirater figures`, then `multirater report` again.")

    # -- figures --------------------------------------------------------------------------------------

    def figures_of_table(self, sheet: Sheet, names: Names) -> list[dict[str, str]]:
        """Figures of all methods of a table together."""
        return self._copied(sheet, lambda subject: subject == sheet.group.title, names)

    def figures_of_row(self, sheet: Sheet, index: int, names: Names) -> list[dict[str, str]]:
        """Figures of one row."""
        own = f"{sheet.group.rows[index].name} on {sheet.group.title}"
        return self._copied(sheet, lambda subject: subject == own or subject.startswith(f"{own}, class "), names)

    def _copied(self, sheet: Sheet, wanted: Callable[[str], bool], names: Names) -> list[dict[str, str]]:
        from ..figures.kinds import KINDS

        found = []
        for stem, entry in sorted(self.entries.items(), key=lambda e: (list(KINDS).index(e[1]["kind"]), e[0])):
            hidden = entry["kind"] in _SHOWS_CASES and not (self.with_ids and self.with_images)
            picture = self.source / f"{stem}.png"
            other = entry.get("table") != table_key(sheet.group) or not wanted(entry["subject"])
            if other or entry["left_out"] or hidden or not picture.is_file():
                continue
            place = self.folder / "figures"
            place.mkdir(exist_ok=True)
            files = {"png": "", "pdf": "", "csv": ""}
            for form in files:
                path = self.source / f"{stem}.{form}"
                if not path.is_file():
                    continue
                if form == "csv":
                    (place / path.name).write_text(self._table(path, names), encoding="utf-8")
                else:
                    shutil.copyfile(path, place / path.name)
                files[form] = f"figures/{path.name}"
            found.append({"kind": entry["kind"], "said": KINDS[entry["kind"]].said, "stem": stem, **files})
        return found

    def _table(self, path: Path, names: Names) -> str:
        """The CSV beside a figure, with its ids as the report shows them."""
        import pandas as pd

        if self.with_ids:
            return path.read_text(encoding="utf-8")
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        for column, known in (("case_id", names.cases), ("patient_id", names.patients)):
            if column in frame:
                frame[column] = frame[column].map(lambda name, known=known: known.get(name, ""))
        return str(frame.to_csv(index=False, lineterminator="\n"))

    # -- samples --------------------------------------------------------------------------------------

    def samples_of_row(self, sheet: Sheet, index: int, row_id: int, names: Names) -> list[dict[str, Any]]:
        """Sprites of the cases that `figures.qualitative` shows; empty where predictions or data are not here."""
        row = sheet.group.rows[index]
        if not self.samples or row.human or not row.cells:
            return []
        from ..figures.qualitative import chosen_cases, crop_box

        cell = row.first
        try:
            found = scored(cell)
        except (LeftOut, DamagedCell, UserError):
            return []
        diversity = diversity_of(found)
        out = []
        for percentile, i in chosen_cases(diversity):
            masks, valid = found.masks[i], found.valid[i]
            frames = _frames(found, i, sheet.group.rater_ids)
            shape = (int(masks.shape[-2]), int(masks.shape[-1]))
            box = crop_box([masks[valid], *(mask[None] for _, _, mask in frames)], shape)
            names.learn([found.case_ids[i]], [found.patient_ids[i]])
            out.append(
                self._case(found, i, frames, box, f"samples/{row_id}-{percentile}")
                | {"case": names.cases[found.case_ids[i]], "percentile": percentile}
                | {"diversity": round(float(diversity[i]), 3), "cell": cell.name}
            )
        self.any_samples |= bool(out)
        return out

    def _case(
        self,
        found: Scored,
        i: int,
        frames: list[tuple[str, str, NDArray[np.bool_]]],
        box: tuple[slice, slice],
        stem: str,
    ) -> dict[str, Any]:
        height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
        step = max(1, -(-max(height, width) // _FRAME))
        across = int(np.ceil(np.sqrt(len(frames))))
        tiles = [_tile(mask[box][::step, ::step], _OVERLAY[kind]) for _, kind, mask in frames]
        readers = _outlines(found, i, box, step)
        record: dict[str, Any] = {
            "across": across,
            "width": int(tiles[0].shape[1]),
            "height": int(tiles[0].shape[0]),
            "labels": [label for label, _, _ in frames],
            "sprite": self._png(f"{stem}-outputs.png", _grid(tiles, across)),
            "readers": self._png(f"{stem}-readers.png", readers),
            "image": "",
        }
        if self.with_images:
            from ..figures.qualitative import picture

            pixels = (picture(found.image(i))[box][::step, ::step] * 255).astype(np.uint8)
            record["image"] = self._png(f"{stem}-image.png", pixels)
        return record

    def _png(self, name: str, pixels: NDArray[np.uint8]) -> str:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="png", optimize=True)
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(buffer.getvalue())
        return name


def _frames(found: Scored, i: int, rater_ids: tuple[str, ...]) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """What the slider runs over: label, kind and mask H×W."""
    stored = found.stored
    frames = [("mean map > 0.5", "mean", stored.mean[i] > 0.5)]
    if stored.raters is not None:
        frames += [(f"for {name}", "rater", stored.raters[i, r] > 0.5) for r, name in enumerate(rater_ids)]
    if stored.samples is not None:
        count = stored.samples.shape[1]
        frames += [(f"sample {s + 1} of {count}", "sample", stored.samples[i, s]) for s in range(count)]
    return frames


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that touch its outside."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _tile(mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """RGBA: a faint fill and a solid edge."""
    out = np.zeros((*mask.shape, 4), dtype=np.uint8)
    out[mask] = (*colour, 70)
    out[_edge(mask)] = (*colour, 255)
    return out


def _outlines(found: Scored, i: int, box: tuple[slice, slice], step: int) -> NDArray[np.uint8]:
    """The edges of all readers that saw the case, each in its colour, the later above."""
    from ..figures.style import rater_colour

    out: NDArray[np.uint8] | None = None
    for r, mask in enumerate(found.masks[i]):
        small = mask[box][::step, ::step]
        if out is None:
            out = np.zeros((*small.shape, 4), dtype=np.uint8)
        if found.valid[i, r]:
            colour = rater_colour(r).lstrip("#")
            out[_edge(small)] = (*(int(colour[k : k + 2], 16) for k in (0, 2, 4)), 255)
    assert out is not None
    return out


def _grid(tiles: list[NDArray[np.uint8]], across: int) -> NDArray[np.uint8]:
    height, width = tiles[0].shape[:2]
    down = -(-len(tiles) // across)
    out = np.zeros((down * height, across * width, 4), dtype=np.uint8)
    for n, tile in enumerate(tiles):
        y, x = divmod(n, across)
        out[y * height : (y + 1) * height, x * width : (x + 1) * width] = tile
    return out
