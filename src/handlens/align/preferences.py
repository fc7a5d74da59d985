"""Pairs on their way into training: one picture, two answers, seen once.

Boundary: pairs in, batches of ``train/feed.py`` out that know their own loss; so pairs run on the loop of every phase
and survive what it survives.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from handlens.align.asks import Ask
from handlens.align.dpo import Dpo, preference_loss, segment_weights, word_logprobs
from handlens.align.pairs import Pair
from handlens.config import HandlensConfig
from handlens.core.chat import ask
from handlens.core.patches import to_patches
from handlens.core.prompt import build_prompt
from handlens.core.slicing import SlicePlan, cut, plan_slices
from handlens.core.tokenizer import Tokenizer
from handlens.errors import DataError, HandlensError
from handlens.families import family_named
from handlens.model.vlm import HandlensModel
from handlens.train.feed import IGNORED, Batch, OwnLoss, Sample, pad_slices
from handlens.train.phases import Phase

MOST_KEPT = 2_000_000_000
"""Bytes of visual tokens that are kept where the tower stays as it is: 30,000 slices of nano."""


@dataclass(frozen=True, kw_only=True)
class PairSample(Sample):
    """One picture with two conversations, the preferred one first; ``ids`` holds both, end to end."""

    lengths: tuple[int, int]
    weights: Float32[np.ndarray, "tokens"]
    """How much each target counts."""
    visual: Float32[np.ndarray, "slices queries dim"] | None = None
    """Visual tokens where they are known already; ``patches`` is empty then."""
    reference: Float32[np.ndarray, "tokens"]
    """Log-probability of each target before the first step, 0 elsewhere; NaN where none is stored."""


@dataclass(frozen=True, kw_only=True)
class PairBatch(Batch, OwnLoss):
    """Pairs packed end to end: preferred, rejected, preferred, rejected ..."""

    order: Int64[Tensor, "slices"]
    """Number of the slice that fills each block of visual places: every slice stands in two conversations."""
    weights: Float[Tensor, "tokens"]
    reference: Float[Tensor, "tokens"]
    visual: Float[Tensor, "_ queries dim"] | None = None
    """Visual tokens of every slice where they are known already; ``slices`` is None then."""
    how: Dpo

    @property
    def divisor(self) -> int:
        """Pairs: the loss of a step is their mean."""
        return len(self.lengths) // 2

    def to(self, device: torch.device) -> "PairBatch":
        """Return the batch with its tensors on a device."""
        if self.ids.device == device:
            return self
        moved = super().to(device)
        assert isinstance(moved, PairBatch)
        return replace(
            moved,
            order=self.order.to(device),
            weights=self.weights.to(device),
            reference=self.reference.to(device),
            visual=None if self.visual is None else self.visual.to(device),
        )

    def loss(self, model: HandlensModel, divisor: float) -> tuple[Tensor, dict[str, float]]:
        """Return this batch's part of the loss of a step over ``divisor`` pairs, and what it says of the pairs.

        The vision tower and the resampler run once for both answers.
        """
        logprobs = pair_logprobs(model, self)
        reference = self.reference[1:][self.targets[1:] != IGNORED]
        if self.how.reference == "adapter":
            with torch.no_grad(), adapters_off(model):
                reference = pair_logprobs(model, self).detach()
        weights = self.weights[1:][self.targets[1:] != IGNORED]
        policy, before, sizes = (self._sums(value) for value in (logprobs * weights, reference * weights, weights))
        losses = preference_loss(policy, before, sizes, self.how)
        total = losses.sum() / max(divisor, 1)
        scores = {"preference": float(losses.detach().mean())}
        if self.how.sft:
            chosen = self._owners() % 2 == 0
            told = -logprobs[chosen].mean()
            # A mean over the tokens of the batch, as in TRL; several batches count by their pairs.
            total = total + self.how.sft * told * self.divisor / max(divisor, 1)
            scores["sft"] = float(told.detach())
        rewards = (self.how.beta * (policy - before)).detach()
        scores |= {
            "right": float((rewards[0] > rewards[1]).float().mean()),
            "margin": float((rewards[0] - rewards[1]).mean()),
            "chosen": float(rewards[0].mean()),
            "rejected": float(rewards[1].mean()),
        }
        return total, scores

    def _owners(self) -> Int64[Tensor, "n"]:
        """Return the conversation of every target."""
        device = self.ids.device
        lengths = torch.tensor(self.lengths, device=device)
        rows = torch.repeat_interleave(torch.arange(len(self.lengths), device=device), lengths)
        return rows[1:][self.targets[1:] != IGNORED]

    def _sums(self, values: Float[Tensor, "n"]) -> Float[Tensor, "2 count"]:
        """Return the sum of every conversation; preferred ones in row 0."""
        sums = values.new_zeros(len(self.lengths)).index_add(0, self._owners(), values)
        return sums.view(-1, 2).T


def pair_logprobs(model: HandlensModel, batch: PairBatch) -> Float[Tensor, "n"]:
    """Return the log-probability of every target, in the order of the row."""
    visual = batch.visual
    if visual is None and batch.slices is not None:
        visual = model.see(batch.slices)
    if visual is not None:
        visual = visual[batch.order]
    embeddings = model.join(batch.ids[None], None if visual is None else batch.is_visual[None], visual)
    hidden = model.llm.model(
        inputs_embeds=embeddings, position_ids=batch.positions[None], use_cache=False, segment_lengths=batch.lengths
    ).last_hidden_state[0]
    is_target = batch.targets[1:] != IGNORED
    return word_logprobs(model.llm.lm_head, hidden[:-1][is_target], batch.targets[1:][is_target])


@contextmanager
def adapters_off(model: torch.nn.Module) -> Iterator[None]:
    """Make the model what it was before its adapters, for the time of the block."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper)]
    if not layers:
        raise DataError("the reference is the model with its adapters off, and it has none; use --lora")
    grads = [(weight, weight.requires_grad) for layer in layers for weight in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for weight, learns in grads:  # peft freezes what it switches off
            weight.requires_grad_(learns)


class Preferences:
    """Pairs in an order that is shuffled anew every time round; a ``Draw`` of the loop."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        asks: Mapping[str, Ask],
        config: HandlensConfig,
        tokenizer: Tokenizer,
        how: Dpo,
        seed: int = 1,
        reference: Mapping[str, tuple[list[float], list[float]]] | None = None,
    ) -> None:
        self.pairs, self.asks = list(pairs), dict(asks)
        self.config, self.tokenizer, self.how, self.seed = config, tokenizer, how, seed
        self.family = family_named(config.family)
        self.reference = dict(reference or {})
        self.seen: dict[str, tuple[SlicePlan, Float32[np.ndarray, "slices queries dim"]]] = {}
        """Plan and visual tokens of pictures that were looked at already, by the id of the question."""

    @torch.no_grad()
    def look_once(self, model: HandlensModel) -> None:
        """Keep the visual tokens of all pictures, for a model whose tower and resampler stay as they are.

        Beyond ``MOST_KEPT`` bytes nothing is kept, and pictures are looked at whenever they are needed.

        Raises:
            DataError: a picture is gone.
        """
        kept, like = 0, model.llm.get_input_embeddings().weight
        for pair in self.pairs:
            if pair.ask in self.seen:
                continue
            sample = self.build(pair)
            tokens = model.see(pad_slices([sample], self.config).to(like)).float().cpu().numpy()
            kept += tokens.nbytes
            if kept > MOST_KEPT:
                self.seen.clear()
                return
            self.seen[pair.ask] = (sample.plans[0], tokens)

    def __len__(self) -> int:
        return len(self.pairs)

    def __call__(self, phase: Phase, own: random.Random, index: int, split: str) -> PairSample:
        """Return pair number ``index`` of the endless stream."""
        round_, number = divmod(index, len(self.pairs))
        order = list(range(len(self.pairs)))
        random.Random(f"{self.seed}/preferences/{round_}").shuffle(order)
        return self.build(self.pairs[order[number]])

    def build(self, pair: Pair) -> PairSample:
        """Return one pair, ready to be batched.

        Raises:
            DataError: its picture is gone.
        """
        visual = None
        patches: list[np.ndarray] = []
        if pair.ask in self.seen:
            plan, visual = self.seen[pair.ask]
        else:
            plan, patches = self._patches(pair)
        prompt = build_prompt(
            ask(pair.question), [plan], self.family, self.tokenizer, self.config.resampler.num_queries
        )  # fmt: skip
        stop = self.family.template.stops[0]
        answers = [self.tokenizer.encode(text + stop) for text in (pair.chosen, pair.rejected)]
        weights = segment_weights(answers[0], answers[1], self.how.segment_weight)
        known = self.reference.get(pair.id)
        ids, is_visual, targets, counts, before = [], [], [], [], []
        for number, answer in enumerate(answers):
            start = len(prompt.ids)
            nothing = np.zeros(start, dtype=np.float32)
            ids += [prompt.ids, answer]
            is_visual += [prompt.is_visual, np.zeros(len(answer), dtype=bool)]
            targets += [np.full(start, IGNORED), answer]
            counts += [nothing, weights[number]]
            told = np.full(len(answer), np.nan, np.float32) if known is None else np.asarray(known[number], np.float32)
            if len(told) != len(answer):
                raise DataError(
                    f"the stored reference of pair {pair.id} has {len(told)} tokens, its answer {len(answer)}; "
                    "remove references.jsonl and run the same command again"
                )
            before += [nothing, told]
        return PairSample(
            patches=patches, plans=(plan,), labels=None, visual=visual,
            ids=np.concatenate(ids), is_visual=np.concatenate(is_visual), targets=np.concatenate(targets),
            tasks=np.full(sum(map(len, ids)), -1), task_names=(),
            lengths=(len(prompt.ids) + len(answers[0]), len(prompt.ids) + len(answers[1])),
            weights=np.concatenate(counts), reference=np.concatenate(before),
        )  # fmt: skip

    def _patches(self, pair: Pair) -> tuple[SlicePlan, list[np.ndarray]]:
        slicing = self.config.slicing
        try:
            picture = self.asks[pair.ask].picture.open().image
        except HandlensError as cause:
            raise DataError(f"pair {pair.id}: {cause}; remove it from pairs.jsonl, or bring the picture back") from None
        plan = plan_slices(
            *picture.size, side_px=slicing.side_px, max_slices=slicing.max_slices, patch_px=slicing.patch_px
        )
        pixels = [np.asarray(image).transpose(2, 0, 1) for image in cut(picture, plan)]
        return plan, [to_patches(array, slicing.patch_px) for array in pixels]

    def collate(self, samples: Sequence[Any], config: HandlensConfig, next_index: int) -> PairBatch:
        """Pack pairs end to end; slices are padded to one length and stand once."""
        order, first = [], 0
        for sample in samples:
            numbers = list(range(first, first + sample.num_slices))
            order += numbers + numbers
            first += sample.num_slices
        is_seen = all(sample.visual is not None for sample in samples)
        return PairBatch(
            slices=None if is_seen else pad_slices(list(samples), config), labels=None,
            visual=torch.from_numpy(np.concatenate([one.visual for one in samples])) if is_seen else None,
            ids=torch.from_numpy(np.concatenate([sample.ids for sample in samples])),
            is_visual=torch.from_numpy(np.concatenate([sample.is_visual for sample in samples])),
            targets=torch.from_numpy(np.concatenate([sample.targets for sample in samples])),
            tasks=torch.from_numpy(np.concatenate([sample.tasks for sample in samples])), task_names=(),
            lengths=tuple(length for sample in samples for length in sample.lengths), next_index=next_index,
            order=torch.tensor(order), weights=torch.from_numpy(np.concatenate([one.weights for one in samples])),
            reference=torch.from_numpy(np.concatenate([one.reference for one in samples])), how=self.how,
        )  # fmt: skip


@torch.no_grad()
def reference_logprobs(model: HandlensModel, preferences: Preferences, pair: Pair) -> tuple[list[float], list[float]]:
    """Return the log-probability of every token of both answers, the stop token included."""
    batch = preferences.collate([preferences.build(pair)], preferences.config, 0)
    values = pair_logprobs(model, batch.to(model.llm.get_input_embeddings().weight.device)).float().cpu()
    num_chosen = int((batch.targets[: batch.lengths[0]] != IGNORED).sum())
    chosen, rejected = values[:num_chosen], values[num_chosen:]
    return [round(v, 6) for v in chosen.tolist()], [round(v, 6) for v in rejected.tolist()]
