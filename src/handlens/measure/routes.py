"""Two ways to the same numbers: what a machine computes is compared with itself where no record of a bundle exists.

Boundary: one bundle folder. Vision runs as optimised and as written; language reads an answer token by token and at
once. Other code computes each way, so both are wrong alike only where the weights are.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Float32

from handlens.core.chat import ask
from handlens.core.images import Picture
from handlens.core.patches import normalise
from handlens.core.sampling import Sampling, log_softmax
from handlens.core.slicing import cut
from handlens.engine.answerer import Lens, open_bundle
from handlens.engine.bundle import Bundle
from handlens.engine.inputs import slice_inputs
from handlens.engine.room import Room
from handlens.measure.known import CLOSE_NATS, CLOSE_VISION, MAX_SLICES, MAX_TOKENS, SAME_VISION, Station, draw_pictures

NUM_LIKELY = 5
"""Tokens whose log-probabilities are compared: the likeliest."""


def check_routes(folder: Path) -> list[Station]:
    """Return how far two ways lie apart, for the vision and the language half.

    Raises:
        ModelError: the bundle cannot run here.
    """
    bundle = Bundle.open(folder)
    with contextlib.closing(open_bundle(folder, keep=True, profile=False)) as lens:
        return [
            station for name, (image, question) in draw_pictures().items()
            for station in _compare(bundle, lens, Picture(image, name), question)
        ]  # fmt: skip


def _compare(bundle: Bundle, lens: Lens, picture: Picture, question: str) -> Iterator[Station]:
    seen = lens.see([picture], max_slices=MAX_SLICES)
    visual = seen.pictures[0].visual_tokens
    assert visual is not None
    plain = np.stack([_encode_as_written(bundle, normalise(image)) for image in cut(picture.image, seen.plans[0])])
    gap = float(np.abs(plain - visual).max() / np.sqrt(np.mean(np.square(visual))))
    status = "same" if gap <= SAME_VISION else "close" if gap <= CLOSE_VISION else "different"
    yield Station(
        picture=picture.name, name="vision", status=status,
        found=f"optimised and plain graph differ by {gap:.1e} at most",
    )  # fmt: skip
    chat = ask(question)
    ids = [token.id for token in lens.answer(chat, seen, Sampling(max_tokens=MAX_TOKENS))]
    prompt = lens.prompt(chat, seen)
    longer = replace(
        prompt, ids=np.concatenate([prompt.ids, np.asarray(ids[:-1], dtype=prompt.ids.dtype)]),
        is_visual=np.concatenate([prompt.is_visual, np.zeros(len(ids) - 1, dtype=np.bool_)]),
    )  # fmt: skip
    rows = visual.reshape(-1, visual.shape[-1])
    half = lens.open_language(Room(prompt=len(longer.ids), answer=len(ids), beams=1))
    try:
        stepped = half.prefill(prompt, rows)
        for token in ids[:-1]:
            (stepped,) = half.step([token], [0])
        whole = half.prefill(longer, rows)
    finally:
        half.close()
    likely = np.argsort(whole)[-NUM_LIKELY:]
    gap = float(np.abs(log_softmax(stepped)[likely] - log_softmax(whole)[likely]).max())
    yield Station(
        picture=picture.name, name="language", status="same" if gap <= CLOSE_NATS else "different",
        found=f"read at once and token by token, {gap:.1e} nats apart",
    )  # fmt: skip


def _encode_as_written(
    bundle: Bundle, pixels: Float32[np.ndarray, "3 height width"]
) -> Float32[np.ndarray, "queries dim"]:
    """Return the visual tokens of one slice with every optimisation of the graph switched off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    file = str(bundle.folder / bundle.vision)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    patches, positions, keys = slice_inputs(pixels, bundle.config)
    (tokens,) = session.run(["visual_tokens"], {"patches": patches, "position_ids": positions, "key_positions": keys})
    return tokens
