"""Averages over tasks: OpenCompass of April 2024 (11 benchmarks) and of May 2024 on (8).

Boundary: names only; each part is run as itself, and MME and OCRBench are brought to 0..100 first.
"""

from handlens.eval.task import SHIPPED, Item, Mark, Recipe, Task, accuracy

ELEVEN = (
    "mmbench-en",
    "mmbench-cn",
    "mmstar",
    "mme",
    "mmmu",
    "mathvista",
    "hallusionbench",
    "ai2d",
    "ocrbench",
    "seedbench-img",
    "mm-vet",
    "llava-bench",
)
"""Twelve columns; the two languages of MMBench count as one of the eleven benchmarks, yet each enters the mean."""
EIGHT = ("mmbench-en", "mmstar", "mmmu", "mathvista", "ocrbench", "ai2d", "hallusionbench", "mm-vet")


def no_mark(item: Item, answer: str) -> Mark:
    """Refuse: an average asks nothing, so nothing is marked."""
    raise AssertionError(f"an average has no item to mark, but was given {item.id!r}")


def _average(name: str, title: str, parts: tuple[str, ...], notes: str) -> Task:
    return Task(
        name=name,
        title=title,
        metric="mean of the parts, %",
        needs=f"the data of {', '.join(parts)} in --data",
        mark=no_mark,
        total=accuracy,
        recipes=(Recipe(name=SHIPPED),),
        parts=parts,
        notes=notes,
    )


TASKS = (
    _average("opencompass-11", "OpenCompass, April 2024", ELEVEN, "MME is divided by 28, OCRBench by 10"),
    _average(
        "opencompass-8",
        "OpenCompass, from May 2024",
        EIGHT,
        "the board uses MMBench V1.1, the mean of its English and Chinese test; this takes the English file given",
    ),
)
