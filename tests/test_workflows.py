"""The whole jobs in one process: train, resume, extend, generate, export, and what they refuse."""

import csv
import hashlib
import json
import random
import shutil
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan import workflows
from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.data.images import decode, image_grid, read_png_text, write_png
from keras_cxrgan.recipe import RECIPES, Recipe
from keras_cxrgan.terminal import summarize_run

SMALL = {
    "image_size": 32,
    "base_size": 4,
    "width": 4,
    "generator_max_width": 16,
    "discriminator_max_width": 16,
    "latent_dim": 8,
}
# Keras' wider initial weights: images of a few steps would otherwise be one flat grey.
TINY = Recipe().override(**SMALL, batch_size=8, epochs=2, sample_interval=20, convention="keras")


def write_films(folder, count, seed=0):
    """Smooth 40x36 images that are all different."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:40, 0:36]
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        wave = np.sin(rows / random.uniform(3, 9)) + np.cos(columns / random.uniform(3, 9))
        write_png(folder / f"film{index:02d}.png", np.rint(127.5 + 60 * wave).astype(np.uint8))
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty films of NORMAL and twelve of PNEUMONIA."""
    folder = tmp_path_factory.mktemp("films")
    write_films(folder / "NORMAL", 20, seed=1)
    write_films(folder / "PNEUMONIA", 12, seed=2)
    return folder


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """(run, result, progress reports) of one finished run; tests do not change it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    reports = []
    result = workflows.train(
        TINY,
        run,
        data=str(folder),
        backup_seconds=0,
        report=lambda stage, done, total, note="": reports.append((stage, done, total)),
    )
    return run, result, reports


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    return shutil.copytree(finished[0], tmp_path / "run")


@pytest.fixture
def no_training(monkeypatch):
    """For mistakes that must be found before any network is built."""

    def build_gan(*arguments, **options):
        raise AssertionError("the networks were built")

    monkeypatch.setattr(workflows.running, "build_gan", build_gan)


# A run


def test_a_run_leaves_every_file_of_a_run(finished):
    run = finished[0]
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "recipe.json", "environment.json", "data.json", "log.jsonl", "tensorboard", "reals.png",
        "samples", "backup", "losses.png", "export",
    }  # fmt: skip
    assert {path.name for path in (run / "export").iterdir()} == {
        "saved_model", "generator.keras", "card.json",
    }  # fmt: skip
    assert [path.name for path in sorted((run / "backup").iterdir())] == [
        "000000000032.npz", "000000000064.npz",
    ]  # fmt: skip
    assert [path.name for path in sorted((run / "samples").iterdir())] == [
        "000000000.png", "000000032.png", "000000064.png",
    ]  # fmt: skip
    assert not [path for path in run.rglob("*.tmp")]


def test_a_result_counts_what_was_trained(finished, folder):
    run, result, _ = finished
    assert (result.state, result.resumed_from) == ("finished", 0)
    assert (result.images, result.images_seen, result.steps, result.epochs) == (32, 64, 8, 2.0)
    assert result.images_per_second > 0
    assert result.export == str(run / "export")
    assert np.isfinite(list(result.metrics.values())).all()


def test_each_line_of_the_log_holds_losses_scores_and_speed(finished):
    lines = [json.loads(line) for line in (finished[0] / "log.jsonl").read_text().splitlines()]
    assert [(line["images_seen"], line["epoch"]) for line in lines] == [(32, 1.0), (64, 2.0)]
    for line in lines:
        for name in ("discriminator_loss", "generator_loss", "images_per_second", "seconds"):
            assert line[name] > 0
        for name in ("real_score", "fake_score_before", "fake_score_after"):
            assert 0 < line[name] < 1
        assert line["seconds_left"] >= 0


def test_the_run_states_its_recipe_its_data_and_its_machine(finished, folder):
    run = finished[0]
    assert Recipe.load(str(run / "recipe.json")) == TINY
    data = json.loads((run / "data.json").read_text())
    assert data["source"] == str(folder)
    assert (data["count"], len(data["images"]), data["rejected"]) == (32, 32, [])
    film = folder / "NORMAL" / "film00.png"
    assert [str(film), hashlib.sha256(film.read_bytes()).hexdigest()] in data["images"]
    environment = json.loads((run / "environment.json").read_text())
    assert environment["tensorflow"] == tf.__version__
    assert environment["keras"] == keras.__version__
    assert environment["replicas"] == 1


def test_tensorboard_holds_scalars_and_both_grids(finished):
    found = {}
    for path in (finished[0] / "tensorboard").rglob("*tfevents*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    assert found["discriminator_loss"] == [32, 64]
    assert found["generator_loss"] == [32, 64]
    assert found["images_per_second"] == [32, 64]
    assert found["generated images"] == [0, 32, 64]
    assert found["real images"] == [0]


def test_grids_show_the_prepared_images_and_the_generators(finished, folder):
    run = finished[0]
    images = workflows.load_images(str(folder), TINY).images
    np.testing.assert_array_equal(decode((run / "reals.png").read_bytes()), image_grid(images))
    first, last = (decode((run / "samples" / f"{n:09d}.png").read_bytes()) for n in (0, 64))
    assert first.shape == last.shape == (8 * 32 + 7 * 2, 8 * 32 + 7 * 2)
    assert (first != last).any()


def test_progress_counts_images_up_to_the_total(finished):
    reports = finished[2]
    assert ("images", 32, 32) in reports
    training = [report[1:] for report in reports if report[0] == "training"]
    assert training == [(seen, 64) for seen in range(8, 65, 8)]


# The same directory again


def test_a_finished_run_is_complete_and_nothing_in_it_changes(run, folder):
    before = contents(run)
    result = workflows.train(TINY, run, data=str(folder))
    assert (result.state, result.resumed_from, result.images_seen) == ("complete", 64, 64)
    assert result.export == str(run / "export")
    assert contents(run) == before


def test_an_export_that_a_killed_run_did_not_reach_is_made_up_for(run, folder):
    shutil.rmtree(run / "export")
    assert workflows.train(TINY, run, data=str(folder)).state == "complete"
    assert json.loads((run / "export" / "card.json").read_text())["images_seen"] == 64


def test_another_recipe_is_refused_with_each_field_and_both_values(run, folder, no_training):
    before = contents(run)
    other = TINY.override(latent_dim=9, beta_1=0.6)
    with pytest.raises(ValueError, match="belongs to a run with another recipe") as error:
        workflows.train(other, run, data=str(folder))
    assert "latent_dim: 8 in the run, 9 now" in str(error.value)
    assert "beta_1: 0.5 in the run, 0.6 now" in str(error.value)
    assert contents(run) == before


def test_more_epochs_are_refused_with_the_option_that_allows_them(run, folder, no_training):
    with pytest.raises(ValueError, match="epochs: 2 in the run, 3 now(.|\n)*--extend"):
        workflows.train(TINY.override(epochs=3), run, data=str(folder))


def test_extend_changes_epochs_alone(run, folder, no_training):
    with pytest.raises(ValueError, match="beta_1: 0.5 in the run, 0.6 now") as error:
        workflows.train(TINY.override(epochs=3, beta_1=0.6), run, data=str(folder), extend=True)
    assert "epochs: " not in str(error.value)


def test_other_images_are_refused(run, tmp_path, no_training):
    other = write_films(tmp_path / "other", 32, seed=9)
    with pytest.raises(ValueError, match="trained on other images") as error:
        workflows.train(TINY, run, data=str(other))
    assert str(other) in str(error.value)


def test_extend_goes_on_from_the_end_and_exports_anew(run, folder):
    longer = TINY.override(epochs=3)
    result = workflows.train(longer, run, data=str(folder), extend=True)
    assert (result.state, result.resumed_from, result.images_seen) == ("finished", 64, 96)
    seen = [
        json.loads(line)["images_seen"] for line in (run / "log.jsonl").read_text().splitlines()
    ]
    assert seen == [32, 64, 96]
    assert json.loads((run / "export" / "card.json").read_text())["images_seen"] == 96
    assert Recipe.load(str(run / "recipe.json")).epochs == 3


def test_a_number_of_images_is_seen_and_can_be_raised(folder, tmp_path):
    counted = TINY.override(training_images=24)
    first = workflows.train(counted, tmp_path / "run", data=str(folder))
    assert (first.state, first.images_seen) == ("finished", 24)  # of 32 films
    again = workflows.train(counted, tmp_path / "run", data=str(folder))
    assert again.resumed_from == again.images_seen == 24
    more = counted.override(training_images=40)
    with pytest.raises(ValueError, match="training_images: 24 in the run, 40 now(.|\n)*--extend"):
        workflows.train(more, tmp_path / "run", data=str(folder))
    longer = workflows.train(more, tmp_path / "run", data=str(folder), extend=True)
    assert (longer.resumed_from, longer.images_seen) == (24, 40)


def test_a_damaged_newest_backup_costs_one_interval_and_is_told(run, folder):
    (run / "backup" / "000000000064.npz").write_bytes(b"half a file")
    result = workflows.train(TINY, run, data=str(folder))
    assert (result.state, result.resumed_from, result.images_seen) == ("finished", 32, 64)
    assert len(result.notes) == 1 and "000000000064.npz is damaged" in result.notes[0]


def test_a_run_that_another_process_holds_is_refused(run, folder, no_training):
    fcntl = pytest.importorskip("fcntl")
    with open(run / ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is training in"):
            workflows.train(TINY, run, data=str(folder))


# Data that cannot be trained on: found before any network is built, and nothing is left behind


@pytest.mark.parametrize(
    "names, message",
    [
        (None, "does not exist"),
        ([], "holds no PNG, JPEG or DICOM image: it is empty"),
        (["notes.txt", "more.txt"], r"holds no PNG, JPEG or DICOM image: 2 files seen.*\.txt 2"),
    ],
    ids=["missing", "empty", "text"],
)
def test_a_folder_without_images_is_named(names, message, tmp_path, no_training):
    source = tmp_path / "source"
    if names is not None:
        source.mkdir()
        for name in names:
            (source / name).write_text("no image")
    with pytest.raises(ValueError, match=message) as error:
        workflows.train(TINY, tmp_path / "run", data=str(source))
    assert str(source) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_fewer_images_than_a_batch_are_refused_with_a_batch_that_fits(tmp_path, no_training):
    few = write_films(tmp_path / "few", 5)
    with pytest.raises(ValueError, match="5 images are fewer than one batch of 8.*--batch-size 5"):
        workflows.train(TINY, tmp_path / "run", data=str(few))
    assert not (tmp_path / "run").exists()


def test_bad_files_are_all_named_before_training(tmp_path, no_training):
    films = write_films(tmp_path / "films", 10)
    (films / "a.png").write_bytes(b"")
    (films / "b.jpg").write_text("hello")
    with pytest.raises(ValueError, match="2 of 12 images cannot be used") as error:
        workflows.train(TINY, tmp_path / "run", data=str(films))
    assert f"{films / 'a.png'}: an empty file" in str(error.value)
    assert f"{films / 'b.jpg'}: text, not an image" in str(error.value)
    assert "--on-bad-file skip" in str(error.value)


def test_skipped_files_are_listed_in_the_result_and_the_run(tmp_path):
    films = write_films(tmp_path / "films", 10)
    (films / "bad.png").write_bytes(b"")
    result = workflows.train(
        TINY.override(epochs=1), tmp_path / "run", data=str(films), on_bad_file="skip"
    )
    assert (result.state, result.images) == ("finished", 10)
    assert [name for name, _ in result.rejected] == [str(films / "bad.png")]
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert data["count"] == 10
    assert data["rejected"] == [[str(films / "bad.png"), "an empty file (0 bytes)"]]


def test_a_class_chooses_its_folder(folder):
    images = workflows.load_images(str(folder), TINY, classes=("PNEUMONIA",))
    assert set(images.labels) == {"PNEUMONIA"} and len(images.images) == 12
    with pytest.raises(ValueError, match="did you mean 'PNEUMONIA'"):
        workflows.load_images(str(folder), TINY, classes=("PNEUMONA",))


def test_a_zip_is_the_same_data_as_its_folder(folder, finished, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "films"), "zip", folder)
    packed = workflows.load_images(archive, TINY)
    trained_on = json.loads((finished[0] / "data.json").read_text())
    assert packed.fingerprint == trained_on["fingerprint"]


def test_the_built_in_phantom_needs_no_data_and_follows_the_seed(monkeypatch):
    monkeypatch.setattr(workflows.assembly, "PHANTOM_COUNT", 12)
    first, again, other = (
        workflows.load_images(None, TINY.override(seed=seed)) for seed in (0, 0, 1)
    )
    assert first.images.shape == (12, 32, 32) and first.images.dtype == np.uint8
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_a_set_above_the_memory_budget_trains_from_a_file_to_the_same_end(
    finished, folder, tmp_path
):
    run = tmp_path / "run"
    result = workflows.train(TINY, run, data=str(folder), memory_budget=1000)
    assert len(list((run / "cache").glob("*.npy"))) == 1
    assert result.metrics == pytest.approx(finished[1].metrics, rel=1e-3)


# Scores on the way


def fake_scorer(monkeypatch, *values):
    """Give these kid values in turn instead of real scores; return what the scorer was given."""
    numbers, given = iter(values), {"real": [], "fake": []}

    def scorer(real_images, *, features, seed):
        disturb()
        given["real"].append(np.array(real_images))
        given.update(features=features, seed=seed)

        def evaluate(images):
            disturb()
            given["fake"].append(images.copy())
            return {"kid": next(numbers), "recall": 0.5}

        return evaluate

    place = "keras_cxrgan.workflows.evaluating"
    monkeypatch.setitem(sys.modules, place, types.SimpleNamespace(scorer=scorer))
    return given


def disturb():
    """Use up random numbers of every global kind, as building and using another model does."""
    random.random(), np.random.random(), tf.random.normal([])
    keras.layers.Dropout(0.5)(keras.layers.Dense(2)(np.ones((1, 2))), training=True)


def test_initial_weights_are_the_recipes_whatever_was_drawn_before():
    def weights(recipe):
        disturb()
        gan = workflows.build_gan(recipe)
        return [*gan.generator.get_weights(), *gan.discriminator.get_weights()]

    first, second, other = (weights(r) for r in (TINY, TINY, TINY.override(seed=1)))
    for one, again in zip(first, second):
        np.testing.assert_array_equal(one, again)
    assert any((one != another).any() for one, another in zip(first, other))


def newest_state(run):
    path = max((run / "backup").glob("*.npz"))
    with np.load(path) as file:
        return path.stem, {name: file[name] for name in file.files}


def assert_same_state(run, other):
    (name, ours), (theirs_name, theirs) = newest_state(run), newest_state(other)
    assert name == theirs_name and ours.keys() == theirs.keys()
    assert [key for key in ours if ours[key].tobytes() != theirs[key].tobytes()] == []


def read_metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


WATCHED = TINY.override(evaluate_interval=30, evaluate_count=12)


@pytest.fixture(scope="module")
def evaluated(folder, tmp_path_factory):
    """(run, result, what the scorer was given, progress reports); the first of two scores wins."""
    run, reports = tmp_path_factory.mktemp("runs") / "run", []
    with pytest.MonkeyPatch.context() as monkeypatch:
        given = fake_scorer(monkeypatch, 0.125, 0.25)
        result = workflows.train(
            WATCHED,
            run,
            data=str(folder),
            backup_seconds=0,
            report=lambda stage, done, total, note="": reports.append((stage, done, total, note)),
        )
    return run, result, given, reports


def test_evaluations_change_no_weight(evaluated, finished):
    assert_same_state(evaluated[0], finished[0])


def test_evaluations_see_all_real_images_and_keep_their_best(evaluated, folder):
    run, result, given, reports = evaluated
    (real,) = given["real"]  # once, whatever the number of evaluations
    np.testing.assert_array_equal(real, workflows.load_images(str(folder), WATCHED).images)
    assert [images.shape for images in given["fake"]] == [(12, 32, 32)] * 2
    assert (given["features"], given["seed"]) == ("cxr", 0)
    assert [(line["images_seen"], line["kid"]) for line in read_metrics(run)] == [
        (32, 0.125), (64, 0.25),
    ]  # fmt: skip
    assert read_metrics(run)[0]["real_count"] == 32
    assert result.best["images_seen"] == 32 and result.best["evaluations"] == 2
    assert ("evaluating", 12, 12, "kid 0.25; best 0.125 at 32") in reports
    assert (
        f"kid 0.125 at 32 images seen, chosen on that metric (cxrgan generate {run} --best)"
        in summarize_run(result)
    )


def test_sampled_latents_decide_nothing(evaluated, tmp_path):
    """What is chosen on must not be what `cxrgan generate` makes unasked, and is then scored."""
    run, _, given, _ = evaluated
    workflows.generate(run, tmp_path / "asked", 12, seed=-1)
    workflows.generate(run, tmp_path / "unasked", 12)
    asked, unasked = (
        np.stack([decode(data) for _, data in sorted(pngs(tmp_path / name).items())])
        for name in ("asked", "unasked")
    )
    last = given["fake"][-1].astype(int)
    assert np.abs(last - asked).max() <= 1
    assert (np.abs(last - unasked).mean((1, 2)) > 2).all()


def test_best_makes_images_and_exports_and_says_how_it_was_chosen(evaluated, tmp_path):
    run, result, given, _ = evaluated
    made = workflows.generate(run, tmp_path / "best", 12, seed=-1, best=True)
    newest = workflows.generate(run, tmp_path / "newest", 12, seed=-1)
    images = np.stack([decode(data) for _, data in sorted(pngs(tmp_path / "best").items())])
    assert np.abs(given["fake"][0].astype(int) - images).max() <= 1  # as they scored
    assert made["model"] != newest["model"]
    assert made["selection"] == result.best and newest["selection"] is None

    out = workflows.export(run, tmp_path / "export", best=True)
    card = json.loads((out / "card.json").read_text())
    assert (card["images_seen"], card["model"]) == (32, made["model"])
    assert card["selection"] == result.best
    assert "against the training images" in card["selection"]["note"]
    assert json.loads((run / "export" / "card.json").read_text())["selection"] is None
    workflows.generate(out, tmp_path / "exported", 12, seed=-1)
    assert pngs(tmp_path / "exported") == pngs(tmp_path / "best")
    with pytest.raises(ValueError, match="is an export, which holds one generator.*--best"):
        workflows.generate(out, tmp_path / "again", 1, best=True)


def test_the_best_export_leaves_the_one_of_the_newest_state_alone(evaluated, tmp_path):
    run = shutil.copytree(evaluated[0], tmp_path / "run")
    assert workflows.export(run, best=True) == run / "export-best"
    assert json.loads((run / "export" / "card.json").read_text())["images_seen"] == 64


def test_a_run_without_evaluations_has_no_best(finished, tmp_path):
    assert finished[1].best is None
    assert "--best" not in summarize_run(finished[1])
    with pytest.raises(ValueError, match="keeps no best checkpoint.*--evaluate-every"):
        workflows.generate(finished[0], tmp_path / "out", 1, best=True)
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_evaluates_anew_what_it_trains_anew(
    evaluated, finished, folder, tmp_path, monkeypatch
):
    run = shutil.copytree(evaluated[0], tmp_path / "run")
    (run / "backup" / "000000000064.npz").unlink()
    given = fake_scorer(monkeypatch, 0.0625)
    result = workflows.train(WATCHED, run, data=str(folder), backup_seconds=0)
    assert result.resumed_from == 32
    assert [(line["images_seen"], line["kid"]) for line in read_metrics(run)] == [
        (32, 0.125), (64, 0.0625),
    ]  # fmt: skip
    assert (result.best["images_seen"], result.best["evaluations"]) == (64, 2)
    np.testing.assert_array_equal(given["fake"][0], evaluated[2]["fake"][1])
    assert_same_state(run, finished[0])


def test_a_run_may_go_on_with_other_watching_and_says_so(evaluated, folder, tmp_path, monkeypatch):
    run = shutil.copytree(evaluated[0], tmp_path / "run")
    (run / "backup" / "000000000064.npz").unlink()
    # None in place of a module makes its import fail: a run that scores nothing must not try.
    monkeypatch.setitem(sys.modules, "keras_cxrgan.workflows.evaluating", None)
    other = TINY.override(sample_interval=64, evaluate_metric="recall")
    result = workflows.train(other, run, data=str(folder))
    assert (result.state, result.resumed_from) == ("finished", 32)
    assert Recipe.load(str(run / "recipe.json")) == other
    assert [line["images_seen"] for line in read_metrics(run)] == [32]
    assert result.best["metric"] == "kid"


def test_only_so_many_real_images_are_compared_with(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(workflows.running, "MOST_REAL", 20)
    images = workflows.load_images(str(folder), WATCHED).images
    given = fake_scorer(monkeypatch)
    for seed in (0, 0, 1):
        recipe = WATCHED.override(seed=seed)
        watcher = workflows.running._evaluate(recipe, tmp_path, images, None)
        assert watcher.terms["real_count"] == 20
    first, again, other = given["real"]
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    chosen = {image.tobytes() for image in first}
    assert len(chosen) == 20 and chosen < {image.tobytes() for image in images}
    assert chosen != {image.tobytes() for image in images[:20]}  # files come class by class


def test_features_that_do_not_exist_are_refused_before_training(folder, tmp_path, monkeypatch):
    def scorer(real_images, *, features, seed):
        raise ValueError(f"there are no features {features!r}")

    place = "keras_cxrgan.workflows.evaluating"
    monkeypatch.setitem(sys.modules, place, types.SimpleNamespace(scorer=scorer))
    with pytest.raises(ValueError, match="there are no features 'cxx'"):
        workflows.train(
            WATCHED.override(evaluate_features="cxx"), tmp_path / "run", data=str(folder)
        )
    assert not (tmp_path / "run").exists()


def test_too_few_images_to_evaluate_against_are_refused(tmp_path, no_training):
    few = write_films(tmp_path / "few", 9)
    with pytest.raises(ValueError, match="9 images are too few to evaluate against, 10 are needed"):
        workflows.train(WATCHED, tmp_path / "run", data=str(few))
    assert not (tmp_path / "run").exists()


def test_scores_that_fail_are_a_note_of_a_finished_run(folder, tmp_path, monkeypatch):
    def fail(images):
        raise ValueError("all images are the same")

    def scorer(real_images, *, features, seed):
        return fail

    place = "keras_cxrgan.workflows.evaluating"
    monkeypatch.setitem(sys.modules, place, types.SimpleNamespace(scorer=scorer))
    result = workflows.train(WATCHED.override(epochs=1), tmp_path / "run", data=str(folder))
    assert (result.state, result.best) == ("finished", None)
    assert result.notes == (
        "evaluations that gave no score: 1; the last at 32 images: all images are the same",
    )


# Devices


def test_a_batch_that_replicas_cannot_share_is_refused(folder, tmp_path, no_training):
    with pytest.raises(ValueError, match="batch of 9 cannot be shared.*2 devices.*--batch-size 8"):
        workflows.train(
            TINY.override(batch_size=9), tmp_path / "run", data=str(folder), devices="cpu:2"
        )
    assert not (tmp_path / "run").exists()


def test_two_replicas_end_where_one_does(finished, folder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    given = fake_scorer(monkeypatch, 0.25, 0.125)
    workflows.train(WATCHED, run, data=str(folder), devices="cpu:2")
    workflows.generate(run, tmp_path / "best", 12, seed=-1, best=True)
    images = np.stack([decode(data) for _, data in sorted(pngs(tmp_path / "best").items())])
    assert np.abs(given["fake"][1].astype(int) - images).max() <= 1
    assert json.loads((run / "environment.json").read_text())["replicas"] == 2
    one, two = (
        decode((place / "samples" / "000000064.png").read_bytes()).astype(int)
        for place in (finished[0], run)
    )
    begin = decode((run / "samples" / "000000000.png").read_bytes()).astype(int)
    # Sums in another order differ in their last digits, which Adam magnifies a little.
    assert np.abs(two - one).mean() < 0.1 * np.abs(two - begin).mean()


# Every recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_trains_with_finite_losses(name, films):
    recipe = RECIPES[name]
    dropout = (0.25, 0.0, 0.5) if recipe.discriminator_dropout else ()
    growth = {"grown_from": 16, "stages": ()} if recipe.grown_from else {}
    small = recipe.override(**SMALL, **growth, batch_size=4, discriminator_dropout=dropout)
    gan = workflows.build_gan(small)
    before = [weight.copy() for weight in gan.generator.get_weights()]
    batches = training_batches(films, 4 * small.critic_steps, channels=small.channels)
    history = gan.fit(batches, epochs=1, steps_per_epoch=2, shuffle=False, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    assert any((a != b).any() for a, b in zip(before, gan.generator.get_weights()))
    assert gan.generate(1).shape == (1, 32, 32, small.channels)
    assert ("penalty_gradient_norm" in history) == (recipe.penalty != "none")


def test_reduced_precision_trains_and_generates_in_float32(films):
    for precision in ("mixed_bfloat16", "mixed_float16"):
        gan = workflows.build_gan(TINY.override(precision=precision))
        history = gan.fit(
            training_batches(films, 8), steps_per_epoch=2, shuffle=False, verbose=0
        ).history
        assert np.isfinite(history["generator_loss"] + history["discriminator_loss"]).all()
        assert gan.generate(2).dtype == np.float32


# Images out


def read_manifest(out):
    with open(out / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def pngs(out):
    return {path.name: path.read_bytes() for path in out.glob("0*.png")}


def test_image_is_fixed_by_seed_and_index_whatever_the_count(finished, tmp_path):
    run = finished[0]
    workflows.generate(run, tmp_path / "many", 40, seed=3)
    workflows.generate(run, tmp_path / "few", 5, seed=3)
    workflows.generate(run, tmp_path / "other", 5, seed=4)
    many, few, other = (pngs(tmp_path / name) for name in ("many", "few", "other"))
    assert sorted(few) == [f"{index:06d}.png" for index in range(5)]
    assert few == {name: many[name] for name in few}
    images = [decode(data).tobytes() for data in [*many.values(), *other.values()]]
    assert len(set(images)) == 45


def test_image_does_not_depend_on_the_size_of_the_batches(finished, tmp_path):
    workflows.generate(finished[0], tmp_path / "large", 7, batch_size=32)
    workflows.generate(finished[0], tmp_path / "small", 7, batch_size=3)
    large, small = pngs(tmp_path / "large"), pngs(tmp_path / "small")
    for name in large:
        difference = decode(large[name]).astype(int) - decode(small[name])
        assert abs(difference).max() <= 1  # the last digit of a sum may differ, no more


def test_manifest_matches_the_files(finished, tmp_path):
    reports = []
    result = workflows.generate(
        finished[0],
        tmp_path / "out",
        5,
        seed=3,
        truncation=0.7,
        batch_size=2,
        report=lambda stage, done, total: reports.append((stage, done, total)),
    )
    rows = read_manifest(tmp_path / "out")
    assert [row["index"] for row in rows] == ["0", "1", "2", "3", "4"]
    for row in rows:
        data = (tmp_path / "out" / row["file"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert (row["seed"], row["truncation"]) == ("3", "0.7")
        assert row["model"] == result["model"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "manifest.csv", *(row["file"] for row in rows),
    }  # fmt: skip
    assert reports == [("generating", 2, 5), ("generating", 4, 5), ("generating", 5, 5)]


def test_image_says_that_it_is_synthetic_and_where_it_comes_from(finished, tmp_path):
    result = workflows.generate(finished[0], tmp_path / "out", 2, seed=3)
    text = read_png_text((tmp_path / "out" / "000001.png").read_bytes())
    assert "Synthetic" in text["Comment"] and "not a patient" in text["Comment"]
    assert (text["Seed"], text["Index"], text["Model"]) == ("3", "1", result["model"])


def test_grid_shows_the_first_images(finished, tmp_path):
    workflows.generate(finished[0], tmp_path / "out", 70, grid=True)
    images = [decode(pngs(tmp_path / "out")[f"{index:06d}.png"]) for index in range(64)]
    grid = decode((tmp_path / "out" / "grid.png").read_bytes())
    np.testing.assert_array_equal(grid, image_grid(np.stack(images)))


def test_run_and_its_export_generate_the_same_images(finished, tmp_path):
    workflows.generate(finished[0], tmp_path / "run", 4, seed=1)
    workflows.generate(finished[0] / "export", tmp_path / "export", 4, seed=1)
    assert pngs(tmp_path / "run") == pngs(tmp_path / "export")
    assert read_manifest(tmp_path / "run") == read_manifest(tmp_path / "export")


def test_a_folder_with_files_is_left_alone_without_overwrite(finished, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "000000.png").write_text("mine")
    with pytest.raises(ValueError, match="already holds files.*--overwrite"):
        workflows.generate(finished[0], tmp_path / "out", 2)
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_overwrite_leaves_no_image_of_an_earlier_call(finished, tmp_path):
    out = tmp_path / "out"
    workflows.generate(finished[0], out, 5, seed=1, grid=True)
    (out / "notes.txt").write_text("mine")
    write_png(out / "000004.png", np.zeros((8, 8), np.uint8))  # no longer what was generated
    workflows.generate(finished[0], out, 2, seed=2, overwrite=True)
    assert {path.name for path in out.iterdir()} == {
        "000000.png", "000001.png", "000004.png", "manifest.csv", "notes.txt",
    }  # fmt: skip
    assert [row["seed"] for row in read_manifest(out)] == ["2", "2"]


def test_overwrite_keeps_the_images_of_somebody_elses_manifest(finished, tmp_path):
    films = write_films(tmp_path / "films", 3)
    names = sorted(path.name for path in films.iterdir())
    (films / "manifest.csv").write_text("\n".join(["file", *names]))
    workflows.generate(finished[0], films, 1, overwrite=True)
    assert set(names) < {path.name for path in films.iterdir()}


def test_memory_does_not_grow_with_the_count(finished, tmp_path, monkeypatch):
    """What is drawn and held at once is a batch: never `count` latents or images."""
    drawn, converted = [], []
    draw, convert = workflows.producing.indexed_latents, workflows.producing.to_uint8

    def watched_draw(seed, start, count, *rest):
        drawn.append(count)
        return draw(seed, start, count, *rest)

    def watched_convert(images):
        converted.append(len(images))
        return convert(images)

    monkeypatch.setattr(workflows.producing, "indexed_latents", watched_draw)
    monkeypatch.setattr(workflows.producing, "to_uint8", watched_convert)
    workflows.generate(finished[0], tmp_path / "out", 75, batch_size=16)
    assert set(drawn) == {16}
    assert converted == [16, 16, 16, 16, 11]


def test_smaller_truncation_gives_less_variety(finished, tmp_path):
    spread = {}
    for truncation in (None, 0.01):
        out = tmp_path / str(truncation)
        workflows.generate(finished[0], out, 16, truncation=truncation)
        spread[truncation] = np.stack([decode(data) for data in pngs(out).values()]).std(0).mean()
    assert spread[0.01] < 0.2 * spread[None]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"count": 0}, "-n must be 1 or more, got 0"),
        ({"truncation": 0.0}, "--truncation must be above 0, got 0.0"),
        ({"truncation": -1.0}, "--truncation must be above 0"),
        ({"truncation": float("nan")}, "--truncation must be above 0, got nan"),
        ({"seed": 2**63}, "--seed must fit in 64 bits"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_written(finished, tmp_path, options, message):
    options = {"count": 2, **options}
    with pytest.raises(ValueError, match=message):
        workflows.generate(finished[0], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_large_and_negative_seeds_are_seeds(finished, tmp_path):
    for seed in (2**40, -(2**40)):
        workflows.generate(finished[0], tmp_path / str(seed), 1, seed=seed)
    first, second = (pngs(tmp_path / str(seed))["000000.png"] for seed in (2**40, -(2**40)))
    assert (decode(first) != decode(second)).any()


def test_an_interrupted_generate_leaves_no_manifest(finished, tmp_path):
    def interrupt(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workflows.generate(finished[0], tmp_path / "out", 40, batch_size=8, report=interrupt)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".png"] == []


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="is no run and no export.*cxrgan train"):
            workflows.generate(source, tmp_path / "out", 1)


def test_a_run_without_a_backup_yet_is_refused(run, tmp_path):
    shutil.rmtree(run / "backup")
    with pytest.raises(ValueError, match="holds no complete backup yet"):
        workflows.generate(run, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


# Models out


def test_export_describes_the_generator(finished, folder):
    card = json.loads((finished[0] / "export" / "card.json").read_text())
    assert card["images_seen"] == 64 and card["averaged_weights"]
    assert card["images"]["shape"] == [32, 32, 1]
    assert card["data"]["source"] == str(folder) and card["data"]["count"] == 32
    assert Recipe.from_json(json.dumps(card["recipe"])) == TINY


def test_export_overwrites_only_when_told_and_only_an_export(run, tmp_path):
    with pytest.raises(ValueError, match="already holds files.*--overwrite"):
        workflows.export(run)
    (run / "export" / "card.json").write_text("{}")
    assert workflows.export(run, overwrite=True) == run / "export"
    assert json.loads((run / "export" / "card.json").read_text())["images_seen"] == 64
    before = contents(run)
    with pytest.raises(ValueError, match="holds more than an export"):
        workflows.export(run, run, overwrite=True)
    assert contents(run) == before


def test_export_to_a_place_that_cannot_be_written_is_one_clear_line(finished, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="cannot write the export to .*file/place.*--out") as error:
        workflows.export(finished[0], tmp_path / "file" / "place")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="is a file; name a folder"):
        workflows.export(finished[0], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_figure_is_refused_more_columns_than_the_run_has_images(finished, tmp_path):
    with pytest.raises(ValueError, match="reals.png holds 36 images; pass --columns 36 or less"):
        workflows.figure([str(finished[0])], tmp_path / "figure.png", columns=64)
