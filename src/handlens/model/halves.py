"""The torch model as two halves, so that it sees, answers and scores through the same code as a device.

Boundary: numpy at the outside, torch inside; ``engine/answerer.py`` drives the halves.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from transformers import DynamicCache

from handlens.answerer import ModelInfo
from handlens.core.prompt import Prompt
from handlens.core.tokenizer import Tokenizer
from handlens.engine.answerer import Lens
from handlens.engine.inputs import slice_inputs
from handlens.engine.room import Room
from handlens.families import family_named
from handlens.model.checkpoint import load_model
from handlens.model.vlm import HandlensModel


class TorchVision:
    """Vision tower and resampler, one slice at a time."""

    def __init__(self, model: HandlensModel) -> None:
        self.model = model
        self.config = model.config.typed()

    @torch.inference_mode()
    def encode(self, pixels: Float32[np.ndarray, "3 height width"]) -> Float32[np.ndarray, "queries dim"]:
        """Return the visual tokens of one slice."""
        like = self.model.resampler.query
        patches, positions, keys = (
            torch.from_numpy(array)[None].to(like.device) for array in slice_inputs(pixels, self.config)
        )
        seen = self.model.vpm(patches.to(like.dtype), positions)
        return self.model.resampler(seen, keys.to(like.dtype))[0].float().cpu().numpy()

    def close(self) -> None:
        """Nothing to release: the model belongs to the caller."""


class TorchLanguage:
    """The language model with its cache of keys and values."""

    def __init__(self, model: HandlensModel) -> None:
        self.model = model
        self._cache = DynamicCache()

    @torch.inference_mode()
    def prefill(self, prompt: Prompt, visual_tokens: Float32[np.ndarray, "visual dim"]) -> Float32[np.ndarray, "vocab"]:
        """Return the logits after the last prompt token; whatever came before is forgotten."""
        device = self.model.resampler.query.device
        ids = torch.from_numpy(prompt.ids)[None].to(device)
        is_visual = torch.from_numpy(prompt.is_visual)[None].to(device)
        visual = torch.from_numpy(visual_tokens)[None].to(device) if prompt.num_visual else None
        self._cache = DynamicCache()
        embeddings = self.model.join(ids, is_visual, visual)
        return self._next_logits(inputs_embeds=embeddings)[0]

    @torch.inference_mode()
    def step(self, ids: Sequence[int], parents: Sequence[int]) -> Float32[np.ndarray, "beams vocab"]:
        """Return the logits after ``ids``; beam b continues the earlier beam ``parents[b]``."""
        device = self.model.resampler.query.device
        self._cache.reorder_cache(torch.tensor(parents, device=device))
        return self._next_logits(input_ids=torch.tensor(ids, device=device)[:, None])

    def close(self) -> None:
        """Forget the conversation; the model belongs to the caller."""
        self._cache = DynamicCache()

    def _next_logits(self, **inputs: torch.Tensor) -> Float32[np.ndarray, "beams vocab"]:
        out = self.model.llm(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].float().cpu().numpy()


def torch_lens(model: HandlensModel, tokenizer: Tokenizer, *, name: str = "model") -> Lens:
    """Return the torch model as an ``Answerer``."""
    config = model.config.typed()
    info = ModelInfo(
        name=name,
        family=config.family,
        engine="torch",
        num_queries=config.resampler.num_queries,
        side_px=config.slicing.side_px,
        max_slices=config.slicing.max_slices,
        quantisation=str(model.resampler.query.dtype).removeprefix("torch."),
    )

    def open_language(_: Room) -> TorchLanguage:
        return TorchLanguage(model)

    return Lens(
        info,
        family_named(config.family),
        tokenizer,
        lambda: TorchVision(model),
        open_language,
        max_positions=config.language.max_positions,
    )


def open_torch(folder: Path | str) -> Lens:
    """Return a model folder as an ``Answerer``.

    Raises:
        ModelError: the folder is not whole.
    """
    folder = Path(folder)
    model = load_model(folder)
    return torch_lens(model, Tokenizer.from_file(folder / "tokenizer.json"), name=folder.resolve().name)
