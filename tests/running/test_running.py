"""A run in one process: what it leaves, how it goes on, and what it refuses."""

import hashlib
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_runs import SMALL, TINY, contents, write_films

from keras_cxrgan import workflows
from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.data.images import decode, image_grid
from keras_cxrgan.recipe import RECIPES, Recipe
from keras_cxrgan.training import runtime

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
    card = run / "export" / "card.json"
    for damage in (
        lambda: shutil.rmtree(run / "export"),
        lambda: card.write_text(""),  # as a power cut leaves it
        lambda: card.write_text("{}"),
    ):
        damage()
        assert workflows.train(TINY, run, data=str(folder)).state == "complete"
        assert json.loads(card.read_text())["images_seen"] == 64


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
    with pytest.raises(ValueError, match="trained on other films") as error:
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


def test_a_run_of_which_no_state_can_be_read_is_not_begun_anew(run, folder):
    for path in (run / "backup").glob("*.npz"):
        path.write_bytes(b"half a file")
    before = (run / "log.jsonl").read_text()
    with pytest.raises(ValueError, match="no state in .*backup can be read .*remove that folder"):
        workflows.train(TINY.override(epochs=9), run, data=str(folder), extend=True)
    assert (run / "log.jsonl").read_text() == before and len(before.splitlines()) > 1
    assert len(list((run / "backup").glob("*.npz"))) == 2


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


def test_a_batch_that_replicas_cannot_share_is_refused(folder, tmp_path, no_training):
    with pytest.raises(ValueError, match="batch of 9 cannot be shared.*2 devices.*--batch-size 8"):
        workflows.train(
            TINY.override(batch_size=9), tmp_path / "run", data=str(folder), devices="cpu:2"
        )
    assert not (tmp_path / "run").exists()


# Every recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_trains_with_finite_losses(name, films):
    recipe = RECIPES[name]
    dropout = (0.25, 0.0, 0.5) if recipe.discriminator_dropout else ()
    growth = {"grown_from": 16, "stages": ()} if recipe.grown_from else {}
    small = recipe.override(**SMALL, **growth, batch_size=4, discriminator_dropout=dropout)
    gan = workflows.build_gan(small)
    # Graphs of five critic steps take long to build, and other tests build their like.
    gan.run_eagerly = name not in ("default", "small_data")
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


def test_the_processors_cores_are_shared_as_the_recipes_precision_asks(tmp_path, monkeypatch):
    asked = {}

    def start(*_, **options):
        asked.update(options)
        raise ValueError("far enough")

    monkeypatch.setattr(runtime, "start", start)
    with pytest.raises(ValueError, match="far enough"):
        workflows.train(TINY.override(precision="mixed_bfloat16"), tmp_path)
    assert asked["precision"] == "mixed_bfloat16"


def test_every_line_of_the_log_has_a_lazy_penalty(folder, tmp_path):
    # 32 films are four steps: a line for each pass would have a penalty every other time.
    recipe = TINY.override(
        epochs=5,
        penalty="r1",
        penalty_weight=0.1,
        penalty_interval=8,
        discriminator_normalization="none",
    )
    workflows.train(recipe, tmp_path / "run", data=str(folder))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(log) > 2
    assert all(line["penalty_gradient_norm"] > 0 for line in log)


def test_a_run_that_goes_on_between_two_lazy_penalties_logs_the_last_one(folder, tmp_path):
    lazy = {"penalty": "r1", "penalty_interval": 8, "discriminator_normalization": "none"}
    for epochs in (1, 2):  # of four steps: the second has no penalty
        recipe = TINY.override(epochs=epochs, **lazy)
        workflows.train(recipe, tmp_path / "run", data=str(folder), extend=True)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    norms = [line["penalty_gradient_norm"] for line in log]
    assert len(norms) == 2 and norms[0] == norms[1] > 0
