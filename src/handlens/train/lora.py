"""Small additions to a model: LoRA through peft, and 4-bit rounding while training through torchao.

Boundary: a model in, the same model with more or other layers; ``merge`` gives the official layout back.
"""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from handlens.errors import NeedsExtra, SettingError
from handlens.model.vlm import HandlensModel

TARGETS = r"llm\.model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
GROUP = 32
"""Weights that share a scale in 4-bit rounding: the block of llama.cpp's Q4_0."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """What peft adds."""

    targets: str = TARGETS
    """Regular expression on the whole names of linear layers."""
    saved: tuple[str, ...] = ("resampler",)
    """Modules that learn whole beside it (``modules_to_save`` of peft)."""
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0


def layers_with(model: HandlensModel, lora: Lora) -> list[str]:
    """Return the whole names of the linear layers that get additions; those in a saved module learn whole instead.

    Raises:
        SettingError: the numbers make no sense, the expression is damaged, nothing has such a name, or what is named
            cannot learn beside the rest.
    """
    if lora.rank < 1 or not 0 <= lora.dropout < 1:
        raise SettingError(
            f"--rank is {lora.rank} and --dropout {lora.dropout:g}; a rank of 1 or more and a dropout from 0 to "
            "below 1 are needed"
        )
    modules = dict(model.named_modules())
    # Attention of torch reads the weights of its last layer past the layer, so an addition to it is never asked.
    unasked = {f"{name}.out_proj" for name, module in modules.items() if isinstance(module, nn.MultiheadAttention)}
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear) and name not in unasked]
    try:
        hits = [name for name in linear if re.fullmatch(lora.targets, name)]
    except re.error as cause:
        raise SettingError(f"--targets '{lora.targets}' is no regular expression: {cause}") from None
    if not hits:
        raise SettingError(
            f"--targets '{lora.targets}' fits none of {len(linear)} linear layers; names look like {linear[-1]}"
        )
    for name in lora.saved:
        if not name or name not in modules:
            raise SettingError(f"--save-module '{name}' is no module; for example resampler or llm.model.norm")
    words = model.llm.get_input_embeddings().weight
    if model.llm.get_output_embeddings().weight is words:
        for name in (*hits, *lora.saved):
            inside = modules[name].parameters()
            if any(weight is words for weight in inside):
                raise SettingError(
                    f"'{name}' holds the words that this model both reads and says, and --lora would take the two "
                    "apart; leave it out, or train without --lora"
                )
    hits = [name for name in hits if not any(name.startswith(f"{saved}.") or name == saved for saved in lora.saved)]
    if not hits:
        raise SettingError(
            f"--targets '{lora.targets}' names nothing outside of the modules that learn whole "
            f"({', '.join(lora.saved)}); name other layers, or train without --lora"
        )
    return hits


def add_lora(model: HandlensModel, lora: Lora) -> Any:
    """Put adapters into the model in place and return peft's wrapper around it.

    Raises:
        SettingError: as ``layers_with``.
        NeedsExtra: peft is missing.
    """
    hits = layers_with(model, lora)
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise NeedsExtra("LoRA (peft)", "train") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of tied embeddings also when they are not touched
        return get_peft_model(
            model,
            LoraConfig(
                r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=hits,
                modules_to_save=list(lora.saved) or None,
            ),
        )  # fmt: skip


def save_adapter(wrapped: Any, folder: Path) -> None:
    """Write the adapter alone, as peft reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.save_pretrained(str(folder))


def merge(wrapped: Any) -> HandlensModel:
    """Return the model with its adapters added to its weights."""
    merged = wrapped.merge_and_unload()
    assert isinstance(merged, HandlensModel)
    return merged


def round_while_training(model: HandlensModel) -> int:
    """Let the layers of the language model compute with weights rounded to 4 bits; return how many.

    The weights themselves stay float32 and learn to be rounded well.

    Raises:
        NeedsExtra: torchao is missing.
    """
    try:
        from torchao.quantization import quantize_
        from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig
    except ImportError:
        raise NeedsExtra("4-bit rounding while training (torchao)", "qat") from None
    rounding = IntxFakeQuantizeConfig(
        torch.int4,  # type: ignore[attr-defined]
        group_size=GROUP,
        is_symmetric=True,
    )

    def is_layer(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and "layers." in name and module.in_features % GROUP == 0

    quantize_(model.llm, QATConfig(weight_config=rounding, step="prepare"), filter_fn=is_layer)
    return sum(type(module).__name__.startswith("FakeQuantized") for module in model.llm.modules())


def stop_rounding(model: HandlensModel) -> None:
    """Make plain linear layers of rounding ones; what they learned stays in their weights."""
    for parent in list(model.llm.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.startswith("FakeQuantized"):
                plain = nn.Linear(child.in_features, child.out_features, bias=child.bias is not None)
                plain.weight = child.weight
                if child.bias is not None:
                    plain.bias = child.bias
                setattr(parent, name, plain)
