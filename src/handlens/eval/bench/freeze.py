"""Draw Handlens-Bench once: ``python -m handlens.eval.bench.freeze OUT.zip``; needs the extras data and languages.

Boundary: the generators in, one file out. The same generators give the same questions; what is frozen is the file.
"""

import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

from handlens.data.records import Record
from handlens.errors import DataError, HandlensError
from handlens.eval.bench import ITEMS
from handlens.eval.bench.parts import PARTS, SEED, Part

MOST_TRIES = 80
"""Pictures that are drawn for one question that fits."""
QUALITY = 90
LONGEST_SIDE = 1600


def freeze(out: Path, parts: tuple[Part, ...] = PARTS) -> str:
    """Write the suite and return its sha256; the time in the file is fixed, so equal contents are equal bytes."""
    rows: list[dict[str, Any]] = []
    with zipfile.ZipFile(out, "w") as whole:
        for part in parts:
            for row, picture in draw_part(part):
                rows.append(row)
                _add(whole, row["picture"], picture)
        _add(whole, ITEMS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return hashlib.sha256(out.read_bytes()).hexdigest()


def draw_part(part: Part) -> list[tuple[dict[str, Any], bytes]]:
    """Return the items of a part; languages and sources take turns, no true answer of a part stands there twice."""
    sources = [tuple(source.split("/")) for source in part.ask.split(",")]
    languages = [code for code in part.languages if _can_draw(sources[0][0], code)]
    drawn: list[tuple[dict[str, Any], bytes]] = []
    seen: set[str] = set()
    index = 0
    while len(drawn) < part.count and index < part.count * MOST_TRIES:
        kind, task = sources[len(drawn) % len(sources)]
        language = languages[len(drawn) // len(sources) % len(languages)]
        found = _draw_one(part, kind, task, language, index, _wanted(part, drawn))
        index += 1
        if found is None or (part.rule in ("text", "markdown") and found[0]["truth"][0] in seen):
            continue
        seen.add(found[0]["truth"][0])
        drawn.append(
            (
                {"id": f"{part.name}-{len(drawn):03d}", "picture": f"{part.name}-{len(drawn):03d}.jpg", **found[0]},
                found[1],
            )
        )
    if len(drawn) < part.count:
        raise DataError(f"only {len(drawn)} of {part.count} questions of {part.name} could be drawn")
    return drawn


def _wanted(part: Part, drawn: list[tuple[dict[str, Any], bytes]]) -> str:
    """Yes and no take turns, so that always yes is right on half."""
    return "" if part.rule != "yes_no" else ("yes", "no")[len(drawn) // 3 % 2]


def _can_draw(kind: str, language: str) -> bool:
    from handlens.data.generate import generate

    try:
        generate(kind, SEED, 0, split="heldout", level=0.0, languages=(language,))
    except HandlensError:
        return False
    return True


def _draw_one(
    part: Part, kind: str, task: str, language: str, index: int, wanted: str
) -> tuple[dict[str, Any], bytes] | None:
    from handlens.data.generate import generate

    record = generate(kind, SEED, index, split="heldout", level=part.level, languages=(language,))
    turns = [turn for turn in record.turns if turn.task == task and len(turn.answer) <= part.longest]
    turns = [turn for turn in turns if not wanted or turn.answer.lower() == wanted]
    if not turns:
        return None
    picture = shape(record, part)
    row = {
        "part": part.name, "group": part.group, "rule": part.rule, "language": language,
        "question": turns[0].question, "truth": [turns[0].answer], "record": record.key,
    }  # fmt: skip
    return None if picture is None else (row, picture)


def shape(record: Record, part: Part) -> bytes | None:
    """Return the picture as JPEG: resized so that its lines have the part's height, or laid on a page of its shape."""
    image = record.picture
    if part.line_px:
        heights = sorted(line.box[3] - line.box[1] for line in record.lines)
        scale = part.line_px / heights[len(heights) // 2]
        if not 0.25 < scale < 3:
            return None
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    if part.aspect:
        width, height = max(image.width, round(image.height * part.aspect)), image.height
        if part.aspect < 1:
            width, height = image.width, max(image.height, round(image.width / part.aspect))
        page = Image.new("RGB", (width, height), image.getpixel((1, 1)))
        page.paste(image, ((width - image.width) // 3, (height - image.height) // 3))
        image = page
    if max(image.size) > LONGEST_SIDE * 2:
        return None
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _add(whole: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED if name == ITEMS else zipfile.ZIP_STORED
    whole.writestr(entry, data)


if __name__ == "__main__":
    sys.stdout.write(freeze(Path(sys.argv[1])) + "\n")
