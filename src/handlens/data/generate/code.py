"""Small pieces of program text in three languages.

Boundary: text only; names are words of the split or made up.
"""

from collections.abc import Callable
from random import Random

from handlens.data.generate.language import Language

KEYWORDS = frozenset(
    "def return for in if else while import from class function const let var int void print range len not and or "
    "True False None true false null new public static struct".split()
)


def write_code(rng: Random, english: Language, split: str) -> tuple[str, list[str]]:
    """Return the ending of the file's name and 3 to 9 lines; some are empty."""
    ending, way = rng.choice((("py", _python), ("js", _script), ("c", _plain_c)))
    return ending, way(rng, lambda: _name(rng, english, split))


def _name(rng: Random, english: Language, split: str) -> str:
    name = rng.choice(english.pool(rng.choice(("food", "product", "office")), split))
    return name if rng.random() < 0.6 else f"{name}_{rng.choice('abcnxyk')}{rng.randint(0, 9)}"


def _value(rng: Random) -> str:
    text = f'"{rng.choice("ABCXYZ")}{rng.randint(1, 99)}"'
    return rng.choice((str(rng.randint(0, 999)), f"{rng.randint(0, 99)}.{rng.randint(0, 9)}", text))


def _python(rng: Random, name: Callable[[], str]) -> list[str]:
    a, b, f = name(), name(), name()
    out = [f"{name()} = {_value(rng)}", ""] if rng.random() < 0.5 else []
    out += [f"def {f}({a}):", f"    {b} = {rng.randint(0, 99)}"]
    if rng.random() < 0.6:
        out += [f"    for i in range({rng.randint(2, 50)}):", f"        {b} += {a} * {rng.randint(2, 9)}"]
    else:
        out += [f"    if {a} > {rng.randint(1, 99)}:", f"        {b} = {_value(rng)}"]
    out.append(f"    return {b}")
    return out + ([f"print({f}({rng.randint(1, 99)}))"] if rng.random() < 0.6 else [])


def _script(rng: Random, name: Callable[[], str]) -> list[str]:
    a, b, f = name(), name(), name()
    out = [f"const {a} = {_value(rng)};", f"let {b} = [{', '.join(str(rng.randint(0, 99)) for _ in range(3))}];"]
    if rng.random() < 0.6:
        out += ["", f"function {f}({a}) {{", f"  return {a} + {rng.randint(1, 99)};", "}"]
    return [*out, f"{b}.push({rng.randint(0, 99)});"]


def _plain_c(rng: Random, name: Callable[[], str]) -> list[str]:
    a, b, f = name(), name(), name()
    out = [f"int {f}(int {a}) {{", f"    int {b} = {rng.randint(0, 99)};", f"    while ({a} > {rng.randint(0, 9)}) {{"]
    return [*out, f"        {b} += {a};", f"        {a} -= {rng.randint(1, 5)};", "    }", f"    return {b};", "}"]
