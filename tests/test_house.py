"""The rules of the house that a machine can check: arrows, installs and words."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "handlens"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {
    ".".join(("handlens", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in sorted(SOURCE.rglob("*.py"))
}
DEVICE_FOLDERS = ("core", "engine", "measure", "eval", "serve", "cli")
DEVICE_MODULES = (
    "handlens", "handlens.answerer", "handlens.config", "handlens.errors", "handlens.families",
    "handlens.align.claims", "handlens.align.judge", "handlens.data.records", "handlens.export.bundle",
)  # fmt: skip
BASE_DEPENDENCIES = {
    "numpy", "pillow", "tokenizers", "onnxruntime", "xllamacpp", "gguf", "pypdfium2", "huggingface-hub",
    "platformdirs", "einops", "jaxtyping", "click", "rich",
}  # fmt: skip
IMPORT_NAMES = {"pillow": "PIL", "huggingface-hub": "huggingface_hub"}


def device_modules() -> list[str]:
    """Every module that has to run on the base install."""
    return [
        name for name in MODULES if name in DEVICE_MODULES or name.partition(".")[2].split(".")[0] in DEVICE_FOLDERS
    ]


def imported_on_load(name: str) -> set[str]:
    """Modules that importing ``name`` imports at once: not inside functions, not for type checkers only."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(MODULES[name].read_text(encoding="utf-8"))]
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, node.module] if node.module else above)
            found.add(origin)
            found.update(f"{origin}.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))
    # Importing a.b.c also imports a and a.b.
    return {".".join(full.split(".")[:end]) for full in found for end in range(1, full.count(".") + 2)}


# ---- arrows ----------------------------------------------------------------------------------------------------------


def test_the_device_half_exists() -> None:
    assert {name.split(".")[1] for name in device_modules() if "." in name} >= {"core", "engine", "cli"}


@pytest.mark.parametrize("name", device_modules())
def test_device_module_imports_only_the_base_install(name: str) -> None:
    allowed = {IMPORT_NAMES.get(package, package) for package in BASE_DEPENDENCIES}
    allowed |= {"handlens", *sys.stdlib_module_names}
    seen, waiting, wrong = set(), [(name, name)], []
    while waiting:
        module, path = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for target in imported_on_load(module):
            if target.split(".")[0] not in allowed:
                wrong.append(f"{path} -> {target}")
            elif target in MODULES:
                waiting.append((target, f"{path} -> {target}"))
    assert not wrong, f"the device half imports what `pip install handlens` does not bring: {wrong}"


def test_importing_the_device_half_loads_no_framework() -> None:
    script = (
        "import importlib, sys\n"
        "heavy = {'torch', 'transformers', 'safetensors', 'onnx', 'matplotlib', 'pyarrow', 'pydantic', 'yaml'}\n"
        f"for name in {device_modules()!r}:\n"
        "    importlib.import_module(name)\n"
        "    loaded = heavy & set(sys.modules)\n"
        "    if loaded: sys.exit(f'{name} loads {sorted(loaded)}')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT / "src")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_module_imports(name: str) -> None:
    importlib.import_module(name)


# ---- what is installed -----------------------------------------------------------------------------------------------


def bare(requirement: str) -> str:
    """Return the normalised package name of a requirement line."""
    return re.split(r"[\[<>=~! ;]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {bare(name): version for name, version in pairs}


def test_base_dependencies_are_exactly_those_decided() -> None:
    assert {bare(line) for line in PROJECT["dependencies"]} == BASE_DEPENDENCIES


def test_the_llama_library_is_one_exact_version() -> None:
    (line,) = [line for line in PROJECT["dependencies"] if bare(line) == "xllamacpp"]
    assert re.fullmatch(r"xllamacpp==[\d.]+", line)
    assert line.removeprefix("xllamacpp==") == constraints()["xllamacpp"]


def test_constraints_pin_every_direct_dependency() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = {bare(line) for line in (*PROJECT["dependencies"], *(line for lines in extras.values() for line in lines))}
    assert asked - {"handlens"} <= set(constraints())


def test_constraints_hold_no_accelerator_and_no_local_build() -> None:
    pins = constraints()
    assert pins["torch"] == "2.13.0"
    assert [name for name, version in pins.items() if "+" in version] == []
    accelerators = re.compile(r"torchvision|torchaudio|triton|nvidia-|cuda-|cupy")
    assert [name for name in pins if accelerators.match(name)] == []


def test_torchvision_is_neither_installed_nor_named() -> None:
    # It installs beside a CPU torch without complaint and then breaks unrelated imports (pytorch/vision 9085).
    assert find_spec("torchvision") is None
    files = [*ROOT.glob("*.t*ml"), *ROOT.glob("*.txt"), *SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    naming = [file.name for file in files if "torchvision" in file.read_text(encoding="utf-8")]
    assert naming == [Path(__file__).name]


def test_version_is_written_once_and_told_alike() -> None:
    assert importlib.import_module("handlens").__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# ---- words -----------------------------------------------------------------------------------------------------------

GLOSSARY = ROOT / "docs" / "glossary.md"
WORDS = (
    "slice overview grid patch visual-token resampler query phase language vision warmup resolution adaptive sft align "
    "recipe run bundle half engine provider claim judge grader pair ledger report fingerprint"
).split()
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "factory"}


def glossary_terms(section: str) -> set[str]:
    """The bold words of one section of the glossary."""
    text = GLOSSARY.read_text(encoding="utf-8")
    part = text.split(f"## {section}", 1)[1].split("\n## ", 1)[0]
    return {
        word.strip().lower() for words in re.findall(r"^\| (.+?) \|", part, re.MULTILINE) for word in words.split(",")
    }


def test_glossary_has_every_word_of_the_design() -> None:
    assert {word.replace("-", " ") for word in WORDS} <= glossary_terms("Words")


def test_every_axis_name_in_a_signature_is_in_the_glossary() -> None:
    annotation = re.compile(
        r"\b(?:Float|Float32|Float16|BFloat16|Int|Int32|Int64|UInt8|Bool|Shaped|Num)\[[^\"\[\]]*(?:\[[^\]]*\])?[^\"\[\]]*\"([^\"]*)\""
    )
    known, unknown = glossary_terms("Axes"), {}
    for name, file in MODULES.items():
        for shape in annotation.findall(file.read_text(encoding="utf-8")):
            for axis in re.sub(r"\{[^}]*\}", "", shape).split():
                word = axis.lstrip("*#?_")
                if word and word not in {"..."} and not re.fullmatch(r"[\d+*/()-]+", word) and word not in known:
                    unknown.setdefault(word, name)
    assert not unknown, f"axes that docs/glossary.md does not explain: {unknown}"


def test_one_word_for_one_idea() -> None:
    other_words = re.compile(r"(?:\b|_)(?:tiles?|tiling|thumbnails?)(?:\b|_)", re.IGNORECASE)
    documents = [file for file in (ROOT / "docs").rglob("*.md") if file != GLOSSARY] + [ROOT / "README.md"]
    wrong = []
    # In a generator a tile is a piece of paper texture, which is another idea.
    sources = [file for name, file in MODULES.items() if not name.startswith("handlens.data.generate")]
    for file in [*sources, *documents]:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if other_words.search(line):
                wrong.append(f"{file.relative_to(ROOT)}:{number}")
    assert not wrong, f"say slice and overview: {wrong}"


def test_names_say_something() -> None:
    folders = {folder.name for folder in SOURCE.rglob("*") if folder.is_dir()}
    assert not EMPTY_NAMES & ({file.stem for file in MODULES.values()} | folders)


@pytest.mark.parametrize("name", MODULES)
def test_module_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8")))


# ---- shapes ----------------------------------------------------------------------------------------------------------


def test_a_wrong_shape_is_an_error_in_every_test_run() -> None:
    from handlens.core.patches import to_patches

    with pytest.raises(TypeCheckError, match=r"3 height width"):
        to_patches(np.zeros((28, 28), dtype=np.float32))
