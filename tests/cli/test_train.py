"""``handlens train``: what is refused before any work begins."""

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
        ([], 2, "handlens train: missing argument 'RECIPE'"),
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
