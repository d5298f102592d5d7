from __future__ import annotations

import concurrent.futures
import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_cxrgan.data import tfrecords
from keras_cxrgan.data.images import decode
from keras_cxrgan.data.prepare import prepare_images
from keras_cxrgan.data.records import Record, find_records
from keras_cxrgan.data.tfrecords import holds, read_tfds

tfds.disable_progress_bar()

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 28, 28, 1), np.uint8)


def make(folder, features, splits, keys=None, file_format=None, set_name="foreign", **config):
    """Prepares a set that this package's builders know nothing of; its folder."""

    class Foreign(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = set_name
        VERSION = tfds.core.Version("2.1.0")

        def _info(self):
            features_dict = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features_dict, supervised_keys=keys)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows):
            yield from enumerate(rows)

    builder = Foreign(data_dir=folder, file_format=file_format)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**config))
    return str(builder.data_dir)


def medical(folder, **config):
    """In the style of pneumonia_mnist: 20 films to train on and 10 to test."""
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(names=["Normal", "Pneumonia"]),
    }
    rows = [{"image": image, "label": i % 2} for i, image in enumerate(IMAGES)]
    return make(folder, features, {"train": rows[:20], "test": rows[20:]}, **config)


def in_order(folder, split):
    builder = tfds.builder_from_directory(folder)
    config = tfds.ReadConfig(interleave_cycle_length=1)
    return list(tfds.as_numpy(builder.as_dataset(split=split, read_config=config)))


def test_foreign_set_keeps_its_labels_splits_and_pixels(tmp_path):
    folder = medical(tmp_path)
    reading = read_tfds(folder)
    assert reading.layout == "tfds"
    assert [record.path for record in reading.records[19:22]] == [
        "train/000019",
        "test/000000",
        "test/000001",
    ]
    examples = in_order(folder, "train") + in_order(folder, "test")
    for record, example in zip(reading.records, examples, strict=True):
        assert record.label == ("Normal", "Pneumonia")[example["label"]]
        assert record.patient is None
        np.testing.assert_array_equal(decode(record.read()), example["image"][..., 0])
    assert sorted(decode(r.read()).tobytes() for r in reading.records) == sorted(
        image.tobytes() for image in IMAGES
    )


def test_splits_and_classes_are_selected_and_unknown_ones_named(tmp_path):
    folder = medical(tmp_path)
    test = read_tfds(folder, "test", ["Pneumonia"])
    assert [record.split for record in test.records] == ["test"] * 5
    assert test.left_out == {"other class (--class)": 5}
    assert len(read_tfds(folder, "train, test").records) == 30
    with pytest.raises(ValueError, match=r"no split 'valid': it has train, test"):
        read_tfds(folder, "valid")
    with pytest.raises(ValueError, match=r"did you mean 'Pneumonia'"):
        read_tfds(folder, classes="pneumonia")


def test_many_shards_are_read_in_order_and_at_random(tmp_path):
    folder = medical(tmp_path, num_shards=4)
    assert len(list(Path(folder).glob("*-train.tfrecord-0000?-of-00004"))) == 4
    records = read_tfds(folder, "train").records
    expected = [example["image"][..., 0] for example in in_order(folder, "train")]
    for number in np.random.default_rng(1).permutation(20):
        np.testing.assert_array_equal(decode(records[number].read()), expected[number])


def test_threads_do_not_disturb_each_other(tmp_path):
    records = read_tfds(medical(tmp_path, num_shards=2)).records
    alone = [record.read() for record in records]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(Record.read, records * 20)) == alone * 20


def test_a_record_alone_can_be_read_without_listing_the_set_first(tmp_path):
    record = read_tfds(medical(tmp_path)).records[3]
    tfrecords._index.cache_clear()
    alone = Record(record.path, archive=record.archive)
    assert decode(alone.read()).shape == (28, 28)
    assert holds(record.archive, "train/000019") and not holds(record.archive, "train/000020")
    assert not holds(record.archive, "val/000000") and not holds("tfds:no_such_set", "a/000000")
    with pytest.raises(ValueError, match="has no film train/000020"):
        Record("train/000020", archive=record.archive).read()


def test_reading_a_film_reads_its_bytes_and_not_the_file(tmp_path, monkeypatch):
    """With a set larger than memory, one film at a time is all there is."""
    records = read_tfds(medical(tmp_path)).records
    read = []

    class Counting(io.FileIO):
        def read(self, size=-1):
            data = super().read(size)
            read.append(len(data))
            return data

    monkeypatch.setattr(tfrecords, "open", Counting, raising=False)
    film = records[7].read()
    assert len(read) == 1 and len(film) <= read[0] < len(film) + 100


def test_labels_are_read_without_the_films():
    example = b"\x0a\x05label" + b"\x12\x03\x1a\x01\x01"
    film = b"\x0a\x05image" + bytes(20_000)

    def entry(body):
        size = len(body)
        varint = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7 & 127 | 128])
        return b"\x0a" + (varint if size < 128 else varint + bytes([size >> 14])) + body

    data = b"...." + entry(entry(film) + entry(example))
    assert tfrecords._small_entries(data, 4, len(data) - 4) == entry(example)


@pytest.mark.parametrize("cut", [3, 200])
def test_truncated_shard_is_one_line(tmp_path, cut):
    folder = medical(tmp_path)
    shard = next(Path(folder).glob("*test.tfrecord*"))
    shard.write_bytes(shard.read_bytes()[:-cut])
    with pytest.raises(
        ValueError, match="test.tfrecord.*truncated.*prepare the set again"
    ) as error:
        read_tfds(folder)
    assert "\n" not in str(error.value)


def test_shard_that_lost_whole_examples_is_noticed(tmp_path):
    folder = medical(tmp_path)
    shard = next(Path(folder).glob("*test.tfrecord*"))
    shard.write_bytes(b"")
    with pytest.raises(ValueError, match="it has 0 of 10 examples"):
        read_tfds(folder)
    shard.unlink()
    with pytest.raises(ValueError, match="No such file"):
        read_tfds(folder)


def test_shard_cut_after_it_was_listed_makes_bad_records_not_a_traceback(tmp_path):
    folder = medical(tmp_path)
    record = read_tfds(folder, "test").records[-1]
    shard = next(Path(folder).glob("*test.tfrecord*"))
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(ValueError, match="an example cannot be parsed"):
        record.read()
    shard.unlink()
    with pytest.raises(OSError):
        record.read()


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ({"text": tfds.features.Text()}, "no image feature.*its features: text"),
        (
            {"a": tfds.features.Image(), "b": tfds.features.Image()},
            "several image features.*one named image",
        ),
        (
            {"image": tfds.features.Image(shape=(2, 2, 1), dtype=np.float32)},
            "films of float32.*uint8 or uint16",
        ),
    ],
)
def test_sets_without_usable_films_are_refused(tmp_path, features, reason):
    values = {
        name: "x" if name == "text" else np.zeros(feature.shape and (2, 2, feature.shape[-1]))
        for name, feature in features.items()
    }
    row = {
        name: value if name == "text" else value.astype(features[name].np_dtype)
        for name, value in values.items()
    }
    folder = make(tmp_path, features, {"train": [row]})
    with pytest.raises(ValueError, match=reason):
        read_tfds(folder)


def test_other_names_of_film_label_and_patient(tmp_path):
    features = {
        "xray": tfds.features.Image(shape=(28, 28, 1)),
        "mask": tfds.features.LabeledImage(labels=2, shape=(28, 28, 1)),
        "finding": tfds.features.Text(),
        "patient_id": np.int64,
    }
    row = {"xray": IMAGES[0], "mask": IMAGES[1] % 2, "finding": "Mass", "patient_id": 17}
    blank = {**row, "xray": IMAGES[2], "finding": ""}
    folder = make(tmp_path, features, {"train": [row, blank]}, keys=("xray", "finding"))
    records = {decode(r.read()).tobytes(): r for r in read_tfds(folder).records}
    first, second = records[IMAGES[0].tobytes()], records[IMAGES[2].tobytes()]
    assert (first.label, first.patient) == ("Mass", "17")
    assert second.label is None


def test_several_labels_are_none_and_one_is_its_name(tmp_path):
    names = ["Mass", "Edema"]
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.Sequence(tfds.features.ClassLabel(names=names)),
    }
    labels = [[], ["Edema"], ["Mass", "Edema"]]
    rows = [{"image": image, "label": label} for image, label in zip(IMAGES, labels)]
    reading = read_tfds(make(tmp_path, features, {"train": rows}))
    found = {decode(r.read()).tobytes(): r.label for r in reading.records}
    assert [found[image.tobytes()] for image in IMAGES[:3]] == [None, "Edema", None]
    assert "2 of 3 images have no single label" in reading.notes


def test_chexpert_finding_is_told_by_its_place_and_lateral_views_stay_out(tmp_path):
    states = ["uncertain", "positive", "negative", "unmentioned"]
    features = {
        "name": tfds.features.Text(),
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.Sequence(tfds.features.ClassLabel(names=states)),
        "image_view": tfds.features.ClassLabel(names=["frontal", "lateral"]),
    }
    label = ["unmentioned"] * 14
    label[5], label[10] = "positive", "negative"
    film = {
        "name": "CheXpert-v1.0-small/train/patient00042/study1/view1_frontal.jpg",
        "image": IMAGES[0],
        "label": label,
        "image_view": "frontal",
    }
    rows = [film, {**film, "image": IMAGES[1], "image_view": "lateral"}]
    folder = make(tmp_path, features, {"train": rows}, set_name="chexpert")
    reading = read_tfds(folder)
    assert [(r.label, r.patient) for r in reading.records] == [("Edema", "patient00042")]
    assert reading.left_out == {"lateral view": 1}


def test_other_file_formats_are_refused(tmp_path):
    pytest.importorskip("array_record.python")
    with pytest.raises(ValueError, match="stored as array_record, and only tfrecord"):
        read_tfds(medical(tmp_path, file_format="array_record"))


def test_prepared_images_are_those_of_the_files(tmp_path, monkeypatch):
    folder = tmp_path / "manual/chest_xray/train/NORMAL"
    folder.mkdir(parents=True)
    for number, image in enumerate(IMAGES[:6]):
        data = cv2.imencode(".png", cv2.resize(image, (40, 31)))[1].tobytes()
        (folder / f"IM-{number:04d}-0001.jpeg").write_bytes(data)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    tfds.builder("cxr_kermany", data_dir=tmp_path).download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "manual")
    )
    records = read_tfds("cxr_kermany").records
    assert {record.archive for record in records} == {"tfds:cxr_kermany:1.0.0"}
    from_files = prepare_images(find_records(tmp_path / "manual"), 16)
    from_records = prepare_images(records, 16, workers=2)
    by_patient = dict(zip((r.patient for r in from_records.records), from_records.images))
    for record, image in zip(from_files.records, from_files.images):
        patient = Path(record.path).name.removesuffix("-0001.jpeg")
        np.testing.assert_array_equal(by_patient[patient], image)


def test_unprepared_set_is_prepared_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    folder = tmp_path / "downloads/manual/covid-chestxray-dataset"
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.png").write_bytes(cv2.imencode(".png", IMAGES[0])[1].tobytes())
    (folder / "metadata.csv").write_text("patientid,finding,view,filename\n7,COVID-19,PA,a.png\n")
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        reading = read_tfds("tfds:cxr_covid_chestxray")
    assert out.getvalue() + err.getvalue() == ""
    (record,) = reading.records
    assert (record.label, record.patient, record.split) == ("COVID-19", "7", "train")
    np.testing.assert_array_equal(decode(record.read()), IMAGES[0, ..., 0])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kermany", "no set 'kermany': did you mean cxr_kermany"),
        ("pneumonia_minst", "did you mean pneumonia_mnist"),
        ("cxr_kermany:9.9.9", "cannot be loaded at version 9.9.9"),
        ("cxr_kermany", r"Manual directory .*downloads/manual.*kaggle.*chest-xray-pneumonia\.zip"),
        ("a b", "neither a name nor an existing folder"),
        (".", "is no prepared tensorflow-datasets set"),
    ],
)
def test_errors_are_one_line_that_helps(tmp_path, monkeypatch, name, reason):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=reason) as error:
        read_tfds(name)
    assert "\n" not in str(error.value)


def test_record_of_a_set_that_is_not_prepared_here_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="is not prepared in .*TFDS_DATA_DIR"):
        Record("train/000000", archive="tfds:cxr_nih:1.0.0").read()


@pytest.mark.parametrize(
    ("raised", "advice"),
    [
        (ConnectionError("Failed to resolve 'github.com'"), "needs a network"),
        (OSError(28, "No space left on device"), "make room there.*TFDS_DATA_DIR"),
        (RuntimeError("two\nlines"), "two lines"),
    ],
)
def test_failed_download_is_one_line(tmp_path, monkeypatch, raised, advice):
    def download(self, url):
        raise raised

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    with pytest.raises(ValueError, match=advice) as error:
        read_tfds("cxr_covid_chestxray")
    assert "\n" not in str(error.value)
