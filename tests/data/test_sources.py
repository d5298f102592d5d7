import numpy as np
import pytest

from keras_cxrgan.data.images import encode_png
from keras_cxrgan.data.manifest import Entry, write_manifest
from keras_cxrgan.data.records import Record, content_hash
from keras_cxrgan.data.sources import check_unchanged, read_source


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
    assert [record.patient for record in by_option] == ["p2", "p2"]
    assert by_suffix == by_option
    assert len(entries) == 2
    assert len(read_source(f"{manifest}:train,test")[0]) == 6


def test_a_manifest_with_several_splits_wants_one_named(manifest):
    with pytest.raises(ValueError, match="has the splits test, train: name one with --split train"):
        read_source(manifest)


def test_two_splits_at_once_and_a_split_of_a_folder_are_refused(manifest):
    with pytest.raises(ValueError, match="names the split 'test' and --split the split 'train'"):
        read_source(f"{manifest}:test", split="train")
    with pytest.raises(ValueError, match="cxrgan split .* --out manifest.csv"):
        read_source(manifest.parent, split="train")


def test_a_folder_is_read_without_a_manifest(manifest):
    records, entries = read_source(manifest.parent)
    assert len(records) == 6 and entries == []


def test_a_file_that_changed_since_the_split_is_named(manifest):
    records, entries = read_source(manifest, split="test")
    hashes = [entry.sha256 for entry in entries]
    check_unchanged(entries, records, hashes)
    with pytest.raises(ValueError, match="p2_5.png"):
        check_unchanged(entries, records, [hashes[0], "0" * 64])
    check_unchanged([], records, ["0" * 64] * 2)  # a folder promises nothing
