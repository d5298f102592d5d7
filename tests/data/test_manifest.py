import os
import shutil
import zipfile

import pytest

from keras_cxrgan.data.manifest import (
    Entry,
    is_manifest,
    read_manifest,
    verify,
    write_manifest,
)
from keras_cxrgan.data.records import Record, content_hash

A, B, C = (content_hash(name) for name in (b"a", b"b", b"c"))
HEADER = "path,sha256,label,patient,source,split\n"


def write(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def entries_of(folder, names, split="train"):
    return [
        Entry(Record(str(folder / name), "x", f"p{i}", split), content_hash(name.encode()), "here")
        for i, name in enumerate(names)
    ]


def test_the_written_table_is_plain_and_relative(tmp_path):
    write(tmp_path, ["NORMAL/a.png", "b.png"])
    rows = [
        Entry(Record(str(tmp_path / "NORMAL/a.png"), "NORMAL", "007", "train"), A, "NIH"),
        Entry(Record(str(tmp_path / "b.png"), split="test"), B),
    ]
    write_manifest(tmp_path / "m.csv", rows)
    assert (tmp_path / "m.csv").read_text() == (
        f"{HEADER}NORMAL/a.png,{A},NORMAL,007,NIH,train\nb.png,{B},,,,test\n"
    )
    assert read_manifest(tmp_path / "m.csv") == rows
    assert sorted(os.listdir(tmp_path)) == ["NORMAL", "b.png", "m.csv"]


def test_awkward_names_survive(tmp_path):
    names = ['a, "b".png', "größe ü 胸.png", "line\nbreak.png", "what!.png", " space .png", "#x"]
    rows = entries_of(write(tmp_path, names), names)
    write_manifest(tmp_path / "m.csv", rows)
    assert read_manifest(tmp_path / "m.csv") == rows
    assert [entry.record.read() for entry in rows] == [name.encode() for name in names]


def test_members_of_a_zip_survive_with_exclamation_marks_in_all_names(tmp_path):
    archive = tmp_path / "set!1.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("NORMAL/a!b.png", b"a")
    rows = [Entry(Record("NORMAL/a!b.png", "NORMAL", None, "train", str(archive)), A)]
    write_manifest(tmp_path / "m.csv", rows)
    assert "\nset!1.zip!NORMAL/a!b.png," in (tmp_path / "m.csv").read_text()
    found = read_manifest(tmp_path / "m.csv")
    assert found == rows and found[0].record.read() == b"a"
    (tmp_path / "m.csv").write_text(f"{HEADER}set!1.zip!gone.png,{A},,,,train\n")
    with pytest.raises(ValueError, match="1 of the 1 file .*gone.png"):
        read_manifest(tmp_path / "m.csv")


def test_a_manifest_moved_with_its_folder_still_works(tmp_path, monkeypatch):
    folder = write(tmp_path / "old", ["x/a.png"])
    monkeypatch.chdir(tmp_path)
    write_manifest("old/m.csv", [Entry(Record("old/x/a.png", split="train"), A)])
    shutil.move(folder, tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    assert read_manifest("m.csv")[0].record.read() == b"x/a.png"
    assert read_manifest(tmp_path / "new" / "m.csv")[0].record.read() == b"x/a.png"


def test_files_elsewhere_are_found_from_any_working_directory(tmp_path, monkeypatch):
    write(tmp_path, ["data/a.png"])
    monkeypatch.chdir(tmp_path)
    write_manifest("lists/m.csv", [Entry(Record("data/a.png", split="train"), A)])
    monkeypatch.chdir("/")
    assert read_manifest(tmp_path / "lists/m.csv")[0].record.path == str(tmp_path / "data/a.png")


def test_splits_and_classes_are_chosen_and_folds_kept(tmp_path):
    write(tmp_path, "abc")
    rows = [
        Entry(Record(str(tmp_path / name), label, None, f"fold{i}"), digest, "", i)
        for i, (name, label, digest) in enumerate(zip("abc", "xxy", (A, B, C)))
    ]
    path = tmp_path / "m.csv"
    write_manifest(path, rows)
    assert path.read_text().startswith(HEADER.strip() + ",fold\n")
    assert read_manifest(path, "fold1") == [rows[1]]
    assert read_manifest(path, "fold0, fold2") == [rows[0], rows[2]]
    assert read_manifest(path, ["fold2", "fold1"]) == rows[1:]
    assert read_manifest(path, classes="x") == rows[:2]
    with pytest.raises(ValueError, match=r"no split 'Fold1' \(did you mean 'fold1'\?\).*--split"):
        read_manifest(path, "Fold1")
    with pytest.raises(ValueError, match="no class 'z': it has x, y .*--class"):
        read_manifest(path, classes=["z"])


def test_only_the_files_asked_for_must_exist(tmp_path):
    names = ["a.png", "b.png", "c.png"]
    rows = entries_of(write(tmp_path, names), names)
    rows += entries_of(tmp_path, ["gone1.png", "gone2.png"], "test")
    rows[3:] = [
        Entry(Record(e.record.path, "x", f"q{e.sha256}", "test"), e.sha256) for e in rows[3:]
    ]
    write_manifest(tmp_path / "m.csv", rows)
    assert len(read_manifest(tmp_path / "m.csv", "train")) == 3
    with pytest.raises(ValueError, match="^2 of the 5 files .* cannot be found, the first gone1"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column path, sha256, label"),
        ("path,sha256,label,source,split\n", "no column patient"),
        (HEADER, "lists no files"),
        (f"{HEADER}a,{A},,,,\n", "line 2 has an empty split"),
        (f"{HEADER},{A},,,,train\n", "line 2 has an empty path"),
        (f"{HEADER}a,,,,,train\n", "line 2 has an empty sha256"),
        (f"{HEADER}a,12ab,,,,train\n", "'12ab', not 64 hex"),
        (f"{HEADER}a,{A},train\n", "line 2 has more or fewer values"),
        (f"{HEADER}a,{A},,,,train,x\n", "line 2 has more or fewer values"),
        (f"{HEADER}a,{A},,,,train\nb,{B},,,,test\na,{A},,,,train\n", "line 4 repeats .* line 2"),
        (f'{HEADER}"a,{A}', "cannot read the manifest"),
        (f"{HEADER}a,{A},,p,,train\nb,{B},,p,,test\n", r"1 patient on two sides \(p\)"),
        (
            f"{HEADER}a,{A},,,,train\nb,{A},,,,test\n",
            r"same content, or copies of it, on two sides \(a, b",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, message):
    write(tmp_path, "ab")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_manifest(tmp_path / "m.csv")
    assert "m.csv" in str(error.value) and "\n" not in str(error.value)


def test_a_leak_that_the_user_allows_is_read(tmp_path):
    write(tmp_path, "ab")
    (tmp_path / "m.csv").write_text(f"{HEADER}a,{A},,p,,train\nb,{A},,p,,test\n")
    assert len(read_manifest(tmp_path / "m.csv", allow_leak=True)) == 2


def test_a_manifest_saved_by_a_spreadsheet_is_read(tmp_path):
    write(tmp_path, "a")
    (tmp_path / "m.csv").write_bytes(
        b"\xef\xbb\xbf" + f"{HEADER}a,{A},,,,train\n".replace("\n", "\r\n").encode()
    )
    assert is_manifest(tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv")[0].record.split == "train"


def test_a_manifest_is_told_by_its_header(tmp_path):
    write_manifest(tmp_path / "m", [Entry(Record("a", split="train"), A)])
    (tmp_path / "of_generated.csv").write_text("file,index,seed,truncation,sha256,model\n")
    (tmp_path / "binary").write_bytes(b"\x89PNG\r\n\x1a\n\0\xff")
    (tmp_path / "empty").write_bytes(b"")
    names = ("m", "of_generated.csv", "binary", "empty", "missing", ".")
    assert [is_manifest(tmp_path / name) for name in names] == [True] + [False] * 5


def test_changed_files_are_named(tmp_path):
    names = ["a.png", "b.png", "c.png"]
    rows = entries_of(tmp_path, names)
    records = [entry.record for entry in rows]
    hashes = [entry.sha256 for entry in rows]
    verify(rows, records[1:], hashes[1:])
    with pytest.raises(ValueError, match="1 file changed .*b.png"):
        verify(rows, records, [hashes[0], A, hashes[2]])


def test_an_interrupted_writing_leaves_the_old_manifest(tmp_path):
    path = tmp_path / "m.csv"
    write_manifest(path, [Entry(Record("a", split="train"), A)])
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        write_manifest(path, [Entry(Record("b", split="train"), B), Entry(None, C)])
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.csv"]
