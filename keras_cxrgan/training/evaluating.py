"""Scores at intervals of a run, and the generator that scored best.

Training knows no metric: it is handed a plain function, uint8 images (N, H, W) -> {name: number}.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_cxrgan.data.images import decode, encode_png, to_uint8
from keras_cxrgan.training.callbacks import read_log
from keras_cxrgan.training.noise import images_at_once
from keras_cxrgan.training.state import read_best, save_best, write_best

LOWER_IS_BETTER = ("kid", "frechet")


class Evaluate(keras.callbacks.Callback):
    """Scores images of the same latents at each `interval` of images seen, and at `total`.

    Appends a line to `run/metrics.jsonl`, writes the numbers to TensorBoard, and keeps the
    generator with the best `metric` in `run/checkpoints`. Nothing here draws from the training's
    random numbers. A score that cannot be computed is written down and does not end the run.

    Args:
        evaluate: function, uint8 grey images (count, H, W) -> numbers by name. A `ValueError`
            says why there are none, for example of a collapsed generator.
        seed: of the latents; image i is fixed by (seed, i).
        context: what else decides the numbers, such as the features. It is written beside them,
            and two scores are compared only if it is the same.
        report: function (done, total, note).

    Example:
        >>> watcher = Evaluate(score, run, interval=10_000, total=60_000, metric="kid")
    """

    def __init__(
        self,
        evaluate: Callable[[np.ndarray], dict[str, float]],
        run: Path,
        *,
        interval: int,
        total: int,
        count: int = 1000,
        seed: int = -1,
        metric: str = "kid",
        context: dict | None = None,
        tensorboard: Path | None = None,
        report=None,
    ):
        super().__init__()
        self.evaluate = evaluate
        self.path = run / "metrics.jsonl"
        self.checkpoints = run / "checkpoints"
        self.interval = max(1, interval)
        self.total = total
        self.terms = {"metric": metric, **(context or {}), "count": count, "seed": seed}
        self.failures = []
        self.report = report or (lambda done, total, note="": None)
        self.writer = tf.summary.create_file_writer(str(tensorboard)) if tensorboard else None

    def on_train_begin(self, logs=None):
        records = read_log(self.path)
        last = records[-1]["images_seen"] if records else 0
        self.next = (last // self.interval + 1) * self.interval
        # One from beyond the state that a run resumes from stays: those weights did score so.
        kept = read_best(self.checkpoints)
        self.best = kept if kept and self._same_terms(kept) else None

    def on_epoch_end(self, epoch, logs=None):
        seen = logs["images_seen"]
        # A signal stops a run before its total, and then the backup must not wait for scores.
        due = seen >= self.next and not self.model.stop_training
        if due or seen >= self.total:
            self._score(seen)
            self.next = (seen // self.interval + 1) * self.interval

    def on_train_end(self, logs=None):
        if self.writer:
            self.writer.close()

    def _score(self, seen):
        began = time.monotonic()
        images = self._generate()
        record = {"images_seen": seen, **self.terms}
        try:
            scores = {name: float(value) for name, value in self.evaluate(images).items()}
        except ValueError as error:
            scores = {}
            record["error"] = str(error)
            self.failures.append(f"at {seen:,} images: {error}")
        # JSON has no word for a number that is none.
        record |= {name: value if math.isfinite(value) else None for name, value in scores.items()}
        record["seconds"] = round(time.monotonic() - began, 3)
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
        if self.writer:
            with self.writer.as_default(step=seen):
                for name, value in scores.items():
                    tf.summary.scalar(f"evaluation/{name}", value)
            self.writer.flush()
        self.report(len(images), len(images), self._keep_best(record))

    def _generate(self):
        count, seed = self.terms["count"], self.terms["seed"]
        height, width = self.model.generator.output_shape[1:3]
        images, at_once = np.empty((count, height, width), np.uint8), images_at_once(height)
        for first in range(0, count, at_once):
            self.report(first, count, "")
            # Whole batches also at the end, as `cxrgan generate` makes them.
            made = self.model.generate(at_once, seed=seed, start=first, batch_size=at_once)
            images[first : first + at_once] = _grey(to_uint8(made)[: count - first])
        return images

    def _keep_best(self, record):
        """Keep the generator if its score is the best so far; return this as a short text."""
        metric, value = self.terms["metric"], record.get(self.terms["metric"])
        if value is None:
            return f"no {metric}: {record.get('error', 'it is no finite number')}"
        sign = 1 if metric in LOWER_IS_BETTER else -1
        better = self.best is None or sign * value < sign * self.best["value"]
        if better:
            self.best = {
                **self.terms,
                "value": value,
                "images_seen": record["images_seen"],
                "note": f"chosen by its {metric} against the training images, so this {metric} is"
                " no independent score of it; evaluate it on images it was not trained on",
            }
        self.best["evaluations"] = sum(
            self._same_terms(line) and line.get(metric) is not None for line in read_log(self.path)
        )
        if better:
            save_best(self.model, self.checkpoints, self.best)
            return f"{metric} {value:.4g}: the best so far, kept (chosen on {metric})"
        write_best(self.checkpoints, self.best)
        best = self.best
        return f"{metric} {value:.4g}; best {best['value']:.4g} at {best['images_seen']:,}"

    def _same_terms(self, record):
        return all(record.get(name) == value for name, value in self.terms.items())


def _grey(images):
    if images.shape[-1] == 1:
        return images[..., 0]
    # To the bit what is read from the files that `cxrgan generate` writes.
    return np.stack([decode(encode_png(image)) for image in images])
