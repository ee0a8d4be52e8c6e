from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch
from method_support import BUILT_IN, small_method, small_size
from multirater.methods import chunks as module
from multirater.methods.chunks import chunks, image_chunks


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
    memory = {"mem_get_info": (1 << 40, 1 << 40), "memory_reserved": 0, "memory_allocated": 0}
    for name in memory:
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name: memory[name])
    assert [p.stop - p.start for p in chunks(50, 100 << 20, "cuda")] == [40, 10]
    # Memory that torch holds but does not use is free, whatever the card says.
    memory |= {
        "mem_get_info": (200 << 20, 1 << 40),
        "memory_reserved": 3 << 30,
        "memory_allocated": (3 << 30) - (1000 << 20),
    }
    assert [p.stop - p.start for p in chunks(4, 100 << 20, "cuda")] == [3, 1]
    assert module._CUDA_BYTES == 4 << 30


def test_images_of_a_volume_are_cut_by_their_size() -> None:
    assert [(p.start, p.stop) for p in image_chunks(torch.zeros(0, 1, 8, 8))] == [(0, 0)]
    images = torch.empty(3, 1, 8, 8).expand(3, 1, 8, 8)
    assert [p.stop - p.start for p in image_chunks(images, floats=(module._CPU_BYTES // 2) // (64 * 4))] == [2, 1]


@pytest.mark.parametrize("name", BUILT_IN)
def test_predictions_do_not_depend_on_the_memory_there_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume of three slices at once, and with room for one thing at a time."""
    size = small_size(name)
    torch.manual_seed(0)
    method = small_method(name).eval()
    if hasattr(method, "personalised_trained"):
        method.personalised_trained.fill_(True)
    images = torch.rand(3, 1, size, size)
    found = []
    for limit in (module._CPU_BYTES, 1):
        monkeypatch.setattr(module, "_CPU_BYTES", limit)
        with torch.inference_mode():
            found.append(method.predict(images, 5, torch.Generator().manual_seed(1)))
    for part in ("samples", "raters", "mean"):
        whole, cut = getattr(found[0], part), getattr(found[1], part)
        assert (whole is None) == (cut is None)
        if whole is not None:
            # Masks cut from a map may differ where it lies on a threshold.
            assert ((whole - cut).abs() > 1e-4).float().mean() < 1e-3
