import json
import os
import signal

import keras
import numpy as np
import pytest

from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.training import callbacks
from keras_cxrgan.training.gan import GAN
from keras_cxrgan.training.state import saved_states


@pytest.fixture
def gan():
    gan = GAN(build_generator(32, latent_dim=8, width=4), build_discriminator(32, width=4))
    gan.compile(
        keras.optimizers.Adam(2e-4),
        keras.optimizers.Adam(2e-4),
        jit_compile=False,
        run_eagerly=True,
    )
    return gan


def fit(gan, films, watchers, ticks=3, steps=2):
    gan.fit(
        training_batches(films, 8),
        epochs=ticks,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=watchers,
    )


def test_clock_ends_the_run_at_the_total_within_a_tick(gan, films):
    shown = []
    clock = callbacks.Clock(24, 40, lambda *progress: shown.append(progress))
    fit(gan, films, [clock], ticks=10)
    assert int(gan.images_seen.numpy()) == 24
    assert [done for done, _, _ in shown] == [8, 16, 24]


class Rates(keras.callbacks.Callback):
    """The learning rates of the generator and the discriminator in each step."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        model = self.model
        optimizers = (model.generator_optimizer, model.discriminator_optimizer)
        self.seen.append([float(optimizer.learning_rate) for optimizer in optimizers])


def test_rates_fall_to_zero_over_the_last_share_and_a_resumed_run_goes_on_with_them(gan, films):
    decay = callbacks.RateDecay(48, 0.5, 4e-4, 2e-4)
    rates = Rates()
    fit(gan, films, [decay, rates], ticks=2)  # 4 steps of 8 images
    first = rates.seen
    fit(gan, films, [callbacks.RateDecay(48, 0.5, 4e-4, 2e-4), rates], ticks=1)  # 2 more
    factors = [1, 1, 1, 1, 2 / 3, 1 / 3]  # after 0, 8, 16, 24, 32 and 40 of 48
    np.testing.assert_allclose(
        first + rates.seen, [[4e-4 * f, 2e-4 * f] for f in factors], rtol=1e-6
    )


def test_log_has_a_line_a_tick_with_all_numbers(gan, films, tmp_path):
    path = tmp_path / "log.jsonl"
    fit(gan, films, [callbacks.Clock(48, 40), callbacks.RunLog(path)])
    records = callbacks.read_log(path)
    assert [record["images_seen"] for record in records] == [16, 32, 48]
    assert [record["epoch"] for record in records] == [0.4, 0.8, 1.2]
    for name in (
        "discriminator_loss", "generator_loss", "real_score", "fake_score_before",
        "fake_score_after", "images_per_second", "seconds", "seconds_left",
    ):  # fmt: skip
        assert all(np.isfinite(record[name]) for record in records), name
    assert records[-1]["seconds_left"] == 0


def test_log_forgets_what_a_resumed_run_will_make_again(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [json.dumps({"images_seen": seen}) for seen in (8, 16, 24)]
    path.write_text("\n".join(lines) + '\n{"images_se')  # killed in the middle of a line
    callbacks.forget_after(path, 16)
    assert [record["images_seen"] for record in callbacks.read_log(path)] == [8, 16]


def test_first_loss_that_is_no_number_stops_the_run_and_keeps_the_good_backup(gan, films, tmp_path):
    class Break(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if int(self.model.step.numpy()) == 3:
                kernel = self.model.discriminator.trainable_variables[0]
                kernel.assign(np.nan * kernel.numpy())

    watchers = [
        Break(),
        callbacks.Clock(80, 40),
        callbacks.StopOnNonFinite(),
        callbacks.Backup(tmp_path, seconds=0),
    ]
    with pytest.raises(callbacks.NonFinite) as error:
        fit(gan, films, watchers, ticks=5)
    message = str(error.value)
    assert "stopped at step 4 (32 images seen)" in message
    assert "is nan; first broken weight: discriminator/" in message
    assert "lower learning rate" in message
    assert [int(path.stem) for path in saved_states(tmp_path)] == [16]


def test_backup_refuses_a_state_that_is_not_finite(gan, tmp_path):
    backup = callbacks.Backup(tmp_path, seconds=0)
    backup.set_model(gan)
    backup.on_train_begin()
    kernel = gan.generator.trainable_variables[0]
    kernel.assign(np.inf * np.ones(kernel.shape))
    with pytest.raises(callbacks.NonFinite, match="generator/000 is no longer finite"):
        backup.on_epoch_end(0)
    assert saved_states(tmp_path) == []


def test_grids_are_written_at_marks_of_images_seen(gan, films, tmp_path):
    grids = callbacks.SampleGrids(tmp_path, 32, count=4)
    fit(gan, films, [callbacks.Clock(72, 40), grids], ticks=5)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["000000000.png", "000000032.png", "000000064.png", "000000072.png"]


def test_a_signal_ends_the_run_after_the_step_and_restores_the_handlers(gan, films):
    before = signal.getsignal(signal.SIGTERM)

    class Kill(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    stop = callbacks.StopOnSignal()
    fit(gan, films, [callbacks.Clock(800, 40), stop, Kill()], ticks=50)
    assert stop.received == signal.SIGTERM
    assert int(gan.images_seen.numpy()) == 8
    assert signal.getsignal(signal.SIGTERM) == before


def test_progress_shows_the_line_that_the_papers_print():
    # Noori 2024 and Davoodi & Lo Giudice print both losses, D(x), and D(G(z)) twice.
    logs = {
        "discriminator_loss": 1.2223, "generator_loss": 2.1597, "real_score": 0.6463,
        "fake_score_before": 0.0906, "fake_score_after": 0.3155,
    }  # fmt: skip
    assert callbacks.summarize(logs) == "D 1.22  G 2.16  D(x) 0.65  D(G(z)) 0.09/0.32"
    wgan = logs | {"wasserstein_estimate": 3.0, "penalty_gradient_norm": 0.97}
    assert callbacks.summarize(wgan) == "D 1.22  G 2.16  W 3.00  |grad| 0.97"
