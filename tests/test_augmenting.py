"""Augmented films: how many, of which patient, from which original, and never of the test split."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from keras_cxrgan.cli.augmenting import main
from keras_cxrgan.data.augmentation import ClassicAugmentation
from keras_cxrgan.data.images import decode, read_png_text, write_png
from keras_cxrgan.data.records import content_hash
from keras_cxrgan.data.sources import read_source
from keras_cxrgan.workflows.augmenting import TABLE, augment_films, read_summary
from keras_cxrgan.workflows.splitting import split

ROOT = Path(__file__).parents[1]
STILL = ClassicAugmentation(probability=0.0)


def film(seed, height=24, width=20):
    rows, columns = np.mgrid[0:height, 0:width]
    random = np.random.default_rng(seed)
    wave = np.sin(rows / random.uniform(2, 6)) + np.cos(columns / random.uniform(2, 6))
    return np.rint(127.5 + 60 * wave).astype(np.uint8)


@pytest.fixture
def films(tmp_path):
    """Five films of A, of patients known by a table, and three of B, of patients unknown."""
    folder = tmp_path / "films"
    lines = ["file,patient"]
    for index in range(8):
        label = "A" if index < 5 else "B"
        (folder / label).mkdir(parents=True, exist_ok=True)
        write_png(folder / label / f"scan{index}.png", film(index))
        if label == "A":
            lines.append(f"A/scan{index}.png,p{index // 2}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def table(out):
    with open(out / "films.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_each_class_gets_its_films_and_the_copies_asked_for(films, tmp_path):
    result = augment_films(films, tmp_path / "out", 7)
    assert result["images"] == {"A": 12, "B": 10}
    assert len(list((tmp_path / "out" / "A").glob("augmented-*.png"))) == 7
    assert len(list((tmp_path / "out" / "B").glob("original-*.png"))) == 3
    assert Counter(row["label"] for row in table(tmp_path / "out")) == {"A": 12, "B": 10}


def test_every_film_of_a_class_is_used_equally_often(films, tmp_path):
    augment_films(films, tmp_path / "out", 10, keep_originals=False)
    used = Counter(row["original"] for row in table(tmp_path / "out") if row["label"] == "A")
    assert set(used.values()) == {2} and len(used) == 5


def test_the_table_and_the_folder_are_read_alike_with_the_patients_of_the_originals(
    films, tmp_path
):
    augment_films(films, tmp_path / "out", 20)
    known = {r.path: r.patient for r in read_source(films)[0].records}
    for source in (tmp_path / "out" / "films.csv", tmp_path / "out"):
        records = read_source(source)[0].records
        assert len(records) == 48
        by_file = {Path(r.path).relative_to(tmp_path / "out").as_posix(): r for r in records}
        for row in table(tmp_path / "out"):
            assert by_file[row["file"]].label == row["label"]
            assert by_file[row["file"]].patient == row["patient"]
            if row["label"] == "A":
                assert row["patient"] == known[row["original"]]


def test_a_split_by_patient_keeps_copies_with_their_originals(films, tmp_path):
    augment_films(films, tmp_path / "out", 30)
    split(tmp_path / "out" / "films.csv", tmp_path / "m.csv", fractions={"train": 0.5, "test": 0.5})
    original = {row["content"]: row["original"] for row in table(tmp_path / "out")}
    sides = defaultdict(set)
    with open(tmp_path / "m.csv", newline="") as file:
        for row in csv.DictReader(file):
            sides[original[row["sha256"]]].add(row["split"])
    assert len(sides) == 8 and all(len(found) == 1 for found in sides.values())
    assert len(set.union(*sides.values())) == 2


def test_a_film_without_a_patient_is_warned_of(films, tmp_path):
    result = augment_films(films, tmp_path / "out", 1)
    assert result["warnings"][0].startswith("3 of 8 films have no known patient")
    told = augment_films(films, tmp_path / "a", 1, classes=("A",))
    assert told["warnings"] == [] and told["images"] == {"A": 6}


def test_a_copy_says_what_it_is_and_of_which_film(films, tmp_path):
    augment_films(films, tmp_path / "out", 3, seed=5)
    for row in table(tmp_path / "out"):
        data = (tmp_path / "out" / row["file"]).read_bytes()
        text = read_png_text(data)
        assert content_hash(data) == row["content"]
        assert text["Original"] == Path(row["original"]).name
        digest = content_hash(Path(row["original"]).read_bytes())
        assert text["Original SHA-256"] == row["original_sha256"] == digest
        is_copy = row["file"].split("/")[1].startswith("augmented")
        assert text["Comment"].startswith("Classic augmentation" if is_copy else "A film as it was")
        assert text.get("Seed") == ("5" if is_copy else None)
        assert "Warning" not in text


def test_originals_keep_their_pixels_and_copies_are_changed(films, tmp_path):
    augment_films(films, tmp_path / "out", 12)
    changed = 0
    for row in table(tmp_path / "out"):
        ours = decode((tmp_path / "out" / row["file"]).read_bytes())
        same = np.array_equal(ours, decode(Path(row["original"]).read_bytes()))
        if "original-" in row["file"]:
            assert same
        else:
            changed += not same
    assert changed >= 20  # of 24: with probability 1/32 nothing happens to a copy


def test_settings_reach_the_films(films, tmp_path):
    augment_films(films, tmp_path / "out", 4, settings=STILL)
    for row in table(tmp_path / "out"):
        ours = decode((tmp_path / "out" / row["file"]).read_bytes())
        assert np.array_equal(ours, decode(Path(row["original"]).read_bytes()))


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(films, tmp_path):
    def contents(name, seed):
        augment_films(films, tmp_path / name, 6, seed=seed)
        return [(row["file"], row["content"]) for row in table(tmp_path / name)]

    assert contents("one", 1) == contents("two", 1)
    assert contents("one again", 1) != contents("three", 2)


def test_classes_are_not_changed_alike(tmp_path):
    for label in "AB":
        (tmp_path / "films" / label).mkdir(parents=True)
        write_png(tmp_path / "films" / label / "same.png", film(0))
    augment_films(tmp_path / "films", tmp_path / "out", 8)
    one, other = ([r["content"] for r in table(tmp_path / "out") if r["label"] == x] for x in "AB")
    assert one != other


def test_more_copies_leave_the_first_ones_as_they_were(films, tmp_path):
    augment_films(films, tmp_path / "few", 3)
    augment_films(films, tmp_path / "many", 9)
    few = {row["file"]: row["content"] for row in table(tmp_path / "few")}
    many = {row["file"]: row["content"] for row in table(tmp_path / "many")}
    assert few.items() <= many.items()


def test_an_image_size_makes_squares(films, tmp_path):
    augment_films(films, tmp_path / "out", 2, image_size=16)
    sizes = {decode(path.read_bytes()).shape for path in (tmp_path / "out").rglob("*.png")}
    assert sizes == {(16, 16)}


def test_films_for_judging_are_refused_before_anything_is_written(films, tmp_path):
    split(films, tmp_path / "m.csv", fractions={"train": 0.5, "test": 0.5})
    with pytest.raises(
        ValueError, match=r"films .* of the split test.*--split train.*--allow-leak"
    ):
        augment_films(tmp_path / "m.csv", tmp_path / "out", 2, split="test")
    with pytest.raises(ValueError, match="split"):
        augment_films(tmp_path / "m.csv", tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()
    result = augment_films(tmp_path / "m.csv", tmp_path / "out", 2, split="train")
    assert result["leaks"] == []
    assert {row["split"] for row in table(tmp_path / "out")} == {"train"}


def test_an_allowed_leak_is_said_by_every_image_and_stays_refused_in_training(films, tmp_path):
    split(films, tmp_path / "m.csv", fractions={"train": 0.5, "test": 0.5})
    result = augment_films(tmp_path / "m.csv:test", tmp_path / "out", 2, allow_leak=True)
    assert result["leaks"] == [f"augmented {result['films']} films of the split test"]
    for path in (tmp_path / "out").rglob("*.png"):
        assert "Leak allowed" in read_png_text(path.read_bytes())["Warning"]
    assert {row["split"] for row in table(tmp_path / "out")} == {"test"}


def test_a_folder_with_files_is_left_alone_unless_overwriting(films, tmp_path):
    augment_films(films, tmp_path / "out", 5)
    before = table(tmp_path / "out")
    with pytest.raises(ValueError, match="already holds files.*--overwrite"):
        augment_films(films, tmp_path / "out", 2)
    assert table(tmp_path / "out") == before


def test_overwriting_removes_what_was_written_before_and_nothing_else(films, tmp_path):
    out = tmp_path / "out"
    augment_films(films, out, 5)
    (out / "A" / "mine.png").write_bytes(b"mine")
    (out / "A" / "augmented-000004.png").write_bytes(b"mine too")
    augment_films(films, out, 2, overwrite=True)
    assert (out / "A" / "mine.png").exists() and (out / "A" / "augmented-000004.png").exists()
    assert not (out / "B" / "augmented-000004.png").exists()
    assert len(table(out)) == 8 + 4


def test_the_summary_is_written_with_everything_that_was_asked(films, tmp_path):
    result = augment_films(films, tmp_path / "out", 2, seed=3, classes=("A",))
    summary = json.loads((tmp_path / "out" / "augmentation.json").read_text())
    assert summary == {k: v for k, v in json.loads(json.dumps(result)).items()
                       if k not in ("out", "table")}  # fmt: skip
    assert (summary["count"], summary["seed"], summary["classes"]) == (2, 3, ["A"])
    assert summary["settings"]["rotation"] == 5.0 and summary["settings"]["flip"] is False
    assert read_summary(tmp_path / "out") == summary and read_summary(tmp_path) is None


def test_a_bad_file_stops_everything_or_is_left_out(films, tmp_path):
    (films / "A" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(ValueError, match="broken.png"):
        augment_films(films, tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()
    result = augment_films(films, tmp_path / "out", 7, on_bad_file="skip")
    assert result["images"] == {"A": 12, "B": 10} and len(result["rejected"]) == 1


def test_films_without_a_class_go_to_the_folder_itself(tmp_path):
    (tmp_path / "films").mkdir()
    write_png(tmp_path / "films" / "a.png", film(0))
    lines = "file\nfilms/a.png\n"
    (tmp_path / "list.csv").write_text(lines)
    augment_films(tmp_path / "list.csv", tmp_path / "out", 2)
    assert {row["file"] for row in table(tmp_path / "out")} == {
        "original-000000.png", "augmented-000000.png", "augmented-000001.png",
    }  # fmt: skip


def test_a_label_cannot_leave_the_folder(tmp_path):
    write_png(tmp_path / "a.png", film(0))
    (tmp_path / "list.csv").write_text("file,label\na.png,../../Edema|Mass\n")
    augment_films(tmp_path / "list.csv", tmp_path / "deep" / "out", 1)
    rows = table(tmp_path / "deep" / "out")
    assert {Path(row["file"]).parent.as_posix() for row in rows} == {"_.._Edema_Mass"}
    assert {row["label"] for row in rows} == {"../../Edema|Mass"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"count": 0}, "--count must be 1 or more, got 0"),
        ({"count": 1, "seed": -1}, "--seed must be 0 or more"),
        ({"count": 1, "image_size": 0}, "--image-size must be from 1"),
        ({"count": 1, "settings": ClassicAugmentation(rotation=200.0)}, "rotation must be from 0"),
        ({"count": 1, "classes": ("C",)}, "has no class 'C'"),
    ],
)
def test_what_makes_no_sense_is_refused(films, tmp_path, wrong, told):
    with pytest.raises(ValueError, match=told):
        augment_films(films, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_the_command_augments_and_reports(films, tmp_path):
    words = ["augment", str(films), "-n", "3", "--class", "A", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(
        main, [*words, "--seed", "2", "--flip", "--json", "--set", "scale=1,1"]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["settings"]["scale"] == [1.0, 1.0] and told["settings"]["rotation"] == 5.0
    assert told["images"] == {"A": 8} and told["settings"]["flip"] is True and told["seed"] == 2
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 1 and "--overwrite" in again.output
    shown = CliRunner().invoke(main, [*words, "--overwrite", "--no-originals"])
    assert "A 3" in shown.output and "films.csv" in shown.output


def test_augmenting_films_needs_no_tensorflow():
    code = "import sys, keras_cxrgan.workflows.augmenting; sys.exit('tensorflow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("inside", ["films below out", "out below films"])
def test_films_and_copies_do_not_lie_in_one_another(films, tmp_path, inside):
    here = shutil.copytree(films, tmp_path / "here")
    out = here if inside == "films below out" else here / "copies"
    before = sorted(path for path in here.rglob("*"))
    with pytest.raises(ValueError, match="lie in one another: choose a folder apart"):
        augment_films(here, out, 2, overwrite=True)
    assert sorted(path for path in here.rglob("*")) == before


def test_overwriting_removes_nothing_outside_of_the_folder(films, tmp_path):
    out = tmp_path / "out"
    augment_films(films, out, 1)
    victim = tmp_path / "victim.txt"
    victim.write_bytes(b"mine")
    lines = (out / TABLE).read_text().splitlines()
    lines.append(f"../victim.txt,x,p,,s,v,h,{content_hash(b'mine')}")
    (out / TABLE).write_text("\n".join(lines) + "\n")
    augment_films(films, out, 1, overwrite=True)
    assert victim.read_bytes() == b"mine"
