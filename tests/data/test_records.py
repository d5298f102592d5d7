from __future__ import annotations

import os
import random
import shutil
import struct
import tracemalloc
import zipfile

import cv2
import numpy as np
import pytest

from keras_cxrgan.data import records
from keras_cxrgan.data.records import Record, content_hash, find_records, fingerprint


def encoded(level, extension=".png"):
    return cv2.imencode(extension, np.full((4, 4), level, np.uint8))[1].tobytes()


FILES = {
    "NORMAL/b.png": encoded(1),
    "NORMAL/a.jpeg": encoded(2, ".jpg"),
    "COVID/a.png": encoded(3),
    "metadata.csv": b"file,label\n",
}


def make_folder(root, files=FILES):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def make_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def labelled(found, root):
    prefix = f"{root}/"
    return [
        (record.path.replace(os.sep, "/").removeprefix(prefix), record.label) for record in found
    ]


def test_flat_folder_has_no_labels(tmp_path):
    make_folder(tmp_path, {"b.png": encoded(1), "a.png": encoded(2)})
    assert labelled(find_records(tmp_path), tmp_path) == [("a.png", None), ("b.png", None)]


def test_folder_per_class_in_order_of_the_names(tmp_path):
    found = find_records(make_folder(tmp_path))
    assert labelled(found, tmp_path) == [
        ("COVID/a.png", "COVID"),
        ("NORMAL/a.jpeg", "NORMAL"),
        ("NORMAL/b.png", "NORMAL"),
    ]
    assert found[0].read() == FILES["COVID/a.png"]
    assert found[0].name == str(tmp_path / "COVID" / "a.png")


def test_the_label_is_the_innermost_directory(tmp_path):
    files = {"train/x/NORMAL/a.png": encoded(1), "top.png": encoded(2)}
    found = find_records(make_folder(tmp_path, files))
    assert [record.label for record in found] == [None, "NORMAL"]


def test_a_zip_equals_the_folder_it_was_made_of(tmp_path):
    folder = make_folder(tmp_path / "set")
    archive = make_zip(tmp_path / "set.zip", dict(reversed(FILES.items())))
    in_folder, in_zip = find_records(folder), find_records(archive)
    assert labelled(in_zip, tmp_path) == labelled(in_folder, folder)
    assert [record.read() for record in in_zip] == [record.read() for record in in_folder]
    assert in_zip[0].name == f"{archive}!COVID/a.png"
    assert sorted(os.listdir(tmp_path)) == ["set", "set.zip"]


def test_a_single_file(tmp_path):
    make_folder(tmp_path, {"scan.bin": encoded(1), "scan.dcm": b"\0" * 128 + b"DICM"})
    assert find_records(tmp_path / "scan.bin") == [Record(str(tmp_path / "scan.bin"))]
    assert find_records(tmp_path / "scan.dcm") == [Record(str(tmp_path / "scan.dcm"))]


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_images_are_told_by_content_and_false_extensions_are_kept_for_the_report(tmp_path, make):
    files = {
        "no_extension": encoded(1),
        "wrong.txt": encoded(2, ".jpg"),
        "really_webp.png": b"RIFF\x10\0\0\0WEBPVP8 ",
        "empty.JPG": b"",
        "scan.dcm": b"\0" * 128 + b"DICM",
        "notes.txt": b"hello",
        "README": b"",
    }
    found = find_records(make(tmp_path / "set.zip", files))
    names = [record.path.replace(os.sep, "/").rsplit("/", 1)[-1] for record in found]
    kept = ["empty.JPG", "no_extension", "really_webp.png", "scan.dcm", "wrong.txt"]
    assert names == kept


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_hidden_entries_do_not_double_the_set(tmp_path, make):
    files = {
        "chest/NORMAL/a.png": encoded(1),
        "chest/NORMAL/._a.png": encoded(2),
        "__MACOSX/chest/NORMAL/a.png": encoded(3),
        ".cache/a.png": encoded(4),
        "chest/.DS_Store": b"",
    }
    (only,) = find_records(make(tmp_path / "set.zip", files))
    assert only.read() == files["chest/NORMAL/a.png"]


def test_hidden_parents_of_the_source_do_not_matter(tmp_path):
    folder = make_folder(tmp_path / ".data" / "set", {"a.png": encoded(1)})
    assert len(find_records(folder)) == 1


def test_zip_members_that_point_outside_are_ignored(tmp_path):
    files = {name: encoded(9) for name in ("/abs.png", "../up.png", "a/../../up.png", "C:/x.png")}
    archive = make_zip(tmp_path / "set.zip", {**files, "ok/a.png": encoded(1)})
    assert [(record.path, record.label) for record in find_records(archive)] == [("ok/a.png", "ok")]


def test_a_zip_member_larger_than_the_limit_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_FILE_BYTES", 2**20)
    bomb = encoded(1) + bytes(10 * 2**20)
    (record,) = find_records(make_zip(tmp_path / "set.zip", {"a.png": bomb}))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="limit of 1 MiB"):
            record.read()
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    (tmp_path / "a.png").write_bytes(bomb)
    with pytest.raises(ValueError, match="limit of 1 MiB"):
        Record(str(tmp_path / "a.png")).read()


def test_a_zip_member_that_lies_about_its_size_is_not_inflated(tmp_path):
    bomb = encoded(1) + bytes(10 * 2**20)
    archive = make_zip(tmp_path / "set.zip", {"a.png": bomb})
    data = bytearray(archive.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 100)
    archive.write_bytes(data)
    (record,) = find_records(archive)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="damaged or unreadable in the zip"):
            record.read()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_member_that_would_inflate_without_a_bound_is_refused(tmp_path, method):
    # Ten thousandths of its size in bzip2, which zipfile inflates in one go.
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as archive:
        archive.writestr("a.png", encoded(1) + bytes(30 * 2**20))
        archive.writestr("no_extension", bytes(30 * 2**20))
    tracemalloc.start()
    try:
        (record,) = find_records(tmp_path / "set.zip")
        with pytest.raises(ValueError, match=r"compressed with (bzip2|lzma) .* with deflate"):
            record.read()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_zip_of_too_many_members_is_refused_with_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_MEMBERS", 3)
    archive = make_zip(tmp_path / "set.zip", {f"{index}.png": b"" for index in range(4)})
    with pytest.raises(ValueError, match="holds 4 files, more than the limit of 3 in a zip"):
        find_records(archive)


def test_a_link_in_a_zip_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded(7))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("link.png", "link"):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o120777 << 16
            archive.writestr(info, str(tmp_path / "secret.png"))
    (record,) = find_records(tmp_path / "set.zip")
    with pytest.raises(ValueError, match="a symbolic link in the zip"):
        record.read()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_of_one_name_the_last_counts_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for level in (1, 2):
            archive.writestr("a.png", encoded(level))
    (record,) = find_records(tmp_path / "set.zip")
    assert record.read() == encoded(2)


def test_a_zip_in_a_zip_is_not_opened_and_the_error_says_so(tmp_path):
    inner = make_zip(tmp_path / "inner.zip")
    outer = make_zip(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes()})
    with pytest.raises(ValueError, match=r"\.zip 1; archives inside are not opened, unpack them"):
        find_records(outer)
    both = {"inner.zip": inner.read_bytes(), "a.png": encoded(1)}
    assert len(find_records(make_zip(tmp_path / "both.zip", both))) == 1


def test_a_truncated_zip_is_one_clear_error(tmp_path):
    archive = make_zip(tmp_path / "set.zip")
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"set\.zip is not a readable zip .*again$"):
        find_records(archive)


def test_an_encrypted_zip_is_one_clear_error(tmp_path):
    archive = make_zip(tmp_path / "set.zip", {"a.png": encoded(1)})
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature) + offset
        data[at : at + 2] = struct.pack("<H", 1)
    archive.write_bytes(data)
    with pytest.raises(ValueError, match=r"set\.zip is encrypted: unpack"):
        find_records(archive)


def test_a_damaged_zip_member_says_so_when_read(tmp_path):
    archive = make_zip(tmp_path / "set.zip", {"a.png": encoded(1), "b.png": encoded(2)})
    data = bytearray(archive.read_bytes())
    data[45:60] = b"\xff" * 15
    archive.write_bytes(data)
    damaged, good = find_records(archive)
    with pytest.raises(ValueError, match="damaged or unreadable in the zip"):
        damaged.read()
    assert good.read() == encoded(2)


def test_a_replaced_zip_is_read_anew(tmp_path):
    archive = make_zip(tmp_path / "set.zip", {"a.png": encoded(1)})
    assert find_records(archive)[0].read() == encoded(1)
    make_zip(archive, {"a.png": encoded(2), "b.png": encoded(3)})
    assert [record.read() for record in find_records(archive)] == [encoded(2), encoded(3)]


def test_a_link_loop_ends_and_linked_class_folders_are_seen(tmp_path):
    folder = make_folder(tmp_path / "set", {"NORMAL/a.png": encoded(1)})
    (folder / "loop").symlink_to(folder)
    (folder / "LINKED").symlink_to(folder / "NORMAL")
    (folder / "broken.png").symlink_to(tmp_path / "nowhere")
    found = labelled(find_records(folder), folder)
    assert found == [("LINKED/a.png", "LINKED"), ("NORMAL/a.png", "NORMAL"), ("broken.png", None)]


@pytest.mark.parametrize("classes", ["NORMAL", ["NORMAL"], ("NORMAL", "NORMAL")])
def test_only_the_chosen_classes(tmp_path, classes):
    found = find_records(make_folder(tmp_path), classes)
    assert [record.label for record in found] == ["NORMAL", "NORMAL"]
    assert len(find_records(tmp_path, ["COVID", "NORMAL"])) == 3


def test_an_unknown_class_names_those_there_are(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(ValueError, match=r"'normal' \(did you mean 'NORMAL'\?\).*COVID, NORMAL"):
        find_records(tmp_path, ["normal"])
    with pytest.raises(ValueError, match="no class 'xyz': it has COVID, NORMAL"):
        find_records(tmp_path, ["xyz"])
    with pytest.raises(ValueError, match="no class folders"):
        find_records(tmp_path / "COVID", ["COVID"])


def test_sources_without_images_are_explained_in_one_line(tmp_path):
    texts = make_folder(tmp_path / "texts", {"a.txt": b"", "b/c.txt": b"", "d.CSV": b"", "e": b""})
    (tmp_path / "nothing").mkdir()
    make_zip(tmp_path / "texts.zip", {"a.txt": b""})
    cases = {
        tmp_path / "missing": "missing does not exist",
        tmp_path / "nothing": "holds no PNG, JPEG or DICOM image: it is empty",
        texts: r"4 files seen, by extension: \.txt 2, (\.csv 1, none 1|none 1, \.csv 1)",
        texts / "d.CSV": "not a folder, a zip, a PNG, a JPEG or a DICOM file",
        tmp_path / "texts.zip": r"1 files seen, by extension: \.txt 1",
    }
    for source, expected in cases.items():
        with pytest.raises(ValueError, match=expected) as error:
            find_records(source)
        assert "\n" not in str(error.value)


def test_fingerprint_depends_on_contents_only(tmp_path):
    folder = make_folder(tmp_path / "one")
    shutil.copytree(folder, tmp_path / "two")
    os.rename(tmp_path / "two" / "COVID" / "a.png", tmp_path / "two" / "z.png")
    hashes = [
        [content_hash(record.read()) for record in find_records(tmp_path / name)]
        for name in ("one", "two")
    ]
    assert hashes[0] != hashes[1]
    assert fingerprint(hashes[0]) == fingerprint(hashes[1])
    random.Random(0).shuffle(hashes[0])
    assert fingerprint(iter(hashes[0])) == fingerprint(hashes[1])
    assert fingerprint(hashes[0][:2]) != fingerprint(hashes[0])
    assert fingerprint(hashes[0] + hashes[0][:1]) != fingerprint(hashes[0])


def test_content_hash_is_sha256():
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content_hash(b"abc") == expected
