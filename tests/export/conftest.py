"""A random model folder, small but of the true architecture, and bundles made of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.core.images import Picture
from handlens.export.bundle import export_bundle
from handlens.model.checkpoint import load_model, save_model
from handlens.model.vlm import HandlensModel, build_model
from handlens.train.vocabulary import save_vocabulary, train_vocabulary

SENTENCES = (
    "The total is 23.50 and the tax is 1.90; the cashier doesn't say why.",
    "Die Straße ist größer als der Weg, der über die Brücke führt.",
    "Le café coûte 2,30 € et l'addition s'il vous plaît.",
    "a red square is left of the blue circle\nand above the green one",
    "INVOICE No. 4711\tDATE 2024-05-06\r\nSUM 118.00",
)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_vocabulary(train_vocabulary(SENTENCES * 3, 400), folder / "tokenizer.json")
    vocab_size = train_vocabulary(SENTENCES * 3, 400).get_vocab_size()
    model = build_model(
        HandlensConfig(
            family="nano",
            vision=VisionConfig(width=96, mlp_width=160, num_layers=2, num_heads=3),
            resampler=ResamplerConfig(num_queries=16, width=256, vision_width=96),
            language=LanguageConfig(
                vocab_size=vocab_size, width=256, mlp_width=512, num_layers=2, num_heads=4, num_kv_heads=2,
                max_positions=1024,
            ),
            slicing=SlicingConfig(side_px=112, max_slices=4),
        )
    )  # fmt: skip
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.normal_(1.0 if "norm" in name or "ln_" in name else 0.0, 0.1, generator=draw)
            else:
                # The logits get a deviation of about 3, so that answers vary and near ties are rare.
                gain = {"llm.lm_head.weight": 3.0, "llm.model.embed_tokens.weight": 16.0}.get(name, 1.0)
                weight.normal_(0.0, gain * weight[0].numel() ** -0.5, generator=draw)
    save_model(model, folder, folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="session")
def model(model_folder: Path) -> HandlensModel:
    return load_model(model_folder)


@pytest.fixture(scope="session")
def bundle_of(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("bundles")

    def written(quant: str, vision: str = "fp32") -> Path:
        out = folder / f"{quant}-{vision}"
        return out if out.is_dir() else export_bundle(model_folder, out, quant=quant, vision=vision)

    return written


@pytest.fixture(scope="session")
def pictures() -> list[Picture]:
    draw = np.random.default_rng(0)
    sizes = [(112, 112), (300, 200), (90, 400), (1, 1)]
    return [
        Picture(Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)), f"{width}x{height}")
        for width, height in sizes
    ]
