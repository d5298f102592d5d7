"""Speed and memory of a recipe's training step, and of an evaluation, in fresh processes.

Each measurement runs several times, because a slow start of the data pipeline or a busy machine
would show in some of them only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time


def measure(recipe_json: str, steps: int) -> dict:
    """Return images/s of `fit` and of a bare loop of the same step, and the peak memory in MiB.

    For recipes that upsample by resizing, also of the plain layers against the fused ones.
    """
    import numpy as np
    import tensorflow as tf

    from keras_cxrgan.data.batches import training_batches
    from keras_cxrgan.recipe import Recipe
    from keras_cxrgan.training import runtime
    from keras_cxrgan.workflows import build_gan

    recipe = Recipe.from_json(recipe_json)
    runtime.start(precision=recipe.precision)
    per_step = recipe.batch_size // recipe.accumulation * recipe.critic_steps
    shape = (max(500, per_step), recipe.image_size, recipe.image_size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    # Classes cost the same whatever they are of.
    classes = {"class_counts": (250, 250)} if recipe.conditional else {}
    labels = np.arange(len(images)) % 2 if classes else None
    batches = training_batches(images, per_step, channels=recipe.channels, labels=labels)

    def fit(gan):
        options = {"steps_per_epoch": steps, "shuffle": False, "verbose": 0}
        gan.fit(batches, **{**options, "steps_per_epoch": 2})  # traces the step
        began = time.perf_counter()
        gan.fit(batches, **options)
        return steps * per_step / (time.perf_counter() - began)

    gan = build_gan(recipe, **classes)
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
        result["plain_layers"] = fit(build_gan(recipe, fused=False, **classes))
        result["fused_over_plain"] = result["fit"] / result["plain_layers"]
    result["peak_mib"] = _peak_mib()
    return result


def measure_evaluation(extractor: str, options_json: str) -> dict:
    """Return the seconds that features and scores of two sets of images take, and the peak memory.

    Features are those of `count` + `count` images of random pixels, without a cache; scores are
    everything that `cxrgan evaluate` prints of them except the ladder.
    """
    import numpy as np

    from keras_cxrgan.evaluation.extractors import build_extractor
    from keras_cxrgan.evaluation.features import extract
    from keras_cxrgan.evaluation.scores import score

    options = json.loads(options_json)
    count, size = options["count"], options["image_size"]
    seconds = {}

    def timed(name, function):
        began = time.perf_counter()
        value = function()
        seconds[name] = time.perf_counter() - began
        return value

    shape = (2 * count, size, size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    network = timed(
        "building",
        lambda: build_extractor(
            extractor,
            dims=options["dims"],
            weights=options["weights"],
            preparation=options["preparation"],
        ),
    )
    timed("tracing", lambda: extract(network, images[:1]))
    features = timed("features", lambda: extract(network, images))
    timed("scores", lambda: score(features[:count], features[count:]))
    return {
        **seconds,
        "images_per_second": 2 * count / seconds["features"],
        "dims": network.dims,
        "peak_mib": _peak_mib(),
    }


def _peak_mib() -> float:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def benchmark(recipe, *, steps: int = 20, processes: int = 3, report=None) -> list[dict]:
    """Return `measure` of a `Recipe` in each of several fresh processes."""
    return _repeat(["measure", recipe.to_json(), str(steps)], processes, report)


def benchmark_evaluation(
    extractor: str,
    *,
    count: int = 1000,
    image_size: int = 64,
    dims: int | None = None,
    weights: str | None = None,
    preparation: str | None = None,
    processes: int = 3,
    report=None,
) -> list[dict]:
    """Return `measure_evaluation` of an extractor in each of several fresh processes."""
    options = {
        "count": count, "image_size": image_size, "dims": dims, "weights": weights,
        "preparation": preparation,
    }  # fmt: skip
    return _repeat(["measure_evaluation", extractor, json.dumps(options)], processes, report)


def _repeat(arguments: list[str], processes: int, report) -> list[dict]:
    results = []
    for index in range(processes):
        if report:
            report("measuring", index, processes)
        command = [sys.executable, "-m", "keras_cxrgan.benchmark", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"the measurement failed: {_reason(done)}")
        results.append(json.loads(done.stdout.splitlines()[-1]))
    if report:
        report("measuring", processes, processes)
    return results


def _reason(done: subprocess.CompletedProcess) -> str:
    """Return in a line why a process failed."""
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}, by which systems end what needs much memory"
    # TensorFlow's own messages begin with a letter, a date and a time.
    lines = [line for line in done.stderr.splitlines() if not re.match(r"[IWEF]\d{4} ", line)]
    said = "".join(lines[-1:]).removeprefix("ValueError: ")
    return said or f"exit code {done.returncode}"


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        print(json.dumps(measure_evaluation(sys.argv[2], sys.argv[3])))
