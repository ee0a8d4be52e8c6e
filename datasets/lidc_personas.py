"""Four made raters with a strong, known effect, for tests of personalised methods: `lidc-contours` with `persona`."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_opening, gaussian_filter

from .simulated_ct import signed_distance

PERSONAS = ("strict", "majority", "generous", "smooth")
DILATION = 0.4  # mm, the smooth persona
NOISE = 0.15  # mm, standard deviation of each persona's edge
NOISE_SCALE = 4.0  # pixels over which a persona errs in the same direction


def persona_masks(readers: np.ndarray, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Fixed transformations of the readers' vote, each with its own reader noise along the edge.

    `strict` keeps what three of four readers drew, `majority` two, `generous` one; `smooth` opens the majority with a
    3×3 cross and dilates it by 0.4 mm.

    Args:
        readers: R×H×W bool.
        spacing: pixel size, mm.
        rng: noise of the personas.

    Returns:
        4×H×W bool, in the order of `PERSONAS`; a persona whose mask is empty before the noise stays empty.
    """
    vote = readers.sum(0)
    levels = [vote >= share * len(readers) for share in (3 / 4, 1 / 2, 1 / 4)]
    shapes = [*levels, binary_opening(levels[1])]
    growth = (0.0, 0.0, 0.0, DILATION)
    masks = np.zeros((len(shapes), *readers.shape[1:]), bool)
    for persona, (shape, grown) in enumerate(zip(shapes, growth, strict=True)):
        noise = gaussian_filter(rng.standard_normal(shape.shape), NOISE_SCALE, mode="wrap")
        noise *= NOISE * 2 * NOISE_SCALE * np.sqrt(np.pi)  # filtered white noise has variance 1 / (4 pi sigma²)
        if shape.any():
            masks[persona] = signed_distance(shape, spacing) + grown + noise > 0
    return masks
