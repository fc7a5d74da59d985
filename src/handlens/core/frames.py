"""Open frames of a moving picture, spread evenly over it: GIF, WebP, PNG and TIFF, a folder, or a video file.

Boundary: Pillow, and PyAV (extra ``video``) imported only for video files; gives the ``Picture`` of ``images.py``.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageSequence

from handlens.core.images import MAX_PIXELS, READABLE, Picture, open_picture, to_rgb
from handlens.errors import ImageError, NeedsExtra, SettingError

MOVING = {".gif", ".webp", ".png", ".apng", ".tif", ".tiff"}
STILL = {*MOVING, ".jpg", ".jpeg", ".bmp", ".heic", ".heif"}
Frame = TypeVar("Frame")
VIDEO = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ogv"}


def choose_frames(num_frames: int, count: int) -> list[int]:
    """Return ``count`` places from the middle of equal parts; all of them where there are no more.

    >>> choose_frames(10, 4)
    [1, 3, 6, 8]
    >>> choose_frames(3, 8)
    [0, 1, 2]
    """
    if count >= num_frames:
        return list(range(num_frames))
    return [(2 * part + 1) * num_frames // (2 * count) for part in range(count)]


def is_moving(source: str | Path) -> bool:
    """True for a folder, a video file, or a picture file with more than one frame."""
    path = Path(source)
    if path.is_dir() or path.suffix.lower() in VIDEO:
        return True
    if path.suffix.lower() not in MOVING or not path.is_file():
        return False
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:  # open_picture says what is wrong with the file
        return False


def open_frames(
    source: str | Path, count: int, *, max_pixels: int = MAX_PIXELS, frames_per_second: float = 1.0
) -> list[Picture]:
    """Return up to ``count`` frames with their times, named ``clip.gif@12`` by their place from 0.

    ``frames_per_second`` counts where nothing says when a frame is shown: in a folder, or a file without times.

    Raises:
        ImageError: the source is missing, damaged, has no frames, or a frame has more than ``max_pixels``.
        NeedsExtra: a video file without PyAV.
        SettingError: ``count`` is below 1, or ``frames_per_second`` is not above 0.
    """
    path = Path(source)
    if count < 1:
        raise SettingError(f"frames is {count}; it must be at least 1")
    if not 0 < frames_per_second < float("inf"):
        raise SettingError(f"frames_per_second is {frames_per_second}; it must be above 0")
    every = 1 / frames_per_second
    if path.is_dir():
        return _open_folder(path, count, max_pixels, every)
    if not path.is_file():
        raise ImageError(f"{path} does not exist; give a GIF, a video or a folder of pictures")
    if path.suffix.lower() in VIDEO:
        return _open_video(path, count, max_pixels, every)
    return _open_animation(path, count, max_pixels, every)


def _open_folder(folder: Path, count: int, max_pixels: int, every: float) -> list[Picture]:
    """Return pictures of a folder in the order of the numbers in their names."""
    files = sorted((file for file in folder.iterdir() if file.suffix.lower() in STILL), key=_by_number)
    if not files:
        raise ImageError(f"{folder} holds no pictures; give a folder of frames ({READABLE})")
    return [
        replace(open_picture(files[place], max_pixels=max_pixels), seconds=place * every)
        for place in choose_frames(len(files), count)
    ]


def _by_number(file: Path) -> list[tuple[int, str]]:
    """Sort ``frame9`` before ``frame10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]


def _open_animation(path: Path, count: int, max_pixels: int, every: float) -> list[Picture]:
    first = open_picture(path, max_pixels=max_pixels)
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            places = choose_frames(getattr(image, "n_frames", 1), count)
            if len(places) == 1 and places[0] == 0:
                return [first]
            # Read in order: a frame of a GIF is a change to the one before.
            frames: dict[int, Picture] = {}
            seconds = 0.0
            for place, frame in enumerate(ImageSequence.Iterator(image)):
                if place in places:
                    frames[place] = Picture(to_rgb(frame), f"{path.name}@{place}", seconds)
                lasts_ms = frame.info.get("duration") or 0
                seconds += lasts_ms / 1000 or every
    except Exception as cause:  # decoders raise EOFError, OSError, SyntaxError, ValueError ...
        raise ImageError(f"{path} has a damaged frame ({' '.join(str(cause).split())}); copy it again") from None
    return [frames[place] for place in places]


def _open_video(path: Path, count: int, max_pixels: int, every: float) -> list[Picture]:
    try:
        import av
    except ModuleNotFoundError:
        raise NeedsExtra(f"the video {path.name}", "video") from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path} holds no video; give a file with pictures in it")
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > max_pixels:
                raise ImageError(
                    f"{path} is {width}x{height} px ({width * height:,} pixels); the limit is {max_pixels:,}; "
                    f"allow it with --max-pixels {width * height}"
                )
            num_frames = stream.frames or sum(1 for _ in container.decode(stream))
            places = choose_frames(num_frames, count)
            container.seek(0)
            frames = [
                Picture(
                    to_rgb(frame.to_image()),
                    f"{path.name}@{place}",
                    place * every if frame.time is None else max(0.0, frame.time),
                )
                for place, frame in _at(places, container.decode(stream))
            ]
    except av.error.FFmpegError as cause:
        raise ImageError(f"{path} is no video that can be read ({cause.strerror or cause}); copy it again") from None
    if not frames:
        raise ImageError(f"{path} has no frames; give a video that plays")
    return frames


def _at(places: Sequence[int], frames: Iterator[Frame]) -> Iterator[tuple[int, Frame]]:
    """Yield the frames at the places, and their places; a video can have fewer frames than it says."""
    wanted = set(places)
    for place, frame in enumerate(frames):
        if place in wanted:
            yield place, frame
        if place >= places[-1]:
            return
