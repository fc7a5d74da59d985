"""What ``--decoding`` means for every version: the numbers of the released ``chat``."""

import json

import pytest
from PIL import Image

from handlens.cli.decoding_options import Decoded
from handlens.cli.main import run
from handlens.families import FAMILIES

# temperature, top_p, top_k, repetition penalty, beams, longest answer; by sampling, by beam search.
# Source: the function chat of the code released with each version (4.6: its generation_config.json).
SAMPLED = {
    "1.0": (0.6, 0.8, 100, 1.0, 1, 2048),
    "2.0": (0.7, 0.8, 100, 1.05, 1, 1024),
    "2.5": (0.7, 0.8, 100, 1.05, 1, 1024),
    "2.6": (0.7, 0.8, 100, 1.05, 1, 2048),
    "4.0": (0.7, 0.8, 100, 1.05, 1, 2048),
    "4.5": (0.7, 0.8, 100, 1.03, 1, 2048),
    "4.6": (0.7, 1.0, 0, 1.0, 1, 2048),
}
SEARCHED = (0.0, 1.0, 0, 1.2, 3)


def settings(family: str, decoding: str, **given: object) -> tuple:
    found = Decoded.of(family, decoding=decoding, drops_id_zero=None, **given).sampling
    return (
        found.temperature, found.top_p, found.top_k, found.repetition_penalty, found.num_beams, found.max_tokens
    )  # fmt: skip


@pytest.mark.parametrize("family", SAMPLED)
def test_every_version_decodes_as_released(family: str) -> None:
    assert settings(family, "sampled") == SAMPLED[family]
    assert settings(family, "searched") == (*SEARCHED, SAMPLED[family][-1])
    assert settings(family, "released") == settings(family, "searched" if family == "1.0" else "sampled")
    assert settings(family, "greedy") == (0.0, 1.0, 0, 1.0, 1, 256)
    assert settings(family, "released", max_tokens=9)[:-1] == settings(family, "released")[:-1]
    assert settings(family, "released", max_tokens=9)[-1] == 9
    released = Decoded.of(family, decoding="released", drops_id_zero=None)
    assert released.drops_id_zero == (family != "4.6")
    assert not Decoded.of(family, decoding="greedy", drops_id_zero=None).drops_id_zero


def test_all_versions_are_in_the_table() -> None:
    assert set(FAMILIES) - set(SAMPLED) == {"nano", "4.6-4x"}


def test_json_says_how_was_decoded(tmp_path, capsys) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    args = ["ask", str(tmp_path / "red.png"), "What colour is it?", "--json", "--max-tokens", "3"]
    told = []
    for more in ([], ["--decoding", "released"], ["--decoding", "sampled", "--temperature", "0.2", "--seed", "4"]):
        assert run([*args, *more]) == 0
        told.append(json.loads(capsys.readouterr().out)["decoding"])
    assert told[0]["name"] == "greedy" and told[0]["temperature"] == 0 and told[0]["max_tokens"] == 3
    # What nano's own makers do is greedy.
    assert told[1] == told[0] | {"name": "released"}
    assert (told[2]["temperature"], told[2]["top_k"], told[2]["seed"]) == (0.2, 100, 4)


def test_impossible_settings_are_one_line(tmp_path, capsys) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    args = ["ask", str(tmp_path / "a.png"), "What?"]
    assert run([*args, "--decoding", "searched", "--temperature", "0.5"]) == 1
    error = capsys.readouterr().err
    assert "num_beams 3 with temperature 0.5" in error and error.count("\n") == 1
    assert run([*args, "--decoding", "release"]) == 2
    assert "'release' is not one of 'greedy', 'released', 'sampled', 'searched'" in capsys.readouterr().err
    assert run([*args, "--pack", "3"]) == 1
    assert "gives every frame its own visual tokens" in capsys.readouterr().err
