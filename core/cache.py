"""Where prepared arrays live: ``$MULTIRATER_CACHE``, else the user's cache folder, never the working directory."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    given = os.environ.get("MULTIRATER_CACHE")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("multirater", appauthor=False)
