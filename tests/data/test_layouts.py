from __future__ import annotations

import json
import zipfile

import cv2
import numpy as np
import pytest

from keras_cxrgan.data.layouts import LAYOUTS, read_layout

PNG = cv2.imencode(".png", np.full((4, 4), 7, np.uint8))[1].tobytes()
DICOM = b"\0" * 128 + b"DICM"


def make_folder(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def make_zip(path, files):
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read(root, files, layout="auto", classes=()):
    return read_layout(make_folder(root / "set", files), layout, classes)


def rows(reading):
    return [
        (record.path.replace("\\", "/").rsplit("/", 1)[-1], record.label, record.patient)
        for record in reading.records
    ]


def noted(reading, text):
    return [note for note in reading.notes if text in note]


KERMANY = {
    "chest_xray/train/NORMAL/IM-0115-0001.jpeg": PNG,
    "chest_xray/train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg": PNG,
    "chest_xray/train/PNEUMONIA/person100_virus_184.jpeg": PNG,
    "chest_xray/test/PNEUMONIA/person100_bacteria_475.jpeg": PNG,
    "chest_xray/val/PNEUMONIA/person1946_bacteria_4874.jpeg": PNG,
}
NESTED = {name.replace("chest_xray/", "chest_xray/chest_xray/", 1): PNG for name in KERMANY}
JUNK = {
    "chest_xray/__MACOSX/chest_xray/train/NORMAL/._IM-0115-0001.jpeg": b"junk",
    "chest_xray/chest_xray/__MACOSX/x/NORMAL/IM-0115-0001.jpeg": PNG,
    "chest_xray/.DS_Store": b"",
}


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_kermany_with_its_second_copy_and_leftovers_is_counted_once(tmp_path, make):
    reading = read_layout(make(tmp_path / "set", {**NESTED, **KERMANY, **JUNK}))
    assert reading.layout == "kermany"
    assert rows(reading) == [
        ("person100_bacteria_475.jpeg", "PNEUMONIA", "person100"),
        ("IM-0115-0001.jpeg", "NORMAL", "IM-0115"),
        ("NORMAL2-IM-0115-0001-0002.jpeg", "NORMAL", "NORMAL2-IM-0115"),
        ("person100_virus_184.jpeg", "PNEUMONIA", "person100"),
        ("person1946_bacteria_4874.jpeg", "PNEUMONIA", "person1946"),
    ]
    assert [record.split for record in reading.records] == ["test", *["train"] * 3, "val"]
    assert reading.left_out == {
        "second copy of the same name": 5,
        "macOS leftover (__MACOSX, ._*)": 2,
    }
    assert all(record.read() == PNG for record in reading.records)
    assert not any("chest_xray/chest_xray" in record.path for record in reading.records)
    assert noted(reading, "val has 1 files") and noted(reading, "1 person numbers")


def test_kermany_files_that_only_the_nested_copy_has_are_kept(tmp_path):
    (extra, *_), files = NESTED, dict(list(KERMANY.items())[1:])
    assert len(read(tmp_path, {extra: PNG, **files}).records) == 5


def test_kermany_beside_a_third_class_is_a_plain_folder_that_keeps_all(tmp_path):
    reading = read(tmp_path, {**KERMANY, "chest_xray/train/COVID/a.png": PNG})
    assert (reading.layout, len(reading.records)) == ("folder", 6)
    reading = read_layout(tmp_path / "set", "kermany")
    assert reading.left_out == {"outside of the folders NORMAL and PNEUMONIA": 1}


def test_same_class_folders_with_other_names_are_not_taken_for_kermany(tmp_path):
    files = {"train/NORMAL/00001280_004.png": PNG, "train/PNEUMONIA/00002437_033.png": PNG}
    assert read(tmp_path, files).layout == "folder"


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_radiography_masks_are_no_films(tmp_path, make):
    root = "COVID-19_Radiography_Dataset/"
    files = {
        f"{root}{label}/{folder}/{label}-1.png": PNG
        for label in ("COVID", "Viral Pneumonia")
        for folder in ("images", "masks")
    }
    files |= {root + "COVID.metadata.xlsx": b"PK", root + "README.md.txt": b"", root + "a.png": PNG}
    reading = read_layout(make(tmp_path / "set", files))
    assert reading.layout == "covid19-radiography"
    expected = [("COVID-1.png", "COVID", None), ("Viral Pneumonia-1.png", "Viral Pneumonia", None)]
    assert rows(reading) == expected
    assert reading.left_out == {"lung mask": 2, "outside of the class folders": 1}


def test_radiography_class_folder_alone_and_older_versions(tmp_path):
    alone = {"images/COVID-1.png": PNG, "masks/COVID-1.png": PNG}
    reading = read_layout(make_folder(tmp_path / "COVID", alone))
    assert rows(reading) == [("COVID-1.png", "COVID", None)]
    older = {"NORMAL/NORMAL (1).png": PNG, "NORMAL.metadata.xlsx": b"PK"}
    reading = read(tmp_path, older)
    assert reading.layout == "covid19-radiography"
    assert rows(reading) == [("NORMAL (1).png", "NORMAL", None)]


METADATA = """patientid,offset,finding,view,modality,folder,filename,license
2,0,Pneumonia/Viral/COVID-19,PA,X-ray,images,a.jpg,CC
2,3,Pneumonia/Viral/COVID-19,AP Supine,X-ray,images,b.jpg,
4,,No Finding,AP Erect,X-ray,images,c.png,CC
5,,Pneumonia,L,X-ray,images,lateral.jpg,CC
6,,Pneumonia,Axial,CT,images,slice.jpg,CC
7,,todo,PA,X-ray,images,todo.jpg,CC
8,,Pneumonia,Coronal,CT,volumes,scan.nii.gz,CC
"""
COVID = {f"images/{n}": PNG for n in ("a.jpg", "b.jpg", "c.png", "lateral.jpg", "slice.jpg")}
COVID |= {"images/todo.jpg": PNG, "annotations/a.jpg": PNG, "volumes/scan.nii.gz": b"\x1f\x8b"}


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_covid_chestxray_keeps_frontal_films_and_counts_the_rest(tmp_path, make):
    files = {f"covid-chestxray-dataset/{name}": data for name, data in COVID.items()}
    files["covid-chestxray-dataset/metadata.csv"] = METADATA
    reading = read_layout(make(tmp_path / "set", files))
    assert reading.layout == "covid-chestxray"
    assert rows(reading) == [
        ("a.jpg", "Pneumonia/Viral/COVID-19", "2"),
        ("b.jpg", "Pneumonia/Viral/COVID-19", "2"),
        ("c.png", "No Finding", "4"),
    ]
    assert reading.left_out == {
        "CT": 1,
        "lateral view": 1,
        "finding not known": 1,
        "not in metadata.csv": 1,
    }
    assert noted(reading, "AP Supine 1") and noted(reading, "1 images state no licence")
    assert noted(reading, "1 entries of metadata.csv are about no image")


def test_early_covid_chestxray_has_ct_as_a_view_and_odd_headers(tmp_path):
    table = "\ufeffPatientid,finding,view, filename\n17,COVID-19,CT,a.jpg\n17,COVID-19,APS,b.jpg\n"
    reading = read(tmp_path, {"metadata.csv": table, "images/a.jpg": PNG, "images/b.jpg": PNG})
    assert reading.layout == "covid-chestxray"
    assert (rows(reading), reading.left_out) == ([("b.jpg", "COVID-19", "17")], {"CT": 1})


def test_a_damaged_covid_table_is_named_in_the_error(tmp_path):
    files = {"metadata.csv": b"filename,finding\na.jpg,x\n", "images/a.jpg": PNG}
    with pytest.raises(ValueError, match=r"needs metadata\.csv.*finding.*--layout") as error:
        read(tmp_path, files, "covid-chestxray")
    assert "\n" not in str(error.value)


NIH = {
    "Data_Entry_2017.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,View Position,\n"
    "00000001_000.png,Cardiomegaly|Edema,0,1,PA,\n00000001_001.png,No Finding,1,1,AP,\n"
    "00000013_000.png,Mass,0,13,PA,\n00000099_000.png,Mass,0,99,PA,\n",
    "BBox_List_2017.csv": "Image Index,Finding Label,Bbox [x,y,w,h]\n00000013_000.png,Nodule,1,2\n",
    "train_val_list.txt": "00000001_000.png\n00000001_001.png\n",
    "test_list.txt": "00000013_000.png",
    "images_001/images/00000001_000.png": PNG,
    "images_001/images/00000001_001.png": PNG,
    "images_002/images/00000013_000.png": PNG,
    "images_002/images/other.png": PNG,
    "images_002/00000013_000.png/copy/00000013_000.png": PNG,
}


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_nih_labels_patients_and_official_lists(tmp_path, make):
    reading = read_layout(make(tmp_path / "set", NIH))
    assert reading.layout == "nih"
    assert rows(reading) == [
        ("00000001_000.png", "Cardiomegaly|Edema", "00000001"),
        ("00000001_001.png", "No Finding", "00000001"),
        ("00000013_000.png", "Mass", "00000013"),
    ]
    assert [record.split for record in reading.records] == ["train", "train", "test"]
    assert reading.left_out == {"not in Data_Entry_2017.csv": 1, "second copy of the same name": 1}
    assert noted(reading, "1 images have several") and noted(reading, "PA 2, AP 1")


def test_nih_corrected_labels_win_and_a_class_is_exactly_one_label(tmp_path):
    later = NIH["Data_Entry_2017.csv"].replace("No Finding", "Hernia")
    reading = read(tmp_path, {**NIH, "Data_Entry_2017_v2020.csv": later}, classes=["Hernia"])
    assert rows(reading) == [("00000001_001.png", "Hernia", "00000001")]
    assert reading.left_out["other class (--class)"] == 2
    with pytest.raises(ValueError, match=r"did you mean 'Hernia'\?"):
        read_layout(tmp_path / "set", classes=["hernia"])


RSNA = {
    "stage_2_train_labels.csv": "patientId,x,y,width,height,Target\n"
    "aa,1,2,3,4,1\naa,5,6,7,8,1\nbb,,,,,0\ncc,,,,,0\n",
    "stage_2_train_images/aa.dcm": DICOM,
    "stage_2_train_images/bb.dcm": DICOM,
    "stage_2_train_images/cc.dcm": DICOM,
    "stage_2_test_images/dd.dcm": DICOM,
}
DETAILED = "patientId,class\naa,Lung Opacity\naa,Lung Opacity\nbb,Normal\n" + (
    "cc,No Lung Opacity / Not Normal\n"
)


def test_rsna_has_one_record_per_film_however_many_boxes(tmp_path):
    reading = read(tmp_path, RSNA)
    assert reading.layout == "rsna"
    assert rows(reading) == [
        ("aa.dcm", "Lung Opacity", None),
        ("bb.dcm", "No Lung Opacity", None),
        ("cc.dcm", "No Lung Opacity", None),
    ]
    assert reading.left_out == {"test image without a label": 1}
    assert noted(reading, "1 films have several rows")
    assert noted(reading, "patientId names an exam, so patients are unknown")
    mapping = [
        {"subset_img_id": exam, "img_id": f"{number:08d}_{follow_up:03d}.png"}
        for exam, number, follow_up in (("aa", 7, 0), ("bb", 7, 3), ("cc", 12, 0))
    ]
    name = "pneumonia-challenge-dataset-mappings_2018.json"
    reading = read(tmp_path, {name: json.dumps(mapping).encode()})
    assert [record.patient for record in reading.records] == ["00000007", "00000007", "00000012"]
    assert noted(reading, f"patients from {name}")
    reading = read(tmp_path, {name: b"[1, 2]"})
    assert noted(reading, f"{name} was not read") and reading.records[0].patient is None
    (tmp_path / "set" / name).unlink()
    reading = read(tmp_path, {"stage_2_detailed_class_info.csv": DETAILED})
    assert [record.label for record in reading.records] == [
        "Lung Opacity",
        "Normal",
        "No Lung Opacity / Not Normal",
    ]


def tuberculosis(prefix, root):
    return {
        f"{root}/CXR_png/{prefix}_0001_0.png": PNG,
        f"{root}/CXR_png/{prefix}_0352_1.png": PNG,
        f"{root}/ClinicalReadings/{prefix}_0001_0.txt": "normal",
        f"{root}/ManualMask/leftMask/{prefix}_0001_0.png": PNG,
        f"{root}/mask/{prefix}_0352_1_mask.png": PNG,
    }


@pytest.mark.parametrize(("layout", "prefix"), [("montgomery", "MCUCXR"), ("shenzhen", "CHNCXR")])
def test_tuberculosis_label_is_the_last_digit_and_masks_of_the_same_name_stay_out(
    tmp_path, layout, prefix
):
    reading = read(tmp_path, tuberculosis(prefix, "Set"))
    assert reading.layout == layout
    assert rows(reading) == [
        (f"{prefix}_0001_0.png", "normal", f"{prefix}_0001"),
        (f"{prefix}_0352_1.png", "tuberculosis", f"{prefix}_0352"),
    ]
    assert reading.left_out == {"lung mask": 2}


def test_two_sets_at_once_are_refused_until_one_is_named(tmp_path):
    files = tuberculosis("MCUCXR", "A") | tuberculosis("CHNCXR", "B")
    with pytest.raises(ValueError, match=r"montgomery and shenzhen.*--layout"):
        read(tmp_path, files)
    reading = read_layout(tmp_path / "set", "shenzhen")
    assert reading.left_out == {"lung mask": 4, "other file name": 2}


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_a_plain_table_gives_patients_and_labels(tmp_path, make):
    table = "file;label;patient_id\nN/a.png;NORMAL;p1\nb.png;COVID;p1\nC/c.png;C;\ngone.png;C;p9\n"
    files = {"x/N/a.png": PNG, "x/C/b.png": PNG, "x/C/c.png": PNG, "x/C/00001280_004.png": PNG}
    reading = read_layout(make(tmp_path / "set", {**files, "x/metadata.csv": table}))
    assert (reading.layout, reading.left_out) == ("folder", {})
    assert rows(reading) == [
        ("00001280_004.png", "C", "00001280"),
        ("b.png", "COVID", "p1"),
        ("c.png", "C", None),
        ("a.png", "NORMAL", "p1"),
    ]
    assert noted(reading, "patients known for 3 of 4 images: 2 from a table, 1 by")
    assert noted(reading, "1 entries of metadata.csv") and noted(reading, "2 labels are not the")


@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_the_overview_of_generated_images_is_no_film(tmp_path, make):
    listing = "file,index,seed,truncation,sha256,model\n000000.png,0,0,,0,m\n"
    made = {"A/000000.png": PNG, "A/grid.png": PNG, "A/manifest.csv": listing}
    own = {"B/grid.png": PNG, "B/manifest.csv": "file,label\ngrid.png,B\n"}
    reading = read_layout(make(tmp_path / "set", {**made, **own}))
    assert rows(reading) == [("000000.png", "A", None), ("grid.png", "B", None)]
    assert reading.left_out == {"overview of generated images (grid.png)": 1}


def test_a_base_name_in_two_folders_is_not_guessed_from_a_table(tmp_path):
    files = {"A/1.png": PNG, "B/1.png": PNG, "C/2.png": PNG}
    files["t.csv"] = "file,patient\n1.png,p\n2.png,q\n"
    assert [record.patient for record in read(tmp_path, files).records] == [None, None, "q"]


def test_folder_splits_are_no_labels_and_masks_are_noted(tmp_path):
    reading = read(tmp_path, {"train/a.png": PNG, "test/X/b.png": PNG, "masks/c.png": PNG})
    assert sorted((r.label or "", r.split or "") for r in reading.records) == [
        ("", "train"),
        ("X", "test"),
        ("masks", ""),
    ]
    assert noted(reading, "1 images are in folders of masks")


def test_a_table_that_cannot_be_read_does_not_stop_a_folder(tmp_path):
    reading = read(tmp_path, {"A/a.png": PNG, "t.csv": "file,label\n" + '"' + "x" * 200_000})
    assert noted(reading, "t.csv was not read: field larger")


def test_a_single_image_is_a_folder_of_one(tmp_path):
    make_folder(tmp_path, {"scan.png": PNG})
    assert rows(read_layout(tmp_path / "scan.png")) == [("scan.png", None, None)]


def test_the_current_folder_reads_as_its_full_path_does(tmp_path, monkeypatch):
    monkeypatch.chdir(make_folder(tmp_path, NIH))
    assert rows(read_layout(".")) == rows(read_layout(tmp_path))


def test_unknown_layouts_and_misfits_are_one_line(tmp_path):
    make_folder(tmp_path, {"A/a.png": PNG})
    with pytest.raises(ValueError, match=r"did you mean 'kermany'\?.*--layout"):
        read_layout(tmp_path, "kermani")
    for layout in set(LAYOUTS) - {"folder"}:
        with pytest.raises(ValueError, match=rf"layout {layout}: it needs .* A/ 1 .*--layout") as e:
            read_layout(tmp_path, layout)
        assert "\n" not in str(e.value)


def test_training_and_testing_are_splits_too(tmp_path):
    files = {f"{split}/{label}/0.png": PNG for split in ("Training", "Testing") for label in "ab"}
    reading = read(tmp_path, files)
    assert [(r.label, r.split) for r in reading.records] == [
        ("a", "test"), ("b", "test"), ("a", "train"), ("b", "train"),
    ]  # fmt: skip


def test_a_small_table_cannot_fill_the_memory(tmp_path):
    wide = ",".join(f"c{i}" for i in range(1500)) + "\n" + "x\n" * 1500
    reading = read(tmp_path, {"a/0.png": PNG, "wide.csv": wide})
    assert noted(reading, "wide.csv was not read: a table has at most 200 columns")


def test_all_tables_beside_the_films_are_read(tmp_path):
    """One for each split, or class: the patients of a table left out would be on both sides."""
    films = {f"films/{name}.png": PNG for name in "abcd"}
    tables = {
        "one.csv": b"file,label,patient_id\na.png,ill,p1\nb.png,ill,p2\n",
        "two.csv": b"file,label,patient_id\nb.png,,p2\nc.png,well,p1\nd.png,well,p3\n",
    }
    reading = read(tmp_path, films | tables)
    assert rows(reading) == [
        ("a.png", "ill", "p1"), ("b.png", "ill", "p2"), ("c.png", "well", "p1"),
        ("d.png", "well", "p3"),
    ]  # fmt: skip
    assert noted(reading, "one.csv (") and noted(reading, "two.csv (")
    contradicting = films | tables | {"two.csv": b"file,patient_id\nb.png,p9\n"}
    with pytest.raises(ValueError, match="the patient 'p9', and another table 'p2'"):
        read(tmp_path / "again", contradicting)
