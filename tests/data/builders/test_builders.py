from __future__ import annotations

import hashlib
import logging
import zipfile

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_cxrgan.data import builders
from keras_cxrgan.data.builders import films
from keras_cxrgan.data.images import decode
from keras_cxrgan.data.records import Record
from keras_cxrgan.data.tfrecords import read_tfds

tfds.disable_progress_bar()


def film(number, shape=(7, 5)):
    """A PNG file of its own for each number; of colour where the shape has channels."""
    pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def make_folder(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def make_zip(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def prepare(name, tmp_path, manual_dir=None, **config):
    builder = tfds.builder(name, data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, **config)
    builder.download_and_prepare(download_config=config)
    return builder


def examples(builder):
    """(split, example) as tfds reads them, in the order of the files."""
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    return [
        (split, example)
        for split in builder.info.splits
        for example in tfds.as_numpy(builder.as_dataset(split=split, read_config=in_order))
    ]


def check_records_equal_examples(builder):
    """What `read_tfds` makes of a set is what tfds makes of it: the same films, in one order."""
    records, found = read_tfds(str(builder.data_dir)).records, examples(builder)
    assert len(records) == len(found) > 0
    for record, (split, example) in zip(records, found):
        label = example["label"]
        if isinstance(builder.info.features["label"], tfds.features.ClassLabel):
            label = builder.info.features["label"].int2str(label).encode()
        told = (record.split, record.label.encode(), (record.patient or "").encode())
        assert told == (split, label, example["patient"])
        assert record.original == example["sha256"].decode()
        np.testing.assert_array_equal(decode(record.read()), example["image"][..., 0])
    return {example["file"].decode(): (split, example) for split, example in found}


KERMANY = {
    "train/NORMAL/IM-0115-0001.jpeg": film(1),
    "train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg": film(2, (4, 9, 3)),
    "train/PNEUMONIA/person100_virus_184.jpeg": film(3),
    "test/PNEUMONIA/person101_bacteria_475.jpeg": film(4),
    "val/PNEUMONIA/person1946_bacteria_4874.jpeg": film(5),
}


def put_folder(manual):
    make_folder(manual / "chest_xray", KERMANY)
    return manual


def put_set_itself(manual):
    make_folder(manual, KERMANY)
    return manual


def put_zip(manual):
    twice = {f"chest_xray/{name}": data for name, data in KERMANY.items()}
    twice |= {f"chest_xray/{name}": data for name, data in twice.items()}
    make_zip(manual / "chest-xray-pneumonia.zip", twice)
    return manual


@pytest.mark.parametrize("put", [put_folder, put_set_itself, put_zip])
def test_kermany_as_downloaded_or_unpacked_gives_the_same_set(tmp_path, put):
    builder = prepare("cxr_kermany", tmp_path, put(tmp_path / "manual"))
    found = check_records_equal_examples(builder)
    assert set(found) == set(KERMANY)
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == {
        "train": 3,
        "val": 1,
        "test": 1,
    }
    for name, (split, example) in found.items():
        assert split == name.split("/")[0]
        assert example["sha256"].decode() == hashlib.sha256(KERMANY[name]).hexdigest()
        np.testing.assert_array_equal(example["image"][..., 0], decode(KERMANY[name]))
    assert found["train/PNEUMONIA/person100_virus_184.jpeg"][1]["patient"] == b"person100"
    assert found["train/PNEUMONIA/person100_virus_184.jpeg"][1]["label"] == 1


def test_what_the_layout_left_out_and_said_comes_with_the_records(tmp_path):
    builder = prepare("cxr_kermany", tmp_path, put_zip(tmp_path / "manual"))
    reading = read_tfds(str(builder.data_dir))
    assert reading.layout == "tfds"
    assert reading.left_out == {"second copy of the same name": 5}
    assert any("val has 1 files" in note for note in reading.notes)
    assert any("patients known for 5 of 5" in note for note in reading.notes)


def test_damaged_film_is_left_out_named_and_counted(tmp_path, caplog):
    manual = put_folder(tmp_path / "manual")
    (manual / "chest_xray/train/NORMAL/IM-0115-0001.jpeg").write_bytes(film(1)[:40])
    with caplog.at_level(logging.WARNING, "keras_cxrgan"):
        builder = prepare("cxr_kermany", tmp_path, manual)
    assert "IM-0115-0001.jpeg is left out: " in caplog.text
    reading = read_tfds(str(builder.data_dir))
    assert (len(reading.records), reading.left_out) == (4, {"unreadable": 1})


def test_a_split_without_a_readable_film_is_an_error(tmp_path):
    manual = put_folder(tmp_path / "manual")
    (manual / "chest_xray/test/PNEUMONIA/person101_bacteria_475.jpeg").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="none of 1 films can be read"):
        prepare("cxr_kermany", tmp_path, manual)


@pytest.mark.parametrize("name", [name for name in builders.NAMES if name != "cxr_phantom"])
def test_absent_files_are_named_with_their_page_and_folder(tmp_path, name, monkeypatch):
    make_folder(tmp_path / "manual", {"other.zip": b""})
    # Where there is no file, the one set that needs no login is downloaded.
    monkeypatch.setattr(
        tfds.download.DownloadManager, "download", lambda self, url: tmp_path / "absent"
    )
    with pytest.raises(ValueError) as error:
        prepare(name, tmp_path, tmp_path / "manual")
    if name == "cxr_covid_chestxray":
        assert "absent does not exist" in str(error.value)
    else:
        assert f"{tmp_path / 'manual'} holds none of" in str(error.value)
        assert "https://" in str(error.value) and "manual directory" in str(error.value)


def test_radiography_has_no_masks_and_old_folder_names_are_the_same_classes(tmp_path):
    root = "COVID-19_Radiography_Dataset/"
    files = {
        f"{root}{label}/{folder}/{label}-1.png": film(len(label) + len(folder))
        for label in ("COVID", "Viral Pneumonia", "Lung_Opacity", "NORMAL")
        for folder in ("images", "masks")
    }
    make_zip(tmp_path / "manual/covid19-radiography-database.zip", files)
    builder = tfds.builder("cxr_covid19_radiography", data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=tmp_path / "manual")
    builder.download_and_prepare(download_config=config)
    names = builder.info.features["label"].names
    assert {(example["file"], names[example["label"]]) for _, example in examples(builder)} == {
        (b"COVID/images/COVID-1.png", "COVID"),
        (b"Viral Pneumonia/images/Viral Pneumonia-1.png", "Viral Pneumonia"),
        (b"Lung_Opacity/images/Lung_Opacity-1.png", "Lung_Opacity"),
        (b"NORMAL/images/NORMAL-1.png", "Normal"),
    }
    assert read_tfds(str(builder.data_dir)).left_out == {"lung mask": 4}
    check_records_equal_examples(builder)


METADATA = """patientid,offset,finding,view,modality,folder,filename,license
2,0,Pneumonia/Viral/COVID-19,PA,X-ray,images,a.jpg,CC
2,3,Pneumonia/Viral/COVID-19,AP Supine,X-ray,images,b.jpg,
5,,Pneumonia,L,X-ray,images,lateral.jpg,CC
"""
COVID = {f"images/{name}.jpg": film(len(name)) for name in ("a", "b", "lateral")}
COVID["metadata.csv"] = METADATA


@pytest.mark.parametrize("downloaded", [True, False])
def test_covid_chestxray_from_the_manual_folder_or_by_download(tmp_path, downloaded, monkeypatch):
    urls = []
    if downloaded:
        files = {f"covid-chestxray-dataset-master/{name}": data for name, data in COVID.items()}
        make_zip(tmp_path / "master.zip", files)
    else:
        make_folder(tmp_path / "manual/covid-chestxray-dataset", COVID)

    def download(self, url):
        urls.append(url)
        return tmp_path / "master.zip"

    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    builder = prepare("cxr_covid_chestxray", tmp_path, tmp_path / "manual")
    assert bool(urls) == downloaded
    found = check_records_equal_examples(builder)
    assert {name: example["patient"] for name, (_, example) in found.items()} == {
        "a.jpg": b"2",
        "b.jpg": b"2",
    }
    assert found["a.jpg"][1]["label"] == b"Pneumonia/Viral/COVID-19"


NIH = {
    "Data_Entry_2017.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,View Position,\n"
    "00000001_000.png,Cardiomegaly|Edema,0,1,PA,\n00000001_001.png,No Finding,1,1,AP,\n"
    "00000013_000.png,Mass,0,13,PA,\n00000014_000.png,Mass,0,14,PA,\n",
    "train_val_list.txt": "00000001_000.png\n00000001_001.png\n",
    "test_list.txt": "00000013_000.png",
    "images_001/images/00000001_000.png": film(1),
    "images_001/images/00000001_001.png": film(2),
    "images_002/images/00000013_000.png": film(3),
    "images_002/images/00000014_000.png": film(4),
}


def test_nih_findings_official_lists_and_films_on_neither_list(tmp_path):
    make_folder(tmp_path / "manual/cxr_nih", NIH)
    found = check_records_equal_examples(prepare("cxr_nih", tmp_path, tmp_path / "manual"))
    names = tfds.builder("cxr_nih", data_dir=tmp_path / "data").info.features["labels"].names
    told = {
        name.split("/")[-1]: (split, example["label"], [names[i] for i in example["labels"]])
        for name, (split, example) in found.items()
    }
    assert told == {
        "00000001_000.png": ("train", b"Cardiomegaly|Edema", ["Cardiomegaly", "Edema"]),
        "00000001_001.png": ("train", b"No Finding", []),
        "00000013_000.png": ("test", b"Mass", ["Mass"]),
        "00000014_000.png": ("unlisted", b"Mass", ["Mass"]),
    }


def test_phantom_needs_no_files_and_its_splits_share_no_patient(tmp_path):
    builder = prepare("cxr_phantom/64", tmp_path, max_examples_per_split=4)
    found = check_records_equal_examples(builder)
    patients = {"train": set(), "test": set()}
    for split, example in found.values():
        patients[split].add(example["patient"])
        assert example["image"].shape == (64, 64, 1)
    assert len(patients["train"]) == len(patients["test"]) == 4
    assert not patients["train"] & patients["test"]


def test_films_are_read_as_they_are_written_and_not_all_before(tmp_path, monkeypatch):
    """A set larger than memory can be prepared."""
    read = []
    named = [(f"{number}.png", Record(f"{number}.png", "NORMAL")) for number in range(200)]
    monkeypatch.setattr(Record, "read", lambda record: read.append(record) or film(1))
    builder = tfds.builder("cxr_kermany", data_dir=tmp_path)
    builder.info.metadata.update(left_out={})
    generated = films.examples(builder, named, lambda record: {"label": record.label})
    assert next(generated)[0] == "0.png"
    assert len(read) < 50
    assert [key for key, _ in generated][-1] == "199.png"


def test_load_by_name_reads_what_was_prepared(tmp_path):
    prepare("cxr_kermany", tmp_path, put_folder(tmp_path / "manual"))
    train = tfds.load("cxr_kermany", split="train", data_dir=tmp_path / "data", download=False)
    assert sorted(int(example["label"]) for example in train) == [0, 0, 1]
