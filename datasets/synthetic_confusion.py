"""Made images whose raters err at random by known confusion matrices, so that estimated ones can be compared.

The objects are those of `synthetic`. The truth is T = {f <= 0}; rater r marks a pixel of T with probability
sensitivity_r and a pixel outside with probability 1 - specificity_r, independently: exactly the model of the
confusion-matrix methods, with the same matrix at every pixel (Zhang et al. 2020, section 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ..core.errors import UserError
from ..core.seeding import numpy_generator
from .base import Dataset, Progress
from .store import ArrayStore
from .synthetic import Synthetic, make_field, render

Rate = Annotated[float, Field(ge=0.5, le=1)]


class SyntheticConfusion(Dataset):
    """Synthetic raters who flip pixels by a confusion matrix each."""

    version = 1
    embedded = True
    notice = "synthetic data"
    title = "Synthetic raters with planted confusion matrices"
    licence = "none needed: made by the suite"
    how_to_get = "made at first use"
    split_names = ("cv4", "fixed")

    def __init__(
        self,
        size: Annotated[int, Field(ge=32, le=512), "pixels per side"] = 64,
        cases: Annotated[int, Field(ge=8, le=20_000), "number of images; two make a patient"] = 240,
        sensitivity: Annotated[tuple[Rate, ...], "chance to mark a pixel of the truth, one number a rater"] = (
            0.95,
            0.8,
            0.6,
        ),
        specificity: Annotated[tuple[Rate, ...], "chance not to mark another pixel, one number a rater"] = (
            0.95,
            0.8,
            0.6,
        ),
        seed: Annotated[int, Field(ge=0), "another draw of the whole data set"] = 0,
        split: Annotated[Literal["cv4", "fixed"], "patient-level split"] = "cv4",
    ) -> None:
        if not sensitivity or len(sensitivity) != len(specificity):
            raise UserError(
                f"dataset.sensitivity has {len(sensitivity)} numbers and dataset.specificity {len(specificity)}; give "
                f"both one number a rater"
            )
        super().__init__(
            size=size, cases=cases, sensitivity=sensitivity, specificity=specificity, seed=seed, split=split
        )

    def source(self) -> dict[str, Any]:
        return {"recipe": self.version}

    @property
    def matrices(self) -> np.ndarray:
        """R×2×2, entry [r, said, true] with background first; columns sum to 1."""
        inside, outside = np.array(self.options["sensitivity"]), np.array(self.options["specificity"])
        return np.stack([np.stack([outside, 1 - inside], -1), np.stack([1 - outside, inside], -1)], 1)

    def truth(self, indices: np.ndarray) -> np.ndarray:
        """B×H×W bool: what no rater and no method sees."""
        return np.asarray(self.store.extra("truth")[indices], bool)

    def build(self, folder: Path, progress: Progress) -> None:
        o = self.options
        n, size, raters = o["cases"], o["size"], len(o["sensitivity"])
        progress(0, 2, "drawing shapes")
        shape, white, shade, _, valid = Synthetic.draw(n, size, raters, 0.0, o["seed"])
        field = make_field(shape, size)
        truth = field <= 0
        progress(1, 2, "drawing raters")
        mark = np.where(truth[:, None], *self.matrices[:, 1, ::-1].T[:, None, :, None, None])
        masks = np.empty(mark.shape, np.uint8)
        for i in range(n):  # one stream a case: the first cases of a longer data set are the shorter one
            masks[i] = numpy_generator("synthetic-confusion", case=i, seed=o["seed"]).random(mark[i].shape) < mark[i]
        np.save(folder / "truth.npy", truth)
        ArrayStore.write(
            folder,
            images=render(field, white, shade)[:, None],
            masks=masks,
            rater_valid=valid,
            records=[
                {
                    "case_id": f"con{i:05d}",
                    "patient_id": f"conp{i // 2:05d}",
                    "spacing": None,
                    "source": "synthetic",
                    "meta": {},
                }
                for i in range(n)
            ],
            classes=1,
            rater_ids=[f"rater {r + 1}" for r in range(raters)],
            identity="synthetic",
        )
        progress(2, 2, "done")
