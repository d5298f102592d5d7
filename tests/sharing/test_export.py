"""An export: what its three parts compute, and that a failed or misplaced one destroys nothing."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.data.images import to_uint8
from keras_cxrgan.models.dcgan import build_generator
from keras_cxrgan.sharing.export import read_export, write_export
from keras_cxrgan.training.noise import indexed_latents

CARD = {"format": 1, "latent_dim": 8}


def small_generator(seed=0, **options):
    keras.utils.set_random_seed(seed)
    # Wide initial weights: the images use the whole range of grey levels, ends included.
    generator = build_generator(
        32, 1, 8, width=4, max_width=16, fused=False, convention="keras", **options
    )
    generator.set_weights([3 * weight for weight in generator.get_weights()])
    return generator


def latents(seed, count):
    return indexed_latents(seed, 0, count, 8)


def write(folder, seed=0):
    write_export(folder, small_generator(seed), latents, CARD)
    return folder


@pytest.fixture
def exported(tmp_path):
    return write(tmp_path / "export")


def test_saved_model_returns_the_generators_images_as_uint8(exported):
    signatures = tf.saved_model.load(str(exported / "saved_model")).signatures
    assert set(signatures) == {"serving_default", "sample"}
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    images = signatures["serving_default"](latents=tf.constant(vectors))["images"].numpy()
    expected = to_uint8(np.asarray(small_generator()(vectors)))
    assert images.dtype == np.uint8 and images.shape == (5, 32, 32, 1)
    assert expected.min() == 0 and expected.max() == 255
    assert np.abs(images.astype(int) - expected).max() <= 1
    assert (images == expected).mean() > 0.99


def test_sample_takes_any_number_and_fixes_image_i_by_the_seed(exported):
    sample = tf.saved_model.load(str(exported / "saved_model")).signatures["sample"]

    def images(n, seed):
        return sample(n=tf.constant(n), seed=tf.constant(seed))["images"].numpy().astype(int)

    few, many, other = images(3, 5), images(9, 5), images(3, 6)
    expected = to_uint8(np.asarray(small_generator()(latents(5, 9)))).astype(int)
    assert few.shape == (3, 32, 32, 1) and many.shape == (9, 32, 32, 1)
    assert np.abs(many[:3] - few).max() <= 1
    assert np.abs(many - expected).max() <= 1
    assert np.abs(few - other).max() > 50


def test_sample_fixes_images_that_are_normalized_together(tmp_path):
    generator = small_generator(group_size=4)
    write_export(tmp_path / "export", generator, latents, CARD, group=4)
    sample = tf.saved_model.load(str(tmp_path / "export" / "saved_model")).signatures["sample"]
    expected = to_uint8(np.asarray(generator(latents(5, 8)))).astype(int)
    for n in (0, 3, 4, 6):
        images = sample(n=tf.constant(n), seed=tf.constant(5))["images"].numpy().astype(int)
        assert images.shape == (n, 32, 32, 1)
        assert np.abs(images - expected[:n]).max(initial=0) <= 1
    # A group of three is another than one of four.
    assert np.abs(to_uint8(np.asarray(generator(latents(5, 3)))) - expected[:3]).max() > 1


def test_keras_file_is_the_generator_in_layers_of_keras_alone(exported):
    generator, card = read_export(exported)
    assert card == CARD
    vectors = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    np.testing.assert_allclose(generator(vectors), small_generator()(vectors), atol=1e-6)
    with zipfile.ZipFile(exported / "generator.keras") as file:
        assert "keras_cxrgan" not in file.read("config.json").decode()


def test_saved_model_names_neither_keras_nor_this_package(exported):
    graph = (exported / "saved_model" / "saved_model.pb").read_bytes()
    assert b"keras_cxrgan" not in graph
    assert b"_tf_keras" not in graph


def test_an_earlier_export_is_replaced_whole(exported):
    before = read_export(exported)[0].get_weights()
    write(exported, seed=1)
    after = read_export(exported)[0].get_weights()
    assert any((a != b).any() for a, b in zip(before, after))
    assert {path.name for path in exported.iterdir()} == {
        "saved_model", "generator.keras", "card.json",
    }  # fmt: skip
    assert [path.name for path in exported.parent.iterdir()] == ["export"]


def test_a_repository_stays_around_its_export_and_the_folder_may_be_this_one(exported, monkeypatch):
    (exported / ".git").mkdir()
    (exported / ".git" / "HEAD").write_text("ref: refs/heads/main")
    before = (exported / "card.json").stat().st_mtime_ns
    monkeypatch.chdir(exported)
    write(".", seed=1)
    assert (exported / ".git" / "HEAD").read_text() == "ref: refs/heads/main"
    assert (exported / "card.json").stat().st_mtime_ns > before
    assert [path.name for path in exported.parent.iterdir()] == ["export"]


def test_a_folder_with_other_files_is_never_replaced(exported):
    (exported / "thesis.tex").write_text("mine")
    before = (exported / "card.json").read_bytes()
    with pytest.raises(ValueError, match=r"holds more than an export \(thesis.tex\).*--out"):
        write(exported, seed=1)
    assert (exported / "thesis.tex").read_text() == "mine"
    assert (exported / "card.json").read_bytes() == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "No space left on device"),
    ],
    ids=["of Python", "of TensorFlow"],
)
def test_a_full_disk_keeps_the_earlier_export_and_leaves_nothing_half_written(
    exported, monkeypatch, error
):
    before = (exported / "generator.keras").read_bytes()

    def save(*arguments, **options):
        raise error

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(OSError, match="No space"):
        write(exported, seed=1)
    assert (exported / "generator.keras").read_bytes() == before
    assert [path.name for path in exported.parent.iterdir()] == ["export"]


def test_a_place_inside_a_file_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "export", tmp_path / "file"):
        with pytest.raises(OSError):
            write(place)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("part", ["card.json", "generator.keras"])
def test_an_export_that_lost_a_part_is_named(exported, part):
    (exported / part).unlink()
    with pytest.raises(ValueError, match="is no complete export.*cxrgan export RUN") as error:
        read_export(exported)
    assert str(exported) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["card.json", "generator.keras"])
def test_an_export_with_a_damaged_part_is_named(exported, part):
    (exported / part).write_bytes(b"half a file")
    with pytest.raises(ValueError, match="is no complete export"):
        read_export(exported)


def test_the_card_is_readable_json(exported):
    assert json.loads((exported / "card.json").read_text()) == CARD


# Of classes


def conditional_generator():
    keras.utils.set_random_seed(0)
    generator = build_generator(
        32, 1, 8, width=4, max_width=16, fused=False, convention="keras", classes=3
    )
    # Scales and offsets of a class begin at 1 and 0; these differ.
    random = np.random.default_rng(1)
    generator.set_weights([3 * w + random.normal(0, 0.1, w.shape) for w in generator.get_weights()])
    return generator


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes") / "export"
    write_export(folder, conditional_generator(), latents, CARD)
    return folder


def test_both_signatures_of_a_conditional_export_take_a_label(of_classes):
    signatures = tf.saved_model.load(str(of_classes / "saved_model")).signatures
    generator, vectors = conditional_generator(), latents(5, 4)
    made = []
    for label in range(3):
        one_hot = tf.one_hot([label] * 4, 3)
        expected = to_uint8(np.asarray(generator([vectors, one_hot]))).astype(int)
        sampled = signatures["sample"](
            n=tf.constant(4), seed=tf.constant(5), label=tf.constant(label)
        )["images"].numpy()
        served = signatures["serving_default"](latents=vectors, label=tf.constant(label))
        assert sampled.dtype == np.uint8 and sampled.shape == (4, 32, 32, 1)
        assert np.abs(sampled - expected).max() <= 1
        assert np.abs(served["images"].numpy() - expected).max() <= 1
        made.append(expected)
    assert np.abs(made[0] - made[1]).max() > 20 < np.abs(made[1] - made[2]).max()


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused_and_makes_no_grey_image(of_classes, label):
    sample = tf.saved_model.load(str(of_classes / "saved_model")).signatures["sample"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="label must be from 0 to 2"):
        sample(n=tf.constant(1), seed=tf.constant(0), label=tf.constant(label))


def test_keras_file_of_a_conditional_generator_is_in_layers_of_keras_alone(of_classes):
    generator, _ = read_export(of_classes)
    inputs = [latents(0, 3), tf.eye(3)]
    np.testing.assert_allclose(generator(inputs), conditional_generator()(inputs), atol=1e-5)
    with zipfile.ZipFile(of_classes / "generator.keras") as file:
        assert "keras_cxrgan" not in file.read("config.json").decode()
