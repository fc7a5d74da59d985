"""What the paper chose, tried again in small: the same pages, the same steps and three seeds for every arm.

    python benchmarks/experiments.py slicing
    python benchmarks/experiments.py slicing queries connector stages --steps 80 --seeds 3

A page of 112 to 336 px a side has up to ten printed digits, 8 to 44 px high, in ink of ten colours. A tower that has
learned to name the ink under its patches is shared by all arms of a seed. Then each arm learns to put into every visual
token which ink stands in its cell; one linear layer reads it out. The score is the share of digits of unseen pages with
ink that is named rightly in the token where they stand, in the finest view that shows them; guessing gives 10 %. Which
digit it is would be the better question; 94 s of processor time did not teach a tower of this size to tell. The shape
is that of ``nano:smoke``.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor, nn

from handlens.config import HandlensConfig
from handlens.core.patches import to_patches
from handlens.core.slicing import SlicePlan, cut, plan_slices
from handlens.eval.stats import wilson
from handlens.model.vlm import HandlensModel, SliceBatch, build_model
from handlens.recipes import nano, smoke
from handlens.train import warmstart
from handlens.train.feed import Sample, pad_slices
from handlens.train.optim import build_optimisers
from handlens.train.warmstart import CODE, localise, place_code, place_codes

SIDE = 112
"""Pixels of a slice."""
SIZES = ((8, 14), (14, 22), (22, 45))
"""Heights of digits in px of the page, as they are reported."""
INKS = (
    (0, 0, 0), (200, 0, 0), (0, 140, 0), (0, 0, 210), (225, 130, 0), (130, 0, 160), (0, 150, 160), (125, 75, 20),
    (230, 70, 160), (120, 120, 120),
)  # fmt: skip
BATCH = 4
GRIDS = {16: (4, 4), 32: (4, 8), 64: (8, 8), 96: (8, 12)}
"""Queries -> rows and columns of cells that they begin to read."""
WAYS = ("slices", "slices", "overview", "square", "padded", "large square")
"""How the shared tower is shown pages, so that no arm shows it what it never saw."""
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Digit:
    ink: int
    size_px: int
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True, kw_only=True)
class View:
    """One slice: its pixels, and where it lies on the page in px."""

    image: Image.Image
    box: Box


Page = tuple[Image.Image, tuple[Digit, ...]]


def draw_page(seed: str) -> Page:
    """Draw up to ten digits that do not touch each other."""
    rng = random.Random(seed)
    width, height = (round(112 * 3 ** rng.random()) for _ in range(2))
    ground = rng.randrange(200, 256)
    page = Image.new("RGB", (width, height), (ground,) * 3)
    draw, digits = ImageDraw.Draw(page), []
    for _ in range(30):
        size, value, ink = round(8 * 5.5 ** rng.random()), rng.randrange(10), rng.randrange(len(INKS))
        font = ImageFont.load_default(size / 0.72)  # digits are 0.72 of the size of a font
        wide, high = font.getbbox(str(value), anchor="lt")[2:]
        if wide >= width or high >= height:
            continue
        x, y = rng.randrange(round(width - wide)), rng.randrange(round(height - high))
        box = (x, y, x + wide, y + high)
        if all(box[2] + 3 < b[0] or b[2] + 3 < box[0] or box[3] + 3 < b[1] or b[3] + 3 < box[1]
               for b in (digit.box for digit in digits)):  # fmt: skip
            draw.text((x, y), str(value), font=font, fill=INKS[ink], anchor="lt")
            digits.append(Digit(ink=ink, size_px=size, box=box))
        if len(digits) == 10:
            break
    return page, tuple(digits)


def show(page: Image.Image, way: str) -> tuple[list[View], SlicePlan]:
    """Return what the tower gets of a page, coarse views first."""
    width, height = page.size
    whole = (0.0, 0.0, float(width), float(height))
    if way == "slices":
        plan = plan_slices(width, height, side_px=SIDE, max_slices=6)
        boxes = [whole]
        if plan.grid:
            wide, high = width / plan.grid.columns, height / plan.grid.rows
            boxes += [(column * wide, row * high, (column + 1) * wide, (row + 1) * high)
                      for row in range(plan.grid.rows) for column in range(plan.grid.columns)]  # fmt: skip
        return [View(image=image, box=box) for image, box in zip(cut(page, plan), boxes, strict=True)], plan
    side = 2 * SIDE if way == "large square" else SIDE
    plan = SlicePlan(width=side, height=side, grid=None, overview=(side, side), refined=None)
    if way == "padded":
        longest = max(width, height)
        left, top = (longest - width) / 2, (longest - height) / 2
        padded = ImageOps.pad(page, (side, side), Image.Resampling.BICUBIC, color=(128, 128, 128))
        return [View(image=padded, box=(-left, -top, longest - left, longest - top))], plan
    if way == "overview":
        plan = plan_slices(width, height, side_px=SIDE, max_slices=1)
        return [View(image=cut(page, plan)[0], box=whole)], plan
    return [View(image=page.resize((side, side), Image.Resampling.BICUBIC), box=whole)], plan


def cell_of(digit: Digit, view: View, rows: int, columns: int) -> int | None:
    """Return the cell of a view in which a digit stands."""
    (x, y), (left, top, right, bottom) = digit.centre, view.box
    column, row = int((x - left) / (right - left) * columns // 1), int((y - top) / (bottom - top) * rows // 1)
    return row * columns + column if 0 <= row < rows and 0 <= column < columns else None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Pages as one batch."""

    slices: SliceBatch
    labels: Tensor
    """Ink + 1 of every cell of every view; 0 where there is none."""
    places: list[tuple[int, int, Digit]]
    """View and cell in which each digit is looked for."""


def collate(pages: list[Page], way: str, cells: tuple[int, int], config: HandlensConfig) -> Shown:
    """Show pages and say where their digits stand; ``cells`` (0, 0) are the patches themselves."""
    samples, labels, places = [], [], []
    empty = np.zeros(1, dtype=np.int64)
    for page, digits in pages:
        views, plan = show(page, way)
        shapes = plan.patches
        for view, shape in zip(views, shapes, strict=True):
            rows, columns = shape if cells == (0, 0) else cells
            grid = np.zeros(rows * columns, dtype=np.int64)
            for digit in digits:
                for number in range(rows * columns if cells == (0, 0) else 0):
                    x = view.box[0] + (number % columns + 0.5) / columns * (view.box[2] - view.box[0])
                    y = view.box[1] + (number // columns + 0.5) / rows * (view.box[3] - view.box[1])
                    if digit.box[0] <= x <= digit.box[2] and digit.box[1] <= y <= digit.box[3]:
                        grid[number] = digit.ink + 1
                if (cell := cell_of(digit, view, rows, columns)) is not None:
                    grid[cell] = digit.ink + 1
            labels.append(grid)
        for digit in digits:
            seen = [(number, cell) for number, (view, shape) in enumerate(zip(views, shapes, strict=True))
                    if (cell := cell_of(digit, view, *(shape if cells == (0, 0) else cells))) is not None]  # fmt: skip
            if seen:
                places.append((len(labels) - len(views) + seen[-1][0], seen[-1][1], digit))
        patches = [to_patches(np.asarray(view.image).transpose(2, 0, 1)) for view in views]
        samples.append(Sample(patches=patches, plans=(plan,), labels=None, ids=empty, is_visual=empty.astype(bool),
                              targets=empty, tasks=empty, task_names=()))  # fmt: skip
    table = np.full((len(labels), max(map(len, labels))), -1, dtype=np.int64)
    for row, grid in zip(table, labels, strict=True):
        row[: len(grid)] = grid
    return Shown(slices=pad_slices(samples, config), labels=torch.from_numpy(table), places=places)


def pages(seed: int, split: str) -> Iterator[list[Page]]:
    """Yield batches of pages without end."""
    index = 0
    while True:
        yield [draw_page(f"{split}/{seed}/{index + number}") for number in range(BATCH)]
        index += BATCH


def ink_loss(logits: Tensor, labels: Tensor) -> Tensor:
    weight = torch.ones(len(INKS) + 1)
    weight[0] = 0.1  # most cells are empty
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=weight, ignore_index=-1)


def learn(modules: list[nn.Module], loss: Callable[[list[Page]], Tensor], steps: int, seed: int, split: str) -> float:
    """Take steps with the optimisers of nano; return the mean loss of the last ten."""
    named = [(f"{number}.{name}", weight) for number, module in enumerate(modules)
             for name, weight in module.named_parameters() if name not in ("pos_embed",)]  # fmt: skip
    phase = replace(nano.recipe().only("adaptive").phases[0], steps=steps, warmup_steps=5)
    optimisers, losses = build_optimisers(named, phase), [0.0]
    for step, batch in zip(range(steps), pages(seed, split), strict=False):
        for optimiser in optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = phase.rate_at(step)
        for _, weight in named:
            weight.grad = None
        value = loss(batch)
        value.backward()
        losses.append(float(value.detach()))
        nn.utils.clip_grad_norm_([weight for _, weight in named if weight.grad is not None], 1.0)
        for optimiser in optimisers.values():
            optimiser.step()
    return sum(losses[-10:]) / len(losses[-10:])


def trained_tower(config: HandlensConfig, steps: int, seed: int) -> tuple[dict[str, Tensor], float]:
    """Return the weights, and the last loss, of a tower that names ink and places under its patches."""
    torch.manual_seed(seed)
    model = build_model(config)
    name, place = nn.Linear(config.vision.width, len(INKS) + 1), nn.Linear(config.vision.width, CODE)
    draw = random.Random(f"ways/{seed}")

    def loss(batch: list[Page]) -> Tensor:
        shown = collate(batch, draw.choice(WAYS), (0, 0), config)
        seen = model.look(shown.slices)
        codes = place_codes(shown.slices, config.vision.table_side, 4)
        real = shown.labels >= 0
        return ink_loss(name(seen), shown.labels) + F.mse_loss(place(seen[real]), codes[real])

    last = learn([model.vpm, name, place], loss, steps, seed, "tower")
    return {key: value.clone() for key, value in model.vpm.state_dict().items()}, last


def grid_codes(num_queries: int, heads: int) -> Tensor:
    """Return what ``warmstart.query_codes`` does, for grids that need not be square."""
    rows, columns = GRIDS[num_queries]
    side = round(num_queries**0.5)
    index = torch.arange(num_queries)
    return torch.stack(
        [place_code((index % columns + (head + 0.5) / heads) / columns * side,
                    (torch.div(index, columns, rounding_mode="floor") + 0.5) / rows * side, side)
         for head in range(heads)]
    )  # fmt: skip


class Squares(nn.Module):
    """Pixel-unshuffle: two by two patches side by side are one token (16 of a square slice)."""

    def __init__(self, config: HandlensConfig) -> None:
        super().__init__()
        self.join = nn.Linear(4 * config.vision.width, config.resampler.width)

    def forward(self, seen: Tensor) -> Tensor:
        grid = seen.unflatten(1, (4, 2, 4, 2)).permute(0, 1, 3, 2, 4, 5)
        return F.layer_norm(self.join(grid.flatten(3).flatten(1, 2)), (self.join.out_features,))


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of doing it."""

    name: str
    way: str = "slices"
    queries: int = 16
    connector: str = "resampler"
    """resampler, or without its fitted places: fresh; or squares."""
    stages: tuple[tuple[str, str, float], ...] = (("both", "", 1.0),)
    """What learns, how pages are shown (as the arm does), and in which share of the steps."""


PAPER = (("resampler", "overview", 0.25), ("tower", "overview", 0.25), ("both", "", 0.5))
EXPERIMENTS = {
    "slicing": (Arm(name="adaptive slices"), Arm(name="one square, stretched", way="square"),
                Arm(name="one square, padded", way="padded"),
                Arm(name="one square of twice the side", way="large square")),
    "queries": tuple(Arm(name=f"{count} queries", queries=count) for count in (16, 32, 64, 96)),
    "connector": (Arm(name="resampler, places fitted", way="square"),
                  Arm(name="resampler, fresh", way="square", connector="fresh"),
                  Arm(name="pixel-unshuffle", way="square", connector="squares")),
    "stages": (Arm(name="resampler, tower, both", stages=PAPER),
               Arm(name="tower, resampler, both", stages=(PAPER[1], PAPER[0], PAPER[2])),
               Arm(name="no resampler alone", stages=(("tower", "overview", 0.5), PAPER[2])),
               Arm(name="no tower alone", stages=(("resampler", "overview", 0.5), PAPER[2])),
               Arm(name="both at once")),
}  # fmt: skip


def run_arm(
    arm: Arm, tower: dict[str, Tensor], steps: int, seed: int, test: list[list[Page]]
) -> dict[str, tuple[int, int]]:
    """Train an arm; return (right, all) of digits of each size and of all, and what a page costs."""
    base = smoke.model()
    config = replace(base, resampler=replace(base.resampler, num_queries=arm.queries))
    torch.manual_seed(seed)
    model: HandlensModel = build_model(config)
    model.vpm.load_state_dict(tower)
    squares, out = Squares(config), nn.Linear(config.resampler.width, len(INKS) + 1)
    cells = GRIDS[arm.queries]
    if arm.connector == "resampler":
        warmstart.query_codes = grid_codes
        source = pages(seed, "places")
        localise(model, (collate(next(source), arm.way, cells, config).slices for _ in range(8)))

    def read(shown: Shown) -> Tensor:
        slices = shown.slices
        seen = model.look(slices)
        if arm.connector == "squares":
            return out(squares(seen))
        return out(model.resampler.compress(seen, slices.key_positions, slices.is_real))

    connector = squares if arm.connector == "squares" else model.resampler
    for number, (what, way, share) in enumerate(arm.stages):
        parts = {"resampler": [connector, out], "tower": [model.vpm, out], "both": [model.vpm, connector, out]}[what]
        for weight in [*model.parameters(), *squares.parameters()]:
            weight.requires_grad_(False)
        for part in parts:
            for weight in part.parameters():
                weight.requires_grad_(True)

        def loss(batch: list[Page], way: str = way or arm.way) -> Tensor:
            shown = collate(batch, way, cells, config)
            return ink_loss(read(shown), shown.labels)

        learn(parts, loss, round(share * steps), seed, f"arm {number}")
    marks: dict[str, list[bool]] = {f"{low}-{high} px": [] for low, high in SIZES} | {"all": []}
    tokens = 0
    with torch.no_grad():
        for batch in test:
            shown = collate(batch, arm.way, cells, config)
            named = read(shown)[..., 1:].argmax(-1)
            tokens += named.numel()
            for view, cell, digit in shown.places:
                right = int(named[view, cell]) == digit.ink
                size = next(size for size in SIZES if digit.size_px < size[1])
                marks[f"{size[0]}-{size[1]} px"].append(right)
                marks["all"].append(right)
    found = {name: (sum(values), len(values)) for name, values in marks.items()}
    return found | {"tokens of a page": (tokens, len(test) * BATCH)}


def summary(rows: list[dict[str, tuple[int, int]]]) -> dict[str, object]:
    """Return the share of each size over all seeds with its interval, and of each seed."""
    found: dict[str, object] = {}
    for kind in rows[0]:
        pairs = [row[kind] for row in rows]
        right, count = (sum(column) for column in zip(*pairs, strict=True))
        if kind.startswith("tokens"):
            found[kind] = round(right / count, 1)
            continue
        low, high = wilson(right, count)
        seeds = [round(100 * part / whole, 1) for part, whole in pairs]
        found[kind] = f"{100 * right / count:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {count}, seeds {seeds}"
    return found


def main() -> None:
    """Print one JSON line per arm and seed, and after each seed one per arm over all seeds so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=EXPERIMENTS)
    parser.add_argument("--steps", type=int, default=150, help="of each arm")
    parser.add_argument("--tower-steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=160, help="unseen pages")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = pages(0, "test")
    test = [next(source) for _ in range(arguments.pages // BATCH)]
    rows: dict[tuple[str, str], list[dict[str, tuple[int, int]]]] = {}
    for seed in range(1, arguments.seeds + 1):
        began = time.process_time()
        tower, last = trained_tower(smoke.model(), arguments.tower_steps, seed)
        told = {"seed": seed, "loss of the tower": round(last, 3), "seconds": round(time.process_time() - began, 1)}
        print(json.dumps(told), flush=True)
        for what in arguments.what:
            for arm in EXPERIMENTS[what]:
                began = time.process_time()
                found = run_arm(arm, tower, arguments.steps, seed, test)
                rows.setdefault((what, arm.name), []).append(found)
                shares = {name: round(part / whole, 3) for name, (part, whole) in found.items()}
                told = {"seed": seed, what: arm.name} | shares | {"seconds": round(time.process_time() - began, 1)}
                print(json.dumps(told), flush=True)
        for (what, name), so_far in rows.items():
            print(json.dumps({what: name, "seeds": len(so_far)} | summary(so_far)), flush=True)


if __name__ == "__main__":
    main()
