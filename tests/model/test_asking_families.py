"""``handlens ask`` on the released families: the official greedy answer, the released beam search, packed frames."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from handlens.cli.main import run
from handlens.core.chat import ask
from handlens.core.frames import open_frames
from handlens.core.images import open_picture
from handlens.engine.room import Room
from handlens.families import sampling_for
from handlens.model.halves import open_torch

VERSIONS = ("2.0", "2.5", "2.6", "4.5")
"""Whose released chat searches beams."""


@pytest.fixture(scope="module")
def opened(golden):
    lenses = {}

    def lens(version: str):
        if version not in lenses:
            lenses[version] = open_torch(golden(version))
        return lenses[version]

    return lens


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with `inputs_embeds`")
@pytest.mark.parametrize("version", VERSIONS)
def test_beam_search_is_that_of_the_released_code(version, opened, golden):
    lens = opened(version)
    seen = lens.see([open_picture(golden(version) / "square.png")])
    chat = ask("What is drawn here?")
    sampling = sampling_for(version, "searched", max_tokens=8)
    found = [token.id for token in lens.answer(chat, seen, sampling)]
    prompt = lens.prompt(chat, seen)
    model = lens.open_language(Room(prompt=1, answer=1)).model
    embeddings = model.join(
        torch.from_numpy(prompt.ids)[None],
        torch.from_numpy(prompt.is_visual)[None],
        torch.from_numpy(seen.pictures[0].visual_tokens.reshape(1, prompt.num_visual, -1)),
    )
    stops = sorted(lens._stops())
    vocab = model.llm.get_input_embeddings().num_embeddings
    with torch.inference_mode():
        expected = model.llm.generate(
            inputs_embeds=embeddings, num_beams=3, repetition_penalty=1.2, max_new_tokens=8, do_sample=False,
            eos_token_id=stops, pad_token_id=0, suppress_tokens=lens._never_said(set(stops), vocab),
        )[0].tolist()  # fmt: skip
    assert found == [token for token in expected if token not in stops]


@pytest.mark.parametrize("version", ["2.0", "2.5", "2.6"])
def test_ask_says_the_official_greedy_answer(version, golden, capsys):
    """The prompts of 4.5 and 4.6 differ: theirs end with an empty thought, the recorded ones do not."""
    folder = golden(version)
    args = ["ask", str(folder / "square.png"), "What is drawn here?", "--model", str(folder), "--json"]
    assert run([*args, "--max-tokens", "5"]) == 0
    recorded = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    case = next(case for case in recorded["cases"] if case["name"] == "square")
    told = json.loads(capsys.readouterr().out)
    assert [token["id"] for token in told["tokens"]] == case["greedy"][:5]


# ---- frames ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clip(golden, tmp_path):
    """The frames of the recorded case that lie beside the model, as a folder."""
    for file in sorted(golden("4.5").glob("frame*.png")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_4_5_packs_frames_as_the_official_code_does(opened, golden):
    """The recorded case with a group of three frames at 0.4, 0.8 and 1.2 s beside a still picture."""
    lens = opened("4.5")
    recorded = json.loads((golden("4.5") / "expected.json").read_text(encoding="utf-8"))
    case = next(case for case in recorded["cases"] if case["name"] == "mixed3d")
    still, *frames = (open_picture(golden("4.5") / file) for file in case["images"])
    times = [time / 10 for time in case["temporal_ids"][1]]
    moving = [replace(frame, seconds=time) for frame, time in zip(frames, times, strict=True)]
    seen = lens.see([still, *moving])
    assert [picture.times for picture in seen.pictures] == [(), tuple(times)]
    tokens = load_file(golden("4.5") / "expected.safetensors")["mixed3d.tokens"]
    np.testing.assert_allclose(np.concatenate([p.visual_tokens for p in seen.pictures]), tokens, atol=1e-4)
    # The recorded prompt ends before the empty thought that a released chat adds.
    ids = lens.prompt(ask("Compare.", 2), seen).ids.tolist()
    assert ids[: len(case["input_ids"])] == case["input_ids"]


@pytest.mark.parametrize(("pack", "groups"), [(None, "3"), ("2", "21"), ("1", "111")])
def test_frames_of_a_folder_are_packed(pack, groups, clip, golden, capsys):
    frames = sorted(clip.iterdir())[3:]
    for file in frames:
        file.unlink()
    args = ["ask", str(clip), "What happens?", "--frames", "3", "--fps", "2", "--model", str(golden("4.5")), "--json"]
    assert run([*args, "--max-tokens", "2", *(("--pack", pack) if pack else ())]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [len(group["seconds"]) for group in told["frames"]] == [int(size) for size in groups]
    assert [time for group in told["frames"] for time in group["seconds"]] == [0.0, 0.5, 1.0]
    assert sum(image["visual_tokens"] for image in told["images"]) == 64 * len(groups)


def test_other_families_see_one_slice_a_frame_without_image_ids(opened, golden, clip, capsys):
    lens = opened("2.6")
    frames = open_frames(clip, 2)
    seen = lens.see(frames, max_slices=1)
    marks = [lens.tokenizer.id_of(mark) for mark in ("<image_id>", "<image>", "<slice>")]
    counted = [int((lens.prompt(ask("What?", 2), seen).ids == mark).sum()) for mark in marks]
    assert counted == [0, 2, 0]
    still = lens.see([open_picture(golden("2.6") / "square.png")])
    assert lens.tokenizer.id_of("<image_id>") in lens.prompt(ask("What?"), still).ids
    assert run(["ask", str(clip), "What?", "--frames", "2", "--pack", "2", "--model", str(golden("2.6"))]) == 1
    assert "gives every frame its own visual tokens; leave out --pack" in capsys.readouterr().err
