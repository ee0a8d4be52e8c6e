"""Names of the augmentations (no torch: configurations are checked before it is imported)."""

from __future__ import annotations

# Drawn per stage and epoch, in the order of the batches: every published result rests on these draws.
BATCH_KINDS = ("none", "flips", "flips_transpose", "flips_rotate")

# Drawn per case and epoch, joined by "+"; what each does and its limits are in `augment_cases`.
PARTS = {
    "flips": "each axis with p = 1/2",
    "transpose": "p = 1/2; square images only",
    "rotate20": "uniform in ±20°",
    "rotate180": "uniform in ±180°",
    "scale": "factor from 0.8 to 1.25, uniform in its logarithm",
    "shift": "up to a tenth of each side",
    "elastic": "smooth displacements, standard deviation 2 % of the side at 6×6 control points",
    "gamma": "exponent from 0.7 to 1.5, uniform in its logarithm, on each channel's own range",
    "contrast": "gain from 0.8 to 1.2 about the mean and offset up to a tenth of the range of each channel",
    "noise": "Gaussian, standard deviation up to a tenth of the range of each channel",
}
EXAMPLE = "flips+rotate20+noise"  # D-Persona on NPC-170 (which turns images to the nearest pixel; here linearly)


def parts_of(kind: str) -> tuple[str, ...]:
    """The parts of a kind that is drawn per case, in the order of `PARTS`; empty for the kinds of `BATCH_KINDS`.

    Raises:
        ValueError: a part that does not exist, stands twice or contradicts another; one sentence.
    """
    if kind in BATCH_KINDS:
        return ()
    given = [part.strip() for part in kind.split("+")]
    wrong = [part for part in given if part not in PARTS]
    if wrong:
        raise ValueError(
            f"{wrong[0]!r} does not exist; give one of {', '.join(BATCH_KINDS)}, or some of {', '.join(PARTS)} "
            f"joined by +, such as {EXAMPLE}"
        )
    twice = [part for part in given if given.count(part) > 1]
    if twice or {"rotate20", "rotate180"} <= set(given):
        raise ValueError(f"{kind!r} names {twice[0] + ' twice' if twice else 'two rotations'}; keep one of them")
    return tuple(part for part in PARTS if part in given)
