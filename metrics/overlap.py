"""Exact overlap counts of many masks, and the ratios made of them.

All intersections of a case come from one symmetric product M Mᵀ of its flattened masks (specification section 16).
The product is taken on bits: masks are packed into 64-bit words and the bits of each AND are counted, which is exact at
any size, three times as fast as a float32 product on one core, and needs 1/32 of its memory. NumPy before 2.0 cannot
count bits; there a float32 matrix product is used, in blocks below 2^24 pixels that are summed in float64, so that it
is exact as well.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from .convention import Convention

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

HAS_BITWISE_COUNT = hasattr(np, "bitwise_count")

# Words handled at once: intermediate arrays stay in the second-level cache (measured optimum 2^15 to 2^17).
_BLOCK_WORDS = 1 << 15
# Float elements converted at once in the matrix product.
_BLOCK_FLOATS = 1 << 22
_EXACT_FLOAT32 = 1 << 24
_WORTH_CUTTING = 0.7
_WORTH_TAKING = 0.9
_TILE_ROWS = 32
_RUN = 2048  # words of a mask that are counted at a time
_LOW_LANES = np.uint64(0x00FF00FF00FF00FF)
# Words to be combined from which on threads pay: 500 masks of 128 × 128, not 50.
_WORTH_THREADS = 1 << 24


def crop(groups: Sequence[Mask]) -> list[Mask]:
    """Cut masks (each group k×spatial) to the bounding box of their union; pixels outside add nothing to any overlap.

    Returns views; groups without any True pixel anywhere come back with no pixels at all. A box that covers nearly the
    whole image is not cut out: copying its rows later costs more than the few pixels saved.
    """
    union = np.logical_or.reduce([np.logical_or.reduce(g, axis=0) for g in groups if len(g)])
    box: list[slice] = [slice(None)]
    for axis in range(union.ndim):
        line = union.any(axis=tuple(a for a in range(union.ndim) if a != axis))
        first = int(line.argmax())
        if not line[first]:
            return [g[..., :0] for g in groups]
        box.append(slice(first, len(line) - int(line[::-1].argmax())))
    index = tuple(box)
    if union[index[1:]].size > _WORTH_CUTTING * union.size:
        return list(groups)
    return [g[index] for g in groups]


def intersections(groups: Sequence[Mask]) -> NDArray[np.int64]:
    """Sizes of all pairwise intersections.

    Args:
        groups: arrays k×spatial of bool with the same spatial shape; together T masks.

    Returns:
        T×T integers; the diagonal holds the sizes of the masks.
    """
    flat = [g.reshape(len(g), math.prod(g.shape[1:])) for g in groups]
    if not HAS_BITWISE_COUNT:
        return _multiply(np.concatenate(flat))
    packed = np.concatenate([np.packbits(g, axis=1) for g in flat])
    differing, shared = _differing(packed)
    counts = _count_bits(_words(differing))
    counts += shared
    return counts


def _differing(packed: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Packed masks without the bytes that no mask or that every mask fills, and the pixels of the latter.

    A box around a lesion is a third background, and where all agree on its core nothing is left to compare.
    """
    if not len(packed):
        return packed, 0
    full = np.bitwise_and.reduce(packed, axis=0) == 255
    kept = np.flatnonzero((np.bitwise_or.reduce(packed, axis=0) != 0) & ~full)
    if len(kept) > _WORTH_TAKING * packed.shape[1]:
        return packed, 0
    return packed.take(kept, axis=1), 8 * int(np.count_nonzero(full))


def _words(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    unit = 64 if packed.shape[1] > 256 else 8  # whole runs of eight words: see `_count_tile`
    words = np.zeros((len(packed), -(-packed.shape[1] // unit) * unit), np.uint8)
    words[:, : packed.shape[1]] = packed
    return words.view(np.uint64)


def _count_bits(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    total, width = words.shape
    out = np.zeros((total, total), np.int64)
    tiles = _tiles(total, min(width, _RUN))

    def fill(band: int) -> None:
        for first in range(0, width, _RUN):
            run = words[:, first : first + _RUN]
            for rows, columns in tiles[band]:
                part = _count_tile(run[rows], run[columns])
                out[rows, columns] += part
                new = max(columns.start, rows.stop)  # what lies left of it the band's own square has counted
                out[new : columns.stop, rows] += part[:, new - columns.start :].T

    if total * total * width < _WORTH_THREADS:
        for band in range(len(tiles)):
            fill(band)
    else:  # bands write apart and counts are integers: the order of the threads changes nothing
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(fill, range(len(tiles))))
    return out


def _tiles(total: int, width: int) -> list[list[tuple[slice, slice]]]:
    """Bands of tiles (rows, columns) that cover the diagonal and what is right of it."""
    high = max(min(_TILE_ROWS, total), _BLOCK_WORDS // max(1, total * width))
    wide = max(high, _BLOCK_WORDS // max(1, high * width) // high * high)
    return [
        [(slice(top, min(total, top + high)), slice(left, min(total, left + wide))) for left in range(top, total, wide)]
        for top in range(0, total, high)
    ]


def _count_tile(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Common bits of each row of `a` with each row of `b`."""
    shape = (len(a), len(b), a.shape[1])
    size = math.prod(shape)
    both, bits = _buffers(size)
    np.bitwise_and(a[:, None], b[None], out=both[:size].reshape(shape))
    np.bitwise_count(both[:size], out=bits[:size])
    counts = bits[:size].reshape(shape)
    if shape[2] % 8:
        return counts.sum(-1, dtype=np.int64)
    # Counts lie eight to a word. Added as two words of four 16-bit lanes, of at most 2·64·(_RUN/8) < 2^16, they
    # take an eighth of the additions and no conversion, which would be the longest part.
    lanes = counts.view(np.uint64)
    pairs = (lanes & _LOW_LANES) + ((lanes >> np.uint64(8)) & _LOW_LANES)
    return np.add.reduce(pairs, axis=-1)[..., None].view(np.uint16).sum(-1, dtype=np.int64)


def usable_cores() -> int:
    """Cores that this process may use, at most 8."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, mine)


class _Scratch(threading.local):
    """Buffers of a thread: fresh arrays of this size are mapped and cleared page by page, a third of the whole time."""

    both = np.empty(0, np.uint64)
    bits = np.empty(0, np.uint8)


_scratch = _Scratch()


def _buffers(size: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    if size > _BLOCK_WORDS:  # a single row of very many masks: not worth keeping
        return np.empty(size, np.uint64), np.empty(size, np.uint8)
    if not len(_scratch.both):
        _scratch.both, _scratch.bits = np.empty(_BLOCK_WORDS, np.uint64), np.empty(_BLOCK_WORDS, np.uint8)
    return _scratch.both, _scratch.bits


def _multiply(flat: Mask) -> NDArray[np.int64]:
    total, pixels = flat.shape
    out = np.zeros((total, total))
    step = min(_EXACT_FLOAT32 - 1, max(1, _BLOCK_FLOATS // max(1, total)))
    for start in range(0, pixels, step):
        block = flat[:, start : start + step].astype(np.float32)
        out += block @ block.T
    return out.astype(np.int64)


def fraction(kind: str, inter: Floats, size_a: Floats, size_b: Floats) -> tuple[Floats, Floats]:
    """Numerator and denominator of IoU (``iou``) or Dice (``dice``), exact; shapes broadcast."""
    sizes = size_a + size_b
    if kind == "iou":
        return inter, sizes - inter
    return 2.0 * inter, sizes


def ratio(numerator: Floats, denominator: Floats, convention: Convention) -> Floats:
    """Similarity from exact counts under a convention (smoothing, empty rule, precision), float64."""
    if convention.smooth_den > 0:
        if convention.single:
            # float32 counts are exact below 2^24, and 1e-8 vanishes beside any count but 0, as in the originals.
            numerator, denominator = numerator.astype(np.float32), denominator.astype(np.float32)
        out = (numerator + convention.smooth_num) / (denominator + convention.smooth_den)
        return out.astype(np.float64)
    empty = denominator == 0
    some = bool(empty.any())
    over = np.where(empty, 1.0, denominator) if some else denominator
    out = (numerator + convention.smooth_num if convention.smooth_num else numerator) / over
    if convention.single:
        out = out.astype(np.float32).astype(np.float64)
    if some:
        out[empty] = convention.empty_similarity
    return out


def over_classes(
    numerator: Floats, denominator: Floats, convention: Convention, reference: Floats | None = None
) -> Floats:
    """Similarity of label maps from the counts of K classes (first axis), float64 without that axis.

    The mean over the whole list, a class absent from both masks counting by the empty rule; or, under ``skip``, over
    the classes present in the pair; or, under ``micro``, one ratio of the summed counts.

    Args:
        reference: sizes of the reference masks (the raters), broadcastable to the counts; only for conventions in
            which a mask scores `empty_reference` against an empty reference whatever it is (Pionono).
    """
    if convention.classes == "micro":
        numerator, denominator = numerator.sum(0, keepdims=True), denominator.sum(0, keepdims=True)
        reference = None if reference is None else reference.sum(0, keepdims=True)
    values = ratio(numerator, denominator, convention)
    if convention.empty_reference is not None and reference is not None:
        values = np.where(reference == 0, convention.empty_reference, values)
    if len(values) == 1:
        return values[0]
    if convention.classes != "skip":
        return values.mean(0)
    present = denominator > 0
    count = present.sum(0)
    mean = np.where(present, values, 0.0).sum(0) / np.maximum(count, 1)
    return np.where(count > 0, mean, convention.empty_similarity)
