from __future__ import annotations

import json
import os
import shutil
import threading

import cv2
import numpy as np
import pytest

from keras_cxrgan.data import prepare
from keras_cxrgan.data.images import decode, encode_png, prepare_image
from keras_cxrgan.data.prepare import BadFiles, prepare_images
from keras_cxrgan.data.records import Record, content_hash, find_records, fingerprint


def make_set(folder, count=6, bad=()):
    rng = np.random.RandomState(0)
    for index in range(count):
        path = folder / ("A" if index % 2 else "B") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = encode_png(rng.randint(0, 256, (20 + index, 30)).astype(np.uint8))
        path.write_bytes(b"<html>" if index in bad else data)
    return find_records(folder)


@pytest.fixture
def decoded(monkeypatch):
    """The images decoded so far."""
    calls = []

    def counted(data, window=None):
        calls.append(data)
        return decode(data, window)

    monkeypatch.setattr(prepare, "decode", counted)
    return calls


def test_images_hashes_and_labels_follow_the_order_of_the_records(tmp_path):
    records = make_set(tmp_path)[::-1]
    found = prepare_images(records, 8, fit="pad", clahe_clip_limit=2.0, workers=3)
    contents = [record.read() for record in records]
    for image, data in zip(found.images, contents):
        np.testing.assert_array_equal(image, prepare_image(decode(data), 8, "pad", 2.0))
    assert found.records == tuple(records)
    assert found.hashes == tuple(map(content_hash, contents))
    assert found.labels == ("B", "B", "B", "A", "A", "A")
    assert found.rejected == ()


def test_the_fingerprint_ignores_order_and_place(tmp_path):
    records = make_set(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one = prepare_images(records[::-1], 8)
    two = prepare_images(find_records(tmp_path / "two"), 16)
    assert one.fingerprint == two.fingerprint == fingerprint(one.hashes)


def test_bad_files_are_all_collected_before_the_error(tmp_path):
    records = make_set(tmp_path, bad=(0, 3))
    records.append(Record(str(tmp_path / "gone.png")))
    with pytest.raises(BadFiles) as error:
        prepare_images(records, 8)
    assert str(error.value).splitlines() == [
        "3 of 7 images cannot be used:",
        f"{tmp_path / 'A' / '03.png'}: an HTML page, not an image: the download failed",
        f"{tmp_path / 'B' / '00.png'}: an HTML page, not an image: the download failed",
        f"{tmp_path / 'gone.png'}: No such file or directory",
        "Remove or repair them, or pass --on-bad-file skip.",
    ]
    assert len(error.value.rejected) == 3


def test_a_long_list_of_bad_files_is_cut_short(tmp_path):
    with pytest.raises(BadFiles) as error:
        prepare_images(make_set(tmp_path, 26, bad=range(25)), 8)
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + 20 + 1 + 1
    assert lines[-2:] == ["... and 5 more", "Remove or repair them, or pass --on-bad-file skip."]


@pytest.mark.parametrize("budget", [2**30, 0])
def test_skipped_files_leave_no_hole(tmp_path, budget):
    records = make_set(tmp_path / "set", bad=(0, 3))
    found = prepare_images(
        records, 8, on_bad_file="skip", cache_dir=tmp_path / "cache", memory_budget=budget
    )
    good = [records[index] for index in (0, 2, 4, 5)]  # A/01 A/03 A/05 B/00 B/02 B/04
    assert [os.path.basename(record.path) for record in good] == [
        "01.png",
        "05.png",
        "02.png",
        "04.png",
    ]
    assert found.records == tuple(good)
    assert found.hashes == tuple(content_hash(record.read()) for record in good)
    np.testing.assert_array_equal(found.images, prepare_images(good, 8).images)
    assert found.fingerprint == prepare_images(good, 8).fingerprint
    assert [os.path.basename(name) for name, _ in found.rejected] == ["03.png", "00.png"]


@pytest.mark.parametrize("on_bad_file", ["error", "skip"])
def test_a_set_of_only_bad_files_is_an_error(tmp_path, on_bad_file):
    with pytest.raises(BadFiles, match="4 of 4 images cannot be used"):
        prepare_images(make_set(tmp_path, 4, bad=range(4)), 8, on_bad_file=on_bad_file)


def test_small_sets_write_nothing(tmp_path):
    records = make_set(tmp_path / "set")
    found = prepare_images(records, 8, cache_dir=tmp_path / "cache", memory_budget=6 * 64)
    assert not isinstance(found.images, np.memmap)
    assert not (tmp_path / "cache").exists()


def test_a_set_above_the_budget_is_mapped_and_not_decoded_again(tmp_path, decoded):
    records = make_set(tmp_path / "set")
    options = {"cache_dir": tmp_path / "cache", "memory_budget": 6 * 64 - 1}
    first = prepare_images(records, 8, **options)
    again = prepare_images(records, 8, **options)
    assert len(decoded) == 6
    assert isinstance(again.images, np.memmap) and not again.images.flags.writeable
    in_memory = prepare_images(records, 8)
    for found in (first, again):
        np.testing.assert_array_equal(found.images, in_memory.images)
        assert (found.hashes, found.fingerprint) == (in_memory.hashes, in_memory.fingerprint)
    (array,) = (tmp_path / "cache").glob("*.npy")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        f"{array.stem}.json", f"{array.stem}.npy"
    ]  # fmt: skip
    assert json.loads(array.with_suffix(".json").read_text())["settings"]["image_size"] == 8


def test_a_renamed_folder_still_hits_the_cache(tmp_path, decoded):
    options = {"cache_dir": tmp_path / "cache", "memory_budget": 0, "on_bad_file": "skip"}
    prepare_images(make_set(tmp_path / "old", bad=(0,)), 8, **options)
    os.rename(tmp_path / "old", tmp_path / "new")
    found = prepare_images(find_records(tmp_path / "new"), 8, **options)
    assert len(decoded) == 6
    assert found.rejected[0][0] == str(tmp_path / "new" / "B" / "00.png")


@pytest.mark.parametrize(
    "settings",
    [
        {"fit": "pad"},
        {"clahe_clip_limit": 2.0},
        {"clahe_tiles": 4},
        {"clahe_size": 16},
        {"window": (0, 4095)},
    ],
)
def test_other_settings_miss_the_cache(tmp_path, decoded, settings):
    records = make_set(tmp_path / "set", 2)
    options = {"cache_dir": tmp_path / "cache", "memory_budget": 0}
    prepare_images(records, 8, **options)
    prepare_images(records, 8, **options, **settings)
    assert len(decoded) == 4


def test_other_contents_or_another_order_miss_the_cache(tmp_path, decoded):
    records = make_set(tmp_path / "set", 2)
    options = {"cache_dir": tmp_path / "cache", "memory_budget": 0}
    first = prepare_images(records, 8, **options).images
    swapped = prepare_images(records[::-1], 8, **options).images
    np.testing.assert_array_equal(swapped, first[::-1])
    (tmp_path / "set" / "A" / "01.png").write_bytes(encode_png(np.full((9, 9), 77, np.uint8)))
    changed = prepare_images(records, 8, **options)
    assert len(decoded) == 6
    assert (changed.images[0] == 77).all()


def test_a_cache_with_rejected_files_is_still_an_error_without_skip(tmp_path, decoded):
    records = make_set(tmp_path / "set", 3, bad=(0,))
    options = {"cache_dir": tmp_path / "cache", "memory_budget": 0}
    prepare_images(records, 8, on_bad_file="skip", **options)
    with pytest.raises(BadFiles, match="HTML page"):
        prepare_images(records, 8, **options)
    assert len(decoded) == 3


def test_bad_files_leave_nothing_in_the_cache(tmp_path):
    records = make_set(tmp_path / "set", 3, bad=(0,))
    with pytest.raises(BadFiles):
        prepare_images(records, 8, cache_dir=tmp_path / "cache", memory_budget=0)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    "damage", ["leftover", "no json", "short array", "empty array", "other shape", "bad json"]
)
def test_what_a_killed_process_left_is_not_taken_for_a_cache(tmp_path, decoded, damage):
    records = make_set(tmp_path / "set", 3)
    options = {"cache_dir": tmp_path / "cache", "memory_budget": 0}
    expected = np.array(prepare_images(records, 8, **options).images)
    (array,) = (tmp_path / "cache").glob("*.npy")
    about = array.with_suffix(".json")
    if damage == "leftover":
        os.rename(array, array.with_name(f".{array.stem}.0.tmp"))
    elif damage == "no json":
        about.unlink()
    elif damage == "short array":
        array.write_bytes(array.read_bytes()[:-10])
    elif damage == "empty array":
        array.write_bytes(b"")
    elif damage == "other shape":
        np.save(array, np.zeros((3, 4, 4), np.uint8))
    else:
        about.write_text('{"rejected"')
    np.testing.assert_array_equal(prepare_images(records, 8, **options).images, expected)
    assert len(decoded) == 6


def test_an_interrupted_write_leaves_no_file(tmp_path):
    def interrupt(done, total):
        if done == total:
            raise KeyboardInterrupt

    records = make_set(tmp_path / "set", 3)
    with pytest.raises(KeyboardInterrupt):
        prepare_images(
            records, 8, cache_dir=tmp_path / "cache", memory_budget=0, progress=interrupt
        )
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    records = make_set(tmp_path / "set", 3)
    monkeypatch.setattr(prepare, "_hash", lambda record: "another")
    with pytest.raises(ValueError, match=r"01\.png changed while it was read"):
        prepare_images(records, 8, cache_dir=tmp_path / "cache", memory_budget=0)


def test_cache_errors_say_what_to_do(tmp_path):
    records = make_set(tmp_path / "set", 3)
    with pytest.raises(ValueError, match=r"3 images of 8 x 8 need .* give cache_dir"):
        prepare_images(records, 8, memory_budget=0)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot write the image cache .* choose another folder"):
        prepare_images(records, 8, cache_dir=tmp_path / "file", memory_budget=0)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"fit": "zoom"}, "crop, pad, stretch"),
        ({"on_bad_file": "ignore"}, "error or skip"),
        ({"clahe_tiles": 0}, "clahe_tiles"),
        ({"window": (4095, 0)}, "--window"),
        ({"image_size": 0}, "image_size"),
    ],
)
def test_wrong_settings_raise_before_any_file_is_read(options, named):
    with pytest.raises(ValueError, match=named) as error:
        prepare_images([Record("missing.png")], **{"image_size": 8, **options})
    assert not isinstance(error.value, BadFiles)


def test_no_records_is_an_error():
    with pytest.raises(ValueError, match="no images to prepare"):
        prepare_images([], 8)


@pytest.mark.parametrize("budget", [2**30, 0])
def test_progress_comes_from_the_callers_thread_and_ends_at_the_total(tmp_path, budget):
    seen = []

    def progress(done, total):
        seen.append((done, total, threading.current_thread()))

    options = {"cache_dir": tmp_path / "cache", "memory_budget": budget, "progress": progress}
    records = make_set(tmp_path / "set")
    for _ in range(2):
        seen.clear()
        prepare_images(records, 8, **options)
        done = [entry[0] for entry in seen]
        assert done == sorted(done) and done[-1] == 6
        assert {entry[1:] for entry in seen} == {(6, threading.current_thread())}


def test_decoding_does_not_run_ahead_of_what_is_stored(tmp_path, monkeypatch):
    started, ahead = [], []

    def load(record, settings):
        started.append(record)
        return prepare._Loaded("", np.zeros((8, 8), np.uint8))

    monkeypatch.setattr(prepare, "_load", load)
    monkeypatch.setattr(prepare, "_hash", lambda record: "")
    prepare_images(
        [Record(str(index)) for index in range(300)],
        8,
        workers=2,
        cache_dir=tmp_path,
        memory_budget=0,
        progress=lambda done, total: ahead.append(len(started) - (2 * done - 300)),
    )
    assert len(started) == 300
    assert max(ahead[300:]) <= 4 * 2 + 1


def test_the_stated_window_reaches_every_image(tmp_path):
    levels = np.full((8, 8), 1024, np.uint16)
    levels[0, 0], levels[0, 1] = 4095, 0
    path = tmp_path / "deep.png"
    path.write_bytes(cv2.imencode(".png", levels)[1].tobytes())
    options = {"memory_budget": 0, "cache_dir": tmp_path / "cache"}
    for settings in ({}, options, options):  # in memory, written, mapped again
        found = prepare_images([Record(str(path))], 8, window=(0, 4096), **settings)
        assert found.images[0, :2, :2].tolist() == [[255, 0], [64, 64]]


def test_caches_from_before_there_were_windows_stay_valid(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((9, 9), np.uint8)))
    records = [Record(str(tmp_path / "a.png"))]
    prepare_images(records, 8, cache_dir=tmp_path / "cache", memory_budget=0)
    settings = {"image_size": 8, "fit": "crop", "clahe_clip_limit": 0.0, "clahe_tiles": 8}
    about = json.dumps([1, {**settings, "clahe_size": 0}], sort_keys=True)
    name = content_hash(f"{about}\n{content_hash(records[0].read())}".encode())
    assert (tmp_path / "cache" / f"{name}.npy").exists()
