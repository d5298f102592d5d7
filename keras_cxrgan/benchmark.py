"""Speed and memory of a recipe's whole training step, as ratios within one process.

Each measurement runs in a fresh process, several times, because a slow start of the data
pipeline or a busy machine would show in some of them only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time


def measure(recipe_json: str, steps: int) -> dict:
    """Return images/s of `fit` and of a bare loop of the same step, and the peak memory in MiB.

    For recipes that upsample by resizing, also of the plain layers against the fused ones.
    """
    import resource

    import numpy as np
    import tensorflow as tf

    from keras_cxrgan.data.batches import training_batches
    from keras_cxrgan.recipe import Recipe
    from keras_cxrgan.workflows import build_gan

    recipe = Recipe.from_json(recipe_json)
    per_step = recipe.batch_size * recipe.critic_steps
    shape = (max(500, per_step), recipe.image_size, recipe.image_size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    batches = training_batches(images, per_step, channels=recipe.channels)

    def fit(gan):
        options = {"steps_per_epoch": steps, "shuffle": False, "verbose": 0}
        gan.fit(batches, **{**options, "steps_per_epoch": 2})  # traces the step
        began = time.perf_counter()
        gan.fit(batches, **options)
        return steps * per_step / (time.perf_counter() - began)

    gan = build_gan(recipe)
    result = {"fit": fit(gan)}
    step = tf.function(gan.train_step, jit_compile=gan.jit_compile)
    iterator = iter(batches)
    step(next(iterator))
    began = time.perf_counter()
    for _ in range(steps):
        logs = step(next(iterator))
    float(logs["generator_loss"])  # waits for the last step on an asynchronous device
    result["loop"] = steps * per_step / (time.perf_counter() - began)
    result["fit_over_loop"] = result["fit"] / result["loop"]
    if recipe.upsampling == "resize":
        result["plain_layers"] = fit(build_gan(recipe, fused=False))
        result["fused_over_plain"] = result["fit"] / result["plain_layers"]
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return result


def benchmark(recipe, *, steps: int = 20, processes: int = 3, report=None) -> list[dict]:
    """Return `measure` of a `Recipe` in each of several fresh processes."""
    results = []
    for index in range(processes):
        if report:
            report("measuring", index, processes)
        command = [sys.executable, "-m", "keras_cxrgan.benchmark", recipe.to_json(), str(steps)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"the measurement failed: {done.stderr.strip().splitlines()[-1]}")
        results.append(json.loads(done.stdout.splitlines()[-1]))
    if report:
        report("measuring", processes, processes)
    return results


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
