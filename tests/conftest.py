"""Settings of every test run: shapes are checked, and without torch only device tests are collected.

A device test is one that runs where ``pip install handlens`` is all there is. Its file lies in a folder
of the device half and imports nothing that the base install lacks; it gets the mark ``device``.
"""

import ast
import functools
import importlib.util
import lzma
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

TESTS = Path(__file__).parent
DEVICE_FOLDERS = ("core", "engine", "measure", "eval", "serve", "cli")
HAS_TORCH = importlib.util.find_spec("torch") is not None

if importlib.util.find_spec("beartype") is not None:
    install_import_hook("handlens", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# Tests neither read nor write what the user keeps; a test that needs a cache or a profile says so.
os.environ["HANDLENS_NO_CACHE"] = os.environ["HANDLENS_NO_PROFILE"] = "1"

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=2_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


GOLDEN = TESTS / "golden"
WHOLE_SET = TESTS.parents[1] / "shared" / "golden"
"""All recorded references; where it is missing, the cases under ``tests/golden`` stand for it."""


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a version's recorded reference: checkpoint, pictures and expected values."""

    @functools.cache
    def folder(version: str) -> Path:
        return WHOLE_SET / version if (WHOLE_SET / version).is_dir() else unpack(GOLDEN / version, tmp_path_factory)

    return folder


def unpack(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a folder in which what is compressed is not."""
    folder = tmp_path_factory.mktemp(f"golden-{packed.name}")
    for file in packed.iterdir():
        if file.suffix == ".xz":
            (folder / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
        else:
            shutil.copyfile(file, folder / file.name)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--soak``: run the long forms too."""
    parser.addoption("--soak", action="store_true", help="run the tests marked soak, which take minutes each")


def imports_of(file: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def is_device_file(file: Path) -> bool:
    """True when the tests of this file run without torch."""
    if file.suffix != ".py" or file.relative_to(TESTS).parts[0] not in DEVICE_FOLDERS:
        return False
    beyond = ("torch", "transformers", "safetensors", "onnx", "matplotlib", "pyarrow", "yaml", "pydantic")
    halves = ("handlens.model", "handlens.train", "handlens.data.generate", "handlens.export.onnx")
    return not any(name.split(".")[0] in beyond or name.startswith(halves) for name in imports_of(file))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what cannot be imported here; decides nothing where torch is installed."""
    if HAS_TORCH or TESTS not in collection_path.parents:
        return None
    if collection_path.is_dir():
        return None if collection_path.relative_to(TESTS).parts[0] in DEVICE_FOLDERS else True
    return None if is_device_file(collection_path) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give device tests their mark; leave out the long forms unless they are asked for."""
    if not config.getoption("--soak"):
        long_form = pytest.mark.skip(reason="a long form; pytest --soak runs it")
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(long_form)
    marked: dict[Path, bool] = {}
    for item in items:
        if TESTS not in item.path.parents:
            continue
        if marked.setdefault(item.path, is_device_file(item.path)):
            item.add_marker(pytest.mark.device)
