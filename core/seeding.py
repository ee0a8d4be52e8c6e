"""Random streams derived by hashing named axes.

Adding a method, a metric or a case never moves another stream: the seed of a stream is a hash of what it is for,
not a position in a sequence of draws.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from .hashing import canonical_json

if TYPE_CHECKING:
    import numpy as np
    import torch


def seed_for(purpose: str, **axes: Any) -> int:
    """A 63-bit seed from a purpose ("init", "order", "predict", ...) and named axes (JSON values)."""
    digest = hashlib.sha256(canonical_json({"purpose": purpose, **axes}).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(purpose: str, **axes: Any) -> np.random.Generator:
    import numpy as np

    return np.random.Generator(np.random.PCG64(seed_for(purpose, **axes)))


def torch_generator(purpose: str, device: str = "cpu", **axes: Any) -> torch.Generator:
    import torch

    return torch.Generator(device=device).manual_seed(seed_for(purpose, **axes))
