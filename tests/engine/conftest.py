"""A language model of two layers with random weights, as numpy arrays and as GGUF files; no torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from handlens.config import LanguageConfig
from handlens.core.tokenizer import Tokenizer
from handlens.export.gguf import write_gguf
from handlens.train.vocabulary import save_vocabulary, train_vocabulary

SENTENCES = (
    "The total is 23.50 and the tax is 1.90; the cashier doesn't say why.",
    "Die Straße ist größer als der Weg, der über die Brücke führt.",
    "Le café coûte 2,30 € et l'addition s'il vous plaît.",
    "a red square is left of the blue circle\nand above the green one",
    "INVOICE No. 4711\tDATE 2024-05-06\r\nSUM 118.00",
)


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    save_vocabulary(train_vocabulary(SENTENCES * 3, 400), file)
    return file


@pytest.fixture(scope="session")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer.from_file(tokenizer_file)


@pytest.fixture(scope="session")
def shape(tokenizer: Tokenizer) -> LanguageConfig:
    return LanguageConfig(
        vocab_size=tokenizer.vocab_size, width=256, mlp_width=512, num_layers=2, num_heads=4, num_kv_heads=2,
        max_positions=1024,
    )  # fmt: skip


@pytest.fixture(scope="session")
def weights(shape: LanguageConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    kv_width = shape.num_kv_heads * shape.head_dim

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)

    def scale() -> np.ndarray:
        return rng.uniform(0.5, 1.5, shape.width).astype(np.float32)

    named = {
        "model.embed_tokens.weight": 16 * matrix(shape.vocab_size, shape.width),
        "model.norm.weight": scale(),
        "lm_head.weight": 3 * matrix(shape.vocab_size, shape.width),
    }
    for layer in range(shape.num_layers):
        part = f"model.layers.{layer}."
        named |= {
            part + "input_layernorm.weight": scale(),
            part + "post_attention_layernorm.weight": scale(),
            part + "self_attn.q_proj.weight": 2 * matrix(shape.width, shape.width),
            part + "self_attn.k_proj.weight": 2 * matrix(kv_width, shape.width),
            part + "self_attn.v_proj.weight": matrix(kv_width, shape.width),
            part + "self_attn.o_proj.weight": matrix(shape.width, shape.width),
            part + "mlp.gate_proj.weight": matrix(shape.mlp_width, shape.width),
            part + "mlp.up_proj.weight": matrix(shape.mlp_width, shape.width),
            part + "mlp.down_proj.weight": matrix(shape.width, shape.mlp_width),
        }
    return named


@pytest.fixture(scope="session")
def gguf_file(
    weights: dict[str, np.ndarray],
    shape: LanguageConfig,
    tokenizer_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("language")

    def written(quant: str) -> Path:
        file = folder / f"{quant}.gguf"
        return file if file.is_file() else write_gguf(weights, shape, tokenizer_file, file, quant=quant)

    return written
