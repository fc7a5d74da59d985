import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handlens.cli.main import run
from handlens.core.chat import ask
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.engine.answerer import open_bundle
from handlens.errors import ModelError
from handlens.models.make import make_random
from handlens.models.released import FAMILY_OF, LANGUAGES, find_family, released_config
from handlens.models.store import find_model, folder_of, list_models, remove_model


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANDLENS_CACHE", str(tmp_path))
    return tmp_path / "models"


def test_names_find_folders_and_rm_frees_them(store: Path) -> None:
    folder = folder_of("owner/name")
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"x" * 10)
    folder.with_name(folder.name + ".incomplete").mkdir()
    assert [(entry.name, entry.num_bytes) for entry in list_models() if not entry.ships] == [("owner/name", 10)]
    assert find_model("owner/name") == folder
    assert remove_model("owner/name") == 10
    assert list(store.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a/../b", "/etc", "", "a/b/c", "-x", ".hidden", "a\\b"])
def test_a_name_cannot_lead_out_of_the_store(name: str, store: Path) -> None:
    with pytest.raises(ModelError, match="is no name of a model"):
        folder_of(name)


def test_unknown_names_are_guessed_and_what_ships_stays(store: Path) -> None:
    with pytest.raises(ModelError, match="unknown model 'nanu'; did you mean 'nano'"):
        find_model("nanu")
    with pytest.raises(ModelError, match="`handlens models pull openbmb/x` fetches it"):
        find_model("openbmb/x")
    with pytest.raises(ModelError, match="ships with handlens and cannot be removed"):
        remove_model("nano")


def test_show_and_list_print_one_document(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "nano"
    assert run(["models", "show", "nano", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["family"] == "nano" and card["licence"] == "Apache-2.0" and card["needs"]["install"]
    assert all(len(facts["sha256"]) == 64 for facts in card["files"].values())


def test_without_a_network_pull_is_one_line(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    def unreachable(self: object, *args: object, **kwargs: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    assert run(["models", "pull", "openbmb/MiniCPM-V-2_6"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("handlens models: cannot reach Hugging Face") and error.count("\n") == 1
    assert run(["models", "pull", "nano"]) == 1
    assert "give owner/name" in capsys.readouterr().err


# ---- random weights --------------------------------------------------------------------------------------------------

# Source: metadata.total_size of the released index files over the bytes of one weight (2.0, 2.5, 2.6, 4.5).
PARAMETERS = {
    "2.0": 3_434_965_792,
    "2.5": 8_537_092_336,
    "2.6": 8_099_175_152,
    "4.0": 4_059_533_040,
    "4.5": 8_695_895_280,
}


@pytest.mark.parametrize("family", PARAMETERS)
def test_released_sizes_have_as_many_weights_as_the_released_files(family: str) -> None:
    from handlens.model.checkpoint import tensor_shapes

    shapes = tensor_shapes(released_config(family))
    assert sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values()) == PARAMETERS[family]


def test_every_name_leads_to_its_family() -> None:
    assert {find_family(name)[1] for name in FAMILY_OF} == set(FAMILY_OF.values())
    assert find_family("MiniCPM-V-2_6") == find_family("2.6") == ("minicpm-v-2.6", "2.6")
    with pytest.raises(ModelError, match=r"did you mean 'minicpm-v-2\.6'"):
        find_family("minicpm-v-26")


@pytest.mark.parametrize(
    "family",
    [family if family in ("2.0", "2.5") else pytest.param(family, marks=pytest.mark.soak) for family in LANGUAGES],
)
def test_a_model_of_random_weights_answers(family: str, tmp_path: Path) -> None:
    config = released_config(family)
    config = dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, width=144, mlp_width=160, num_layers=1, num_heads=2),
        resampler=dataclasses.replace(config.resampler, width=512, vision_width=144),
        language=dataclasses.replace(
            config.language, width=512, head_size=64, num_heads=8, num_kv_heads=2, num_layers=1, vocab_size=900,
            mlp_width=512, long_rope=None,
        ),
    )  # fmt: skip
    lens = open_bundle(make_random(config, tmp_path / "random", name="random"), threads=1)
    picture = Picture(Image.fromarray(np.zeros((112, 112, 3), dtype=np.uint8)), "black")
    seen = lens.see([picture])
    assert np.isfinite(seen.pictures[0].visual_tokens).all()
    tokens = list(lens.answer(ask("hi"), seen, Sampling(max_tokens=3)))
    # Sane scales: no token is certain, none impossible.
    assert all(-12 < token.logprob < -0.5 for token in tokens)
    assert "random weights" in lens.info.notice


@pytest.mark.soak
def test_the_largest_size_is_written_below_2_gib(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "from pathlib import Path\nfrom handlens.engine.memory import peak_bytes\n"
        "from handlens.models.make import make_random\n"
        "from handlens.models.released import released_config\n"
        f"make_random(released_config('2.5'), Path({str(tmp_path / 'm')!r}))\n"
        "print(peak_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=3000)
    assert int(done.stdout) < 2 << 30
