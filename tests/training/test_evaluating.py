"""Scores during a run: when, on which images, and which generator is kept."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.data.images import decode, encode_png, to_uint8
from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.training import callbacks
from keras_cxrgan.training.evaluating import Evaluate
from keras_cxrgan.training.gan import GAN
from keras_cxrgan.training.state import best_weights, read_best


def build(ema_half_life=0, channels=1):
    gan = GAN(
        build_generator(32, channels, latent_dim=8, width=4, convention="keras"),
        build_discriminator(32, channels, width=4),
        ema_half_life=ema_half_life,
    )
    gan.compile(keras.optimizers.Adam(2e-4), keras.optimizers.Adam(2e-4), jit_compile=False)
    return gan


class Scores:
    """A score function that gives these numbers in turn, and remembers what it was given."""

    def __init__(self, *values, name="kid"):
        self.values = iter(values)
        self.name = name
        self.images = []

    def __call__(self, images):
        self.images.append(images.copy())
        return {self.name: next(self.values)}


def fit(gan, films, watchers, total, ticks=10):
    """Train in ticks of 16 images."""
    gan.fit(
        training_batches(films, 8, start=int(gan.images_seen.numpy())),
        epochs=ticks,
        steps_per_epoch=2,
        shuffle=False,
        verbose=0,
        callbacks=[callbacks.Clock(total, 40), *watchers],
    )


def score(gan, evaluate, run, *ticks, **options):
    """Pass through the ends of ticks without training; each moves the weights a little."""
    options = {"interval": 1, "count": 10, "metric": getattr(evaluate, "name", "kid"), **options}
    watcher = Evaluate(evaluate, run, total=1000, **options)
    watcher.set_model(gan)
    gan.stop_training = False
    watcher.on_train_begin()
    for seen in ticks:
        for network in filter(None, (gan.generator, gan.ema_generator)):
            network.set_weights([1.01 * weight for weight in network.get_weights()])
        watcher.on_epoch_end(0, {"images_seen": seen})
    watcher.on_train_end()
    return watcher


def lines(run):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    text = (run / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_scores_are_taken_at_the_first_tick_after_each_mark_and_at_the_end(films, tmp_path):
    shown = []
    watcher = Evaluate(
        lambda images: {"kid": 0.25, "recall": 0.5}, tmp_path, interval=24, total=72, count=10,
        seed=-3, context={"features": "cxr"},
        report=lambda done, total, note: shown.append((done, total, note)),
    )  # fmt: skip
    fit(build(), films, [watcher], total=72)
    found = lines(tmp_path)
    assert [line["images_seen"] for line in found] == [32, 48, 72]
    for line in found:
        assert line.pop("seconds") >= 0
        del line["images_seen"]
        assert line == {
            "metric": "kid", "features": "cxr", "count": 10, "seed": -3, "kid": 0.25, "recall": 0.5,
        }  # fmt: skip
    assert shown[0] == (0, 10, "")
    assert shown[1] == (10, 10, "kid 0.25: the best so far, kept (chosen on kid)")
    assert shown[-1] == (10, 10, "kid 0.25; best 0.25 at 32")


def test_a_stopped_run_does_not_wait_for_scores(films, tmp_path):
    """After SIGTERM there may be seconds left, and the backup comes after this callback."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.images_seen.numpy()) == 24:
                self.model.stop_training = True

    gan, scores = build(), Scores(0.3, 0.2, 0.1)
    watcher = Evaluate(scores, tmp_path, interval=20, total=56, count=10)
    fit(gan, films, [Stop(), watcher], total=56)
    assert int(gan.images_seen.numpy()) == 24 and scores.images == []
    # The mark that was passed over is made up for, at the end of the first tick.
    fit(gan, films, [watcher], total=56)
    assert [line["images_seen"] for line in lines(tmp_path)] == [40, 56]


@pytest.mark.parametrize("name, best", [("kid", 1), ("frechet", 1), ("recall", 2), ("coverage", 2)])
def test_the_kept_generator_is_the_best_by_the_direction_of_its_metric(tmp_path, name, best):
    gan, weights = build(), []
    scores = Scores(0.2, 0.1, 0.3, name=name)

    def evaluate(images):
        weights.append(gan.generator.get_weights())
        return scores(images)

    score(gan, evaluate, tmp_path, 16, 32, 48, metric=name)
    kept, record = best_weights(tmp_path / "checkpoints")
    assert record["images_seen"] == (16, 32, 48)[best]
    assert record["value"] == (0.2, 0.1, 0.3)[best]
    assert (record["metric"], record["evaluations"]) == (name, 3)
    assert f"chosen by its {name} against the training images" in record["note"]
    assert json.loads((tmp_path / "checkpoints" / "best.json").read_text()) == record
    for ours, theirs in zip(kept, weights[best], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_averaged_weights_are_kept_where_images_are_made_with_them(tmp_path):
    gan = build(ema_half_life=32)
    gan.generator.set_weights([weight + 0.5 for weight in gan.generator.get_weights()])
    score(gan, Scores(0.1), tmp_path, 16)
    kept, _ = best_weights(tmp_path / "checkpoints")
    for ours, theirs in zip(kept, gan.ema_generator.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["kid", "recall"])
def test_a_number_that_is_none_never_wins(tmp_path, name):
    score(build(), Scores(np.nan, 0.5, np.inf, -np.inf, name=name), tmp_path, 16, 32, 48, 64)
    record = read_best(tmp_path / "checkpoints")
    assert (record["value"], record["images_seen"], record["evaluations"]) == (0.5, 32, 1)
    assert [line[name] for line in lines(tmp_path)] == [None, 0.5, None, None]


def test_no_score_at_all_keeps_no_checkpoint(tmp_path):
    score(build(), Scores(np.nan, np.nan), tmp_path, 16, 32)
    assert read_best(tmp_path / "checkpoints") is None


def test_a_score_that_cannot_be_computed_is_told_and_the_run_goes_on(tmp_path):
    def evaluate(images):
        raise ValueError("all images are the same")

    watcher = score(build(), evaluate, tmp_path, 16, 32)
    assert [line["error"] for line in lines(tmp_path)] == ["all images are the same"] * 2
    assert watcher.failures[0] == "at 16 images: all images are the same"


def test_images_are_of_the_same_latents_each_time_and_those_of_generate(tmp_path):
    gan, scores = build(), Scores(0.1, 0.1)
    score(gan, scores, tmp_path, 16, 32, count=40, seed=-1)
    first, last = scores.images
    assert first.dtype == np.uint8 and first.shape == last.shape == (40, 32, 32)
    expected = to_uint8(gan.generate(64, seed=-1, batch_size=32))[:40, ..., 0]
    np.testing.assert_array_equal(last, expected)
    # The weights moved every image a little; other latents would give other images.
    assert (first != last).any()
    distance = np.abs(first.astype(int)[:, None] - last).mean((2, 3))
    assert (distance.argmin(1) == np.arange(40)).all()


def test_colour_is_made_grey_as_the_files_are_read(tmp_path):
    gan, scores = build(channels=3), Scores(0.1)
    score(gan, scores, tmp_path, 16, count=12)
    colour = to_uint8(gan.generate(32, seed=-1, batch_size=32))[:12]
    assert np.ptp(colour.astype(int), axis=-1).max() > 5
    for ours, image in zip(scores.images[0], colour, strict=True):
        np.testing.assert_array_equal(ours, decode(encode_png(image)))


def test_memory_does_not_grow_with_the_count(tmp_path, monkeypatch):
    gan, scores, made = build(), Scores(0.1), []
    generate = gan.generate

    def watched(count, **options):
        made.append((count, options["start"]))
        return generate(count, **options)

    monkeypatch.setattr(gan, "generate", watched)
    score(gan, scores, tmp_path, 16, count=70)
    assert made == [(32, 0), (32, 32), (32, 64)]
    assert len(scores.images[0]) == 70


def test_a_resumed_run_keeps_the_earlier_best_until_a_better_one(tmp_path):
    gan = build()
    expected = [(16, 0.2, 1), (16, 0.2, 2), (48, 0.1, 3)]
    for seen, value, best in zip((16, 32, 48), (0.2, 0.3, 0.1), expected):
        score(gan, Scores(value), tmp_path, seen)  # each in a process of its own
        record = read_best(tmp_path / "checkpoints")
        assert (record["images_seen"], record["value"], record["evaluations"]) == best


@pytest.mark.parametrize(
    "changed", [{"metric": "frechet"}, {"context": {"features": "imagenet"}}, {"count": 11}]
)
def test_scores_on_other_terms_are_not_compared(tmp_path, changed):
    gan = build()
    terms = {"context": {"features": "cxr"}, "metric": "kid"}
    score(gan, Scores(0.1), tmp_path, 16, **terms)
    terms |= changed
    score(gan, Scores(7.0, name=terms["metric"]), tmp_path, 32, **terms)
    record = read_best(tmp_path / "checkpoints")
    assert (record["images_seen"], record["value"], record["evaluations"]) == (32, 7.0, 1)


def test_tensorboard_shows_each_score(tmp_path):
    score(build(), Scores(0.25, 0.5), tmp_path, 16, 32, tensorboard=tmp_path / "board")
    found = []
    for path in (tmp_path / "board").glob("*tfevents*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.append((event.step, value.tag, float(tf.make_ndarray(value.tensor))))
    assert found == [(16, "evaluation/kid", 0.25), (32, "evaluation/kid", 0.5)]
