"""``handlens train``: what is refused before any work begins."""

import json

import click
import pytest
import torch  # noqa: F401  the command needs it: without it every call says so

from handlens.cli.main import run
from handlens.cli.train import split_pair


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nani"], 1, "handlens train: unknown recipe 'nani'; did you mean 'nano'?"),
        (["nano:sftt"], 1, "handlens train: recipe nano has no phase 'sftt'"),
        (
            ["nano", "--set", "sft.stepz=3"],
            1,
            "handlens train: unknown setting 'stepz' in Phase; did you mean 'steps'?",
        ),
        (["nano", "--set", "sft.steps=many"], 1, "handlens train: setting sft.steps is 'many'; a int is needed"),
        (
            ["nano", "--set", "steps"],
            2,
            "handlens train: --set 'steps' has no name or no value; write it as sft.steps=200",
        ),
        ([], 2, "handlens train: missing argument 'RECIPE'; name one, or --list them"),
        (
            ["nano", "--machine", "8xA10", "--dry-run"],
            1,
            "handlens train: unknown machine '8xA10'; did you mean '8xA100'?",
        ),
        (
            ["nano", "--machine", "toaster"],
            2,
            "handlens train: --machine is for --dry-run; add --dry-run or leave --machine out",
        ),
        (
            ["nano:smoke:sft", "--set", "vision.steps=20"],
            1,
            "handlens train: phase 'vision' of recipe nano:smoke was not chosen, only 'sft' was; ",
        ),
        (
            ["nano", "--set", "report_steps=0"],
            1,
            "handlens train: recipe nano: report_steps is 0; at least 1 is needed",
        ),
        (["nano:smoke", "--from", "/nowhere"], 1, "handlens train: no config.json in /nowhere; --from needs a model"),
        (
            ["nano:smoke", "--from", "/nowhere", "--dry-run"],
            1,
            "handlens train: no config.json in /nowhere; --from needs a model folder with config.json, ",
        ),
        (
            ["minicpm-v-2.0"],
            1,
            "handlens train: recipe minicpm-v-2.0 needs what no package brings (pretrained: SigLIP",
        ),
    ],
)
def test_errors(capsys, tmp_path, args, code, message):
    out = tmp_path / "run"
    assert run(["train", *args, "--out", str(out)]) == code
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not out.exists()


def test_settings_keep_further_equal_signs():
    assert split_pair("sft.mixture=a=1") == ("sft.mixture", "a=1")
    with pytest.raises(click.UsageError, match="has no name or no value"):
        split_pair("=3")


def test_the_folder_of_a_run_must_be_named(capsys):
    assert run(["train", "nano"]) == 2
    assert capsys.readouterr().err.startswith("handlens train: missing option '--out'; name the folder of the run")


def test_recipes_are_listed(capsys):
    assert run(["train", "--list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"nano", "nano:smoke", "minicpm-v-1.0", "minicpm-v-2.0", "minicpm-v-llama3-2.5"} <= set(rows)
    assert rows["nano"]["needs"] == []
    assert rows["minicpm-v-llama3-2.5"]["phases"] == [
        "warmup", "resolution", "adaptive", "sft1", "sft2", "multilingual",
    ]  # fmt: skip
    assert run(["train", "--list"]) == 0
    assert "nano:smoke" in capsys.readouterr().out


def test_a_dry_run_prices_every_phase(capsys):
    assert run(["train", "minicpm-v-llama3-2.5", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    first = plan["phases"][0]
    assert first["trains"] == ["resampler"] and first["frozen"] == ["vision", "language"]
    assert {"rate", "optimiser", "slices_per_step"} <= set(first["substitutes"])
    assert plan["total"]["tokens"] == sum(phase["tokens"] for phase in plan["phases"])
    # Table 3 of the paper: 8.5 B.
    assert 8.4e9 < plan["weights"]["all"] < 8.6e9
    assert run(["train", "minicpm-v-llama3-2.5", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "not published" in text and "1e-04*" in text


def test_a_dry_run_knows_that_copies_are_not_shared_out(capsys):
    memory = {}
    for mode in ("fsdp", "ddp"):
        assert run(["train", "minicpm-v-2.0:sft1", "--dry-run", "--parallel", mode, "--json"]) == 0
        memory[mode] = json.loads(capsys.readouterr().out)["total"]["memory_bytes"]
    # 3.1 billion weights, with slope and moments 50 GB.
    assert memory["ddp"] > 45e9 > 2 * memory["fsdp"]
