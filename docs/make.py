"""Write again what the documents take from running code.

``python docs/make.py commands`` writes ``commands.md``, ``tour`` the outputs in ``tour.md``, ``answer`` ``answer.png``
and ``card`` ``nano.md``; without a name all of them. Read the difference before you commit it.
"""

import contextlib
import importlib.util
import io
import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).parent
ROOT = DOCS.parent
QUESTIONS = {
    "receipt.png": {
        "What is the total?": "$23.50",
        "What is the name of the shop?": "CORNER BAKERY",
        "What is the tip?": "not present",
    },
    "shapes.png": {
        "What shape is yellow?": "star",
        "What color is the star?": "yellow",
        "Is there a green square?": "no",
    },
}
"""Pictures of ``examples/``, what is asked about each, and the truth: a wrong answer is drawn red."""
RIGHT, WRONG = "#7ee787", "#ff7b72"
LINE_PX, ROW_PX, PICTURE_PX = 25, 36, 250
BACKGROUND = "#1c2128"


def commands_page() -> str:
    """Return the help of every command as one document."""
    from handlens.cli.main import handlens

    def help_of(*words: str) -> str:
        shown = CliRunner().invoke(handlens, [*words, "--help"], prog_name="handlens", terminal_width=100)
        return f"```text\n{shown.output.strip()}\n```\n"

    def sections(group: click.Group, *words: str) -> Iterator[str]:
        context = click.Context(group)
        for name in group.list_commands(context):
            yield f"{'#' * (2 + len(words))} {' '.join((*words, name))}"
            yield help_of(*words, name)
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from sections(command, *words, name)

    parts = ["# Commands", "Cut from the program by `make docs`; a test compares them.", help_of(), *sections(handlens)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def tour_page(text: str) -> str:
    """Return the tour with every output replaced by what its code prints now."""
    kept: list[str] = []
    names: dict[str, object] = {}
    is_output = False
    for line in text.splitlines():
        if line.startswith(">>> "):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(line.removeprefix(">>> ") + "\n", "tour.md", "single"), names)
            kept += [line, *printed.getvalue().splitlines()]
            is_output = True
        elif line.startswith("```") or not is_output:
            kept.append(line)
            is_output = False
    return "\n".join(kept) + "\n"


def answer_picture() -> Image.Image:
    """Ask the questions and draw each picture beside what the terminal shows."""
    folder = Path(importlib.util.find_spec("matplotlib").submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    plain, bold = (ImageFont.truetype(folder / f"DejaVuSansMono{weight}.ttf", 16) for weight in ("", "-Bold"))
    panels = [_panel(name, questions, plain, bold) for name, questions in QUESTIONS.items()]
    canvas = Image.new("RGB", (panels[0].width, sum(panel.height for panel in panels)), BACKGROUND)
    top = 0
    for panel in panels:
        canvas.paste(panel, (0, top))
        top += panel.height
    return canvas


def _panel(
    name: str, questions: dict[str, str], plain: ImageFont.FreeTypeFont, bold: ImageFont.FreeTypeFont
) -> Image.Image:
    picture = Image.open(ROOT / "examples" / name).convert("RGB")
    height = round(picture.height * min(PICTURE_PX / picture.width, 340 / picture.height))
    picture = picture.resize((round(picture.width * height / picture.height), height), Image.Resampling.LANCZOS)
    panel = Image.new("RGB", (PICTURE_PX + 700, height + 24), BACKGROUND)
    panel.paste(picture, (12 + (PICTURE_PX - picture.width) // 2, 12))
    draw, top = ImageDraw.Draw(panel), 20
    for question, truth in questions.items():
        words = ["handlens", "ask", f"examples/{name}", question]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
        draw.text((PICTURE_PX + 36, top), f'$ {" ".join(words[:3])} "{question}"', fill="#c9d1d9", font=plain)
        top += LINE_PX
        colour = RIGHT if done.stdout.strip() == truth else WRONG
        for line in textwrap.wrap(done.stdout, 58) or [""]:
            draw.text((PICTURE_PX + 36, top), line, fill=colour, font=bold)
            top += LINE_PX
        top += ROW_PX - LINE_PX
    return panel


CARD = """# nano, the model that ships

{weights:.1f} million weights in the shape of MiniCPM-V: slices of {side} px, at most {slices} and an overview;
a vision tower of {tower} layers, {tower_width} wide; a resampler of {queries} queries; a language model of
{layers} layers, {width} wide, with {vocabulary} tokens. Its licence is {licence}. Every picture it learned from
was drawn by `handlens generate` (CC0-1.0).

What it can do stands in [results](results.md#held-out-answers-of-nano), what it cannot in [limits](limits.md),
how it became what it is in the [log](log.md). Phases, steps and mixtures are those of the recipe as it stands:

    torchrun --nproc-per-node 2 -m handlens.cli.main train nano:all --out runs/nano --parallel ddp
    handlens align nano:rlaif --rounds 2 --from runs/nano/polish --out runs/aligned

## What it cost
| phase | steps | pictures | slices | tokens | operations | core hours | energy, kWh |
|---|---|---|---|---|---|---|---|
{rows}

Two cores did it, beside other work at times: `layout-2` ran beside `adaptive` and `adaptive-2`, one process each,
everything else in two processes that shared the steps. Energy is estimated at 8 W for a busy core: {energy:.2g}
kWh in all, {carbon:.2g} kg of CO2 at 480 g/kWh.

## Where it is wrong
Two wrong answers of every task, a typical one and a bad one, and what it takes for what. The truth is green,
the answer red. `handlens eval nano --count 80 --seed 1 --mistakes nano-mistakes.png` draws the page.

![Pictures with wrong answers](nano-mistakes.png)
"""


def card_page() -> str:
    """Return the model card of nano: its shape, what its phases cost, where it is wrong."""
    folder = ROOT / "src" / "handlens" / "nano"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    config, phases = manifest["config"], manifest["ledger"]["phases"]
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    count = sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")

    def row(name: str, some: list[dict[str, Any]]) -> str:
        cells = []
        for key, form in (("steps", ","), ("pictures", ","), ("slices", ","), ("tokens", ","), ("flops", ".2e")):
            cells.append(format(sum(phase[key] for phase in some), form))
        hours = sum(phase["device_hours"] for phase in some)
        return f"| {name} | {' | '.join(cells)} | {hours:.2f} | {hours * 8 / 1000:.4f} |"

    rows = [row(phase["phase"], [phase]) for phase in phases] + [row("all", phases)]
    energy = sum(phase["device_hours"] for phase in phases) * 8 / 1000
    return CARD.format(
        weights=count / 1e6, side=config["slice_config"]["scale_resolution"], licence=manifest["licence"],
        slices=config["slice_config"]["max_slice_nums"], tower=config["vision_config"]["num_hidden_layers"],
        tower_width=config["vision_config"]["hidden_size"], queries=config["query_num"],
        layers=config["num_hidden_layers"], width=config["hidden_size"], vocabulary=config["vocab_size"],
        rows="\n".join(rows), energy=energy, carbon=energy * 0.48,
    )  # fmt: skip


def main() -> None:
    """Write the named pages, or all."""
    wanted = sys.argv[1:] or ["commands", "tour", "answer", "card"]
    os.chdir(ROOT)
    if "commands" in wanted:
        (DOCS / "commands.md").write_text(commands_page(), encoding="utf-8")
    if "tour" in wanted:
        tour = DOCS / "tour.md"
        tour.write_text(tour_page(tour.read_text(encoding="utf-8")), encoding="utf-8")
    if "answer" in wanted:
        answer_picture().save(DOCS / "answer.png", optimize=True)
    if "card" in wanted:
        (DOCS / "nano.md").write_text(card_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
