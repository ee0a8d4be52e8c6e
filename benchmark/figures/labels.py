"""Labels beside the points of a scatter plot, moved apart until none hides another one or a point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLOSE = 6.0  # within this distance a label needs no line to its point
_RADII = (5.8, 7.8, 10.5, 13.5, 17.0, 21.0, 26.0, 32.0, 39.0, 47.0, 56.0)
_ANGLES = 2 * np.pi * np.arange(24) / 24
_TRIES = (np.array(_RADII)[:, None, None] * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], -1)).reshape(-1, 2)
_ALONG = np.linspace(0.2, 1, 9)[:, None]  # where a line to a label is looked at
_HIDES, _CROSSES = 1000.0, 60.0  # what a covered point or label costs, and a line over them


def beside(
    points: NDArray[np.float64],
    sizes: NDArray[np.float64],
    box: NDArray[np.float64],
    dot: float,
    keep: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Offsets of the labels' centres from their points: the nearest place that is free, the most crowded point first.

    Args:
        points: N×2 places within the axes, in printer's points from its lower left corner.
        sizes: N×2 widths and heights of the labels.
        box: width and height of the axes, which the labels do not leave.
        dot: radius of a point.
        keep: M×2 places of lines that labels should not cover.
    """
    half = sizes / 2
    near = np.linalg.norm(points[:, None] - points[None], axis=2)
    offsets, done = np.zeros_like(points), np.array([], dtype=int)
    for i in np.argsort(-(near < 30).sum(1), kind="stable"):
        others = np.delete(points, i, 0)
        centre = points[i] + _TRIES
        line = points[i] + _ALONG * _TRIES[:, None]  # tries × places along it × 2
        there, mid = points[done], points[done] + offsets[done]
        drawn = (there[:, None] + _ALONG * offsets[done][:, None]).reshape(-1, 2)
        lines = np.concatenate([drawn, keep])
        outside = ((centre < half[i]) | (centre > box - half[i])).any(1)
        hidden = _inside(others, centre, half[i] + dot) + _inside(mid, centre, half[i] + half[done])
        apart = others[np.linalg.norm(others - points[i], axis=1) > 2 * dot]  # no line avoids a point on the same place
        over_points = np.linalg.norm(line[:, :, None] - apart, axis=3).min(1, initial=np.inf) < dot
        over_labels = (np.abs(line[:, :, None] - mid) < half[done]).all(3).any(1)
        crossing = over_points.sum(1) + over_labels.sum(1) + _inside(lines, centre, half[i]).clip(max=1)
        crossing = crossing + _cross(points[i], centre, there, mid).sum(1)
        cost = np.linalg.norm(_TRIES, axis=1) + _HIDES * (outside + hidden) + _CROSSES * crossing
        offsets[i] = _TRIES[np.argmin(cost)]
        done = np.append(done, i)
    return offsets


def _inside(what: NDArray[np.float64], centre: NDArray[np.float64], half: NDArray[np.float64]) -> NDArray[np.intp]:
    """How many of the places `what` lie within boxes around each of the centres."""
    return np.asarray((np.abs(what - centre[:, None]) < half).all(2).sum(1))


def _cross(
    start: NDArray[np.float64], ends: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether the line from `start` to each of the ends crosses each line from `a` to `b`."""

    def side(p: NDArray[np.float64], q: NDArray[np.float64], r: NDArray[np.float64]) -> NDArray[np.float64]:
        u, v = q - p, r - p
        return np.asarray(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])

    own, other = ends[:, None], (a[None], b[None])
    apart = side(start, own, other[0]) * side(start, own, other[1]) < 0
    return np.asarray(apart & (side(*other, start) * side(*other, own) < 0))
