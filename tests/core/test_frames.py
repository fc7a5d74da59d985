"""Frames spread evenly, from every kind of source, in the right order."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handlens.core.frames import choose_frames, is_moving, open_frames
from handlens.core.images import open_picture
from handlens.errors import ImageError, SettingError


@settings(max_examples=40)
@given(st.integers(1, 5000), st.integers(1, 64))
def test_chosen_frames_are_spread_evenly(num_frames, count):
    places = choose_frames(num_frames, count)
    assert len(places) == min(num_frames, count)
    assert all(0 <= place < num_frames for place in places)
    steps = {second - first for first, second in itertools.pairwise(places)}
    assert max(steps, default=0) - min(steps, default=0) <= 1
    if count < num_frames:
        # As much before the first as after the last, to within a frame.
        assert abs(places[0] - (num_frames - 1 - places[-1])) <= 1


def shades(num: int) -> list[Image.Image]:
    return [Image.new("RGB", (40, 30), (value * 20, 0, 0)) for value in range(num)]


def red_of(picture) -> int:
    return round(picture.image.getpixel((20, 15))[0] / 20)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_frames_of_moving_pictures(tmp_path, kind):
    file = tmp_path / f"clip.{kind}"
    first, *others = shades(10)
    first.save(file, save_all=True, append_images=others, **({"lossless": True} if kind == "webp" else {}))
    assert is_moving(file)
    pictures = open_frames(file, 4)
    assert [red_of(picture) for picture in pictures] == [1, 3, 6, 8]
    assert [picture.name for picture in pictures] == [f"clip.{kind}@{place}" for place in (1, 3, 6, 8)]
    assert len(open_frames(file, 99)) == 10


def test_frames_know_when_they_are_shown(tmp_path):
    first, *others = shades(10)
    first.save(tmp_path / "clip.gif", save_all=True, append_images=others, duration=200)
    assert [picture.seconds for picture in open_frames(tmp_path / "clip.gif", 3)] == pytest.approx([0.2, 1.0, 1.6])
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(shades(4)):
        frame.save(folder / f"{number}.png")
    times = [picture.seconds for picture in open_frames(folder, 9, frames_per_second=2)]
    assert times == [0.0, 0.5, 1.0, 1.5]
    assert open_picture(folder / "0.png").seconds is None
    with pytest.raises(SettingError, match="frames_per_second is 0; it must be above 0"):
        open_frames(folder, 9, frames_per_second=0)


def test_frames_of_a_folder_go_by_number(tmp_path):
    for number, frame in enumerate(shades(11)):
        frame.save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert is_moving(tmp_path)
    assert [red_of(picture) for picture in open_frames(tmp_path, 11)] == list(range(11))


def test_frames_of_a_video(tmp_path):
    av = pytest.importorskip("av", reason="videos need the extra 'video'")
    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in shades(10):
            for packet in stream.encode(av.VideoFrame.from_image(frame.resize((64, 48)))):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    assert [red_of(picture) for picture in open_frames(file, 5)] == pytest.approx([1, 3, 5, 7, 9], abs=1)
    with pytest.raises(ImageError, match="the limit is 100"):
        open_frames(file, 2, max_pixels=100)
    file.write_bytes(b"no video at all")
    with pytest.raises(ImageError, match="is no video that can be read"):
        open_frames(file, 2)


def test_sources_without_frames(tmp_path):
    still = tmp_path / "still.png"
    shades(1)[0].save(still)
    assert not is_moving(still)
    assert len(open_frames(still, 4)) == 1
    assert not is_moving(tmp_path / "none.gif")
    with pytest.raises(ImageError, match="does not exist"):
        open_frames(tmp_path / "none.gif", 2)
    with pytest.raises(ImageError, match="holds no pictures"):
        (tmp_path / "empty").mkdir()
        open_frames(tmp_path / "empty", 2)
    with pytest.raises(SettingError, match="frames is 0"):
        open_frames(still, 0)
    cut = tmp_path / "cut.gif"
    first, *others = [Image.effect_noise((90, 90), 90).convert("P") for _ in range(6)]
    first.save(cut, save_all=True, append_images=others)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    with pytest.raises(ImageError, match="damaged"):
        open_frames(cut, 6)
