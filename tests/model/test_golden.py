"""Every recorded reference of the official implementations, stage by stage, in float32.

Pixels, position ids, prompt ids and greedy ids are equal; vectors and logits are within 1e-4, which is 20 times the
distance of the official code to its own float64 run and less than 1e-4 of the largest logit.
"""

import functools
import hashlib
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load, load_file

from handlens.core.tokenizer import CharacterTokenizer
from handlens.model.stages import Stages

GOLDEN = Path(__file__).parents[1] / "golden"
WHOLE_SET = Path(__file__).parents[3] / "shared" / "golden"
VERSIONS = ("2.0", "2.5", "2.6", "4.5", "4.6")
TOLERANCE = 1e-4


def recorded(version: str) -> dict:
    place = WHOLE_SET if (WHOLE_SET / version).is_dir() else GOLDEN
    return json.loads((place / version / "expected.json").read_text(encoding="utf-8"))


CASES = [(version, case["name"]) for version in VERSIONS for case in recorded(version)["cases"]]


@pytest.fixture(scope="module")
def opened(golden):
    @functools.cache
    def stages(version: str) -> tuple[Stages, dict, dict]:
        folder, reference = golden(version), recorded(version)
        toy = CharacterTokenizer.from_reference(reference["toy_tokenizer"])
        return Stages.open(folder, tokenizer=toy), reference, load_file(folder / "expected.safetensors")

    return stages


def sampled(parts: list[np.ndarray], places: np.ndarray) -> np.ndarray:
    return np.array([parts[part][row, column] for part, row, column in places])


@pytest.mark.parametrize(("version", "name"), CASES)
def test_case(version, name, opened, golden):
    whole, reference, tensors = opened(version)
    case = next(case for case in reference["cases"] if case["name"] == name)
    expected = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    stages = whole.in_mode(case["downsample_mode"]) if "downsample_mode" in case else whole
    pictures = [Image.open(golden(version) / file).convert("RGB") for file in case["images"]]
    plans = [stages.plan(*picture.size, case.get("max_slice_nums")) for picture in pictures]
    pixels = [part for picture, plan in zip(pictures, plans, strict=True) for part in stages.pixels(picture, plan)]
    times = case.get("temporal_ids")

    visual_tokens = []
    if pixels:
        assert [[rows, columns] for plan in plans for rows, columns in plan.patches] == case["tgt_sizes"]
        hashes = case["pixel_sha256"]
        assert [hashlib.sha256(array.astype("<f4").tobytes()).hexdigest() for array in stages.layout(pixels)] == (
            [hashes] if isinstance(hashes, str) else hashes
        )
        if "vit_position_ids" in expected:
            found = stages.position_ids(pixels)
            assert found is not None
            assert np.array_equal(np.concatenate(found), expected["vit_position_ids"])
        vision_tokens, visual_tokens = stages.encode(pixels, times)
        near(sampled(vision_tokens, expected["vision_idx"]), expected["vision_val"])
        near([np.linalg.norm(part) for part in vision_tokens], expected["vision_norm"], relative=True)
        near([np.linalg.norm(part) for part in visual_tokens], expected["tokens_norm"], relative=True)
        if "tokens" in expected:
            near(np.concatenate(visual_tokens), expected["tokens"].reshape(-1, expected["tokens"].shape[-1]))
        else:
            near(sampled(visual_tokens, expected["tokens_idx"]), expected["tokens_val"])

    prompt = stages.prompt_of(
        case["prompt"], plans, groups=[len(group) for group in times] if times else None,
        use_image_id=case.get("use_image_id"),
    )  # fmt: skip
    assert prompt.ids.tolist() == case["input_ids"]
    if "image_bound" in case:
        inside = np.zeros(len(prompt.ids), dtype=bool)
        for begin, end in case["image_bound"]:
            inside[begin:end] = True
        assert np.array_equal(prompt.is_visual, inside)
    if "embeds_idx" in expected:
        embeddings = stages.embeddings(prompt, visual_tokens)
        near(embeddings[tuple(expected["embeds_idx"].T)], expected["embeds_val"])
    logits = stages.logits(prompt, visual_tokens)
    near(logits[tuple(expected["logits_idx"].T)], expected["logits_val"])
    near(logits[-8:], expected["logits_last8"])
    assert stages.greedy(prompt, visual_tokens, len(case["greedy"])) == case["greedy"]


def near(found, expected, *, relative: bool = False) -> None:
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE if relative else 0, atol=0 if relative else TOLERANCE)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kept_cases_are_cut_from_the_whole_set(version):
    if not (WHOLE_SET / version).is_dir():
        pytest.skip("the whole set is not at hand")
    kept, whole = (
        {case["name"]: case for case in json.loads((place / version / "expected.json").read_text())["cases"]}
        for place in (GOLDEN, WHOLE_SET)
    )
    assert {"text"} < kept.keys() <= whole.keys()
    for name, case in kept.items():
        assert {key: value for key, value in case.items() if key != "tensors"} == {
            key: value for key, value in whole[name].items() if key != "tensors"
        }
        for file in case["images"]:
            assert (GOLDEN / version / file).read_bytes() == (WHOLE_SET / version / file).read_bytes()
    tensors = load(lzma.decompress((GOLDEN / version / "expected.safetensors.xz").read_bytes()))
    recorded_tensors = load_file(WHOLE_SET / version / "expected.safetensors")
    assert all(
        np.array_equal(tensor, recorded_tensors[key]) for key, tensor in tensors.items() if key in recorded_tensors
    )


def test_the_kept_cases_are_small():
    assert sum(file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file()) < 25_000_000
