import io
import json
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pytest

from keras_cxrgan.data.inspection import FileFacts, inspect_records, near_pairs_grouped
from keras_cxrgan.data.layouts import read_layout
from keras_cxrgan.data.phantom import phantom
from keras_cxrgan.data.records import Record
from keras_cxrgan.data.shortcuts import binomial_tail, find_shortcuts
from keras_cxrgan.data.suspects import suspicions


@pytest.fixture(scope="module")
def chests():
    """Phantoms: they look like chest films, and like each other."""
    return np.stack([phantom(index, 96, seed=3) for index in range(24)])


def write(path, image, *parameters):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image, parameters)[1].tobytes())


def inspected(folder, **settings):
    return inspect_records(read_layout(folder).records, **settings)


def groups(found):
    return {
        kind: [
            sorted(name.rpartition("/")[2] for name in group["files"])
            for group in found.duplicates
            if group["kind"] == kind
        ]
        for kind in ("same file", "same pixels", "near")
    }


def told(found):
    features = found["features"]
    return [
        entry["feature"]
        for entry in features
        if entry["found"] or any(each["found"] for each in entry["classes"])
    ]


def test_formats_sizes_bits_and_channels_are_counted(chests, tmp_path):
    write(tmp_path / "a" / "1.png", chests[0])
    write(tmp_path / "a" / "2.jpg", chests[1])
    write(tmp_path / "a" / "3.png", np.dstack([chests[2]] * 3))
    write(tmp_path / "b" / "4.png", np.dstack([chests[3]] * 4))
    write(tmp_path / "b" / "5.png", chests[4].astype(np.uint16) * 256)
    write(tmp_path / "b" / "6.jpg", np.dstack([chests[5]] * 3)[:90])
    found = inspected(tmp_path)
    assert found.counts["files"] == found.counts["readable"] == 6
    assert found.counts["formats"] == {"PNG": 4, "JPEG": 2}
    assert found.counts["bits"] == {"8": 5, "16": 1}
    assert found.counts["modes"] == {"grey": 3, "RGB": 2, "RGB + alpha": 1}
    assert found.counts["sizes"] == {"96x96": 5, "96x90": 1}
    assert {label: each["files"] for label, each in found.classes.items()} == {"a": 3, "b": 3}


def test_a_grey_picture_in_colour_channels_is_no_colour_picture(chests, tmp_path):
    write(tmp_path / "grey.png", np.dstack([chests[0]] * 3))
    assert inspected(tmp_path).suspects == []
    tinted = np.dstack([chests[0] // 4, chests[0], chests[0]])
    write(tmp_path / "tinted.png", tinted)
    write(tmp_path / "tinted.jpg", tinted)
    assert [(each["rule"], each["value"] > 0.5) for each in inspected(tmp_path).suspects] == [
        ("colour", True)
    ] * 2


def test_mean_grey_and_border_are_of_the_decoded_film(tmp_path):
    image = np.full((100, 100), 200, np.uint8)
    image[:, :4] = 0  # one of the four strips
    write(tmp_path / "a.png", image)
    (facts,) = inspected(tmp_path).files
    assert facts.mean_grey == pytest.approx(200 * 0.96)
    assert facts.border == pytest.approx(400 / (100**2 - 92**2))


def test_an_unreadable_file_is_listed_with_its_reason(chests, tmp_path):
    write(tmp_path / "good.png", chests[0])
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:300])
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = inspected(tmp_path)
    assert found.counts["files"] == 3 and found.counts["readable"] == 1
    reasons = {each["file"].rpartition("/")[2]: each["reason"] for each in found.unreadable}
    assert set(reasons) == {"bad.png", "gone.png"}
    assert "truncated" in reasons["bad.png"] and "No such file" in reasons["gone.png"]


def test_copies_are_found_as_files_as_pixels_and_as_pictures(chests, tmp_path):
    write(tmp_path / "1.png", chests[0])
    write(tmp_path / "1-copy.png", chests[0])
    write(tmp_path / "2.png", chests[1], cv2.IMWRITE_PNG_COMPRESSION, 1)
    write(tmp_path / "2-packed.png", chests[1], cv2.IMWRITE_PNG_COMPRESSION, 9)
    write(tmp_path / "3.png", chests[2])
    write(tmp_path / "3-saved.jpg", chests[2], cv2.IMWRITE_JPEG_QUALITY, 60)
    write(tmp_path / "4.png", chests[3])
    write(tmp_path / "4-small.png", cv2.resize(chests[3], (48, 48), interpolation=cv2.INTER_AREA))
    for index in range(5, 24):
        write(tmp_path / f"{index}.png", chests[index])
    assert groups(inspected(tmp_path)) == {
        "same file": [["1-copy.png", "1.png"]],
        "same pixels": [["2-packed.png", "2.png"]],
        "near": [["3-saved.jpg", "3.png"], ["4-small.png", "4.png"]],
    }


def test_a_near_copy_has_a_like_hash_and_a_like_thumbnail():
    random = np.random.default_rng(0)
    film, other = random.integers(0, 256, (2, 32, 32)).astype(np.uint8)

    def facts(perceptual, thumbnail):
        return FileFacts("a", None, None, None, perceptual=perceptual, thumbnail=thumbnail)

    # Six bits, seven bits, and a hash shared by chance.
    files = [facts(0, film), facts(0b111111, film), facts(0x7F << 40, film), facts(0, other)]
    assert near_pairs_grouped(files) == [[0, 1]]


def test_empty_images_are_no_near_duplicates(tmp_path):
    for level in (0, 60, 255):
        write(tmp_path / f"{level}.png", np.full((40, 40), level, np.uint8))
    assert inspected(tmp_path).duplicates == []


def test_copies_across_classes_and_splits_are_marked(chests, tmp_path):
    write(tmp_path / "train" / "ill" / "a.png", chests[0])
    write(tmp_path / "train" / "well" / "b.png", chests[0])
    write(tmp_path / "train" / "ill" / "c.png", chests[1])
    write(tmp_path / "test" / "ill" / "d.jpg", chests[1])
    found = inspected(tmp_path)
    assert found.splits == {"train": 3, "test": 1}
    marks = {
        group["kind"]: (group["across_classes"], group["across_splits"])
        for group in found.duplicates
    }
    assert marks == {"same file": (True, False), "near": (False, True)}


def test_a_folder_above_the_set_is_no_split(chests, tmp_path):
    for label in ("ill", "well"):
        write(tmp_path / "dev" / "films" / label / "a.png", chests[0])
    assert inspected(tmp_path / "dev" / "films").splits == {}


def test_patients_in_several_classes_and_splits_are_named(chests, tmp_path):
    for index in range(4):
        write(tmp_path / f"{index}.png", chests[index])
    given = [("p1", "ill", "train"), ("p1", "well", "train"), ("p2", "ill", "train")]
    given += [("p2", "ill", "test")]
    found = inspect_records(
        Record(str(tmp_path / f"{index}.png"), label, patient, split)
        for index, (patient, label, split) in enumerate(given)
    ).patients
    assert (found["patients"], found["files"], found["most_files"]) == (2, 4, 2)
    assert found["in_several_classes"] == ["p1"] and found["in_several_splits"] == ["p2"]
    assert found["found"] == {"given with the files": 4}


def dicom(image, patient="", **tags):
    pydicom = pytest.importorskip("pydicom", minversion="3.0")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    dataset.Modality, dataset.PatientID = "DX", patient
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = image.tobytes()
    dataset["PixelData"].VR = "OB"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_dicom_patients_are_found_under_a_pseudonym_and_given_ones_stay(chests, tmp_path):
    secret = "SMITH-1947"
    made = [("ill", secret, {}), ("well", secret, {}), ("ill", "other", {}), ("ill", "", {})]
    made += [("well", secret, {"Modality": "CT"})]  # refused, but of that patient
    given = []
    for index, (label, patient, tags) in enumerate(made):
        path = tmp_path / f"{index}.dcm"
        path.write_bytes(dicom(chests[index], patient, **tags))
        given.append(Record(str(path), label, "told" if index == 2 else None))
    found = inspect_records(given)
    assert found.patients["found"] == {"DICOM PatientID": 3, "given with the files": 1}
    assert (found.patients["files"], found.patients["patients"]) == (4, 2)
    # The first eight hex digits of the id's SHA-256.
    assert found.patients["in_several_classes"] == ["patient-9f00e9c7"]
    assert [facts.patient for facts in found.files][2:4] == ["told", None]
    assert secret not in json.dumps(found.as_dict())
    (refused,) = found.unreadable
    assert "of modality CT: only CR, DX" in refused["reason"]


@pytest.mark.parametrize(
    ("view", "suspect"),
    [("PA", False), ("AP", False), ("AP SUPINE", False), ("", False), ("LL", True), ("RL", True),
     ("LATERAL", True), ("LLD", True)],
)  # fmt: skip
def test_a_view_that_is_not_frontal_is_a_suspect(chests, tmp_path, view, suspect):
    (tmp_path / "a.dcm").write_bytes(dicom(chests[0], ViewPosition=view, Manufacturer="Maker"))
    found = inspected(tmp_path)
    shown = [(each["suspects"], each["measure"]) for each in found.suspects]
    assert shown == ([("a lateral view (DICOM tag)", f"ViewPosition {view}")] if suspect else [])
    assert found.counts["modalities"] == {"DX": 1} and found.counts["manufacturers"] == {"Maker": 1}
    assert found.counts["views"] == ({view: 1} if view else {})


def test_dicom_files_are_counted_by_their_own_header(chests, tmp_path):
    (tmp_path / "a.dcm").write_bytes(dicom(chests[0]))
    counts = inspected(tmp_path).counts
    assert (counts["formats"], counts["bits"]) == ({"DICOM": 1}, {"8": 1})
    assert (counts["modes"], counts["sizes"]) == ({"MONOCHROME2": 1}, {"96x96": 1})


def test_a_colour_png_that_inflates_to_much_more_is_looked_at_quietly(tmp_path, capfd):
    image = np.dstack([np.full((20, 20), level, np.uint8) for level in (0, 200, 200)])
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    start = cv2.imencode(".png", image)[1].tobytes()[:33]
    body = b"IDAT" + zlib.compress(rows + bytes(10**6))
    packed = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    end = cv2.imencode(".png", image)[1].tobytes()[-12:]
    (tmp_path / "a.png").write_bytes(start + packed + end)
    assert "colour" in [each["rule"] for each in inspected(tmp_path).suspects]
    assert capfd.readouterr().err == ""


def test_order_and_content_do_not_depend_on_the_number_of_threads(chests, tmp_path):
    for index, image in enumerate(chests[:12]):
        write(tmp_path / "ab"[index % 2] / f"{index}.png", image)
    calls = []
    one = inspected(tmp_path, workers=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 12) for done in range(1, 13)]
    assert json.dumps(one.as_dict()) == json.dumps(inspected(tmp_path, workers=4).as_dict())


def test_a_zip_says_what_its_folder_says(chests, tmp_path):
    write(tmp_path / "set" / "a" / "1.png", chests[0])
    write(tmp_path / "set" / "a" / "2.png", chests[0])
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("1.png", "2.png"):
            archive.write(tmp_path / "set" / "a" / name, f"a/{name}")
    folder, packed = inspected(tmp_path / "set"), inspected(tmp_path / "set.zip")
    assert folder.counts == packed.counts
    assert [len(group["files"]) for group in packed.duplicates] == [2]


def test_a_class_of_png_and_one_of_jpeg_are_told_by_format_alone(chests, tmp_path):
    for index, image in enumerate(chests):
        write(tmp_path / "ab"[index % 2] / f"{index}{('.png', '.jpg')[index % 2]}", image)
    shortcuts = inspected(tmp_path).shortcuts
    assert told(shortcuts) == ["file format", "all together"]
    entry = shortcuts["features"][0]
    assert (entry["accuracy"], entry["chance"], entry["found"]) == (1.0, 0.5, True)
    assert entry["p"] < 1e-4


def test_classes_that_differ_in_nothing_give_no_false_alarm(chests, tmp_path):
    for index, image in enumerate(chests):
        write(tmp_path / ("a" if index % 4 else "b") / f"{index}.png", image)
    shortcuts = inspected(tmp_path).shortcuts
    assert told(shortcuts) == []
    assert {entry["chance"] for entry in shortcuts["features"]} == {0.75}


def test_a_few_files_of_one_format_give_their_class_away():
    # As in the public COVID set: one film in six is PNG, and no film of another class is.
    labels = ["covid"] * 120 + ["normal"] * 500 + ["pneumonia"] * 500
    png = np.zeros(1120)
    png[:20] = 1
    found = find_shortcuts(labels, range(1120), {"file format": png})
    given = {each["label"]: each for each in found["features"][0]["classes"]}
    assert [label for label, each in given.items() if each["found"]] == ["covid"]
    assert given["covid"]["recall"] == pytest.approx(1 / 6) and given["covid"]["precision"] == 1


def test_a_handful_of_files_of_one_format_is_no_evidence():
    png = np.zeros(30)
    png[:5] = 1
    found = find_shortcuts(["a"] * 15 + ["b"] * 15, range(30), {"file format": png})
    (given, _) = found["features"][0]["classes"]
    assert given["precision"] == 1 and given["recall"] == pytest.approx(1 / 3)
    assert told(found) == []


@pytest.mark.parametrize(("many", "few"), [(4900, 40), (20_000, 150), (20_000, 8)])
def test_a_shortcut_of_a_rare_class_is_found(many, few):
    """Below a hundredth of the files, and of more files than are looked at."""
    png = np.array([0.0] * many + [1.0] * few)
    found = find_shortcuts(["normal"] * many + ["covid"] * few, range(many + few), {"format": png})
    (covid, _) = found["features"][0]["classes"]
    assert covid["label"] == "covid" and covid["found"] and covid["recall"] == 1


def test_noise_is_almost_never_called_a_shortcut():
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(25):
        labels = random.choice(["a", "b", "c"], 90, p=[0.6, 0.3, 0.1])
        columns = {name: random.normal(size=90) for name in ("x", "y")}
        alarms += bool(told(find_shortcuts(labels, range(90), columns)))
    assert alarms <= 1


def test_many_films_of_few_patients_are_no_evidence():
    # Each patient has one camera: remembering twelve cameras is no rule that holds for others.
    labels = ["a"] * 300 + ["b"] * 300
    patients = [f"p{index // 50}" for index in range(600)]
    camera = np.repeat(np.random.default_rng(1).normal(size=12), 50)
    assert told(find_shortcuts(labels, range(600), {"camera": camera})) == ["camera"]
    assert told(find_shortcuts(labels, patients, {"camera": camera})) == []


def test_small_classes_are_left_out_and_one_class_has_no_shortcuts():
    labels = ["a"] * 10 + ["b"] * 10 + ["rare"] * 4
    found = find_shortcuts(labels, range(24), {"x": np.arange(24.0)})
    assert found["left_out"] == ["rare"] and found["classes"] == ["a", "b"]
    assert find_shortcuts(["a"] * 9, range(9), {"x": np.arange(9.0)})["features"] == []
    assert find_shortcuts([], [], {})["features"] == []


def test_the_binomial_tail_is_exact():
    assert binomial_tail(0, 5, 0.3) == pytest.approx(1)
    assert binomial_tail(5, 5, 0.3) == pytest.approx(0.3**5)
    assert binomial_tail(3, 4, 0.5) == pytest.approx(5 / 16)
    assert binomial_tail(1000, 1000, 0.5) == pytest.approx(0.5**1000)


def rules(image):
    return [found.rule for found in suspicions(image)]


def test_films_are_no_suspects(chests):
    assert [rules(image) for image in chests] == [[]] * len(chests)


def test_a_film_in_a_black_frame_is_no_ct_slice(chests):
    assert rules(np.pad(cv2.resize(chests[0], (256, 256)), 40)) == []


def test_masks_text_and_ct_slices_are_suspects():
    rows, columns = np.mgrid[-1:1:256j, -1:1:256j]
    lungs = ((abs(columns) - 0.45) / 0.3) ** 2 + (rows / 0.7) ** 2 < 1
    mask = np.where(lungs, 255, 0).astype(np.uint8)
    assert rules(mask) == ["mask"]
    saved = cv2.imdecode(cv2.imencode(".jpg", mask)[1], cv2.IMREAD_GRAYSCALE)
    assert rules(saved) == ["mask"]
    page = np.full((400, 300), 255, np.uint8)
    for line in range(20, 390, 14):
        cv2.putText(page, "the patient was seen", (10, line), cv2.FONT_HERSHEY_PLAIN, 0.8, 0)
    assert rules(page) == ["text"]
    body = (columns / 0.8) ** 2 + (rows / 0.6) ** 2 < 1
    noise = np.random.default_rng(0).normal(120, 20, body.shape)
    slice_ = np.where(body, np.where(lungs & (abs(rows) < 0.4), 40 + noise / 8, noise), 0)
    assert rules(slice_.clip(0, 255).astype(np.uint8)) == ["ct"]


def test_a_picture_bright_on_one_side_is_a_suspect():
    ramp = np.tile(np.linspace(30, 220, 128).astype(np.uint8), (128, 1))
    (found,) = suspicions(ramp)
    assert found.rule == "asymmetric" and found.value < 0


def test_nothing_to_inspect_is_an_error():
    with pytest.raises(ValueError, match="no images to inspect"):
        inspect_records([])
