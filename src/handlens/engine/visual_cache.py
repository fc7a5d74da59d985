"""Visual tokens on disk, so that the second question about a picture never encodes it again.

Boundary: pixels of slices in, their visual tokens out; keyed by content, preparation and vision weights. Files are
private (0600 in a folder 0700), the oldest go first when the folder is full, and a damaged one is a miss.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

NO_CACHE = "HANDLENS_NO_CACHE"
"""Environment variable: 1 keeps visual tokens off the disk."""
CAP_BYTES = 256_000_000
"""About 100 pictures of ten slices at 2B geometry."""


class VisualCache:
    """Visual tokens of slices that were encoded before.

    Args:
        folder: where the files are; made when it is first needed.
        key: what else decides the tokens: the fingerprint of the preparation and the hash of the vision file.
        cap_bytes: most bytes of all files together.
    """

    def __init__(self, folder: Path, key: str, *, cap_bytes: int = CAP_BYTES) -> None:
        self.folder = folder
        self.key = key
        self.cap_bytes = cap_bytes

    def get(self, pixels: UInt8[np.ndarray, "height width 3"]) -> Float32[np.ndarray, "queries dim"] | None:
        """Return the visual tokens of a slice; None when it was not kept."""
        file = self._file(pixels)
        try:
            with file.open("rb") as stream:
                tokens = np.load(stream, allow_pickle=False)
            os.utime(file)  # used now: the oldest goes first
        except (OSError, ValueError, EOFError):
            return None
        return tokens if tokens.dtype == np.float32 and tokens.ndim == 2 else None

    def get_all(
        self, slices: Sequence[UInt8[np.ndarray, "height width 3"]]
    ) -> list[Float32[np.ndarray, "queries dim"] | None]:
        """Return what is kept of every slice, in order."""
        return [self.get(pixels) for pixels in slices]

    def put(self, pixels: UInt8[np.ndarray, "height width 3"], tokens: Float32[np.ndarray, "queries dim"]) -> None:
        """Keep the visual tokens of a slice; a full or read-only disk keeps nothing and says nothing."""
        if tokens.nbytes > self.cap_bytes:
            return
        file = self._file(pixels)
        unfinished = file.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
                np.save(stream, np.ascontiguousarray(tokens))
            unfinished.replace(file)

    def trim(self) -> None:
        """Remove the files that were not used for longest until the rest fits."""
        with contextlib.suppress(OSError):
            files = sorted(self.folder.glob("*"), key=lambda file: file.stat().st_mtime, reverse=True)
            total = 0
            for file in files:
                total += file.stat().st_size
                if total > self.cap_bytes:
                    file.unlink(missing_ok=True)

    def _file(self, pixels: np.ndarray) -> Path:
        digest = hashlib.sha256(f"{self.key} {pixels.shape}".encode())
        digest.update(np.ascontiguousarray(pixels).data)
        return self.folder / f"{digest.hexdigest()}.npy"


def cache_folder() -> Path:
    """Return where visual tokens are kept on this machine."""
    from platformdirs import user_cache_path

    return user_cache_path("handlens") / "visual-tokens"


def cache_allowed() -> bool:
    """True unless the environment variable ``HANDLENS_NO_CACHE`` switches the cache off."""
    return os.environ.get(NO_CACHE, "") in ("", "0")
