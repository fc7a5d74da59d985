"""A model and a curriculum of seconds: slices of 112 px, sixteen queries, pictures that are drawn quickly."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from types import SimpleNamespace

import pytest
import torch

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.core.tokenizer import Tokenizer
from handlens.data.generate import generate
from handlens.model.vlm import HandlensModel, build_model
from handlens.train import choose, prepare
from handlens.train.phases import Phase, Recipe
from handlens.train.vocabulary import save_vocabulary, train_vocabulary

QUICK = {"scenes": 0.6, "labels": 0.4}


def texts() -> list[str]:
    """Questions and answers of a few records."""
    draw = random.Random(0)
    records = [generate(draw.choice(list(QUICK)), 1, index, level=0.0) for index in range(60)]
    return [text for record in records for turn in record.turns for text in (turn.question, turn.answer)]


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    save_vocabulary(train_vocabulary(texts(), 400), file)
    return file


@pytest.fixture(scope="session")
def tokenizer(vocabulary: Path) -> Tokenizer:
    return Tokenizer.from_file(vocabulary)


@pytest.fixture(scope="session")
def config(tokenizer: Tokenizer) -> HandlensConfig:
    return HandlensConfig(
        vision=VisionConfig(width=96, mlp_width=128, num_layers=2, num_heads=2),
        resampler=ResamplerConfig(num_queries=16, width=128, vision_width=96),
        language=LanguageConfig(
            vocab_size=tokenizer.vocab_size,
            width=128,
            mlp_width=192,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            tied=True,
        ),
        slicing=SlicingConfig(side_px=112, max_slices=4),
    )


@pytest.fixture
def fresh(config: HandlensConfig) -> Callable[[], HandlensModel]:
    """Return the same untrained model every time."""

    def build() -> HandlensModel:
        torch.manual_seed(11)
        return build_model(config)

    return build


@pytest.fixture(scope="session")
def sft() -> Phase:
    return Phase(
        name="sft", trains=("vision", "resampler", "language"), objective="answers", sides_px=(112,), slicing=True,
        mixture=QUICK, steps=4, rate=2e-3, slices_per_step=6, pictures_per_step=2, warmup_steps=2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def vision(sft: Phase) -> Phase:
    return replace(sft, name="vision", trains=("vision",), objective="reading", steps=2)


@pytest.fixture(scope="session")
def language(sft: Phase) -> Phase:
    return replace(sft, name="language", trains=("language",), objective="text", slicing=False)


@pytest.fixture
def tiny(monkeypatch, config, vision, sft) -> Recipe:
    """A recipe of three short phases, known by the name ``tiny``."""
    warmup = replace(sft, name="warmup", trains=("resampler",), slicing=False, steps=2)
    recipe = Recipe(name="tiny", phases=(vision, warmup, replace(sft, steps=2)))
    module = SimpleNamespace(recipe=lambda: recipe, model=lambda vocab_size: config)
    monkeypatch.setitem(choose.RECIPES, "tiny", module)
    monkeypatch.setattr(prepare, "WARM_START_BATCHES", 3)
    return recipe


@pytest.fixture
def out(tmp_path, vocabulary) -> Path:
    """A run folder whose vocabulary is there already."""
    folder = tmp_path / "run"
    folder.mkdir()
    copyfile(vocabulary, folder / "tokenizer.json")
    return folder
