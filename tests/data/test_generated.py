"""What `cxrgan generate` left in a folder is told from what others put there."""

import csv

import pytest

from keras_cxrgan.data.generated import COLUMNS, read_listing, remove_listed
from keras_cxrgan.data.records import content_hash


def write(folder, files, columns=COLUMNS, data=b"made"):
    """Files with a manifest of them; cells beside name and hash say nothing here."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="0")
        writer.writeheader()
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            writer.writerow({"file": name, "sha256": content_hash(data)})
    return folder


@pytest.mark.parametrize("columns", [COLUMNS, [*COLUMNS, "label"]], ids=["plain", "labelled"])
def test_manifests_with_and_without_labels_are_read(tmp_path, columns):
    write(tmp_path, ["000000.png", "A/000000.png"], columns)
    assert [row["file"] for row in read_listing(tmp_path)] == ["000000.png", "A/000000.png"]


@pytest.mark.parametrize("columns", [["file", "sha256"], [*COLUMNS, "notes"]])
def test_a_manifest_of_somebody_else_is_none(tmp_path, columns):
    write(tmp_path, ["000000.png"], columns)
    assert read_listing(tmp_path) == []
    remove_listed(tmp_path)
    assert (tmp_path / "000000.png").exists() and (tmp_path / "manifest.csv").exists()


def test_what_was_made_goes_and_what_others_put_there_stays(tmp_path):
    made = ["000000.png", "A/000000.png", "A/000001.png", "B/000000.png"]
    write(tmp_path, made, [*COLUMNS, "label"])
    (tmp_path / "A" / "000001.png").write_bytes(b"mine")
    (tmp_path / "A" / "000002.png").write_bytes(b"made")  # not in the manifest
    (tmp_path / "grid.png").write_bytes(b"made")
    remove_listed(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"A", "A/000001.png", "A/000002.png"}  # B was emptied, and is gone


def test_a_manifest_removes_nothing_outside_its_folder(tmp_path):
    outside, deep = tmp_path / "film.png", "A/B/000000.png"
    write(tmp_path / "out", ["../film.png", str(outside), deep])
    remove_listed(tmp_path / "out")
    assert outside.exists() and (tmp_path / "out" / deep).exists()
