"""Draw the pictures of this folder: what users have, invented and free to use.

    python examples/make_examples.py [FOLDER]

The same pixels come out on every run. The fonts come with the extra 'data'.
"""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from handlens.data.generate.fonts import FONTS, load_font

Corners = tuple[tuple[float, float], ...]
"""Top left, top right, bottom right, bottom left, in px."""

INK = (38, 36, 44)
MONO, MONO_BOLD = "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf"
SANS, SANS_BOLD = "Roboto-Regular.ttf", "Roboto-Bold.ttf"
SERIF, SERIF_BOLD = "SourceSerifPro-Regular.otf", "SourceSerifPro-Bold.otf"

ITEMS = (("Coffee", 340), ("Apple Cake", 460), ("Rye Bread", 520), ("Butter", 380), ("Honey", 650))
"""Name and price in cents; the sum is 23.50."""
MONTHS = (("Jan", 120), ("Feb", 95), ("Mar", 150), ("Apr", 210), ("May", 260), ("Jun", 240))
SCENE = (
    ("circle", (214, 40, 40), (110, 110), 62),
    ("square", (36, 84, 214), (350, 96), 54),
    ("triangle", (30, 150, 60), (130, 290), 66),
    ("star", (238, 200, 30), (330, 270), 60),
    ("circle", (36, 84, 214), (232, 186), 26),
)


def font(file: str, size_px: int) -> ImageFont.FreeTypeFont:
    return load_font(next(one for one in FONTS if one.file == file), size_px)


def receipt() -> Image.Image:
    """A till receipt, photographed on a table."""
    paper = Image.new("RGB", (560, 930), (246, 244, 238))
    pen, y = ImageDraw.Draw(paper), 36

    def row(left: str, right: str = "", *, size_px: int = 36, bold: bool = False, middle: bool = False) -> None:
        nonlocal y
        face = font(MONO_BOLD if bold else MONO, size_px)
        x = (560 - face.getlength(left)) / 2 if middle else 34
        pen.text((x, y), left, fill=INK, font=face)
        pen.text((526 - face.getlength(right), y), right, fill=INK, font=face)
        y += round(size_px * 1.66)

    def rule() -> None:
        nonlocal y
        for x in range(34, 526, 16):
            pen.line((x, y + 8, x + 9, y + 8), fill=INK, width=2)
        y += 28

    row("CORNER BAKERY", size_px=48, bold=True, middle=True)
    row("18 Market Street", middle=True)
    row("14 May 2025", "09:42")
    rule()
    for name, cents in ITEMS:
        row(name, f"${cents / 100:.2f}")
    rule()
    total = f"${sum(cents for _, cents in ITEMS) / 100:.2f}"
    row("TOTAL", total, size_px=44, bold=True)
    row("Cash", "$30.00")
    row("Change", "$6.50")
    y += 14
    row("Thank you!", middle=True)
    corners = ((88.0, 62.0), (640.0, 40.0), (628.0, 1052.0), (58.0, 1036.0))
    return photograph(paper, (700, 1100), corners, table=(104, 74, 52), seed=1)


def label(size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A jar label, photographed."""
    paper = Image.new("RGB", (560, 380), (250, 240, 205))
    pen = ImageDraw.Draw(paper)
    pen.rectangle((10, 10, 549, 369), outline=(110, 60, 20), width=4)
    lines = ("weight: 250 g", "batch: KX-4821", "best before: 03/2027")
    pen.text((280, 74), "FOREST HONEY", fill=(110, 60, 20), font=font(SANS_BOLD, 58), anchor="mm")
    for place, text in enumerate(lines):
        pen.text((44, 150 + 68 * place), text, fill=INK, font=font(SANS, 44))
    corners = ((44.0, 52.0), (606.0, 36.0), (596.0, 440.0), (38.0, 426.0))
    return photograph(paper, size, corners, table=(70, 88, 82), seed=2)


PAGES = (
    (
        "The Harbour Library",
        "Opening hours",
        (
            "The library opens at nine on weekdays and at ten on Saturdays. It is closed on Sundays. Members may "
            "borrow eight books for four weeks. Maps and newspapers stay in the reading room on the second floor."
        ),
        (
            "A new member card costs 12 euros a year. Children and students pay nothing. Please bring an identity "
            "card and a proof of address. Lost cards are replaced for 3 euros at the front desk."
        ),
    ),
    (
        "House rules",
        "Quiet please",
        (
            "Phones are silent and calls are made outside. Drinks with a lid are welcome, food is not. Bags larger "
            "than a sheet of paper are left in the lockers near the entrance. Lockers are free for one day."
        ),
        "Printing costs 10 cents a page. The printer takes coins and cards. Ask the staff when it is out of paper.",
    ),
)


def page(number: int) -> Image.Image:
    """A printed page of A6, 620 x 874 px (150 px per inch)."""
    title, subtitle, *paragraphs = PAGES[number]
    sheet = Image.new("L", (620, 874), 252)
    pen, y = ImageDraw.Draw(sheet), 60
    for text, face in ((title, font(SERIF_BOLD, 44)), (subtitle, font(SERIF_BOLD, 30))):
        pen.text((56, y), text, fill=25, font=face)
        y += round(face.size * 1.6)
    for paragraph in paragraphs:
        for line in wrap(paragraph, font(SERIF, 26), 508):
            pen.text((56, y), line, fill=25, font=font(SERIF, 26))
            y += 37
        y += 20
    pen.text((310, 836), str(number + 1), fill=25, font=font(SERIF, 24), anchor="mm")
    return sheet


def scan() -> Image.Image:
    """The first page as a flatbed scanner gives it: a slight turn, specks, gray paper."""
    rng = np.random.default_rng(3)
    sheet = page(0).resize((930, 1311), Image.Resampling.BICUBIC)
    sheet = sheet.rotate(0.8, Image.Resampling.BICUBIC, fillcolor=240)
    pixels = np.asarray(sheet, dtype=np.float64) * 0.94
    pixels += rng.normal(0, 3, pixels.shape)
    for row, column in rng.integers(0, (1309, 928), (60, 2)):
        pixels[row : row + 2, column : column + 2] = 110
    blurred = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))
    return few_colours(blurred.convert("RGB"), 24)


def chart() -> Image.Image:
    """Bars with values."""
    sheet = Image.new("RGB", (800, 600), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((400, 44), "Bicycles sold", fill=INK, font=font(SANS_BOLD, 42), anchor="mm")
    for value in (0, 100, 200, 300):
        y = 520 - value * 1.4
        pen.line((90, y, 770, y), fill=(205, 205, 205), width=2)
        pen.text((76, y), str(value), fill=INK, font=font(SANS, 26), anchor="rm")
    for place, (month, value) in enumerate(MONTHS):
        left = 120 + place * 110
        pen.rectangle((left, 520 - value * 1.4, left + 70, 520), fill=(58, 110, 190))
        pen.text((left + 35, 502 - value * 1.4), str(value), fill=INK, font=font(SANS, 28), anchor="mm")
        pen.text((left + 35, 548), month, fill=INK, font=font(SANS, 30), anchor="mm")
    return sheet


def strip() -> Image.Image:
    """The display of a railway platform, 10:1."""
    sheet = Image.new("RGB", (1600, 160), (16, 24, 56))
    pen = ImageDraw.Draw(sheet)
    pen.text((40, 80), "14:05", fill=(255, 210, 60), font=font(SANS_BOLD, 74), anchor="lm")
    pen.text((320, 80), "Express to Lisbon via Porto", fill="white", font=font(SANS, 66), anchor="lm")
    pen.text((1560, 80), "Platform 7", fill=(255, 210, 60), font=font(SANS_BOLD, 66), anchor="rm")
    return sheet


def screenshot() -> Image.Image:
    """The weather on a phone, tall."""
    sheet = Image.new("RGB", (540, 1170), (238, 242, 248))
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((0, 0, 540, 62), fill=(40, 88, 160))
    pen.text((24, 32), "12:30", fill="white", font=font(SANS_BOLD, 28), anchor="lm")
    pen.text((516, 32), "82%", fill="white", font=font(SANS, 28), anchor="rm")
    pen.text((270, 130), "Weather", fill=INK, font=font(SANS_BOLD, 50), anchor="mm")
    pen.text((270, 198), "Hamburg", fill=INK, font=font(SANS, 38), anchor="mm")
    days = (("Monday", "14°"), ("Tuesday", "17°"), ("Wednesday", "19°"), ("Thursday", "16°"), ("Friday", "12°"))
    for place, (day, degrees) in enumerate((*days, ("Saturday", "15°"), ("Sunday", "21°"))):
        top = 260 + place * 122
        pen.rounded_rectangle((24, top, 516, top + 100), radius=18, fill="white")
        pen.text((52, top + 50), day, fill=INK, font=font(SANS, 38), anchor="lm")
        pen.text((488, top + 50), degrees, fill=INK, font=font(SANS_BOLD, 42), anchor="rm")
    return sheet


def shapes() -> Image.Image:
    """Five coloured shapes, drawn four times too large for smooth edges."""
    sheet = Image.new("RGB", (4 * 460, 4 * 380), (228, 234, 226))
    pen = ImageDraw.Draw(sheet)
    for shape, colour, (x, y), radius in SCENE:
        if shape == "circle":
            pen.ellipse([4 * value for value in (x - radius, y - radius, x + radius, y + radius)], fill=colour)
            continue
        num = {"square": 4, "triangle": 3, "star": 10}[shape]
        turn = math.pi / 4 if shape == "square" else -math.pi / 2
        reach = [radius * (0.42 if shape == "star" and place % 2 else 1.1) for place in range(num)]
        angles = [turn + 2 * math.pi * place / num for place in range(num)]
        pen.polygon(
            [(4 * (x + r * math.cos(a)), 4 * (y + r * math.sin(a))) for r, a in zip(reach, angles, strict=True)],
            fill=colour,
        )
    return sheet.resize((460, 380), Image.Resampling.LANCZOS)


def wrap(text: str, face: ImageFont.FreeTypeFont, width_px: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines[-1:] = [longer] if face.getlength(longer) <= width_px else [lines[-1], word]
    return lines


def photograph(
    paper: Image.Image, size: tuple[int, int], corners: Corners, *, table: tuple[int, int, int], seed: int
) -> Image.Image:
    """Lay paper on a table and take a picture by hand: perspective, shadow, blur, noise."""
    rng = np.random.default_rng(seed)
    width, height = size
    grain = rng.normal(0, 1, (height // 10, width // 2)).astype(np.float32)
    grain = np.asarray(Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC))
    ground = np.array(table) + 7.0 * grain[..., None]
    bends = perspective(corners, paper.size)
    laid = np.asarray(paper.transform(size, Image.Transform.PERSPECTIVE, bends, Image.Resampling.BICUBIC))
    mask = Image.new("L", paper.size, 255).transform(size, Image.Transform.PERSPECTIVE, bends, Image.Resampling.BICUBIC)
    cover = np.asarray(mask, dtype=np.float64)[..., None] / 255
    shade = np.asarray(mask.filter(ImageFilter.GaussianBlur(14)), dtype=np.float64)[..., None] / 255
    scene = (ground * (1 - 0.5 * shade)) * (1 - cover) + laid * cover
    down, across = np.mgrid[0:height, 0:width]
    light = 1.0 - 0.22 * across / width - 0.1 * down / height
    hand = 1 / (1 + np.exp((0.62 * width + 0.18 * down - across) / 40))  # the soft edge of a shadow
    scene *= (light * (1 - 0.16 * hand))[..., None]
    scene += rng.normal(0, 4, (height, width, 1))
    photo = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))
    return few_colours(photo, 96)


def perspective(corners: Corners, paper: tuple[int, int]) -> Sequence[float]:
    """Return Pillow's eight numbers, which map a picture point to a paper point."""
    targets = ((0, 0), (paper[0], 0), paper, (0, paper[1]))
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, targets, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows, dtype=np.float64), np.array(values, dtype=np.float64)).tolist()


def few_colours(image: Image.Image, count: int) -> Image.Image:
    """Keep a noisy PNG small."""
    return image.quantize(count, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


PICTURES = {
    "receipt": receipt, "label": label, "page": scan, "chart": chart, "strip": strip, "screenshot": screenshot,
    "shapes": shapes,
}  # fmt: skip


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw().save(folder / f"{name}.png", optimize=True)
    born = time.gmtime(0)  # the file must not depend on the day
    first, *others = [page(number) for number in range(len(PAGES))]
    first.save(
        folder / "page.pdf", save_all=True, append_images=others, resolution=150, creationDate=born, modDate=born
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
