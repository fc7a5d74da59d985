"""Small data sets in every format."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from handlens.core.chat import Shown, Turn
from handlens.data.formats import FORMATS
from handlens.data.render import Target, open_target
from handlens.data.samples import Encoded, Sample, talk


def draw(number: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A picture that differs clearly from those of other numbers."""
    rng = random.Random(number)
    image = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        colour = tuple(rng.randrange(256) for _ in range(3))
        pen.rectangle((x, y, x + rng.randrange(8, 60), y + rng.randrange(8, 60)), fill=colour)
    return image


def encoded(number: int, kind: str = "PNG", size: tuple[int, int] = (120, 90)) -> Encoded:
    stream = io.BytesIO()
    draw(number, size).save(stream, kind)
    return Encoded(name=f"{number}.{'png' if kind == 'PNG' else 'jpg'}", data=stream.getvalue())


def small_set(count: int = 6) -> list[Sample]:
    """One picture each, several turns, boxes, a table, tags of provenance; no problem in it."""
    return [
        Sample(
            key=f"s{number}",
            images=(encoded(number, "PNG" if number % 2 else "JPEG"),),
            chat=talk([(f"What is shape {number}?", f"a square of kind {number}"), ("How many?", str(number + 2))]),
            language="en", licence="CC0-1.0", source="tests", kind="scenes", split="train",
            truth={
                "objects": [{"name": "square", "box": [1, 2, 30, 40]}], "scene": f"squares on plate {number}",
                "lines": [{"text": "Total", "box": [3, 4, 50, 12]}], "table": [["a", "b"], ["1", "2"]],
                "facts": {"total": number},
            },
        )
        for number in range(count)
    ]  # fmt: skip


def rich_set() -> list[Sample]:
    """What only some formats can hold: several pictures, none, a system turn, a picture in the second turn."""
    one, two = encoded(71), encoded(72, "JPEG")
    return [
        Sample(key="pair", images=(one, two), chat=(
            Turn("user", (Shown(0), "Compare", Shown(1), "please.")), Turn("assistant", ("They differ.",)),
        )),
        Sample(key="later", images=(one, two), chat=(
            Turn("user", (Shown(0), "What is it?")), Turn("assistant", ("A plate.",)),
            Turn("user", ("And this?", Shown(1))), Turn("assistant", ("Another.",)),
        )),
        Sample(key="text/only: ä", images=(), language="de", chat=(
            Turn("system", ("Antworte kurz.",)), Turn("user", ("Wie viele Tage hat eine Woche?",)),
            Turn("assistant", ("Sieben.",)),
        )),
    ]  # fmt: skip


@pytest.fixture(scope="session")
def samples() -> Callable[..., list[Sample]]:
    return small_set


@pytest.fixture(scope="session")
def rich() -> list[Sample]:
    return rich_set()


@pytest.fixture(scope="session")
def picture() -> Callable[..., Encoded]:
    """An encoded picture by number."""
    return encoded


@pytest.fixture(scope="session")
def target() -> Target:
    return open_target()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write samples in a format and return the folder."""

    def writer(samples: list[Sample], name: str, folder: str = "set") -> Path:
        out = tmp_path / folder
        FORMATS[name].write(iter(samples), out)
        return out

    return writer
