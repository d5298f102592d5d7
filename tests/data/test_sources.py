import numpy as np
import pytest

from keras_cxrgan.data.images import encode_png
from keras_cxrgan.data.manifest import Entry, write_manifest
from keras_cxrgan.data.records import Record, content_hash
from keras_cxrgan.data.sources import (
    ALL,
    check_unchanged,
    describe_left_out,
    held_out_splits,
    named_split,
    read_source,
)
from keras_cxrgan.data.tables import Reading


@pytest.fixture
def manifest(tmp_path):
    """Six films of three patients: four to train, two to test."""
    entries = []
    for index in range(6):
        path = tmp_path / f"p{index // 2}_{index}.png"
        data = encode_png(np.full((8, 8), 10 * index, np.uint8))
        path.write_bytes(data)
        split = "test" if index >= 4 else "train"
        record = Record(str(path), "NORMAL", f"p{index // 2}", split)
        entries.append(Entry(record, content_hash(data), "here"))
    write_manifest(tmp_path / "manifest.csv", entries)
    return tmp_path / "manifest.csv"


def test_a_split_is_named_by_option_or_by_suffix(manifest):
    by_option, entries = read_source(manifest, split="test")
    by_suffix, _ = read_source(f"{manifest}:test")
    assert [record.patient for record in by_option.records] == ["p2", "p2"]
    assert by_suffix == by_option
    assert len(entries) == 2
    assert len(read_source(f"{manifest}:train,test")[0].records) == 6
    assert len(read_source(manifest, split=ALL)[0].records) == 6


def test_a_manifest_with_several_splits_wants_one_named(manifest):
    with pytest.raises(ValueError, match="has the splits test, train: name one with --split train"):
        read_source(manifest)


def test_two_splits_at_once_and_a_split_of_a_folder_are_refused(manifest):
    with pytest.raises(ValueError, match="names the split 'test' and --split the split 'train'"):
        read_source(f"{manifest}:test", split="train")
    with pytest.raises(ValueError, match="cxrgan split .* --out manifest.csv"):
        read_source(manifest.parent, split="train")


def test_a_folder_is_read_without_a_manifest(manifest):
    reading, entries = read_source(manifest.parent)
    assert len(reading.records) == 6 and entries == []


def test_a_manifest_beside_the_films_is_silent_unless_it_is_given(manifest):
    records = read_source(manifest.parent)[0].records
    assert {(record.label, record.split) for record in records} == {(None, None)}


@pytest.fixture
def folder(tmp_path):
    """Two films to train and one to test, in folders of these names."""
    for name in ("train/A/1.png", "train/B/2.png", "test/A/3.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(np.zeros((8, 8), np.uint8)))
    return tmp_path / "set"


def test_a_folder_with_splits_wants_one_named_like_a_manifest(folder):
    with pytest.raises(ValueError, match="has the splits test, train: name one with --split train"):
        read_source(folder)
    train, _ = read_source(f"{folder}:train")
    assert [record.label for record in train.records] == ["A", "B"]
    assert train.left_out == {"other split (--split)": 1}
    assert len(read_source(folder, split="train,test")[0].records) == 3
    assert len(read_source(folder, split=ALL)[0].records) == 3
    with pytest.raises(ValueError, match="has no split 'val': it has test, train"):
        read_source(folder, split="val")


def test_splits_for_judging_are_told_from_those_for_training(folder):
    records = read_source(folder, split=ALL)[0].records
    assert held_out_splits(records) == ["test"]
    assert held_out_splits([r for r in records if r.split == "train"]) == []


def test_a_version_of_a_tensorflow_dataset_is_no_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tfds").mkdir()  # a folder of this name is not the set
    assert named_split("tfds:cxr_nih:1.0.0") == ("tfds:cxr_nih:1.0.0", None)
    assert named_split("tfds:cxr_nih:1.0.0:test") == ("tfds:cxr_nih:1.0.0", "test")
    assert named_split("tfds:cxr_nih:test") == ("tfds:cxr_nih", "test")
    assert named_split("tfds:cxr_nih") == ("tfds:cxr_nih", None)


def test_what_was_left_out_is_one_sentence_before_the_notes():
    reading = Reading("nih", (), {"lung mask": 1200, "CT": 1}, ("a note",))
    assert describe_left_out(reading) == ["left out 1,201 files: lung mask 1,200, CT 1", "a note"]
    assert describe_left_out(Reading("nih", (), {}, ())) == []


def test_a_file_that_changed_since_the_split_is_named(manifest):
    reading, entries = read_source(manifest, split="test")
    records, hashes = reading.records, [entry.sha256 for entry in entries]
    check_unchanged(entries, records, hashes)
    with pytest.raises(ValueError, match="p2_5.png"):
        check_unchanged(entries, records, [hashes[0], "0" * 64])
    check_unchanged([], records, ["0" * 64] * 2)  # a folder promises nothing
