"""Generic presets: one YAML per preset; data sets and methods may add their own layer in a folder of the same name."""

from __future__ import annotations

from pathlib import Path


def preset_names() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("*.yaml"))


def preset_summary(name: str) -> str:
    """The first comment line of a preset file."""
    first = (Path(__file__).parent / f"{name}.yaml").read_text().partition("\n")[0]
    return first.removeprefix("#").strip()
