"""Draw docs/generators/*.png: one contact sheet for every kind, and one for the languages.

python docs/make_sheets.py
"""

from pathlib import Path

from PIL import Image

from handlens.data.generate import KINDS, LANGUAGES, generate

OUT = Path(__file__).parent / "generators"
WIDTH_PX, GAP_PX, HEIGHT_PX = 900, 6, 640
GROUND = (96, 100, 112)
MANY = ("en", "de", "ar", "zh", "pl", "hi", "fr", "ru", "th", "es")


def sheet(pictures: list[Image.Image]) -> Image.Image:
    """Return the pictures in rows, as many as fit."""
    out = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), GROUND)
    x = y = GAP_PX
    tallest = bottom = 0
    for picture in pictures:
        if picture.width > WIDTH_PX - 2 * GAP_PX:
            picture = picture.resize((WIDTH_PX - 2 * GAP_PX, picture.height * (WIDTH_PX - 2 * GAP_PX) // picture.width))
        if x + picture.width > WIDTH_PX:
            x, y, tallest = GAP_PX, y + tallest + GAP_PX, 0
        if y + picture.height > HEIGHT_PX:
            continue
        out.paste(picture, (x, y))
        x, tallest = x + picture.width + GAP_PX, max(tallest, picture.height)
        bottom = max(bottom, y + picture.height)
    return out.crop((0, 0, WIDTH_PX, bottom + GAP_PX))


def main() -> None:
    """Write one sheet per kind, half of it from the held-out split, and one of all languages."""
    OUT.mkdir(exist_ok=True)
    for kind in KINDS:
        if kind == "mixed":
            continue
        pictures = []
        for index in range(14):
            split = "heldout" if index % 5 == 4 else "train"
            record = generate(kind, 41, index, split=split, level=0.8, languages=MANY)
            scale = 0.6 if kind in ("receipts", "invoices", "forms", "letters") else 0.75
            size = (round(record.picture.width * scale), round(record.picture.height * scale))
            pictures.append(record.picture.resize(size, Image.Resampling.LANCZOS))
        write(f"{kind}.png", sheet(pictures))
    lines = [generate("lines", 43, i, level=0.0, languages=LANGUAGES).picture for i in range(len(LANGUAGES))]
    small = [picture.resize((round(picture.width * 0.7), round(picture.height * 0.7))) for picture in lines]
    write("languages.png", sheet(small))


def write(name: str, picture: Image.Image) -> None:
    """Write a sheet with 128 colours, so that all of them stay small."""
    picture.quantize(128, dither=Image.Dither.NONE).save(OUT / name, optimize=True)


if __name__ == "__main__":
    main()
