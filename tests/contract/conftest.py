"""Makes ``sound.py`` importable as ``contract_sound`` for the tests beside it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "contract_sound" not in sys.modules:
    spec = importlib.util.spec_from_file_location("contract_sound", Path(__file__).parent / "sound.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["contract_sound"] = module
    spec.loader.exec_module(module)
