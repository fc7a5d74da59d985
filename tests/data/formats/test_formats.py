"""What is written in a format is read again, whole, also after a journey through all of them."""

from dataclasses import replace

import pytest

from handlens.data.formats import FORMATS, format_of, read_samples
from handlens.data.generate import generate
from handlens.data.samples import Sample, samples_only
from handlens.data.shards import write_shards
from handlens.errors import DataError


def bare(sample: Sample) -> Sample:
    """Without where the pictures lie, which is the format's own affair."""
    return replace(sample, images=())


def agree(read: list[Sample], given: list[Sample]) -> None:
    assert [bare(sample) for sample in read] == [bare(sample) for sample in given]
    for one, other in zip(read, given, strict=True):
        assert [image.read() for image in one.images] == [image.read() for image in other.images]


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read_again(write, samples, name: str) -> None:
    given = samples()
    folder = write(given, name)
    assert format_of(folder).name == name
    agree(list(samples_only(read_samples(folder))), given)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "folder"])
def test_many_pictures_and_none(write, rich, name: str) -> None:
    given = rich
    agree(list(samples_only(read_samples(write(given, name)))), given)


def test_a_journey_through_every_format_loses_nothing(write, samples) -> None:
    given = carried = samples()
    for step, name in enumerate([*FORMATS, *reversed(FORMATS)]):
        carried = list(samples_only(read_samples(write(carried, name, f"step{step}"))))
    agree(carried, given)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_samples_give_the_same_bytes(write, samples, name: str) -> None:
    one, two = write(samples(), name, "one"), write(samples(), name, "two")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def test_generated_shards_keep_their_truth(tmp_path) -> None:
    write_shards("mixed", 6, 3, tmp_path / "made")
    samples = list(samples_only(read_samples(tmp_path / "made")))
    for index, sample in enumerate(samples):
        record = generate("mixed", 3, index)
        assert sample.key == record.key
        assert sample.images[0].open().image.tobytes() == record.picture.tobytes()
        assert sample.answers == [turn.answer for turn in record.turns]
        assert sample.truth["facts"] == record.facts
        assert [line["text"] for line in sample.truth["lines"]] == [line.text for line in record.lines]


def test_keys_that_make_one_file_name_stay_apart(write, samples) -> None:
    given = [replace(sample, key=key) for sample, key in zip(samples(3), ("a/b", "a-b", "A b"), strict=True)]
    for name in FORMATS:
        agree(list(samples_only(read_samples(write(given, name, name)))), given)


def test_the_official_form_is_understood(tmp_path, write, samples) -> None:
    images = write(samples(2), "llava")
    entries = """[
      {"id": "0", "image": "images/s0.jpg", "conversations": [
        {"role": "user", "content": "<image>\\nHow many?"}, {"role": "assistant", "content": "two"}]},
      {"id": "1", "image": {"<image_00>": "images/s0.jpg", "<image_01>": "images/s1.png"}, "conversations": [
        {"role": "user", "content": "<image_00> and <image_01>\\nCompare."}, {"role": "assistant", "content": "No."}]},
      {"id": 2, "image": "images/s1.png", "conversations": [
        {"role": "user", "content": "No mark here."}, {"role": "assistant", "content": "Yes."}]}]"""
    (images / "data.json").write_text(entries, encoding="utf-8")
    found = list(samples_only(read_samples(images / "data.json")))
    assert [(sample.key, len(sample.images), sample.faults) for sample in found] == [
        ("0", 1, ()), ("1", 2, ()), ("2", 1, ()),
    ]  # fmt: skip
    assert found[2].chat[0].content[1] == "No mark here."


def test_hub_columns_and_foreign_shards_are_read(tmp_path, samples) -> None:
    import io
    import tarfile

    import pyarrow
    import pyarrow.parquet

    (image,) = samples(1)[0].images
    rows = [{"images": [{"bytes": image.read(), "path": None}], "texts": [{"user": "Q?", "assistant": "A."}]}]
    (tmp_path / "hub").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "hub" / "train.parquet")
    (cauldron,) = samples_only(read_samples(tmp_path / "hub"))
    assert cauldron.answers == ["A."]
    (tmp_path / "laion").mkdir()
    with tarfile.open(tmp_path / "laion" / "00000.tar", "w") as tar:
        for name, data in (("7.jpg", image.read()), ("7.json", b'{"url": "x", "key": "7"}'), ("7.txt", b"a red car")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    (pair,) = samples_only(read_samples(tmp_path / "laion"))
    assert pair.answers == ["a red car"]
    assert pair.images[0].read() == image.read()


def test_a_folder_of_something_else_is_told(tmp_path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match="holds no data set; known are WebDataset"):
        list(read_samples(tmp_path))
    with pytest.raises(DataError, match=r"nowhere does not exist; check the path"):
        list(read_samples(tmp_path / "nowhere"))
