"""Step checkpoints: what is loaded after a crash, and what is said when one cannot be written."""

import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from handlens.errors import TrainingError
from handlens.train.state import Progress, load_state, save_state


def modules(value: float = 0.0) -> dict[str, nn.Module]:
    """Two modules whose weights all have one value."""
    made = {"model": nn.Linear(40, 40), "head": nn.Linear(40, 2)}
    for module in made.values():
        for weight in module.parameters():
            nn.init.constant_(weight, value)
    return made


def values(made: dict[str, nn.Module]) -> set[float]:
    return {
        float(number)
        for module in made.values()
        for weight in module.parameters()
        for number in weight.detach().flatten()
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three checkpoints, of which the newest two are kept."""
    for step in (1, 2, 3):
        save_state(tmp_path / "state", Progress(step=step, next_indexes=(10 * step,)), modules(step))
    return tmp_path / "state"


def test_the_newest_is_loaded_and_two_are_kept(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000003"]
    made = modules()
    assert load_state(folder, made) == Progress(step=3, next_indexes=(30,))
    assert values(made) == {3.0}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-400])


def overwrite(file: Path) -> None:
    """Other bytes in the middle: the archive opens, its directory and its names are whole."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2 - 200 : len(content) // 2 + 200] = bytes([64, 1] * 200)
    file.write_bytes(content)


DAMAGES = {
    "overwritten": overwrite,
    "cut": cut,
    "empty": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(5000)),
    "text": lambda file: file.write_text("not a checkpoint"),
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(folder, damage):
    DAMAGES[damage](folder / "step-00000003" / "state.pt")
    made = modules()
    assert load_state(folder, made) == Progress(step=2, next_indexes=(20,))
    assert values(made) == {2.0}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stride": 3}'])
def test_damaged_progress_is_passed_over(folder, text):
    (folder / "step-00000003" / "progress.json").write_text(text)
    assert load_state(folder, modules()) == Progress(step=2, next_indexes=(20,))


def test_nothing_whole_is_nothing(folder, tmp_path):
    for step in folder.iterdir():
        cut(step / "state.pt")
    made = modules(7.0)
    assert load_state(folder, made) is None
    assert values(made) == {7.0}
    assert load_state(tmp_path / "nowhere", made) is None


def test_what_a_kill_left_behind_is_never_loaded_and_goes_away(folder):
    part = folder / ".part-1"
    part.mkdir()
    torch.save({}, part / "state.pt")
    assert load_state(folder, modules()).step == 3
    save_state(folder, Progress(step=4), modules(4))
    assert not part.exists()


def test_what_cannot_be_read_takes_no_place(folder):
    for step in folder.iterdir():
        (step / "progress.json").write_text("")
    assert load_state(folder, modules()) is None
    save_state(folder, Progress(step=1), modules(1))
    assert [path.name for path in folder.iterdir()] == ["step-00000001"]
    save_state(folder, Progress(step=2), modules(2))
    assert load_state(folder, modules()) == Progress(step=2)


def test_a_step_is_written_over(folder):
    save_state(folder, Progress(step=3, next_indexes=(31,)), modules(3.5))
    made = modules()
    assert load_state(folder, made) == Progress(step=3, next_indexes=(31,))
    assert values(made) == {3.5}


def test_a_checkpoint_of_another_shape_is_told(folder):
    other = {"model": nn.Linear(40, 41), "head": nn.Linear(40, 2)}
    with pytest.raises(TrainingError) as error:
        load_state(folder, other)
    assert str(error.value) == (
        f"the checkpoint {folder}/step-00000003 does not fit this model and phase; "
        "use the settings that it was made with, or another folder"
    )


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(TrainingError) as error:
        save_state(tmp_path / "state", Progress(step=5), modules())
    assert str(error.value) == (
        f"cannot write the checkpoint of step 5 to {tmp_path}/state: File exists; "
        "free some space and run the same command again"
    )


def test_a_full_disk_leaves_the_last_checkpoint_whole(folder):
    """A limit on the size of files stops the writing half way, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(
            TrainingError, match=r"^cannot write the checkpoint of step 4 to .*; free some space"
        ) as error:
            save_state(folder, Progress(step=4), modules(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000003"]
    assert load_state(folder, modules()).step == 3
