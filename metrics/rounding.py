"""Sums with the rounding of other people's float32 sums, for variants that compare them with a threshold.

A mean of probabilities that lies on a threshold passes it or not by its last bit, so the order of the additions counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Single = NDArray[np.float32]

_STEP = 16  # terms that PyTorch adds before it moves to the next level of its cascade, up to 2^16 terms
_LEVELS = 4
_STREAMS = 4  # into which a column that fits into no group is dealt out
_WIDE, _NARROW = 32, 4  # columns of a group: four AVX2 registers; four numbers where not even one register is full
_REGISTER = 8


def torch_sum(terms: Single, first: int = 0, total: int | None = None) -> Single:
    """Sum over the first axis with the bits of PyTorch's sum in float32 on x86 (version 1.7 and later).

    Columns are added in groups by a cascade. Those left over at the end are each added in four interleaved streams.

    Args:
        terms: S×…, fewer than 2^16 of them.
        first, total: `terms` is a part of a tensor, such as one of its channels: column at which it starts, and columns
            there are (not one: a single column takes another way).
    """
    flat = terms.reshape(len(terms), -1)
    columns = flat.shape[1] if total is None else total
    group = _WIDE if columns >= _REGISTER else _NARROW
    grouped = min(max(columns // group * group - first, 0), flat.shape[1])
    out = np.empty(flat.shape[1], np.float32)
    out[:grouped] = _cascade(flat[:, :grouped])
    out[grouped:] = _streams(flat[:, grouped:])
    return out.reshape(terms.shape[1:])


def _one_by_one(terms: Single) -> Single | np.float32:
    return np.add.accumulate(terms, axis=0)[-1] if len(terms) else np.float32(0)


def _cascade(terms: Single) -> Single:
    levels = np.zeros((_LEVELS, terms.shape[1]), np.float32)
    done = 0
    while done + _STEP <= len(terms):
        levels[0] += _one_by_one(terms[done : done + _STEP])
        done += _STEP
        for level in range(1, _LEVELS):
            levels[level] += levels[level - 1]
            levels[level - 1] = 0
            if done & ((_STEP - 1) * _STEP**level):
                break
    levels[0] += _one_by_one(terms[done:])
    for level in range(1, _LEVELS):
        levels[0] += levels[level]
    return levels[0]


def _streams(terms: Single) -> Single:
    dealt = len(terms) // _STREAMS * _STREAMS
    parts = [_cascade(terms[stream:dealt:_STREAMS]) for stream in range(_STREAMS)]
    for term in terms[dealt:]:  # at most three
        parts[0] += term
    for part in parts[1:]:
        parts[0] += part
    return parts[0]
