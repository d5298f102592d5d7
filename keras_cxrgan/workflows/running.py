"""Train a recipe in a run directory, or go on where it stopped."""

from __future__ import annotations

import contextlib
import json
import math
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_cxrgan import runs
from keras_cxrgan.data import sources
from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.data.images import image_grid, write_png
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.training import callbacks, runtime, state
from keras_cxrgan.training.curves import plot_losses
from keras_cxrgan.training.evaluating import Evaluate
from keras_cxrgan.training.noise import class_of
from keras_cxrgan.training.watching import WatchCollapse, pairwise_distance
from keras_cxrgan.workflows.assembly import build_gan, load_images, number_classes
from keras_cxrgan.workflows.producing import GRID_GAP, export, is_exported, sample_count
from keras_cxrgan.workflows.starting import begin_with

STEPS_PER_TICK = 100  # at most: a pass over a large data set is logged in parts
LOOKED_AT = 256  # real films among which generated ones' variety is measured
MOST_REAL = 5000  # real images that generated ones are scored against
MOST_GENERATED = 1000  # generated images of an evaluation, unless the recipe says a number


@dataclass(frozen=True)
class RunResult:
    """How a training run ended: numbers for the summary, `--json` and tests."""

    run: str
    state: str  # finished, stopped (by Ctrl-C or SIGTERM) or complete (nothing was left to do)
    resumed_from: int
    images: int
    images_seen: int
    steps: int
    epochs: float
    images_per_second: float
    seconds: float
    metrics: dict
    export: str | None
    interrupted: bool = False  # by Ctrl-C or SIGTERM, even if its last step had been made
    best: dict | None = None  # the checkpoint kept by --evaluate-every, and how it was chosen
    rejected: tuple[tuple[str, str], ...] = ()  # files that could not be read, and why
    notes: tuple[str, ...] = ()
    stages: tuple[dict, ...] = ()  # of a recipe with stages, estimated and measured; see growing.py


def train(
    recipe: Recipe,
    run: str | Path,
    *,
    data: str | None = None,
    classes: tuple[str, ...] = (),
    split: str | None = None,
    layout: str = "auto",
    allow_leak: bool = False,
    on_bad_file: str = "error",
    devices: str = "auto",
    deterministic: bool = False,
    worker_timeout: float = 120,
    extend: bool = False,
    memory_budget: int = 2 * 2**30,
    backup_seconds: float = 60,
    memory_limit: int | None = None,
    start_from: str | Path | None = None,
    report=None,
) -> RunResult:
    """Train a recipe on images in a run directory; resume if the directory holds that run.

    A recipe with `stages` is grown: each stage is a run of its own in `run/stages/`.

    Args:
        data: folder or zip of films; None for the built-in chest phantom.
        classes: names of the class folders to use; () for all.
        split: of a manifest, or of a set that has splits, given as `data`.
        layout: how `data` lies on disk (`read_layout`).
        allow_leak: train on films of a split that is for judging; everything made with the run
            says so.
        extend: let the recipe's length (`epochs`) differ from the run's, to train it for longer.
        memory_budget: bytes of prepared images above which they live in a file in the run.
        backup_seconds: at least this long between two saved states.
        memory_limit: of a recipe with stages, bytes above which a stage is refused before the
            first step; None for what the machine has free.
        start_from: run whose learnt weights a fresh run begins with: of the same networks, or of
            a smaller size of networks that grow.
        report: function (stage, done, total, note="") that shows progress.

    Raises `ValueError` with one clear message for everything a user can mend.
    """
    recipe.check()
    run = Path(run)
    sources.check_outside(run, data)
    if recipe.stages and start_from:
        raise ValueError("--start-from does not apply to a recipe with stages, which has its own")
    if recipe.stages:
        from keras_cxrgan.workflows.growing import grow

        return grow(
            recipe,
            run,
            data=data,
            extend=extend,
            memory_limit=memory_limit,
            report=report,
            classes=classes,
            split=split,
            layout=layout,
            allow_leak=allow_leak,
            on_bad_file=on_bad_file,
            devices=devices,
            deterministic=deterministic,
            memory_budget=memory_budget,
            backup_seconds=backup_seconds,
        )
    strategy = runtime.start(
        devices,
        seed=recipe.seed,
        deterministic=deterministic,
        worker_timeout=worker_timeout,
        precision=recipe.precision,
    )
    chief = runtime.is_chief(strategy)
    runs.check_batch_size(recipe, strategy.num_replicas_in_sync)
    runs.check_same_recipe(run, recipe, extend)
    with runs.lock(run) if chief else contextlib.nullcontext():
        image_set = load_images(
            data,
            recipe,
            classes=classes,
            split=split,
            layout=layout,
            allow_leak=allow_leak,
            on_bad_file=on_bad_file,
            cache_dir=run / "cache",
            memory_budget=memory_budget,
            report=report if chief else None,
        )
        runs.check_enough(len(image_set.images), recipe)
        class_counts, labels = number_classes(recipe, image_set, data)
        if class_counts and report and chief:
            told = ", ".join(f"{name} {films:,}" for name, films in class_counts.items())
            report("", 0, 0, f"one generator of {len(class_counts)} classes: {told} films")
        description = runs.describe_data(
            image_set, data, classes, split=split, layout=layout, class_counts=class_counts
        )
        runs.check_same_data(run, description)
        description |= runs.describe_start(run, start_from)
        description |= runs.told_before(run, description)
        description["leaks"] = runs.all_leaks(description)
        try:
            gan = build_gan(recipe, strategy, class_counts=tuple(class_counts.values()))
            resumed_from, notes = state.load_state(gan, run / "backup")
            if start_from and not resumed_from:
                notes = begin_with(gan, recipe, start_from, image_set.images, tuple(class_counts))
            if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
                runs.check_workers_agree(strategy, recipe, description, resumed_from)
        except tf.errors.OpError as error:
            raise ValueError(runs.explain_stop(error, run)) from error
        unfinished = resumed_from < recipe.total_images(len(image_set.images))
        evaluate = None
        if chief and unfinished and recipe.evaluate_interval:
            # After the networks, whose initial weights another model's would change; and before
            # anything is written, so that features that do not exist leave nothing behind.
            evaluate = _evaluate(recipe, run, image_set.images, report)
        if chief and unfinished:
            runs.write_text(run / "recipe.json", recipe.to_json())
            runs.write_text(run / "data.json", json.dumps(description, indent=1) + "\n")
            runs.write_text(
                run / "environment.json", json.dumps(runs.environment(strategy), indent=2) + "\n"
            )
        return _fit(
            gan,
            recipe,
            run,
            image_set,
            labels,
            chief,
            strategy,
            resumed_from,
            (*description["leaks"], *notes),
            backup_seconds,
            report,
            evaluate,
        )


def _fit(
    gan,
    recipe,
    run,
    image_set,
    labels,
    chief,
    strategy,
    resumed_from,
    notes,
    backup_seconds,
    report,
    evaluate,
) -> RunResult:
    images = image_set.images
    total = recipe.total_images(len(images))
    per_step = recipe.batch_size // recipe.accumulation * recipe.critic_steps
    # Whole rounds of a lazy penalty, or the mean loss would rise and fall with how many it holds.
    updates = math.lcm(recipe.penalty_interval, recipe.critic_steps)
    due = 1 if recipe.penalty == "none" else updates // recipe.critic_steps
    rounds = max(1, min(STEPS_PER_TICK // due, round(len(images) / per_step / due)))
    steps_per_tick = rounds * due
    steps = math.ceil(max(0, total - resumed_from) / per_step)
    first = min(steps, steps_per_tick - resumed_from // per_step % steps_per_tick)
    ticks = (first > 0) + math.ceil((steps - first) / steps_per_tick)
    earlier = callbacks.read_log(run / "log.jsonl")
    earlier = [record for record in earlier if record["images_seen"] <= resumed_from]
    for name, tracker in gan.trackers.items() if earlier else ():
        # The first tick may end before a lazy penalty is due.
        tracker.former.assign(earlier[-1].get(name, 0.0))
    clock = callbacks.Clock(
        total,
        len(images),
        (lambda done, total, note: report("training", done, total, note))
        if report and chief
        else None,
        seconds=earlier[-1]["seconds"] if earlier else 0.0,
    )
    stop, watch = callbacks.StopOnSignal(), None
    watchers = [clock, callbacks.StopOnNonFinite(recipe.precision == "mixed_float16")]
    if recipe.rate_decay:
        rates = (recipe.generator_learning_rate, recipe.discriminator_learning_rate)
        watchers.append(callbacks.RateDecay(total, recipe.rate_decay, *rates))
    if chief and ticks:
        tick, shown = steps_per_tick * per_step, _shown(gan, labels)
        watch = _watch_collapse(recipe, images, total, tick, report)
        watchers += [watch] if watch else []
        watchers += _recorders(recipe, run, images, shown, total, tick, resumed_from)
        watchers += [evaluate] if evaluate else []
        watchers.append(callbacks.Backup(run / "backup", backup_seconds))
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        watchers.insert(0, stop)  # one worker that stops would leave the others waiting
    watchers.insert(0, callbacks.AlignTicks(first))
    if ticks:
        batches = training_batches(
            images,
            per_step,
            seed=recipe.seed,
            start=resumed_from,
            channels=recipe.channels,
            previous_size=recipe.previous_size or recipe.image_size // 2,
            native_ramp=recipe.native_ramp,
            labels=labels,
            balanced=recipe.balanced,
        )
        try:
            gan.fit(
                batches,
                epochs=ticks,
                steps_per_epoch=steps_per_tick,
                shuffle=False,
                verbose=0,
                callbacks=watchers,
            )
        except (callbacks.NonFinite, OSError, tf.errors.OpError) as error:
            raise ValueError(runs.explain_stop(error, run)) from error
        finally:
            if stop in watchers:
                stop.restore()
    seen = int(gan.images_seen.numpy())
    finished = seen >= total
    if chief and (ticks or not is_exported(run, seen)):
        plot_losses(run / "log.jsonl", run / "losses.png", len(images))
        if finished:
            export(run, overwrite=True)
    if stop.received == signal.SIGTERM:
        notes += ("stopped by SIGTERM",)
    if evaluate and evaluate.failures:
        count, last = len(evaluate.failures), evaluate.failures[-1]
        notes += (f"evaluations that gave no score: {count}; the last {last}",)
    notes += tuple(watch.warnings) if watch else ()
    # Another worker's log would be the chief's, at whatever line it has reached.
    log = callbacks.read_log(run / "log.jsonl") if chief else []
    last = log[-1] if log else {}
    rates = sorted(record["images_per_second"] for record in log[1:] or log)
    return RunResult(
        run=str(run),
        state="complete" if not ticks else "finished" if finished else "stopped",
        resumed_from=resumed_from,
        images=len(images),
        images_seen=seen,
        steps=int(gan.step.numpy()),
        epochs=seen / len(images),
        images_per_second=rates[len(rates) // 2] if rates else 0.0,
        seconds=last.get("seconds", 0.0),
        metrics={name: last[name] for name in gan.trackers if name in last},
        export=str(run / "export") if chief and finished else None,
        interrupted=bool(stop.received),
        best=state.read_best(run / "checkpoints") if chief else None,
        rejected=image_set.rejected,
        notes=notes,
    )


def _evaluate(recipe, run, images, report) -> Evaluate:
    """Return the callback that scores generated images, its real side computed."""
    # Here alone, so that a run without evaluations never builds a feature extractor.
    from keras_cxrgan.workflows.evaluating import scorer

    count = recipe.evaluate_count or min(len(images), MOST_GENERATED)
    if report:
        report("evaluating", 0, count, "the real images first")
    if len(images) > MOST_REAL:
        # A bound on time and memory: the first ones after a shuffle that the seed decides.
        chosen = np.random.default_rng(recipe.seed).permutation(len(images))[:MOST_REAL]
        real = images[np.sort(chosen)]
    else:
        real = images
    return Evaluate(
        scorer(real, features=recipe.evaluate_features, seed=recipe.seed),
        run,
        interval=recipe.evaluate_interval,
        total=recipe.total_images(len(images)),
        count=count,
        # No recipe has a negative seed: the images that decide are neither those of the sample
        # grids nor those of `cxrgan generate` with the run's seed or its default.
        seed=-1 - recipe.seed,
        metric=recipe.evaluate_metric,
        context={"features": recipe.evaluate_features, "real_count": len(real)},
        tensorboard=run / "tensorboard" / "evaluation",
        report=(lambda done, total, note: report("evaluating", done, total, note))
        if report
        else None,
    )


def _watch_collapse(recipe, images, total, tick, report) -> WatchCollapse | None:
    """Return the callback that warns of a failing run; None for films that are all the same."""
    distance = pairwise_distance(images[:LOOKED_AT])
    if not distance:
        return None
    return WatchCollapse(
        latent_count=sample_count(recipe.image_size),
        seed=recipe.seed,
        real_distance=distance,
        report=(lambda line: report("", 0, 0, line)) if report else None,
        interval=total // 100,
        tick=tick,
    )


def _shown(gan, labels) -> np.ndarray | slice:
    """Return which real images the grid of them shows, and in what order.

    Each is of the class of the generated image at its place; a class with fewer films than places
    shows them again.
    """
    count = sample_count(gan.generator.output_shape[1])
    if labels is None:
        return slice(count)
    places = class_of(np.arange(min(count, len(labels))), gan.class_shares).numpy()
    chosen = np.empty(len(places), np.int64)
    for number in set(places):
        places_of, films_of = (np.flatnonzero(of == number) for of in (places, labels))
        chosen[places_of] = np.resize(films_of, len(places_of))
    return chosen


def _recorders(recipe, run, images, shown, total, tick, resumed_from):
    """Return the callbacks that write into the run, and write the grid of real images."""
    # Also when nothing is evaluated any more.
    callbacks.forget_after(run / "metrics.jsonl", resumed_from)
    real_grid = image_grid(np.asarray(images[shown]), gap=GRID_GAP)
    write_png(run / "reals.png", real_grid)
    return [
        callbacks.RunLog(run / "log.jsonl", run / "tensorboard", resumed_from),
        callbacks.SampleGrids(
            run / "samples",
            recipe.sample_interval or total // 20,
            tick=tick,
            count=sample_count(recipe.image_size),
            seed=recipe.seed,
            real_grid=real_grid,
            # A folder of its own: TensorBoard may follow only the newest file of a folder.
            tensorboard=run / "tensorboard" / "images",
        ),
    ]
