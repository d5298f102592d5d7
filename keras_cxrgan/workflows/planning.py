"""What the stages of a grown run will cost, before the first step: memory and time."""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.models.incremental import cost
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.terminal import format_seconds, grid
from keras_cxrgan.workflows.assembly import build_gan, build_networks

# Measured on CPUs as the peak of whole runs of the paper's networks, transposed and resized, batch
# 1 to 8, 512 to 2048 pixels (experiments/incremental.py). All three are on the large side.
PROCESS = 0.9 * 2**30  # bytes of Python, TensorFlow and a traced step
KEPT = 2.0  # bytes at the peak for each byte of the activations of both networks
BATCHES = 6  # float batches on their way: read in two threads, two ready, one mixed, one in use
PASSES = {"generator": 3, "discriminator": 8}  # forward passes' worth of work in one step
MEASURED_UP_TO = 256  # pixels


@dataclass(frozen=True)
class StagePlan:
    """What one stage will cost; sizes in pixels, memory in bytes, time in seconds."""

    image_size: int
    batch_size: int
    accumulation: int
    precision: str
    epochs: int
    generator_parameters: int
    discriminator_parameters: int
    memory: float
    seconds_per_image: float
    seconds: float


def plan_stages(
    stages: list[Recipe], images: int, speed: float, memory_budget: int = 2 * 2**30
) -> list[StagePlan]:
    """Return the cost of each stage on so many images, at `speed` multiplications a second."""
    plans = []
    for recipe in stages:
        generator, discriminator = (cost(network) for network in build_networks(recipe))
        seconds = _work(recipe) / speed
        plans.append(
            StagePlan(
                image_size=recipe.image_size,
                batch_size=recipe.batch_size,
                accumulation=recipe.accumulation,
                precision=recipe.precision,
                epochs=recipe.epochs,
                generator_parameters=generator.parameters,
                discriminator_parameters=discriminator.parameters,
                memory=estimate_memory(recipe, images, memory_budget),
                seconds_per_image=seconds,
                seconds=seconds * recipe.epochs * images,
            )
        )
    return plans


def estimate_memory(recipe: Recipe, images: int, memory_budget: int = 2 * 2**30) -> float:
    """Return the bytes that a process holds at the peak of training a recipe of one size.

    Activations are the outputs of all layers; a training step keeps most of them, and gradients
    of some at a time.
    """
    together = recipe.batch_size // recipe.accumulation
    numbers = sum(cost(network).activations for network in build_networks(recipe))
    width = 4 if recipe.precision == "float32" else 2
    pixels = recipe.image_size**2
    # Once as an array and once as a constant of the pipeline; or a mapped file.
    films = 2 * images * pixels if images * pixels <= memory_budget else 0
    batches = BATCHES * 4 * together * recipe.critic_steps * pixels * recipe.channels
    return PROCESS + KEPT * together * numbers * width + films + batches


def measure_speed(stages: list[Recipe], strategy: tf.distribute.Strategy) -> float:
    """Return multiplications a second, from three steps of one small stage on random images."""
    recipe = max(
        (stage for stage in stages if stage.image_size <= MEASURED_UP_TO),
        key=lambda stage: stage.image_size,
        default=stages[0],
    )
    per_step = recipe.batch_size // recipe.accumulation * recipe.critic_steps
    shape = (per_step, recipe.image_size, recipe.image_size)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batches = training_batches(noise, per_step, channels=recipe.channels)
    gan = build_gan(recipe, strategy)
    seconds = []
    for steps in (1, 3):  # the first traces
        began = time.perf_counter()
        gan.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
        seconds.append((time.perf_counter() - began) / steps)
    del gan
    gc.collect()
    return _work(recipe) * per_step / seconds[-1]


def _work(recipe: Recipe) -> float:
    """Return the multiplications of one step for each image."""
    networks = zip(PASSES.values(), build_networks(recipe))
    return sum(passes * cost(network).multiplications for passes, network in networks)


def check_fits(stages: list[Recipe], plans: list[StagePlan], images: int, free: float, **budget):
    """Raise `ValueError` for the first stage that needs more memory than is free."""
    for index, (recipe, plan) in enumerate(zip(stages, plans)):
        if plan.memory <= free:
            continue
        fitting = (
            part
            for part in range(recipe.accumulation + 1, recipe.batch_size + 1)
            if recipe.batch_size % part == 0
            and estimate_memory(dataclasses.replace(recipe, accumulation=part), images, **budget)
            <= free
        )
        if part := next(fitting, None):
            values = [stage.accumulation for stage in stages]
            values[index] = part
            advice = (
                f"pass --set stage_accumulations={','.join(map(str, values))}, or a smaller"
                " batch (stage_batch_sizes)"
            )
        else:
            advice = "single images do not fit either; leave out the largest of its stages"
        raise ValueError(
            f"stage {recipe.image_size} needs about {plan.memory / 2**30:.1f} GiB in batches of"
            f" {recipe.batch_size // recipe.accumulation}, and there are {free / 2**30:.1f} GiB: {advice}"
        )


def memory_at_hand(strategy: tf.distribute.Strategy) -> float | None:
    """Return the bytes this process may come to hold, or None where nothing says (a GPU)."""
    if tf.config.list_logical_devices("GPU") or not Path("/proc/meminfo").exists():
        return None
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:  # a container may have less than its machine
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    own = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return free + own


def peak_memory() -> float | None:
    """Return the most bytes that this process has held so far, None where nothing says."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def plan_table(plans: list[StagePlan], images: int) -> str:
    """Return the stages and what they will cost, as text."""
    header = (
        "stage", "batch", "precision", "epochs", "G parameters", "D parameters", "GiB",
        "s/image", "time",
    )  # fmt: skip
    rows = [
        (
            str(plan.image_size),
            f"{plan.batch_size}" + (f"/{plan.accumulation}" if plan.accumulation > 1 else ""),
            plan.precision,
            str(plan.epochs),
            f"{plan.generator_parameters:,}",
            f"{plan.discriminator_parameters:,}",
            f"{plan.memory / 2**30:.1f}",
            f"{plan.seconds_per_image:.3f}",
            format_seconds(plan.seconds),
        )
        for plan in plans
    ]
    total = format_seconds(sum(plan.seconds for plan in plans))
    return grid(
        f"estimated for {images:,} images",
        header,
        rows,
        f"in all about {total}; memory at the peak",
    )
