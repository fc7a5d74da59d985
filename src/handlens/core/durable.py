"""Files that outlive a loss of power: what a rename shows is on the disk before it shows it.

Boundary: standard library alone.
"""

import os
from pathlib import Path


def settle(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk.

    Raises:
        OSError: the disk is full or gone.
    """
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
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
