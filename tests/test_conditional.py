"""One generator of several classes, from films in folders to labelled images, as a user has it."""

import csv
import itertools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from keras_cxrgan import workflows
from keras_cxrgan.cli import main
from keras_cxrgan.data.images import decode, image_grid, read_png_text, write_png
from keras_cxrgan.data.phantom import phantoms
from keras_cxrgan.data.records import find_records
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.training import state
from keras_cxrgan.workflows.producing import class_numbers, sampled
from keras_cxrgan.workflows.sides import Preparation, load_side

RECIPE = Recipe().override(
    image_size=32, base_size=8, width=4, generator_max_width=8, discriminator_max_width=8,
    latent_dim=4, batch_size=8, epochs=2, ema_half_life=0, conditional=True, convention="keras",
    generator_learning_rate=0.05, discriminator_learning_rate=0.05,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 films of `normal` and 8 of `COVID`."""
    folder = tmp_path_factory.mktemp("films")
    for label, name, count in (("normal", "normal", 24), ("covid", "COVID", 8)):
        (folder / name).mkdir()
        for index, image in enumerate(phantoms(count, 32, labels=(label,), seed=3)[0]):
            write_png(folder / name / f"{index:02d}.png", image)
    return folder


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A finished run, whose classes differ; tests do not change it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    workflows.train(RECIPE, run, data=str(folder), backup_seconds=0)
    return run


def test_a_class_begins_with_what_another_run_has_learnt_of_it(run, folder, tmp_path, monkeypatch):
    """By its name: the numbers of the classes are others here."""
    for name, theirs in (("COVID", "COVID"), ("athena", "normal"), ("normal", "normal")):
        shutil.copytree(folder / theirs, tmp_path / "films" / name)
    begun = {}
    monkeypatch.setattr(workflows.running, "_fit", lambda gan, *given: begun.update({gan: given}))
    workflows.train(RECIPE, tmp_path / "run", data=str(tmp_path / "films"), start_from=run)
    ((gan, given),) = begun.items()
    assert any("knows no class athena: " in str(each) for each in given)
    known = list(json.loads((run / "data.json").read_text())["labels"])
    generator, discriminator = workflows.assembly.build_networks(RECIPE, classes=2)
    values = state.read_newest(run / "backup")[0]
    generator.set_weights(state.weights_of("generator", values))
    discriminator.set_weights(state.weights_of("discriminator", values))
    for name in known:
        place, number = sorted(["COVID", "athena", "normal"]).index(name), known.index(name)
        scales = [
            of.get_layer("class_scale_8").get_weights()[0] for of in (gan.generator, generator)
        ]
        vectors = [
            of.get_layer("projection").get_weights()[0].T
            for of in (gan.discriminator, discriminator)
        ]
        for after, before in (scales, vectors):
            np.testing.assert_array_equal(after[place], before[number])
            assert (before[0] != before[1]).any()
    assert (scales[0][1] == 1).all()  # as it begins


def rows(out):
    with open(out / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def pixels(path):
    return decode(path.read_bytes())


def fail(*arguments):
    """The one line of a command that must fail."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit) and result.exit_code, repr(result.exception)
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and result.output.splitlines()[-1] == errors[0]
    return errors[0]


# Training


def test_a_run_and_its_export_say_which_classes_there_are_and_how_many_films(run):
    about = json.loads((run / "data.json").read_text())
    card = json.loads((run / "export" / "card.json").read_text())
    # Sorted, whatever the order of the folders: that is how labels are numbered.
    assert list(about["labels"].items()) == [("COVID", 8), ("normal", 24)]
    assert list(card["classes"].items()) == [("COVID", 8), ("normal", 24)]
    assert "label int32" in card["signatures"]["sample"]
    assert "0 COVID, 1 normal" in card["signatures"]["serving_default"]


def test_each_real_image_of_the_grid_is_of_the_class_of_the_generated_one_there(run, folder):
    labels = class_numbers({"classes": {"COVID": 8, "normal": 24}}, np.arange(32)).numpy()
    films = {name: sorted((folder / name).iterdir()) for name in ("COVID", "normal")}
    order = [itertools.cycle(films[name]) for name in ("COVID", "normal")]
    expected = image_grid(np.stack([pixels(next(order[label])) for label in labels]))
    np.testing.assert_array_equal(pixels(run / "reals.png"), expected)


def test_a_zip_of_labelled_images_is_read_as_their_folder(run, tmp_path):
    """Whether the folder itself was packed, or what is in it."""
    made = tmp_path / "made"
    workflows.generate(run, made, classes={"COVID": 3, "normal": 2}, grid=True)
    assert (made / "grid.png").is_file()
    preparation = Preparation(32)
    folder = load_side(str(made), preparation, role="fake", classes=("COVID",))
    shutil.make_archive(tmp_path / "packed", "zip", tmp_path, "made")
    shutil.make_archive(tmp_path / "within", "zip", made)
    for name in ("packed.zip", "within.zip"):
        side = load_side(str(tmp_path / name), preparation, role="fake", classes=("COVID",))
        np.testing.assert_array_equal(side.images, folder.images)
        assert len(load_side(str(tmp_path / name), preparation, role="fake").images) == 5


def test_a_run_that_goes_on_learns_what_it_would_have_without_a_break(run, folder, tmp_path):
    other = tmp_path / "run"
    workflows.train(RECIPE.override(epochs=1), other, data=str(folder), backup_seconds=0)
    before = workflows.load_generator(other)[1]["model"]
    workflows.train(RECIPE, other, data=str(folder), backup_seconds=0, extend=True)
    finished, expected = (workflows.load_generator(path)[0].get_weights() for path in (other, run))
    for ours, theirs in zip(finished, expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert before != workflows.load_generator(other)[1]["model"]


@pytest.fixture
def no_training(monkeypatch):
    """For mistakes that must be found before any network is built."""

    def build_gan(*arguments, **options):
        raise AssertionError("the networks were built")

    monkeypatch.setattr(workflows.running, "build_gan", build_gan)


def test_films_of_one_class_or_of_none_are_refused(no_training, folder, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"two or more classes, got one \(normal, 24 films\)"):
        workflows.train(RECIPE, out, data=str(folder), classes=("normal",))
    with pytest.raises(ValueError, match="two or more classes, got none: give --data"):
        workflows.train(RECIPE, out, data=str(folder / "normal"))
    monkeypatch.setattr(workflows.assembly, "PHANTOM_COUNT", 8)
    with pytest.raises(ValueError, match="one .normal, 8 films.: the phantom has --class normal"):
        workflows.train(RECIPE, out)
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    (mixed / "COVID" / "00.png").rename(mixed / "stray.png")
    with pytest.raises(ValueError, match="1 of the 32 films of .* have none .*stray.png"):
        workflows.train(RECIPE, out, data=str(mixed))
    assert not out.exists()


def test_films_labelled_otherwise_are_refused_when_a_run_goes_on(
    no_training, run, folder, tmp_path
):
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "normal" / "00.png").rename(moved / "COVID" / "10.png")
    with pytest.raises(ValueError, match="COVID 8, normal 24; now COVID 9, normal 23") as error:
        workflows.train(RECIPE.override(epochs=9), run, data=str(moved), extend=True)
    assert "\n" not in str(error.value)
    # As many of each class, but two have changed places.
    (moved / "COVID" / "00.png").rename(moved / "normal" / "00.png")
    with pytest.raises(ValueError, match="the same films in other classes"):
        workflows.train(RECIPE.override(epochs=9), run, data=str(moved), extend=True)


# Generating


def test_counts_of_classes_go_to_a_folder_each_and_are_a_labelled_set(run, tmp_path):
    out = tmp_path / "out"
    counts = {"COVID": 5, "normal": 3}
    result = workflows.generate(run, out, classes=counts, seed=4, batch_size=4, grid=True)
    assert (result["images"], result["classes"]) == (8, counts)
    listed = [(row["file"], row["index"], row["label"]) for row in rows(out)]
    assert listed[:2] == [("COVID/000000.png", "0", "COVID"), ("COVID/000001.png", "1", "COVID")]
    assert listed[-1] == ("normal/000002.png", "2", "normal") and len(listed) == 8
    assert read_png_text((out / "normal" / "000002.png").read_bytes())["Class"] == "normal"
    labels = [record.label for record in find_records(out, ("COVID", "normal"))]
    assert labels == ["COVID"] * 5 + ["normal"] * 3


def test_image_i_of_a_class_is_fixed_by_model_seed_and_i(run, tmp_path):
    workflows.generate(run, tmp_path / "a", classes={"COVID": 6, "normal": 2}, seed=4)
    workflows.generate(run, tmp_path / "b", classes={"normal": 6}, seed=4)
    workflows.generate(run, tmp_path / "c", classes={"normal": 2}, seed=5)
    for name in ("000000.png", "000001.png"):
        a, b, c = (tmp_path / which / "normal" / name for which in "abc")
        assert a.read_bytes() == b.read_bytes() != c.read_bytes()
        assert (pixels(a) != pixels(tmp_path / "a" / "COVID" / name)).any()


def test_without_counts_each_class_comes_in_its_share(run, tmp_path):
    result = workflows.generate(run, tmp_path / "all", 40)
    workflows.generate(run, tmp_path / "of", classes={"COVID": 40, "normal": 40})
    assert result["classes"] == {"COVID": 12, "normal": 28}  # 10 and 30, to within 2
    for row in rows(tmp_path / "all"):
        assert "/" not in row["file"]
        same = tmp_path / "of" / row["label"] / row["file"]
        assert (tmp_path / "all" / row["file"]).read_bytes() == same.read_bytes()


def test_copies_of_each_class_are_made_up_for_by_others_of_it(run, tmp_path, monkeypatch):
    def first_is_a_copy(images):
        return np.arange(len(images)) == 0

    monkeypatch.setattr(
        workflows.generating.screening, "screen", lambda *_, **__: (first_is_a_copy, [])
    )
    result = workflows.generate(
        run, tmp_path, classes={"COVID": 5, "normal": 3}, batch_size=4, without_copies_of="films"
    )
    assert result["left_out"] == ["COVID/000000.png", "COVID/000004.png", "normal/000000.png"]
    made = [(row["file"], row["label"]) for row in rows(tmp_path)]
    assert made == [(f"COVID/00000{i}.png", "COVID") for i in (1, 2, 3, 5, 6)] + [
        (f"normal/00000{i}.png", "normal") for i in (1, 2, 3)
    ]
    assert result["classes"] == {"COVID": 5, "normal": 3}


def test_overwriting_leaves_no_image_and_no_class_folder_behind(run, tmp_path):
    out = tmp_path / "out"
    workflows.generate(run, out, classes={"COVID": 2, "normal": 2}, grid=True)
    (out / "COVID" / "mine.txt").write_text("mine")
    workflows.generate(run, out, 1, overwrite=True)
    left = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    assert left == {"000000.png", "manifest.csv", "COVID", "COVID/mine.txt"}


def test_export_and_run_make_the_same_images_of_a_class(run, tmp_path):
    signature = tf.saved_model.load(str(run / "export" / "saved_model")).signatures["sample"]
    generator, card = workflows.load_generator(run / "export")
    for label in (0, 1):
        served = signature(n=tf.constant(3), seed=tf.constant(7), label=tf.constant(label))
        ((_, made),) = sampled(generator, card, 3, seed=7, label=label)
        assert np.abs(served["images"].numpy().astype(int) - made).max() <= 1


def test_a_figure_shows_the_images_of_all_classes(run, tmp_path):
    assert workflows.figure([str(run)], tmp_path / "figure.png", columns=5).stat().st_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class", "Covid=3"], "has no class 'Covid' (did you mean 'COVID'?): it has COVID, normal"),
        (["--class", "COVID=3", "-n", "5"], "-n 5 and --class NAME=COUNT both say how many"),
        (["--class", "COVID=0"], "--class COVID must be 1 or more, got 0"),
        (["--class", "COVID=-2"], "--class COVID must be 1 or more, got -2"),
        (["--class", "COVID"], "'COVID' must be NAME=COUNT, such as --class COVID=100"),
        (["--class", "COVID=many"], "'COVID=many' must be NAME=COUNT"),
        (["--class", "COVID=1", "--class", "COVID=2"], "COVID is given twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_generated_is_one_line(run, tmp_path, options, message):
    assert message in fail("generate", run, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_classes_of_a_generator_that_has_none_are_refused(folder, tmp_path):
    plain = RECIPE.override(conditional=False, epochs=1)
    workflows.train(plain, tmp_path / "plain", data=str(folder))
    assert "labels" not in json.loads((tmp_path / "plain" / "data.json").read_text())
    line = fail("generate", tmp_path / "plain", "--class", "COVID=1", "--out", tmp_path / "out")
    assert "knows no classes" in line and "--set conditional=true" in line
    workflows.generate(tmp_path / "plain", tmp_path / "out", 1)
    assert "label" not in rows(tmp_path / "out")[0]


def test_a_run_that_lost_the_names_of_its_classes_is_named(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "run")
    (other / "data.json").unlink()
    with pytest.raises(ValueError, match="data.json does not say which classes"):
        workflows.load_generator(other)


# As a side of an evaluation


def side(source, *classes, **options):
    return load_side(str(source), Preparation(32), role="fake", classes=classes, **options)


@pytest.mark.parametrize("part", ["", "export"], ids=["run", "export"])
def test_a_generator_is_judged_by_the_classes_asked_for(run, part):
    generator, card = workflows.load_generator(run)
    ((_, covid),) = sampled(generator, card, 8, label=0)
    ((_, every),) = sampled(generator, card, 8)
    one, both, all_ = (
        side(run / part, *names, count=8) for names in (("COVID",), ("normal", "COVID"), ())
    )
    np.testing.assert_array_equal(one.images, covid[..., 0])
    np.testing.assert_array_equal(all_.images, every[..., 0])
    assert both.hashes == all_.hashes != one.hashes
    assert one.about["classes"] == ["COVID"] and one.label.endswith("-COVID")
    assert all_.about["classes"] == ["COVID", "normal"] and all_.warnings == ()


def test_a_class_that_a_generator_does_not_know_is_told_or_refused(run):
    (warning,) = side(run, "COVID", "tuberculosis", count=4).warnings
    assert "has no images of the class tuberculosis" in warning
    with pytest.raises(ValueError, match="no images of the class tb .*but of COVID, normal"):
        side(run, "tb", count=4)


def test_generated_files_are_judged_by_the_classes_asked_for(run, tmp_path):
    out, flat = tmp_path / "out", tmp_path / "flat"
    workflows.generate(run, out, classes={"COVID": 3, "normal": 4}, grid=True)
    workflows.generate(run, flat, 8)
    whole, one, of_flat = side(out), side(out, "COVID"), side(flat, "COVID")
    assert (len(whole.images), len(one.images), len(of_flat.images)) == (7, 3, 3)
    for found, folder in ((one, out), (of_flat, flat)):
        labelled = [row["sha256"] for row in rows(folder) if row["label"] == "COVID"]
        assert found.hashes == tuple(labelled)
    assert [text for text in whole.about["notes"] if "left out 1 files: overview" in text]
