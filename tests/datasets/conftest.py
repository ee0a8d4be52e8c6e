"""A cache of its own for a test."""

from __future__ import annotations

import pytest


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
