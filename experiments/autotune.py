"""Why the training pipeline switches tf.data's autotuning off: the speed of `fit` with and without.

With it, some processes train at half the speed from their first step to their last, with the
cores idle: each step waits for the tuner's thread, which sleeps in doubling intervals. Which
processes is chance, so each measurement is a fresh one.
"""

from __future__ import annotations

import subprocess
import sys
import time

import click


def measure(recipe_name: str, autotune: bool, steps: int) -> float:
    """Return images/s of `fit` in this process."""
    import numpy as np
    import tensorflow as tf

    from keras_cxrgan.data.batches import training_batches
    from keras_cxrgan.recipe import RECIPES
    from keras_cxrgan.workflows import build_gan

    recipe = RECIPES[recipe_name]
    shape = (500, recipe.image_size, recipe.image_size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    per_step = recipe.batch_size * recipe.critic_steps
    options = tf.data.Options()
    options.autotune.enabled = autotune
    batches = training_batches(images, per_step, channels=recipe.channels).with_options(options)
    gan = build_gan(recipe)
    gan.fit(batches, steps_per_epoch=2, shuffle=False, verbose=0)  # traces the step
    began = time.perf_counter()
    gan.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return steps * per_step / (time.perf_counter() - began)


@click.command()
@click.option("--recipe", default="tutorial", show_default=True)
@click.option("--steps", default=12, show_default=True)
@click.option("--processes", default=4, show_default=True, help="With and without, each.")
def main(recipe, steps, processes):
    """Measure images/s with and without autotuning, in fresh processes by turns."""
    for _ in range(processes):
        for autotune in ("on", "off"):
            code = (
                "from experiments.autotune import measure;"
                f"print(measure({recipe!r}, {autotune == 'on'}, {steps}))"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            if done.returncode:
                raise click.ClickException(done.stderr.strip().splitlines()[-1])
            click.echo(f"autotune {autotune:<3}  {float(done.stdout.split()[-1]):6.1f} images/s")


if __name__ == "__main__":
    main()
