"""Made images with a known rater distribution, so that the best reachable scores are known exactly.

A case is a star-shaped object. Its field f(x) = (distance from the centre - boundary radius) / w is 0 on the mean
boundary and counts in units of the case's ambiguity width w; the image shows w as the blur of the edge. Rater r marks

    Y_r = {x : f(x) <= s_r + e},    s_r the rater's style,  e one of K equally likely noise outcomes,

drawn anew and independently for every rater and case. So each rater has K possible masks per case, R·K in all, and
every expectation over raters is a finite sum. All possible masks of a case are nested, hence for two of them with areas
a, b the intersection is min(a, b) and the union max(a, b): the sums need areas only, not pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ..core.seeding import numpy_generator
from .base import Dataset, Identity, Progress
from .store import ArrayStore

OUTCOMES = np.array([-1.0, 0.0, 1.0])  # the K noise outcomes, in units of the option `noise`


@dataclass(frozen=True)
class Oracle:
    """The whole rater distribution of one case.

    Attributes:
        masks: R×K×H×W uint8, every mask that rater r can draw; nested, all R·K of them.
        probabilities: R×K, each row sums to 1.
        areas: R×K pixels.
        best: H×W per rater (R×H×W uint8), the mask of highest expected Dice with rater r.
        mean: H×W, chance that a rater chosen at random marks the pixel.
    """

    masks: np.ndarray
    probabilities: np.ndarray
    areas: np.ndarray
    best: np.ndarray
    mean: np.ndarray


class Synthetic(Dataset):
    """Synthetic raters with fixed styles and enumerable noise.

    Two neighbouring cases form one patient: they share shape, ambiguity, contrast and brightness, so that splits and
    intervals by patient matter.
    """

    version = 1
    embedded = True
    notice = "synthetic data"
    title = "Synthetic raters with a known distribution"
    licence = "none needed: made by the suite"
    how_to_get = "made at first use"
    split_names = ("cv4", "fixed")

    def __init__(
        self,
        size: Annotated[int, Field(ge=32, le=512), "pixels per side"] = 64,
        cases: Annotated[int, Field(ge=8, le=20_000), "number of images; two make a patient"] = 240,
        raters: Annotated[int, Field(ge=1, le=16), "number of raters"] = 4,
        styles: Annotated[
            float, Field(ge=0, le=1.5), "largest style: raters shift the boundary by -styles … +styles widths"
        ] = 1.0,
        noise: Annotated[
            float, Field(ge=0, le=1), "chance shift of every single mask: -noise, 0 or +noise widths"
        ] = 0.4,
        missing: Annotated[float, Field(ge=0, le=0.9), "probability that a rater never saw a case"] = 0.0,
        seed: Annotated[int, Field(ge=0), "another draw of the whole data set"] = 0,
        identity: Annotated[
            Literal["synthetic", "none"], "synthetic: slot r is rater r; none: slots shuffled in every case"
        ] = "synthetic",
        split: Annotated[Literal["cv4", "fixed"], "patient-level split"] = "cv4",
    ) -> None:
        super().__init__(
            size=size, cases=cases, raters=raters, styles=styles, noise=noise, missing=missing, seed=seed,
            identity=identity, split=split,
        )  # fmt: skip

    # -- building -------------------------------------------------------------------------------

    def source(self) -> dict[str, Any]:
        return {"recipe": self.version}

    def build(self, folder: Path, progress: Progress) -> None:
        o = self.options
        n, size, raters = o["cases"], o["size"], o["raters"]
        progress(0, 3, "drawing shapes")
        shape, white, shade, outcome, valid = self.draw(n, size, raters, o["missing"], o["seed"])
        field = make_field(shape, size)

        progress(1, 3, "drawing raters")
        thresholds = self.thresholds[np.arange(raters), outcome]  # N×R
        masks = (field[:, None] <= thresholds[:, :, None, None]).astype(np.uint8)
        masks[~valid] = 0

        progress(2, 3, "rendering images")
        images = render(field, white, shade)
        np.save(folder / "field.npy", field)
        ArrayStore.write(
            folder,
            images=images[:, None],
            masks=masks,
            rater_valid=valid,
            records=[
                {
                    "case_id": f"syn{i:05d}",
                    "patient_id": f"synp{i // 2:05d}",
                    "spacing": None,
                    "source": "synthetic",
                    "meta": {"width": float(w)},
                }
                for i, w in enumerate(shape["width"])
            ],
            classes=1,
            rater_ids=[f"rater {r + 1}" for r in range(raters)],
            identity="synthetic",
        )
        progress(3, 3, "done")

    @staticmethod
    def draw(
        n: int, size: int, raters: int, missing: float, seed: int
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All random draws, one generator per patient: the first cases of a longer data set are the shorter one."""
        shapes, white, shades, outcome, valid = [], [], [], [], []
        for patient in range((n + 1) // 2):
            rng = numpy_generator("synthetic", patient=patient, seed=seed)
            radius = rng.uniform(9.0, 15.0)
            lobes = rng.uniform(0.0, 0.1, 2)
            phases = rng.uniform(0.0, 2 * np.pi, 2)
            width = rng.uniform(0.08, 0.25) * radius
            shade = np.array([rng.uniform(0.15, 0.35), rng.uniform(0.3, 0.5)])  # background, contrast
            for _ in range(2):
                own = radius * rng.uniform(0.92, 1.08)
                centre = rng.uniform(27.0, 37.0, 2)
                shapes.append([own, width, *lobes, *phases, *centre])
                shades.append(shade)
                white.append(rng.standard_normal((2, size, size), dtype=np.float32))
                outcome.append(rng.integers(0, len(OUTCOMES), 16)[:raters])
                seen = rng.random(16)[:raters]
                # A case that nobody saw could not be scored: the rater nearest to seeing it has seen it.
                valid.append((seen >= missing) | (seen == seen.max()))
        table = np.array(shapes[:n])
        table[:, [0, 1, 6, 7]] *= size / 64  # lengths are drawn for 64 pixels
        names = ("radius", "width", "lobe2", "lobe3", "phase2", "phase3", "row", "column")
        return (
            dict(zip(names, table.T, strict=True)),
            np.array(white[:n]),
            np.array(shades[:n]),
            np.array(outcome[:n]),
            np.array(valid[:n]),
        )

    def rater_order(self, store: ArrayStore) -> tuple[np.ndarray, tuple[str, ...], Identity]:
        order, ids, _ = super().rater_order(store)
        if self.options["identity"] == "none":
            rng = numpy_generator("synthetic.shuffle", seed=self.options["seed"])
            return rng.permuted(order, axis=1), tuple(str(r + 1) for r in range(order.shape[1])), "none"
        return order, ids, "synthetic"

    # -- what is known exactly --------------------------------------------------------------------

    @property
    def styles(self) -> np.ndarray:
        """R styles s_r in ambiguity widths, from -styles (draws small) to +styles (draws large)."""
        raters = self.options["raters"]
        return self.options["styles"] * (np.linspace(-1.0, 1.0, raters) if raters > 1 else np.zeros(1))

    @property
    def thresholds(self) -> np.ndarray:
        """R×K float32 thresholds s_r + e_k on the field, in stored rater order.

        float32 because the field is: a comparison then means the same when drawing and when enumerating.
        """
        return (self.styles[:, None] + self.options["noise"] * OUTCOMES).astype(np.float32)

    def areas(self) -> np.ndarray:
        """N×R×K areas in pixels of every possible mask, in stored rater order."""
        field = np.sort(self.store.extra("field").reshape(len(self), -1), axis=1)
        flat = self.thresholds.ravel()
        counts = np.stack([np.searchsorted(row, flat, side="right") for row in field])
        return counts.reshape(len(self), *self.thresholds.shape)

    def oracle(self, index: int) -> Oracle:
        """Every mask that each rater could have drawn for a case, with its probability.

        Rater slots are in stored order, which is also the order of ``identity=synthetic``.
        """
        field = self.store.extra("field")[index]
        masks = (field <= self.thresholds[:, :, None, None]).astype(np.uint8)
        areas = self.areas_of(masks)
        chosen = _expected_dice(areas).argmax(-1)
        return Oracle(
            masks=masks,
            probabilities=np.full(self.thresholds.shape, 1 / len(OUTCOMES)),
            areas=areas,
            best=masks[np.arange(len(masks)), chosen],
            mean=masks.mean((0, 1)),
        )

    @staticmethod
    def areas_of(masks: np.ndarray) -> np.ndarray:
        """Pixels of each mask in ...×H×W."""
        return masks.sum((-2, -1), dtype=np.int64)

    def best_dice_rater(self) -> np.ndarray:
        """N×R: the highest expected Dice with rater r that any prediction can have, exactly.

        The prediction m may be any mask. With areas a_k and probabilities p_k of rater r's nested masks Y_k,
        E[Dice] = sum_k p_k 2|m & Y_k| / (|m| + a_k). For a given size |m| = a this is linear in m with a weight that
        never grows outwards, so the best m is filled from the inside. Between two neighbouring areas,
        with I the masks inside m and O those outside,

            E(a) = sum_I p_k 2 a_k / (a + a_k) + sum_O p_k 2 a / (a + a_k)
            E'(a) = 2 (sum_O p_k a_k / (a + a_k)^2 - sum_I p_k a_k / (a + a_k)^2),

        and the ratio of the two sums in E' grows with a (a smaller a_k makes 1/(a + a_k)^2 fall faster), so E falls and
        then rises: its maximum is at an end of the interval. The best mask is thus one of the rater's own K masks.
        Two empty masks have Dice 1.
        """
        return _expected_dice(self.areas()).max(-1)

    def ged_floor(self) -> np.ndarray:
        """N: the lowest expected `ged` (squared, d = 1 - IoU, diagonal included) that any prediction can have.

        Let P_r be rater r's mask distribution, P = mean_r P_r over the raters of the case, D(A, B) = E d(a, b) for
        independent draws, and Q the distribution of the predicted samples. Each rater drew one mask, independently, so

            E[v_R] = 1/R² sum_{r≠s} D(P_r, P_s) = D(P, P) - 1/R² sum_r D(P_r, P_r)
            E[ged] = 2 D(Q, P) - D(Q, Q) - E[v_R]
                   = [2 D(Q, P) - D(Q, Q) - D(P, P)] + 1/R² sum_r D(P_r, P_r).

        The bracket is a squared energy distance, never negative because 1 - IoU is of negative type, and 0 for Q = P.
        What remains, the raters' own noise over R², is the floor. It is reached by a set that holds each of the R·K
        possible masks equally often, for instance S = R·K. Raters that did not see a case do not count in it; then
        the floor holds still, but only someone who knew who is missing would reach it.
        """
        distance = self._distances()
        own = np.einsum("nrkrl->nr", distance) / len(OUTCOMES) ** 2
        valid = self.store.rater_valid
        return np.where(valid, own, 0).sum(1) / valid.sum(1) ** 2

    def ged_sampler(self, n_samples: int) -> np.ndarray:
        """N: expected `ged` of a perfect sampler, S independent draws from the mixture of all raters.

        In the notation of `ged_floor`, with P over all raters and P_v over those who saw the case,
        E[v_S] = (1 - 1/S) D(P, P) and

            E[ged] = 2 D(P, P_v) - (1 - 1/S) D(P, P) - E[v_R];  without missing raters  ged_floor + D(P, P) / S.

        Args:
            n_samples: S >= 1.
        """
        pair = self._distances().mean((2, 4))  # N×R×R, D(P_r, P_s)
        weight = self.store.rater_valid / self.store.rater_valid.sum(1, keepdims=True)
        among = np.einsum("nr,ns,nrs->n", weight, weight, pair)
        observed = among - np.einsum("nr,nrr->n", weight**2, pair)
        cross = np.einsum("ns,nrs->n", weight, pair) / pair.shape[1]
        return 2 * cross - (1 - 1 / n_samples) * pair.mean((1, 2)) - observed

    def _distances(self) -> np.ndarray:
        """N×R×K×R×K, 1 - IoU between all possible masks; two empty masks have distance 0."""
        areas = self.areas()
        a, b = areas[:, :, :, None, None], areas[:, None, None]
        return 1 - np.minimum(a, b) / np.maximum(np.maximum(a, b), 1) - ((a == 0) & (b == 0))


def _expected_dice(areas: np.ndarray) -> np.ndarray:
    """Mean over the last axis of the Dice of each nested mask (...×K areas) with all K."""
    a, b = areas[..., :, None], areas[..., None, :]
    return np.where((a == 0) & (b == 0), 1.0, 2 * np.minimum(a, b) / np.maximum(a + b, 1)).mean(-1)


def make_field(shape: dict[str, np.ndarray], size: int) -> np.ndarray:
    """N×H×W float32: signed radial distance to the boundary in ambiguity widths, negative inside."""
    s = {name: value[:, None, None] for name, value in shape.items()}
    grid = np.arange(size) + 0.5
    dy, dx = grid[None, :, None] - s["row"], grid[None, None, :] - s["column"]
    angle = np.arctan2(dy, dx)
    boundary = s["radius"] * (
        1 + s["lobe2"] * np.cos(2 * angle + s["phase2"]) + s["lobe3"] * np.cos(3 * angle + s["phase3"])
    )
    return ((np.hypot(dy, dx) - boundary) / s["width"]).astype(np.float32)


def render(field: np.ndarray, white: np.ndarray, shade: np.ndarray) -> np.ndarray:
    """N×H×W float32 in [0, 1]: an edge whose blur shows the ambiguity width, on smooth texture and pixel noise."""
    from scipy.ndimage import gaussian_filter
    from scipy.special import expit

    size = field.shape[-1]
    texture = gaussian_filter(white[:, 0], (0, size / 20, size / 20), mode="wrap")
    texture /= texture.std((1, 2), keepdims=True)
    background, contrast = shade.astype(np.float32).T[:, :, None, None]
    image = background + contrast * expit(-2 * field) + 0.04 * texture + 0.03 * white[:, 1]
    return np.clip(image, 0, 1).astype(np.float32)
