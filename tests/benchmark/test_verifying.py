"""What `verify` says of the circumstances of two runs."""

from __future__ import annotations

from multirater.benchmark.verifying import _reasons


def test_a_run_on_another_device_is_named_without_that_device():
    then = {"code": {"torch": "2.1", "numpy": "2"}, "machine": {"cpu": "a", "device": "cuda", "gpu": "H100"}}
    now = {"code": {"torch": "2.2", "numpy": "2"}, "machine": {"cpu": "a", "device": "cpu"}}
    assert _reasons(then, now) == [
        "torch: 2.1 then, 2.2 now",
        "device: cuda then, cpu now",
        "gpu: H100 then, None now",
    ]
    assert _reasons(now, now) == []
