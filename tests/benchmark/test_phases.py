"""What a phase takes, also when it is entered again."""

from __future__ import annotations

from multirater.benchmark import phases
from multirater.benchmark.phases import Phases


def test_the_peak_of_a_phase_is_the_largest_of_its_parts(monkeypatch):
    """The GPU of this test is a list of peaks; a card resets them for each part."""
    peaks = [{"allocated": 5.0, "reserved": 6.0}, {"allocated": 2.0, "reserved": 8.0}]
    monkeypatch.setattr(phases, "peak_gpu_mb", lambda device: peaks.pop(0))
    made = Phases()
    for _ in range(2):
        with made.phase("train"):
            pass
    assert made.record()["gpu_mb"] == {"train": {"allocated": 5.0, "reserved": 8.0}}
