"""How many things to decode at once: bounded memory, without any effect on what was drawn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

TRUNK_FLOATS = 144  # numbers a pixel at the widest moment of a trunk (measured: unet_small 138, unet_r34 119)
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
    size = chunk_size(bytes_per_item, device)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def chunk_size(bytes_per_item: int, device: torch.device | str) -> int:
    """Items at once, at least 1, by the memory that is free on the device now."""
    device = torch.device(device)
    if device.type == "cuda":
        # What torch has freed it keeps, and gives out again: to the card it is in use, to us it is free.
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free, limit = torch.cuda.mem_get_info(device)[0] + spare, _CUDA_BYTES
    else:
        import psutil

        free, limit = psutil.virtual_memory().available, _CPU_BYTES
    return max(1, int(min(limit, _SHARE * free)) // max(1, bytes_per_item))


def image_chunks(images: Tensor, floats: int = TRUNK_FLOATS) -> Iterator[slice]:
    """`chunks` of images B×C×H×W for a network in eval mode; a case may be a volume of many slices.

    Args:
        images: no images are one empty chunk.
        floats: numbers a pixel that the network holds at its widest moment.
    """
    if not len(images):
        yield slice(0, 0)
    else:
        yield from chunks(len(images), floats * images[0, 0].numel() * images.element_size(), images.device)
