"""Answers to several questions at once by a torch model: one step of the language model moves all of them.

Boundary: a lens of torch halves in, tokens out. The answers are those that their seeds give alone, up to rounding; only
the cost differs: a small model spends most of a step on what does not grow with the rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import rotate_half

from handlens.answerer import Seen
from handlens.core.chat import Chat
from handlens.core.sampling import Sampling, generate
from handlens.engine.answerer import Lens
from handlens.engine.room import Room
from handlens.model.vlm import HandlensModel

MOST_OVER = 0.15
"""Share of questions that are answered to the end before their rows are let go: to let go copies the others."""
Said = list[tuple[int, float]]
"""Ids of an answer with their log-probabilities."""


def model_of(lens: Lens) -> HandlensModel | None:
    """Return the torch model behind a lens; None where it is no torch model, or its layers are not those of Llama."""
    from handlens.model.halves import TorchLanguage

    if lens.info.engine != "torch":
        return None
    with lens._language_half(Room(prompt=1, answer=1), {}) as language:
        if isinstance(language, TorchLanguage) and type(language.model.llm) is LlamaForCausalLM:
            return language.model
    return None


@torch.inference_mode()
def answer_together(
    lens: Lens, model: HandlensModel, asked: Sequence[tuple[Chat, Seen, Sequence[Sampling]]]
) -> list[list[Said]]:
    """Return for every question what each of its samplings gives; every question has equally many.

    Raises:
        SettingError: a prompt leaves no room for an answer.
    """
    prompts = [lens.prompt(chat, seen) for chat, seen, _ in asked]
    samplings = [[lens._fit(prompt, one) for one in some] for prompt, (_, _, some) in zip(prompts, asked, strict=True)]
    stops, embeddings = lens._stops(), []
    for prompt, (_, seen, _) in zip(prompts, asked, strict=True):
        rows = [part.visual_tokens for part in seen.pictures if part.visual_tokens is not None]
        visual = torch.from_numpy(np.concatenate([part.reshape(-1, part.shape[-1]) for part in rows]))
        ids, is_visual = torch.from_numpy(prompt.ids), torch.from_numpy(prompt.is_visual)
        embeddings.append(model.join(ids[None], is_visual[None], visual[None])[0])
    num_answers = len(samplings[0])
    longest = max(one.max_tokens for some in samplings for one in some)
    rows_ = Rows(model, embeddings, num_answers, longest)
    never = lens._never_said(stops, rows_.first.shape[-1])
    following: dict[tuple[int, int], np.ndarray] = {}  # question, answer -> logits after its last token

    def drawing(question: int, number: int) -> Iterator[tuple[int, float]]:
        key, sampling = (question, number), samplings[question][number]
        return generate(rows_.first[question], lambda ids, parents: following[key][None], stops, sampling, never)

    drawings = {(q, n): drawing(q, n) for q in range(len(asked)) for n in range(num_answers)}
    said: dict[tuple[int, int], Said] = {key: [] for key in drawings}
    while True:
        for key in list(drawings):
            drawn = next(drawings[key], None)
            if drawn is not None:
                said[key].append(drawn)
            if drawn is None or len(said[key]) == samplings[key[0]][key[1]].max_tokens:
                del drawings[key]
        if not drawings:
            return [[said[question, number] for number in range(num_answers)] for question in range(len(asked))]
        going = sorted({question for question, _ in drawings})
        rows_.keep_only(going)
        last = {key: one[-1][0] if one else 0 for key, one in said.items()}
        logits = rows_.step([[last[question, number] for number in range(num_answers)] for question in rows_.alive])
        places = {question: place for place, question in enumerate(rows_.alive)}
        following.update({(q, n): logits[places[q], n] for q, n in drawings})


class Rows:
    """The keys and values of several questions with several answers each; a question's own stand once."""

    def __init__(
        self, model: HandlensModel, embeddings: Sequence[Float[Tensor, "_ dim"]], num_answers: int, longest: int
    ) -> None:
        self.model, self.llm = model, model.llm.model
        self.alive = list(range(len(embeddings)))
        """Numbers of the questions whose rows are still here."""
        lengths = [len(one) for one in embeddings]
        caches, first = [], []
        for one in embeddings:
            cache = model.new_cache()
            out = model.llm(inputs_embeds=one[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
            first.append(out.logits[0, -1].float().cpu().numpy())
            caches.append(cache)
        self.first = np.stack(first)
        """Logits after each question."""
        layers = len(caches[0].layers)
        like = caches[0].layers[0].keys
        _, kv_heads, _, size = like.shape
        asked = (layers, 2, len(embeddings), kv_heads, max(lengths), size)
        self.asked = torch.zeros(asked, dtype=like.dtype, device=like.device)
        for place, cache in enumerate(caches):
            for number, layer in enumerate(cache.layers):
                self.asked[number, 0, place, :, : lengths[place]] = layer.keys[0]
                self.asked[number, 1, place, :, : lengths[place]] = layer.values[0]
        reach = torch.arange(max(lengths), device=like.device)
        self.lengths = torch.tensor(lengths, device=like.device)
        self.mask = torch.where(reach < self.lengths[:, None], 0.0, float("-inf")).to(like.dtype)
        said = (layers, 2, len(embeddings), num_answers, kv_heads, longest, size)
        self.said = torch.zeros(said, dtype=like.dtype, device=like.device)
        self.num_said = 0

    def keep_only(self, going: Sequence[int]) -> None:
        """Let go of questions that are answered, once they are enough to be worth the copying."""
        if len(going) > (1 - MOST_OVER) * len(self.alive):
            return
        kept = [place for place, question in enumerate(self.alive) if question in going]
        self.alive = [self.alive[place] for place in kept]
        self.asked, self.said = self.asked[:, :, kept], self.said[:, :, kept]
        self.lengths, self.mask = self.lengths[kept], self.mask[kept]

    def step(self, ids: Sequence[Sequence[int]]) -> Float[np.ndarray, "batch beams vocab"]:
        """Return the logits after one more token of every answer."""
        hidden = self.llm.embed_tokens(torch.tensor(ids, device=self.asked.device))
        places = (self.lengths + self.num_said)[:, None].expand(hidden.shape[:2])
        turns = self.llm.rotary_emb(hidden, places)
        for number, layer in enumerate(self.llm.layers):
            hidden = hidden + self._attend(layer.self_attn, layer.input_layernorm(hidden), turns, number)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        self.num_said += 1
        return self.model.llm.lm_head(self.llm.norm(hidden)).float().cpu().numpy()

    def _attend(
        self,
        attention: Any,
        hidden: Float[Tensor, "batch beams dim"],
        turns: tuple[Tensor, Tensor],
        number: int,
    ) -> Float[Tensor, "batch beams dim"]:
        """Attend to the question, whose keys all its answers share, and to what each answer said."""
        questions, answers, _ = hidden.shape
        size, kv_heads = self.said.shape[-1], self.said.shape[4]
        cos, sin = (part[:, :, None] for part in turns)

        def heads(projection: Any) -> Tensor:
            return projection(hidden).view(questions, answers, -1, size)

        query, key = (
            part * cos + rotate_half(part) * sin for part in (heads(attention.q_proj), heads(attention.k_proj))
        )
        self.said[number, 0, :, :, :, self.num_said] = key
        self.said[number, 1, :, :, :, self.num_said] = heads(attention.v_proj)
        keys, values = self.said[number, :, :, :, :, : self.num_said + 1]
        query = query.view(questions, answers, kv_heads, -1, size) * size**-0.5
        group = query.shape[3]
        shared = query.transpose(1, 2).reshape(questions, kv_heads, answers * group, size)
        to_question = shared @ self.asked[number, 0].transpose(-1, -2) + self.mask[:, None, None]
        to_question = to_question.view(questions, kv_heads, answers, group, -1).transpose(1, 2)
        weights = torch.cat([to_question, query @ keys.transpose(-1, -2)], dim=-1).softmax(-1)
        told, own = weights.split([self.asked.shape[4], self.num_said + 1], dim=-1)
        told = told.transpose(1, 2).reshape(questions, kv_heads, answers * group, -1) @ self.asked[number, 1]
        told = told.view(questions, kv_heads, answers, group, size).transpose(1, 2)
        out: Tensor = attention.o_proj((told + own @ values).reshape(questions, answers, -1))
        return out
