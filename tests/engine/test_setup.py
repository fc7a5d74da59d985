"""Settings of the engine and the profile that keeps them."""

from pathlib import Path

import pytest

from handlens.engine.setup import NO_PROFILE, Setup, load_profile, profile_file, save_profile
from handlens.errors import SettingError


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(NO_PROFILE, raising=False)
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


def test_a_profile_is_used_by_the_same_bundle_only(bundle: Path) -> None:
    assert load_profile(bundle) is None
    setup = Setup(decode_threads=3, flash=True, kv="q8_0", mmap=False)
    save_profile(bundle, setup, {"goal": "first word under 5 s"})
    assert load_profile(bundle) == setup
    (bundle / "manifest.json").write_text("{ }")  # another bundle
    assert load_profile(bundle) is None


def test_the_environment_switches_profiles_off(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_profile(bundle, Setup(flash=True), {})
    monkeypatch.setenv(NO_PROFILE, "1")
    assert load_profile(bundle) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"setup": {"thread": 2}}', '{"setup": {"kv": "q4"}}'])
def test_a_damaged_profile_names_the_file_and_the_way_out(bundle: Path, content: str) -> None:
    save_profile(bundle, Setup(), {})
    profile_file(bundle).write_text(content)
    with pytest.raises(SettingError, match=r"is damaged .*; delete it or run `handlens tune` again"):
        load_profile(bundle)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kv": "f61"}, "unknown kv type 'f61'; did you mean 'f16'?"),
        ({"kv": "q8_0"}, "kv q8_0 needs flash attention"),
        ({"batch": 0}, "batch is 0; at least 1 is needed"),
        ({"decode_threads": -1}, "threads cannot be negative"),
        ({"decode_thread": 1}, "unknown setting 'decode_thread'; did you mean 'decode_threads'?"),
    ],
)
def test_settings_that_cannot_work(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message.replace("?", r"\?")):
        Setup.from_json(fields)


def test_json_round_trip() -> None:
    setup = Setup(provider="cuda", vision_threads=2, micro_batch=64, mmap=True)
    assert Setup.from_json(setup.to_json()) == Setup.from_json(setup.to_json(changed_only=True)) == setup
    assert Setup().describe() == "defaults"
    assert Setup(flash=True).describe() == "flash True"
