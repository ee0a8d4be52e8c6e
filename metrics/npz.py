"""Plain ``.npz`` archives: every damage is one sentence, and nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError


def read_npz(path: Path) -> dict[str, NDArray]:
    """All arrays of an ``.npz`` file.

    Raises:
        UserError: missing, damaged, not an archive, or holding Python objects.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise UserError(
                f"{path} holds a single array; save the arrays together with np.savez(file, raters=..., ...)"
            )
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give an .npz file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; give an .npz file") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: permission denied; choose a file you may read") from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory, or is damaged; split it by cases") from error
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise UserError(f"{path} holds Python objects, which are not read; save plain arrays of numbers") from error
        # NumPy's own text advises to unpickle, which nobody should do with a stranger's file.
        why = "" if "pickle" in str(error) else f" ({error})"
        raise UserError(f"{path} is damaged or no .npz file{why}; write it again with np.savez") from error
