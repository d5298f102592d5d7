"""Scores during a run: they change nothing, choose the best state, and resume with it."""

import json
import random
import shutil
import signal
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_runs import TINY, pngs, write_films

from keras_cxrgan import workflows
from keras_cxrgan.data.images import decode
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.terminal import summarize_run
from keras_cxrgan.training import callbacks


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


def test_a_run_stopped_within_a_tick_looks_at_the_same_states_as_one_never_stopped(
    finished, folder, tmp_path, monkeypatch
):
    class AtThreeSteps(callbacks.StopOnSignal):  # of four to a tick
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.images_seen.numpy()) == 24:
                self._stop(signal.SIGINT, None)

    monkeypatch.setattr(callbacks, "StopOnSignal", AtThreeSteps)
    run = tmp_path / "run"
    assert workflows.train(TINY, run, data=str(folder)).state == "stopped"
    monkeypatch.undo()
    assert workflows.train(TINY, run, data=str(folder)).resumed_from == 24
    seen, whole = (
        [json.loads(line)["images_seen"] for line in (place / "log.jsonl").read_text().splitlines()]
        for place in (run, finished[0])
    )
    assert whole == [32, 64] and seen == [24, *whole]
    grids, of_whole = (
        sorted(int(path.stem) for path in (place / "samples").iterdir())
        for place in (run, finished[0])
    )
    assert of_whole == [0, 32, 64] and grids == [0, 24, 32, 64]
    assert_same_state(run, finished[0])


def test_a_run_may_go_on_with_other_watching_and_says_so(evaluated, folder, tmp_path, monkeypatch):
    run = shutil.copytree(evaluated[0], tmp_path / "run")
    (run / "backup" / "000000000064.npz").unlink()
    # None in place of a module makes its import fail: a run that scores nothing must not try.
    monkeypatch.setitem(sys.modules, "keras_cxrgan.workflows.evaluating", None)
    other = TINY.override(sample_interval=64, evaluate_interval=0, evaluate_metric="recall")
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
    few = write_films(tmp_path / "few", 13)
    message = "13 images are too few to evaluate against, 14 are needed"
    with pytest.raises(ValueError, match=message):
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
