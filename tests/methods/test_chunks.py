from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch
from multirater.methods import chunks as module
from multirater.methods.chunks import chunks


@pytest.mark.parametrize("n", [0, 1, 7, 64])
@pytest.mark.parametrize("bytes_per_item", [0, 1, 100 << 20, 1 << 40])
def test_every_item_once_and_in_order(n: int, bytes_per_item: int) -> None:
    parts = list(chunks(n, bytes_per_item, "cpu"))
    assert [i for part in parts for i in range(n)[part]] == list(range(n))
    assert all(part.stop > part.start for part in parts)


def test_size_follows_the_limit_and_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 40))
    assert [p.stop - p.start for p in chunks(13, 100 << 20, torch.device("cpu"))] == [5, 5, 3]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=800 << 20))
    assert [p.stop - p.start for p in chunks(3, 100 << 20, "cpu")] == [2, 1]


def test_cuda_asks_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))
    assert [p.stop - p.start for p in chunks(50, 100 << 20, "cuda")] == [40, 10]
    assert module._CUDA_BYTES == 4 << 30
