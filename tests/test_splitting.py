import csv
import json
import types
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from keras_cxrgan.cli.splitting import split_command
from keras_cxrgan.data.dicom import pseudonym
from keras_cxrgan.data.images import decode, encode_png
from keras_cxrgan.data.manifest import read_manifest
from keras_cxrgan.data.records import content_hash
from keras_cxrgan.workflows.splitting import _by_given_name, split

HALVES = {"train": 0.5, "test": 0.5}


def film(name):
    """An image of its own for each name, unlike all others."""
    noise = np.random.default_rng(list(name.encode())).integers(0, 256, (16, 16), np.uint8)
    return encode_png(cv2.resize(noise, (64, 64), interpolation=cv2.INTER_NEAREST))


def write(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(film(name))
    return folder


def patients_in(path):
    return [entry.record.patient for entry in read_manifest(path)]


def nih(patients, label):
    return [f"{label}/{patient:08d}_{i:03d}.png" for i, patient in enumerate(patients)]


def test_patients_of_two_classes_stay_on_one_side_by_their_nih_names(tmp_path):
    data = write(tmp_path / "d", nih(range(40), "NORMAL") + nih(range(20, 60), "PNEUMONIA"))
    result = split(data, tmp_path / "d" / "m.csv", fractions=HALVES)
    assert result["patients_found_by"] == {"folder layout": 80}
    assert (result["patients"], result["warnings"]) == (60, [])
    sides = [set(patients_in_split(tmp_path / "d" / "m.csv", name)) for name in HALVES]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 60
    assert result["splits"]["train"]["classes"]["NORMAL"]["files"] == 20


def patients_in_split(path, name):
    return [entry.record.patient for entry in read_manifest(path, name)]


def test_films_without_a_patient_are_counted_and_warned_of(tmp_path):
    data = write(tmp_path / "d", [*nih(range(4), "x"), "x/other.png"])
    result = split(data, tmp_path / "m.csv", fractions=HALVES)
    assert patients_in(tmp_path / "m.csv").count(None) == 1
    assert result["patients_found_by"] == {"folder layout": 4}
    assert "1 of 5 files have no known patient" in result["warnings"][0]


@pytest.mark.parametrize("packed", [False, True])
def test_metadata_gives_patients_and_origin_and_the_regex_goes_first(tmp_path, packed):
    data = write(tmp_path / "d", ["x/a.png", "x/b.png", "x/s7_1.png", "x/s7_2.png", "x/c.png"])
    table = "File,Patient_ID,source\nx/a.png,1,NIH\nb.png,1,NIH\nx/s7_1.png,,web\n"
    (data / "metadata.csv").write_text(table)
    if packed:
        with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
            for path in sorted(data.rglob("*.*")):
                archive.write(path, path.relative_to(data))
        data = tmp_path / "d.zip"
    result = split(data, tmp_path / "m.csv", fractions=HALVES, patient_regex=r"s(\d)_")
    assert patients_in(tmp_path / "m.csv") == ["1", "1", None, "7", "7"]
    assert result["patients_found_by"] == {"folder layout": 2, "--patient-regex": 2}
    origins = [entry.source for entry in read_manifest(tmp_path / "m.csv")]
    assert origins == ["NIH", "NIH", data.name, "web", data.name]


def test_a_bare_name_in_the_metadata_is_not_given_to_two_files(tmp_path):
    data = write(tmp_path / "d", ["x/1.png", "y/1.png", "y/2.png"])
    (data / "metadata.csv").write_text("filename,patientid\n1.png,p\n2.png,q\n")
    split(data, tmp_path / "m.csv", fractions=HALVES)
    assert patients_in(tmp_path / "m.csv") == [None, None, "q"]


def test_metadata_that_contradicts_itself_is_an_error(tmp_path):
    data = write(tmp_path / "d", ["a.png", "b.png"])
    (data / "metadata.csv").write_text("path,patient\na.png,1\na.png,1\na.png,2\n")
    with pytest.raises(ValueError, match="gives a.png two patients .'1' and '2'"):
        split(data, tmp_path / "m.csv", fractions=HALVES)


def test_a_wrong_regex_is_one_clear_line_before_any_film_is_read(tmp_path):
    with pytest.raises(ValueError, match="has 0 groups.*--patient-regex"):
        split(tmp_path / "nowhere", tmp_path / "m.csv", patient_regex="a")


def test_copies_of_a_film_under_two_patients_stay_together(tmp_path):
    data = write(tmp_path / "d", nih(range(30), "x"))
    for patient in range(10):
        copied = data / f"x/{patient:08d}_{patient:03d}.png"
        (data / f"x/{patient + 10:08d}_900.png").write_bytes(copied.read_bytes())
    result = split(data, tmp_path / "m.csv", fractions=HALVES)
    assert result["duplicate_files"] == 10
    assert result["joined_patients"][0] == ["00000000", "00000010"]
    side = {e.record.patient: e.record.split for e in read_manifest(tmp_path / "m.csv")}
    assert all(side[f"{p:08d}"] == side[f"{p + 10:08d}"] for p in range(10))


def test_near_copies_of_a_film_stay_on_one_side(tmp_path):
    data = write(tmp_path / "d", [f"{i}.png" for i in range(12)])
    for i in range(6):
        paler = decode((data / f"{i}.png").read_bytes()) // 2 + 60
        (data / f"again{i}.png").write_bytes(encode_png(cv2.resize(paler, (80, 80))))
    result = split(data, tmp_path / "m.csv", fractions=HALVES)
    side = {Path(e.record.path).name: e.record.split for e in read_manifest(tmp_path / "m.csv")}
    assert all(side[f"{i}.png"] == side[f"again{i}.png"] for i in range(6))
    pairs = [sorted(Path(name).name for name in pair) for pair in result["near_duplicates"]]
    assert sorted(pairs) == [[f"{i}.png", f"again{i}.png"] for i in range(6)]
    assert result["duplicate_files"] == 0


def test_one_class_of_each_source_is_warned_of(tmp_path):
    data = write(tmp_path / "d", [f"{label}/{i}.png" for label in "AB" for i in range(4)])
    rows = "".join(f"{label}/{i}.png,from {label}\n" for label in "AB" for i in range(4))
    (data / "metadata.csv").write_text("file,source,label\n" + rows.replace("\n", ",\n"))
    (*_, last) = split(data, tmp_path / "m.csv", fractions=HALVES)["warnings"]
    assert "these sources hold one class only (from A: A, from B: B)" in last


def test_dicom_films_are_split_by_their_patient_tag(tmp_path):
    pytest.importorskip("pydicom")
    for index in range(8):
        write_dicom(tmp_path / "d" / f"{index}.dcm", film(f"{index}"), f"P{index // 2}")
    result = split(tmp_path / "d", tmp_path / "m.csv", fractions=HALVES)
    assert result["patients_found_by"] == {"DICOM PatientID": 8}
    patients = patients_in(tmp_path / "m.csv")
    assert patients[::2] == patients[1::2] and len(set(patients)) == result["patients"] == 4
    # A hospital's patient number is not what a manifest should carry about.
    assert not {f"P{index}" for index in range(4)} & set(patients)


def write_dicom(path, png, patient):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    pixels = decode(png)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality, dataset.PatientID = "CR", patient
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def test_folds_are_written_as_splits_and_numbers(tmp_path):
    data = write(tmp_path / "d", [f"{i}.png" for i in range(9)])
    split(data, tmp_path / "m.csv", folds=3)
    entries = read_manifest(tmp_path / "m.csv")
    assert sorted(entry.fold for entry in entries) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(entry.record.split == f"fold{entry.fold}" for entry in entries)


def test_a_class_too_rare_for_a_split_is_warned_of(tmp_path):
    data = write(tmp_path / "d", [f"x/{i}.png" for i in range(20)] + ["rare/1.png"])
    result = split(data, tmp_path / "m.csv", fractions=HALVES)
    assert any("has no file of rare" in text for text in result["warnings"])


def test_an_existing_manifest_is_kept_unless_told(tmp_path):
    data = write(tmp_path / "d", [f"{i}.png" for i in range(6)])
    (tmp_path / "m.csv").write_text("mine")
    with pytest.raises(ValueError, match="already exists.*--overwrite"):
        split(data, tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text() == "mine"
    split(data, tmp_path / "m.csv", overwrite=True)
    assert len(read_manifest(tmp_path / "m.csv")) == 6
    with pytest.raises(ValueError, match="is a folder"):
        split(data, tmp_path / "d", overwrite=True)


def test_unreadable_files_are_all_named_and_nothing_is_written(tmp_path):
    data = write(tmp_path / "d", ["a.png", "b.png", "e.png"])
    (data / "c.png").symlink_to(tmp_path / "nowhere")
    (data / "d.png").write_bytes(b"<html>")
    with pytest.raises(
        ValueError, match=r"2 of 5 images cannot be used(.|\n)*d\.png: an HTML page"
    ):
        split(data, tmp_path / "m.csv", fractions=HALVES)
    assert not (tmp_path / "m.csv").exists()
    result = split(data, tmp_path / "m.csv", fractions=HALVES, on_bad_file="skip")
    assert [Path(name).name for name, _ in result["rejected"]] == ["c.png", "d.png"]
    assert "2 files cannot be read and are in no split" in result["warnings"]
    assert len(read_manifest(tmp_path / "m.csv")) == 3


def run(*arguments):
    return CliRunner().invoke(split_command, [str(argument) for argument in arguments])


def test_the_command_prints_the_counts_by_split_and_class(tmp_path):
    data = write(tmp_path / "d", nih(range(10), "A") + nih(range(5, 15), "B"))
    done = run(data, "--out", tmp_path / "m.csv", "--fractions", "train=0.6,test=0.4")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["split", "files", "patients", "A", "B", "off"] in lines
    assert ["all", "20", "15", "10", "10"] in lines
    (train,) = [line for line in lines if line[:1] == ["train"]]
    with open(tmp_path / "m.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    assert int(train[1]) == len(rows) == 12
    assert int(train[3]) == sum(row["label"] == "A" for row in rows)


def test_the_command_gives_json_of_one_class_and_a_seed(tmp_path):
    data = write(tmp_path / "d", nih(range(10), "A") + nih(range(10, 20), "B"))
    done = run(
        data, "--out", tmp_path / "m.csv", "--class", "A", "--seed", 3, "--folds", 2, "--json"
    )
    # Older click mixes stderr, with the progress line, into the output.
    result = json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1])
    assert (result["files"], result["seed"]) == (10, 3)
    assert list(result["splits"]) == ["fold0", "fold1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fractions", "train"], "must be NAME=SHARE"),
        (["--fractions", "train=0.5,train=0.5"], "train is given twice"),
        (["--fractions", "train=0.5,test=0.4"], "sum to 0.9"),
        (["--fractions", "train=0.5,test=0.5", "--folds", "2"], "not both"),
        ([], "2 files make 2 groups"),
    ],
)
def test_wrong_options_are_one_clear_message(tmp_path, arguments, message):
    data = write(tmp_path / "d", ["a.png", "b.png"])
    done = run(data, "--out", tmp_path / "m.csv", *arguments)
    assert done.exit_code != 0 and message in done.output
    assert isinstance(done.exception, SystemExit)


def test_a_tag_that_a_table_names_is_that_patient():
    def named(*films):
        facts = [types.SimpleNamespace(tagged=tag) for _, tag in films]
        return _by_given_name([patient or tag for patient, tag in films], facts)

    tag, other, all_alike = (pseudonym(name) for name in ("P7", "P8", "ANONYMOUS"))
    # Listed films have the table's name, others their tag's.
    assert named(("P7", None), (None, tag), (None, other)) == ["P7", "P7", other]
    assert named(("seven", tag), (None, tag), (None, None)) == ["seven", "seven", None]
    # What an anonymiser wrote into all files joins nobody.
    films = [("A", all_alike), ("B", all_alike), (None, all_alike)]
    assert named(*films) == ["A", "B", all_alike]


def test_copies_stay_with_the_film_that_they_were_made_of(tmp_path):
    data = write(tmp_path / "d", [f"x/{i}.png" for i in range(40)])
    hashes = [content_hash((data / "x" / f"{i}.png").read_bytes()) for i in range(40)]
    rows = [f"x/{i}.png,x,{hashes[i % 10]}\n" for i in range(10, 40)]
    (data / "films.csv").write_text("path,label,original_sha256\n" + "".join(rows))
    split(data, tmp_path / "m.csv", fractions=HALVES)
    sides = {}
    for entry in read_manifest(tmp_path / "m.csv"):
        sides.setdefault(entry.record.original or entry.sha256, set()).add(entry.record.split)
    assert len(sides) == 10 and all(len(side) == 1 for side in sides.values())
    # A manifest in which they were moved apart is refused.
    text = (tmp_path / "m.csv").read_text().splitlines()
    at = next(i for i, line in enumerate(text) if "x/39.png" in line)
    swapped = text[at].replace(",train,", ",?,").replace(",test,", ",train,").replace("?", "test")
    (tmp_path / "m.csv").write_text("\n".join([*text[:at], swapped, *text[at + 1 :]]) + "\n")
    with pytest.raises(ValueError, match="the same content, or copies of it, on two sides"):
        read_manifest(tmp_path / "m.csv")
