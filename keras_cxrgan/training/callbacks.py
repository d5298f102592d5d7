"""What happens around the steps of a run: log, pictures, saved state, guards. All are Keras callbacks.

A Keras epoch is one tick of the run: at most one pass over the data, after which everything is
logged. Time is counted in images seen.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_cxrgan.data.images import image_grid, to_uint8, write_png
from keras_cxrgan.training.state import save_state, state_variables


class NonFinite(ValueError):
    """A loss or a gradient stopped being a number."""


class Clock(keras.callbacks.Callback):
    """Counts images and time, adds both to the logs, and ends the run at `total` images.

    `report(done, total, note)` is called after every step. Put it first: the callbacks after it
    find `images_seen`, `epoch`, `images_per_second` and `seconds` in their logs.
    """

    def __init__(self, total: int, images_per_epoch: int, report=None, seconds: float = 0.0):
        super().__init__()
        self.total = total
        self.images_per_epoch = images_per_epoch
        self.report = report
        self.seconds = seconds  # of earlier parts of the run
        self.images_per_second = 0.0

    def on_train_begin(self, logs=None):
        self.seen = int(self.model.images_seen.numpy())
        self.began = time.monotonic() - self.seconds

    def on_epoch_begin(self, epoch, logs=None):
        self.tick = (time.monotonic(), self.seen)

    def on_train_batch_end(self, batch, logs=None):
        self.seen = int(self.model.images_seen.numpy())
        if self.seen >= self.total:
            self.model.stop_training = True
        if self.report:
            note = f"epoch {self.seen / self.images_per_epoch:.1f}"
            self.report(self.seen, self.total, note + ("  " + summarize(logs) if logs else ""))

    def on_epoch_end(self, epoch, logs=None):
        began, seen = self.tick
        self.images_per_second = (self.seen - seen) / max(time.monotonic() - began, 1e-9)
        if logs is not None:
            for name in list(logs):
                logs[name] = float(np.mean(logs[name]))
            logs["images_seen"] = self.seen
            logs["epoch"] = self.seen / self.images_per_epoch
            logs["images_per_second"] = self.images_per_second
            logs["seconds"] = time.monotonic() - self.began
            logs["seconds_left"] = (self.total - self.seen) / max(self.images_per_second, 1e-9)


def summarize(logs: dict) -> str:
    """Return the numbers of a step as one short text; the two D(G(z)) are before/after D's update."""
    value = {name: float(np.mean(number)) for name, number in logs.items()}
    text = f"D {value['discriminator_loss']:.2f}  G {value['generator_loss']:.2f}"
    if "wasserstein_estimate" in value:
        text += f"  W {value['wasserstein_estimate']:.2f}"
    else:
        before, after = value["fake_score_before"], value["fake_score_after"]
        text += f"  D(x) {value['real_score']:.2f}  D(G(z)) {before:.2f}/{after:.2f}"
    if "penalty_gradient_norm" in value:
        text += f"  |grad| {value['penalty_gradient_norm']:.2f}"
    return text


def decay(seen: int, total: int, share: float) -> float:
    """Return by what the learning rates are multiplied after so many images of a training.

    1, and over the last `share` of the training linearly down to 0.

    >>> [decay(seen, 100, 0.5) for seen in (0, 50, 75, 100)]
    [1.0, 1.0, 0.5, 0.0]
    """
    return float(min(1.0, max(0.0, 1.0 - seen / total) / share))


class RateDecay(keras.callbacks.Callback):
    """Sets both learning rates before each step, by `decay` of the images seen: resuming is safe."""

    def __init__(self, total: int, share: float, generator_rate: float, discriminator_rate: float):
        super().__init__()
        self.total, self.share = total, share
        self.rates = (generator_rate, discriminator_rate)

    def on_train_batch_begin(self, batch, logs=None):
        factor = decay(int(self.model.images_seen.numpy()), self.total, self.share)
        optimizers = (self.model.generator_optimizer, self.model.discriminator_optimizer)
        for optimizer, rate in zip(optimizers, self.rates):
            optimizer.learning_rate = rate * factor


class AlignTicks(keras.callbacks.Callback):
    """Ends the first tick of a run that goes on where a tick of one never stopped would end.

    What is looked at once a tick, such as scores and samples, is then of the same states.

    Args:
        steps: of the first tick, fewer than of the others. Put it before what may end the run.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.left, self.ended = steps, False

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0 and not self.model.stop_training:
            self.ended = self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if self.ended:
            self.ended = self.model.stop_training = False


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises `NonFinite` at the first loss or gradient that is no number, naming it."""

    def __init__(self, loss_scaled: bool = False):
        super().__init__()
        # With a float16 loss scale an overflowing gradient is expected: that step is skipped.
        self.loss_scaled = loss_scaled

    def on_train_batch_end(self, batch, logs=None):
        for name, value in (logs or {}).items():
            if self.loss_scaled and name.endswith("gradient_norm"):
                continue
            if not math.isfinite(float(np.mean(value))):
                raise NonFinite(self._explain(name, float(np.mean(value))))

    def _explain(self, name, value):
        step, seen = int(self.model.step.numpy()), int(self.model.images_seen.numpy())
        weights = [
            f"{network.name}/{weight.path}"
            for network in (self.model.discriminator, self.model.generator)
            for weight in network.trainable_variables
            if not np.isfinite(weight.numpy()).all()
        ]
        broken = f"; first broken weight: {weights[0]}" if weights else ""
        return (
            f"training stopped at step {step} ({seen:,} images seen): {name} is {value}{broken}."
            " Try a lower learning rate (--set discriminator_learning_rate=0.0001),"
            " float32 (--precision float32), or a penalty (--set penalty=r1)"
        )


class RunLog(keras.callbacks.Callback):
    """Appends one JSON line a tick to `log.jsonl` and the same numbers to TensorBoard."""

    def __init__(self, path: Path, tensorboard: Path | None = None, images_seen: int = 0):
        super().__init__()
        self.path = path
        self.writer = tf.summary.create_file_writer(str(tensorboard)) if tensorboard else None
        forget_after(path, images_seen)

    def on_epoch_end(self, epoch, logs=None):
        record = {name: _rounded(value) for name, value in logs.items()}
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
        if self.writer:
            with self.writer.as_default(step=record["images_seen"]):
                for name, value in logs.items():
                    if name not in ("images_seen", "seconds", "seconds_left"):
                        tf.summary.scalar(name, value)
            self.writer.flush()

    def on_train_end(self, logs=None):
        if self.writer:
            self.writer.close()


def _rounded(value):
    """JSON has no word for a number that is none, such as a gradient beyond float16."""
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def read_log(path: Path) -> list[dict]:
    """Return the records of a `log.jsonl`; a half-written last line is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def forget_after(path: Path, images_seen: int) -> None:
    """Drop the log's records beyond the state a run resumes from; they will be made again."""
    records = read_log(path)
    kept = [record for record in records if record["images_seen"] <= images_seen]
    if path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(temporary, path)


class SampleGrids(keras.callbacks.Callback):
    """Writes a PNG grid of the same latents at each `interval` of images seen, and to TensorBoard.

    Args:
        tick: images seen in a tick, at whose end it looks; a stop within one changes no later grid.
    """

    def __init__(
        self,
        folder: Path,
        interval: int,
        *,
        tick: int = 1,
        count: int = 64,
        seed: int = 0,
        real_grid: np.ndarray | None = None,
        tensorboard: Path | None = None,
    ):
        super().__init__()
        self.folder = folder
        self.interval = max(1, interval)
        self.tick = max(1, tick)
        self.count = count
        self.seed = seed
        self.real_grid = real_grid
        self.writer = tf.summary.create_file_writer(str(tensorboard)) if tensorboard else None

    def on_train_begin(self, logs=None):
        seen = int(self.model.images_seen.numpy())
        # A run stopped within a tick has not yet shown what is due at the end of it.
        self.next = ((seen - seen % self.tick) // self.interval + 1) * self.interval
        if seen == 0:
            self._write(0)
            if self.real_grid is not None:
                self._show("real images", self.real_grid, 0)

    def on_epoch_end(self, epoch, logs=None):
        seen = logs["images_seen"]
        if seen >= self.next and not self.model.stop_training:
            self._write(seen)
            self.next = (seen // self.interval + 1) * self.interval

    def on_train_end(self, logs=None):
        seen = int(self.model.images_seen.numpy())
        if not (self.folder / f"{seen:09d}.png").exists():
            self._write(seen)
        if self.writer:
            self.writer.close()

    def _write(self, seen):
        grid = image_grid(to_uint8(self.model.generate(self.count, seed=self.seed)))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_png(self.folder / f"{seen:09d}.png", grid)
        self._show("generated images", grid, seen)

    def _show(self, name, grid, seen):
        if self.writer:
            with self.writer.as_default(step=seen):
                tf.summary.image(name, np.atleast_3d(grid)[np.newaxis])
            self.writer.flush()


class Backup(keras.callbacks.Callback):
    """Saves the state at the end of a tick when `seconds` have passed, and at the end.

    Put it last: what it saves has then passed every guard.
    """

    def __init__(self, folder: Path, seconds: float = 60.0):
        super().__init__()
        self.folder = folder
        self.seconds = seconds
        self.saved_at = None

    def on_train_begin(self, logs=None):
        self.time = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if time.monotonic() - self.time >= self.seconds:
            self._save()

    def on_train_end(self, logs=None):
        if self.saved_at != int(self.model.images_seen.numpy()):
            self._save()

    def _save(self):
        for name, variable in state_variables(self.model).items():
            if not np.isfinite(variable.numpy()).all():
                raise NonFinite(
                    f"{name} is no longer finite; the last good backup stays in {self.folder}"
                )
        save_state(self.model, self.folder)
        self.saved_at = int(self.model.images_seen.numpy())
        self.time = time.monotonic()


class StopOnSignal(keras.callbacks.Callback):
    """Ends the run after the current step at Ctrl-C or SIGTERM, so that the state is saved.

    A second Ctrl-C interrupts at once; the last backup then stands.
    """

    def __init__(self):
        super().__init__()
        self.received = None

    def on_train_begin(self, logs=None):
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._stop)

    def _stop(self, number, frame):
        self.received = number
        self.model.stop_training = True
        self.restore()

    def on_train_batch_end(self, batch, logs=None):
        if self.received:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.restore()

    def restore(self):
        """Give the signals back to their former handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
