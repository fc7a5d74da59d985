import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from handlens.config import LanguageConfig
from handlens.core.prompt import Prompt
from handlens.core.tokenizer import SPECIAL_TOKENS, Tokenizer
from handlens.engine import llama
from handlens.engine.language import LlamaCppLanguage
from handlens.engine.room import Room
from handlens.errors import ModelError, SettingError
from handlens.export.gguf import interleave, read_vocabulary, write_gguf
from handlens.model.halves import TorchLanguage
from handlens.model.vlm import HandlensModel


def language_weights(model: HandlensModel) -> dict[str, np.ndarray]:
    return {name: values.float().numpy() for name, values in model.llm.state_dict().items()}


@pytest.fixture(scope="module")
def file(model: HandlensModel, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "language-F32.gguf"
    return write_gguf(
        language_weights(model), model.config.typed().language, model_folder / "tokenizer.json", out, quant="F32"
    )


@pytest.fixture
def prompt() -> Prompt:
    is_visual = np.array([False] * 4 + [True] * 32 + [False] * 9)
    ids = np.random.default_rng(0).integers(16, 280, len(is_visual))
    return Prompt(ids=np.where(is_visual, 0, ids), is_visual=is_visual)


@pytest.mark.parametrize("tied", [False, True])
def test_logits_and_greedy_tokens_equal_torch(
    tied: bool, model: HandlensModel, model_folder: Path, prompt: Prompt, tmp_path: Path
) -> None:
    config, weights = model.config.typed().language, language_weights(model)
    reference = TorchLanguage(model)
    if tied:
        config = LanguageConfig(**{**vars(config), "tied": True})
        head = model.llm.lm_head.weight.data
        model.llm.lm_head.weight.data = model.llm.model.embed_tokens.weight.data / 8
        weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"] / 8
        table = model.llm.model.embed_tokens.weight.data
        model.llm.model.embed_tokens.weight.data = table / 8
    try:
        out = write_gguf(weights, config, model_folder / "tokenizer.json", tmp_path / "m.gguf", quant="F32")
        half = LlamaCppLanguage(out, Room(prompt=len(prompt.ids), answer=40), threads=1)
        visual = np.random.default_rng(1).normal(size=(prompt.num_visual, config.width)).astype(np.float32)
        ours, theirs = half.prefill(prompt, visual), reference.prefill(prompt, visual)
        likeliest = set()
        for token in np.random.default_rng(2).integers(16, 280, 32).tolist():
            np.testing.assert_allclose(ours, theirs, atol=1e-3)
            assert ours.argmax() == theirs.argmax()
            likeliest.add(int(theirs.argmax()))
            ours, theirs = half.step([token], [0])[0], reference.step([token], [0])[0]
        assert len(likeliest) > 10, "one answer for every context would prove little"
    finally:
        if tied:
            model.llm.lm_head.weight.data, model.llm.model.embed_tokens.weight.data = head, table


# ---- types -----------------------------------------------------------------------------------------------------------


def stored_types(weights: dict, config: LanguageConfig, tokenizer_file: Path, out: Path, quant: str) -> dict[str, str]:
    write_gguf(weights, config, tokenizer_file, out, quant=quant)
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(out).tensors}


def test_q4_k_m_spends_bits_where_llama_cpp_does(model: HandlensModel, model_folder: Path, tmp_path: Path) -> None:
    config = model.config.typed().language
    types = stored_types(language_weights(model), config, model_folder / "tokenizer.json", tmp_path / "a", "Q4_K_M")
    # Two layers: 2 // 8 = 0, so layer 0 is no early one; 7 * 2 // 8 = 1, so layer 1 is a late one.
    assert types["blk.0.attn_v.weight"] == types["blk.0.ffn_down.weight"] == "Q4_K"
    assert types["blk.1.attn_v.weight"] == types["blk.1.ffn_down.weight"] == "Q6_K"
    assert types["output.weight"] == "Q6_K" and types["token_embd.weight"] == "Q4_K"
    assert {types[f"blk.0.{name}.weight"] for name in ("attn_q", "attn_k", "attn_output", "ffn_up", "ffn_gate")} == {
        "Q4_K"
    }
    assert types["blk.0.attn_norm.weight"] == types["output_norm.weight"] == "F32"


def test_rows_that_do_not_fill_blocks_fall_back_and_run(
    model: HandlensModel, model_folder: Path, tmp_path: Path
) -> None:
    config = LanguageConfig(**{**vars(model.config.typed().language), "mlp_width": 480})
    weights = {
        name: values[:480]
        if "gate_proj" in name or "up_proj" in name
        else values[:, :480]
        if "down_proj" in name
        else values
        for name, values in language_weights(model).items()
    }
    types = stored_types(weights, config, model_folder / "tokenizer.json", tmp_path / "a.gguf", "Q4_K_M")
    assert types["blk.0.ffn_down.weight"] == "Q5_0" and types["blk.1.ffn_down.weight"] == "Q8_0"
    half = LlamaCppLanguage(tmp_path / "a.gguf", Room(prompt=3, answer=1), threads=1)
    nothing = np.zeros((0, 256), dtype=np.float32)
    logits = half.prefill(Prompt(ids=np.arange(20, 23), is_visual=np.zeros(3, dtype=bool)), nothing)
    assert np.isfinite(logits).all()


def test_interleaving_pairs_channel_i_with_i_plus_half() -> None:
    # Two heads of four channels: (0 1 | 2 3) becomes (0 2 | 1 3), and the same for the second head.
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert interleave(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_unknown_types_are_refused(model: HandlensModel, model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="unknown quantisation 'Q4_K'; did you mean 'Q4_K_M'"):
        write_gguf({}, model.config.typed().language, model_folder / "tokenizer.json", tmp_path / "a", quant="Q4_K")


# ---- vocabulary ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(file: Path) -> Iterator[int]:
    lib = llama.library()
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = lib.llama_model_load_from_file(str(file).encode(), params)
    yield model
    lib.llama_model_free(model)


def same_ids(text: str, loaded: int, model_folder: Path) -> None:
    ours = Tokenizer.from_file(model_folder / "tokenizer.json").encode(text).tolist()
    assert llama.tokenise(loaded, text) == ours, repr(text)


@given(text=st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), max_codepoint=0x24F), max_size=60))
@example(text="the cashier doesn't say; DON'T! it's 23.50\n\n\n\t  x  \r\n 'll")
@example(text="a  b   c    \n\n  \n\t\td")
@example(text="<|im_start|>user\n<image><unk><unk></image>\nWhat?<|im_end|>\n<|im_start|>assistant\n")
@example(text="größer œuvre café 1234567 ½ €5 «x» …—")
@example(text=" 漢字 かな 한글 кириллица ελληνικά עברית العربية हिन्दी 🙂👍🏽 é")
@example(text="".join(SPECIAL_TOKENS))
def test_ids_equal_llama_cpp(text: str, loaded: int, model_folder: Path) -> None:
    same_ids(text, loaded, model_folder)


PIECES = (
    "the", " total", "'s", "'S", "\n", " ", "  ", "12", "345", ".", "€", "Stra", "ße", "x", "Ω", "\t", "\r\n",
    "<image>", "<", "|im_end|>", "<|im_end|>",
)  # fmt: skip


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=20))
def test_ids_equal_llama_cpp_on_pieces_that_meet(pieces: list[str], loaded: int, model_folder: Path) -> None:
    same_ids("".join(pieces), loaded, model_folder)


def test_special_tokens_are_control_and_nothing_is_added(file: Path) -> None:
    fields = gguf.GGUFReader(file).fields
    types = fields["tokenizer.ggml.token_type"].contents()
    assert types[: len(SPECIAL_TOKENS)] == [gguf.TokenType.CONTROL] * len(SPECIAL_TOKENS)
    assert set(types[len(SPECIAL_TOKENS) :]) == {gguf.TokenType.NORMAL}
    assert fields["tokenizer.ggml.eos_token_id"].contents() == SPECIAL_TOKENS.index("<|im_end|>")
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    assert fields["tokenizer.ggml.pre"].contents() == "llama-bpe"


def changed(model_folder: Path, tmp_path: Path, change: object) -> Path:
    fields = json.loads((model_folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(fields)  # type: ignore[operator]
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(fields), encoding="utf-8")
    return file


def test_a_vocabulary_of_another_size_is_refused(model: HandlensModel, model_folder: Path, tmp_path: Path) -> None:
    weights = language_weights(model)
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:-1]
    count = model.config.typed().language.vocab_size
    with pytest.raises(
        ModelError,
        match=rf"token_embd.weight comes with shape \[{count - 1}, 256\]; config.json needs \[{count}, 256\]",
    ):
        write_gguf(weights, model.config.typed().language, model_folder / "tokenizer.json", tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())


def test_another_word_rule_is_refused(model_folder: Path, tmp_path: Path) -> None:
    def drop(fields: dict) -> None:
        fields["pre_tokenizer"]["pretokenizers"].pop(0)

    with pytest.raises(ModelError, match="does not split words as 'llama-bpe' does"):
        read_vocabulary(changed(model_folder, tmp_path, drop))


def test_gaps_between_ids_are_refused(model_folder: Path, tmp_path: Path) -> None:
    def shift(fields: dict) -> None:
        last = max(fields["model"]["vocab"], key=fields["model"]["vocab"].get)
        fields["model"]["vocab"][last] += 5
        fields["model"]["ignore_merges"] = True

    with pytest.raises(ModelError, match=r"tokens but its ids are not 0 to"):
        read_vocabulary(changed(model_folder, tmp_path, shift))


def test_a_token_that_merging_does_not_reach_is_refused(model_folder: Path, tmp_path: Path) -> None:
    def orphan(fields: dict) -> None:
        fields["model"]["vocab"]["qzx"] = len(fields["model"]["vocab"])

    with pytest.raises(
        ModelError, match=r"token 'qzx' is read as \['q', 'z', 'x'\] here and as one token by llama.cpp"
    ):
        read_vocabulary(changed(model_folder, tmp_path, orphan))


def test_bf16_weights_of_the_folder_survive_exactly(model: HandlensModel, model_folder: Path, tmp_path: Path) -> None:
    weights = {
        name: torch.from_numpy(values).bfloat16().float().numpy() for name, values in language_weights(model).items()
    }
    out = write_gguf(
        weights, model.config.typed().language, model_folder / "tokenizer.json", tmp_path / "a", quant="BF16"
    )
    tensor = next(part for part in gguf.GGUFReader(out).tensors if part.name == "output.weight")
    back = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    np.testing.assert_array_equal(back, weights["lm_head.weight"])
