"""How many things to decode at once: bounded memory, without any effect on what was drawn."""

from __future__ import annotations

from collections.abc import Iterator

import torch

_CPU_BYTES = 512 << 20  # beyond the caches larger chunks are no faster, and a fixed limit keeps sums in one order
_CUDA_BYTES = 4 << 30
_SHARE = 0.25  # of the memory that is free, where that is less


def chunks(n: int, bytes_per_item: int, device: torch.device | str) -> Iterator[slice]:
    """Slices of ``range(n)``, in order, each of at least one item.

    Noise is drawn before and cut like everything else, so that the size of a chunk, which depends on the machine, never
    changes a draw.

    Args:
        n: number of items; with 0 there is no slice.
        bytes_per_item: peak memory that decoding one item takes.
        device: where it is decoded.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, limit = torch.cuda.mem_get_info(device)[0], _CUDA_BYTES
    else:
        import psutil

        free, limit = psutil.virtual_memory().available, _CPU_BYTES
    size = max(1, int(min(limit, _SHARE * free)) // max(1, bytes_per_item))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
