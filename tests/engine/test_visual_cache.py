"""Visual tokens on disk: exact, private, limited, and gone when damaged."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from handlens.engine.visual_cache import NO_CACHE, VisualCache, cache_allowed


def slice_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (28, 14, 3), dtype=np.uint8)


def tokens_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, 8)).astype(np.float32)


def test_what_was_kept_comes_back_bit_for_bit_also_in_another_process(tmp_path: Path) -> None:
    VisualCache(tmp_path / "a", "model").put(slice_of(1), tokens_of(2))
    np.testing.assert_array_equal(VisualCache(tmp_path / "a", "model").get(slice_of(1)), tokens_of(2))


@pytest.mark.parametrize("other", ["pixel", "shape", "model"])
def test_anything_else_is_a_miss(tmp_path: Path, other: str) -> None:
    pixels = slice_of(1)
    VisualCache(tmp_path, "model").put(pixels, tokens_of(2))
    changed = pixels.copy()
    if other == "pixel":
        changed[3, 4, 1] ^= 1
    if other == "shape":
        changed = changed.reshape(14, 28, 3)
    assert VisualCache(tmp_path, "model" if other != "model" else "model2").get(changed) is None


def test_files_are_private_whatever_the_mask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        VisualCache(tmp_path / "deep" / "cache", "m").put(slice_of(1), tokens_of(1))
    finally:
        os.umask(old)
    (file,) = (tmp_path / "deep" / "cache").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_full_cache_loses_what_was_not_used_for_longest(tmp_path: Path) -> None:
    cache = VisualCache(tmp_path, "m", cap_bytes=2 * 300)  # a file is 256 bytes: 128 of header and 4x8 float32
    for seed in range(4):
        cache.put(slice_of(seed), tokens_of(seed))
        os.utime(cache._file(slice_of(seed)), (1000 + seed, 1000 + seed))
    assert cache.get(slice_of(0)) is not None  # used now: 1 and 2 are older
    cache.trim()
    assert [cache.get(slice_of(seed)) is not None for seed in range(4)] == [True, False, False, True]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= cache.cap_bytes


@pytest.mark.parametrize("content", [b"", b"junk", b"\x93NUMPY\x01\x00"])
def test_a_damaged_file_is_a_miss(tmp_path: Path, content: bytes) -> None:
    cache = VisualCache(tmp_path, "m")
    cache.put(slice_of(1), tokens_of(1))
    cache._file(slice_of(1)).write_bytes(content)
    assert cache.get(slice_of(1)) is None


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    cache = VisualCache(tmp_path, "m")
    cache.put(slice_of(1), tokens_of(1))
    np.save(cache._file(slice_of(1)), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert cache.get(slice_of(1)) is None


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = VisualCache(tmp_path / "file" / "cache", "m")
    cache.put(slice_of(1), tokens_of(1))
    assert cache.get(slice_of(1)) is None


def test_the_environment_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [_allowed(monkeypatch, value) for value in ("", "0", "1", "yes")] == [True, True, False, False]


def _allowed(monkeypatch: pytest.MonkeyPatch, value: str) -> bool:
    monkeypatch.setenv(NO_CACHE, value)
    return cache_allowed()
