"""Draw 240 forms of four kinds and write them as fine-tuning data: python examples/own_forms.py forms"""

import json
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

KINDS = {"intake": "green", "repair": "blue", "return": "orange", "scrap": "red"}


def draw_form(kind: str, rng: random.Random) -> Image.Image:
    """Return a form; where its stamp and its boxes stand, and what colour the stamp has, says its kind."""
    image = Image.new("RGB", (224, 224), (rng.randrange(235, 256),) * 3)
    draw = ImageDraw.Draw(image)
    place = list(KINDS).index(kind)
    x, y = (20, 130)[place % 2] + rng.randrange(-8, 9), (20, 130)[place // 2] + rng.randrange(-8, 9)
    draw.rectangle((x, y, x + 70, y + 70), fill=KINDS[kind], outline="black", width=3)
    draw.text((x + 12, y + 28), f"No {rng.randrange(1000, 9999)}", fill="white")
    for row in range(3):
        top = (20 if y > 100 else 130) + 24 * row
        draw.rectangle((20, top, 32, top + 12), outline="black", width=2)
        draw.line((40, top + 12, 200, top + 12), fill="gray")
    return image.rotate(rng.uniform(-3, 3), fillcolor="white")


def main(folder: Path, count: int = 240) -> None:
    rng = random.Random(7)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        kind = rng.choice(list(KINDS))
        name = f"images/{number:04d}.png"
        draw_form(kind, rng).save(folder / name)
        question = rng.choice(["Which form is this?", "What kind of form is it?"])
        rows.append(
            {
                "id": str(number),
                "image": name,
                "conversations": [
                    {"role": "user", "content": f"<image>\n{question}"},
                    {"role": "assistant", "content": f"{kind} form"},
                ],
            }
        )
    (folder / "data.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
