"""Files that outlive a loss of power: what a rename shows is on the disk before it shows it.

Boundary: standard library alone.
"""

import errno
import os
from pathlib import Path


def settle(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk; some file systems do not tell of folders.

    Raises:
        OSError: the disk is full or gone.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    number = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(number)
    except OSError as cause:
        if not (is_folder and cause.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(number)


def show(unfinished: Path, path: Path) -> None:
    """Give a finished file or folder its name, which also a loss of power leaves whole or not there.

    Raises:
        OSError: the disk is full or gone.
    """
    settle(unfinished)
    unfinished.replace(path)
    settle(path.parent)
