"""Write again what the documents take from running code: ``commands.md`` and ``answer.png``.

``python docs/make.py commands`` or ``answer`` writes one of them.
"""

import importlib.util
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import click
from click.testing import CliRunner
from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).parent
ROOT = DOCS.parent
QUESTIONS = (
    ("receipt.png", "What is the total?"),
    ("receipt.png", "What is the date?"),
    ("shapes.png", "How many circles are there?"),
)


def commands_page() -> str:
    """Return the help of every command as one document."""
    from handlens.cli.main import handlens

    def help_of(*words: str) -> str:
        shown = CliRunner().invoke(handlens, [*words, "--help"], prog_name="handlens", terminal_width=100)
        return f"```text\n{shown.output.strip()}\n```\n"

    with click.Context(handlens) as context:
        names = handlens.list_commands(context)
    parts = ["# Commands", "Cut from the program by `make docs`; a test compares them.", help_of()]
    for name in names:
        parts += [f"## {name}", help_of(name)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def answer_picture() -> Image.Image:
    """Ask the questions and draw the pictures beside what the terminal shows."""
    fonts = importlib.util.find_spec("matplotlib").submodule_search_locations[0] + "/mpl-data/fonts/ttf/"
    plain, bold = (ImageFont.truetype(fonts + f"DejaVuSansMono{weight}.ttf", 17) for weight in ("", "-Bold"))
    lines: list[tuple[str, bool]] = []
    for picture, question in QUESTIONS:
        words = ["handlens", "ask", f"examples/{picture}", question]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
        lines.append((f'$ {shlex.join(words[:3])} "{question}"', False))
        lines += [(line, True) for long in done.stdout.splitlines() for line in textwrap.wrap(long, 62) or [""]]
        lines.append(("", False))
    pictures = [Image.open(ROOT / "examples" / name).convert("RGB") for name in dict.fromkeys(q[0] for q in QUESTIONS)]
    height = 420
    for index, picture in enumerate(pictures):
        pictures[index] = picture.resize(
            (round(picture.width * height / picture.height), height), Image.Resampling.LANCZOS
        )
    left = sum(picture.width + 12 for picture in pictures) + 12
    canvas = Image.new("RGB", (left + 700, height + 24), "#1c2128")
    x = 12
    for picture in pictures:
        canvas.paste(picture, (x, 12))
        x += picture.width + 12
    draw = ImageDraw.Draw(canvas)
    for number, (line, is_answer) in enumerate(lines):
        place = (left + 12, 30 + number * 27)
        draw.text(place, line, fill="#7ee787" if is_answer else "#c9d1d9", font=bold if is_answer else plain)
    return canvas


def main() -> None:
    """Write the named pages, or all."""
    wanted = sys.argv[1:] or ["commands", "answer"]
    if "commands" in wanted:
        (DOCS / "commands.md").write_text(commands_page(), encoding="utf-8")
    if "answer" in wanted:
        answer_picture().save(DOCS / "answer.png", optimize=True)


if __name__ == "__main__":
    main()
