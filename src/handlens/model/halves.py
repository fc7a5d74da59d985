"""The torch model as two halves, so that it sees, answers and scores through the same code as a device.

Boundary: numpy at the outside, torch inside; ``engine/answerer.py`` drives the halves.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from handlens.answerer import ModelInfo, Seen, SeenPicture
from handlens.core.chat import Chat
from handlens.core.images import Picture
from handlens.core.prompt import Prompt
from handlens.core.tokenizer import AnyTokenizer
from handlens.engine.answerer import Lens, times_of
from handlens.engine.inputs import slice_inputs
from handlens.engine.room import Room
from handlens.errors import ModelError
from handlens.families import family_named
from handlens.model.checkpoint import load_model
from handlens.model.stages import Stages
from handlens.model.vlm import HandlensModel
from handlens.verify.side import find_tokenizer

FRAMES_PER_GROUP = 3
"""Frames of a clip that share one block of visual tokens, as the released code packs long videos (4.5; it allows 6)."""


class TorchVision:
    """Vision tower and resampler, one slice at a time."""

    def __init__(self, model: HandlensModel) -> None:
        self.model = model
        self.config = model.config.typed()

    @torch.inference_mode()
    def encode(self, pixels: Float32[np.ndarray, "3 height width"]) -> Float32[np.ndarray, "queries dim"]:
        """Return the visual tokens of one slice."""
        like = _like(self.model)
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
        self._cache = self.model.new_cache()

    @torch.inference_mode()
    def prefill(self, prompt: Prompt, visual_tokens: Float32[np.ndarray, "visual dim"]) -> Float32[np.ndarray, "vocab"]:
        """Return the logits after the last prompt token; whatever came before is forgotten."""
        device = _like(self.model).device
        ids = torch.from_numpy(prompt.ids)[None].to(device)
        is_visual = torch.from_numpy(prompt.is_visual)[None].to(device)
        visual = torch.from_numpy(visual_tokens)[None].to(device) if prompt.num_visual else None
        self._cache = self.model.new_cache()
        embeddings = self.model.join(ids, is_visual, visual)
        return self._next_logits(inputs_embeds=embeddings)[0]

    @torch.inference_mode()
    def step(self, ids: Sequence[int], parents: Sequence[int]) -> Float32[np.ndarray, "beams vocab"]:
        """Return the logits after ``ids``; beam b continues the earlier beam ``parents[b]``."""
        device = _like(self.model).device
        self._cache.reorder_cache(torch.tensor(parents, device=device))
        return self._next_logits(input_ids=torch.tensor(ids, device=device)[:, None])

    def close(self) -> None:
        """Forget the conversation; the model belongs to the caller."""
        self._cache = self.model.new_cache()

    def _next_logits(self, **inputs: torch.Tensor) -> Float32[np.ndarray, "beams vocab"]:
        out = self.model.llm(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].float().cpu().numpy()


def torch_lens(model: HandlensModel, tokenizer: AnyTokenizer, *, name: str = "model") -> Lens:
    """Return the torch model as an ``Answerer``."""
    config = model.config.typed()
    info = ModelInfo(
        name=name,
        family=config.family,
        engine="torch",
        num_queries=config.resampler.num_queries,
        side_px=config.slicing.side_px,
        max_slices=config.slicing.max_slices,
        quantisation=str(_like(model).dtype).removeprefix("torch."),
    )

    def open_language(_: Room) -> TorchLanguage:
        return TorchLanguage(model)

    family = family_named(config.family)
    # Most families encode slices alone. Those of 2.5 know of each other; 1.0, 2.0 and 4.6 need their grids.
    kind = Lens if family.tower == "siglip" and not family.attends_padding else StagedLens
    kind = PackingLens if family.groups_frames else kind
    lens = kind(
        info,
        family,
        tokenizer,
        lambda: TorchVision(model),
        open_language,
        max_positions=config.language.max_positions,
    )
    if isinstance(lens, StagedLens | PackingLens):
        lens.stages = Stages.of(model, tokenizer)
    return lens


class StagedLens(Lens):
    """A torch model whose slices are encoded together, by the rules of its family."""

    stages: Stages

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        """Encode pictures once.

        Raises:
            ImageError: a picture has no pixels.
            SettingError: ``max_slices`` is below one.
        """
        plans = [self.stages.plan(*picture.image.size, max_slices) for picture in images]
        parts = [self.stages.pixels(picture.image, plan) for picture, plan in zip(images, plans, strict=True)]
        began = time.perf_counter()
        tokens = self.stages.visual_tokens([slice_ for part in parts for slice_ in part]) if images else []
        pictures, done = [], 0
        for picture, plan in zip(images, plans, strict=True):
            # Slices of 4.6 differ in length: they are laid end to end.
            rows = np.concatenate(tokens[done : done + plan.num_slices])[None]
            pictures.append(SeenPicture(name=picture.name, plan=plan, visual_tokens=rows, times=times_of(picture)))
            done += plan.num_slices
        return Seen(pictures=tuple(pictures), seconds={"encode": time.perf_counter() - began})

    def prompt(self, chat: Chat, seen: Seen) -> Prompt:
        """Return the token ids that the language half reads.

        Raises:
            SettingError: the chat does not show the pictures.
        """
        return self.stages.prompt(chat, seen.plans, use_image_id=self.image_ids(seen))

    def _stops(self) -> set[int]:
        if not self.stages.stop_ids:
            raise ModelError(
                f"the tokenizer has none of the stops of family {self.family.name} "
                f"({', '.join(self.family.template.stops)}); this tokenizer belongs to another model"
            )
        return self.stages.stop_ids


class PackingLens(Lens):
    """A torch model that packs the frames of a clip into groups, each of one block of visual tokens (4.5)."""

    stages: Stages
    frames_per_group: int = FRAMES_PER_GROUP

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        """Encode pictures once. A group of frames is one entry; frames are packed unless they may be sliced.

        Raises:
            ImageError: a picture has no pixels.
            SettingError: ``max_slices`` is below one.
        """
        if max_slices not in (None, 1):
            return super().see(images, max_slices=max_slices)
        pictures: list[SeenPicture] = []
        seconds: dict[str, float] = {}
        for group in group_frames(images, self.frames_per_group):
            if group[0].seconds is None:
                seen = super().see(group, max_slices=max_slices)
                pictures += seen.pictures
                seconds = {name: seconds.get(name, 0.0) + spent for name, spent in seen.seconds.items()}
                continue
            began = time.perf_counter()
            pictures.append(self._see_group(group))
            seconds["encode"] = seconds.get("encode", 0.0) + time.perf_counter() - began
        return Seen(pictures=tuple(pictures), seconds=seconds)

    def _see_group(self, frames: Sequence[Picture]) -> SeenPicture:
        plans = [self.stages.plan(*frame.image.size, 1) for frame in frames]
        pixels = [self.stages.pixels(frame.image, plan)[0] for frame, plan in zip(frames, plans, strict=True)]
        times = tuple(float(frame.seconds or 0.0) for frame in frames)
        (tokens,) = self.stages.visual_tokens(pixels, [[round(10 * at) for at in times]])
        name = frames[0].name if len(frames) == 1 else f"{frames[0].name} to {frames[-1].name}"
        return SeenPicture(name=name, plan=plans[0], visual_tokens=tokens[None], times=times)


def group_frames(images: Sequence[Picture], most: int) -> list[list[Picture]]:
    """Return runs of at most ``most`` frames of one clip; a still picture is alone.

    A frame that is not later than the one before it begins another clip.
    """
    groups: list[list[Picture]] = []
    for picture in images:
        last = groups[-1][-1].seconds if groups else None
        follows = last is not None and picture.seconds is not None and picture.seconds > last
        if follows and len(groups[-1]) < most:
            groups[-1].append(picture)
        else:
            groups.append([picture])
    return groups


def _like(model: HandlensModel) -> torch.Tensor:
    """A weight, of whose type and place everything else is."""
    return model.llm.get_input_embeddings().weight


def open_torch(folder: Path | str) -> Lens:
    """Return a model folder as an ``Answerer``.

    Raises:
        ModelError: the folder is not whole.
    """
    folder = Path(folder)
    model = load_model(folder)
    return torch_lens(model, find_tokenizer(folder, None), name=folder.resolve().name)
