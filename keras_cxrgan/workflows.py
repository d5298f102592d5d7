"""The whole jobs: train and resume, generate, export. The only place where the rooms meet.

A run is a directory, and the same call on the same directory goes on where it stopped:

    recipe.json       every choice          log.jsonl      one line a tick
    data.json         what it was fed       tensorboard/   the same, and pictures
    environment.json  versions, devices     losses.png     curves, at the end
    reals.png         real images           backup/        the last two complete states
    samples/          grids of fixed latents, named by images seen
    export/           the finished generator
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
import math
import signal
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_cxrgan
from keras_cxrgan import runs
from keras_cxrgan.data import phantom
from keras_cxrgan.data.batches import training_batches
from keras_cxrgan.data.images import decode, encode_png, image_grid, to_uint8, write_png
from keras_cxrgan.data.prepare import ImageSet, prepare_images
from keras_cxrgan.data.records import Record, content_hash, find_records, fingerprint
from keras_cxrgan.models.dcgan import build_discriminator, build_generator
from keras_cxrgan.recipe import Recipe
from keras_cxrgan.sharing.export import read_export, write_export
from keras_cxrgan.sharing.figures import compare_rows
from keras_cxrgan.training import callbacks, runtime, state
from keras_cxrgan.training.curves import plot_losses
from keras_cxrgan.training.gan import GAN, indexed_latents

PHANTOM_COUNT = 500
STEPS_PER_TICK = 100  # at most: a pass over a large data set is logged in parts
SAMPLE_COUNT = 64
MANIFEST_COLUMNS = ["file", "index", "seed", "truncation", "sha256", "model"]
GRID_GAP = 2


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
    rejected: tuple[tuple[str, str], ...] = ()  # files that could not be read, and why
    notes: tuple[str, ...] = ()


def load_images(
    data: str | None,
    recipe: Recipe,
    *,
    classes: tuple[str, ...] = (),
    on_bad_file: str = "error",
    cache_dir: Path | None = None,
    memory_budget: int = 2 * 2**30,
    report=None,
) -> ImageSet:
    """Return the prepared uint8 images of a folder or zip, or of the built-in chest phantom."""
    if data is None:
        if report:
            report("phantom", 0, PHANTOM_COUNT)
        labels = classes or ("normal",)
        images, names = phantom.phantoms(
            PHANTOM_COUNT, recipe.image_size, labels=labels, seed=recipe.seed
        )
        hashes = tuple(content_hash(image.tobytes()) for image in images)
        records = tuple(
            Record(f"phantom-{recipe.seed}-{index:05d}", label) for index, label in enumerate(names)
        )
        if report:
            report("phantom", PHANTOM_COUNT, PHANTOM_COUNT)
        return ImageSet(images, records, hashes, fingerprint(hashes), ())
    return prepare_images(
        find_records(data, classes),
        recipe.image_size,
        fit=recipe.fit,
        clahe_clip_limit=recipe.clahe_clip_limit,
        clahe_tiles=recipe.clahe_tiles,
        clahe_size=recipe.clahe_size,
        on_bad_file=on_bad_file,
        cache_dir=cache_dir,
        memory_budget=memory_budget,
        progress=(lambda done, total: report("images", done, total)) if report else None,
    )


def build_networks(recipe: Recipe, *, synchronized: bool = False, fused: bool = True):
    """Return (generator, discriminator) as the recipe says.

    Args:
        synchronized: batch statistics over all replicas, for use under a strategy.
        fused: compute UpSampling2D + Conv2D in one step; False gives plain Keras layers.
    """

    def optional(name):
        return None if name == "none" else name

    with runtime.dtype_policy(recipe.precision):
        generator = build_generator(
            recipe.image_size,
            recipe.channels,
            recipe.latent_dim,
            base_size=recipe.base_size,
            width=recipe.width,
            max_width=recipe.generator_max_width,
            upsampling=recipe.upsampling,
            fused=fused,
            kernel_size=recipe.generator_kernel_size,
            activation=recipe.generator_activation,
            normalization=optional(recipe.generator_normalization),
            normalize_base=recipe.normalize_base,
            convention=recipe.convention,
            synchronized=synchronized,
        )
    # A penalty squares gradients of the discriminator, which reduced precision cannot hold.
    with runtime.dtype_policy("float32" if recipe.penalty != "none" else recipe.precision):
        discriminator = build_discriminator(
            recipe.image_size,
            recipe.channels,
            base_size=recipe.base_size,
            width=recipe.width,
            max_width=recipe.discriminator_max_width,
            kernel_size=recipe.discriminator_kernel_size,
            normalization=optional(recipe.discriminator_normalization),
            normalization_affine=recipe.discriminator_normalization_affine,
            dropout=recipe.discriminator_dropout,
            convention=recipe.convention,
            synchronized=synchronized,
        )
    return generator, discriminator


def build_gan(
    recipe: Recipe, strategy: tf.distribute.Strategy | None = None, *, fused: bool = True
) -> GAN:
    """Return the compiled GAN of a recipe, its variables placed by the strategy.

    Example:
        >>> gan = build_gan(Recipe().override(image_size=32, epochs=1))
        >>> gan.fit(training_batches(images, 32), steps_per_epoch=10, shuffle=False)
    """
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        generator, discriminator = build_networks(
            recipe, synchronized=strategy.num_replicas_in_sync > 1, fused=fused
        )
        gan = GAN(
            generator,
            discriminator,
            latent_distribution=recipe.latent_distribution,
            ema_half_life=recipe.ema_half_life,
            seed=recipe.seed,
        )

        def adam(learning_rate):
            optimizer = keras.optimizers.Adam(
                learning_rate, recipe.beta_1, recipe.beta_2, epsilon=recipe.adam_epsilon
            )
            if recipe.precision == "mixed_float16":
                return keras.optimizers.LossScaleOptimizer(optimizer)
            return optimizer

        gan.compile(
            adam(recipe.generator_learning_rate),
            adam(recipe.discriminator_learning_rate),
            loss=recipe.loss,
            label_smoothing=recipe.label_smoothing,
            penalty=None if recipe.penalty == "none" else recipe.penalty,
            penalty_weight=recipe.penalty_weight,
            critic_steps=recipe.critic_steps,
            jit_compile=runtime.use_xla(strategy),
        )
    return gan


def train(
    recipe: Recipe,
    run: str | Path,
    *,
    data: str | None = None,
    classes: tuple[str, ...] = (),
    on_bad_file: str = "error",
    devices: str = "auto",
    deterministic: bool = False,
    worker_timeout: float = 120,
    extend: bool = False,
    memory_budget: int = 2 * 2**30,
    backup_seconds: float = 60,
    report=None,
) -> RunResult:
    """Train a recipe on images in a run directory; resume if the directory holds that run.

    Args:
        data: folder or zip of films; None for the built-in chest phantom.
        classes: names of the class folders to use; () for all.
        extend: let the recipe's `epochs` differ from the run's, to train it for longer.
        memory_budget: bytes of prepared images above which they live in a file in the run.
        backup_seconds: at least this long between two saved states.
        report: function (stage, done, total, note="") that shows progress.

    Raises `ValueError` with one clear message for everything a user can mend.
    """
    recipe.check()
    run = Path(run)
    strategy = runtime.start(
        devices, seed=recipe.seed, deterministic=deterministic, worker_timeout=worker_timeout
    )
    chief = runtime.is_chief(strategy)
    runs.check_batch_size(recipe, strategy.num_replicas_in_sync)
    runs.check_same_recipe(run, recipe, extend)
    with runs.lock(run) if chief else contextlib.nullcontext():
        image_set = load_images(
            data,
            recipe,
            classes=classes,
            on_bad_file=on_bad_file,
            cache_dir=run / "cache",
            memory_budget=memory_budget,
            report=report if chief else None,
        )
        runs.check_enough(image_set, recipe)
        description = runs.describe_data(image_set, recipe, data, classes)
        runs.check_same_data(run, description)
        try:
            gan = build_gan(recipe, strategy)
            resumed_from, notes = state.load_state(gan, run / "backup")
            if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
                runs.check_workers_agree(strategy, recipe, image_set, resumed_from)
        except tf.errors.OpError as error:
            raise ValueError(runs.explain_stop(error, run)) from error
        if chief and resumed_from < recipe.epochs * len(image_set.images):
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
            chief,
            strategy,
            resumed_from,
            tuple(notes),
            backup_seconds,
            report,
        )


def _fit(
    gan, recipe, run, image_set, chief, strategy, resumed_from, notes, backup_seconds, report
) -> RunResult:
    images = image_set.images
    total = recipe.epochs * len(images)
    per_step = recipe.batch_size * recipe.critic_steps
    steps_per_tick = max(1, min(STEPS_PER_TICK, round(len(images) / per_step)))
    ticks = math.ceil(max(0, total - resumed_from) / (per_step * steps_per_tick))
    earlier = callbacks.read_log(run / "log.jsonl")
    earlier = [record for record in earlier if record["images_seen"] <= resumed_from]
    clock = callbacks.Clock(
        total,
        len(images),
        (lambda done, total, note: report("training", done, total, note))
        if report and chief
        else None,
        seconds=earlier[-1]["seconds"] if earlier else 0.0,
    )
    stop = callbacks.StopOnSignal()
    watchers = [clock, callbacks.StopOnNonFinite(recipe.precision == "mixed_float16")]
    if chief and ticks:
        watchers += _recorders(recipe, run, images, total, resumed_from, backup_seconds)
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        watchers.insert(0, stop)  # one worker that stops would leave the others waiting
    if ticks:
        batches = training_batches(
            images, per_step, seed=recipe.seed, start=resumed_from, channels=recipe.channels
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
    if chief and (ticks or not _is_exported(run, seen)):
        plot_losses(run / "log.jsonl", run / "losses.png", len(images))
        if finished:
            export(run, overwrite=True)
    if stop.received == signal.SIGTERM:
        notes += ("stopped by SIGTERM",)
    log = callbacks.read_log(run / "log.jsonl")
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
        rejected=image_set.rejected,
        notes=notes,
    )


def _recorders(recipe, run, images, total, resumed_from, backup_seconds):
    """Return the callbacks that write into the run, and write the grid of real images."""
    real_grid = image_grid(np.asarray(images[:SAMPLE_COUNT]), gap=GRID_GAP)
    write_png(run / "reals.png", real_grid)
    return [
        callbacks.RunLog(run / "log.jsonl", run / "tensorboard", resumed_from),
        callbacks.SampleGrids(
            run / "samples",
            recipe.sample_interval or total // 20,
            count=SAMPLE_COUNT,
            seed=recipe.seed,
            real_grid=real_grid,
            # A folder of its own: TensorBoard may follow only the newest file of a folder.
            tensorboard=run / "tensorboard" / "images",
        ),
        callbacks.Backup(run / "backup", backup_seconds),
    ]


def generate(
    source: str | Path,
    out: str | Path,
    count: int,
    *,
    seed: int = 0,
    grid: bool = False,
    truncation: float | None = None,
    overwrite: bool = False,
    batch_size: int = 32,
    report=None,
) -> dict:
    """Write `count` generated PNG files and `manifest.csv` into a folder; return a summary.

    Image i depends on the model, the seed and i alone. Memory does not grow with `count`.

    Args:
        source: a run directory (its newest state) or an export directory.
        grid: also write `grid.png` with the first images.
        truncation: keep latents within this distance of 0; None for all.

    Raises `ValueError` when `out` already holds files and `overwrite` is false.
    """
    if count < 1:
        raise ValueError(f"-n must be 1 or more, got {count}")
    if truncation is not None and not truncation > 0:
        raise ValueError(f"--truncation must be above 0, got {truncation}")
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"--seed must fit in 64 bits, got {seed}")
    out = Path(out)
    _check_out(out, overwrite)
    generator, card = load_generator(source)
    out.mkdir(parents=True, exist_ok=True)
    _remove_generated(out)

    # Whole batches always, also for the last images: the size of a batch decides the order in
    # which TensorFlow adds, and so the last digit.
    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
    def sample(first):
        latents = indexed_latents(
            seed, first, batch_size, card["latent_dim"], card["latent_distribution"], truncation
        )
        return generator(latents, training=False)

    digits = max(6, len(str(count - 1)))
    first_images = []
    manifest = out / "manifest.csv"
    with runs.replacing(manifest) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(MANIFEST_COLUMNS)
        for first in range(0, count, batch_size):
            number = min(batch_size, count - first)
            images = to_uint8(sample(first).numpy()[:number])
            for offset, image in enumerate(images):
                index = first + offset
                name = f"{index:0{digits}d}.png"
                text = {
                    "Software": f"keras_cxrgan {keras_cxrgan.__version__}",
                    "Comment": "Synthetic chest X-ray made by a generative model; not a patient.",
                    "Model": card["model"],
                    "Seed": str(seed),
                    "Index": str(index),
                }
                data = encode_png(image, text)
                (out / name).write_bytes(data)
                shown = "" if truncation is None else truncation
                writer.writerow([name, index, seed, shown, content_hash(data), card["model"]])
            if grid and len(first_images) < SAMPLE_COUNT:
                first_images.extend(images[: SAMPLE_COUNT - len(first_images)])
            if report:
                report("generating", first + number, count)
    if grid:
        write_png(out / "grid.png", image_grid(np.stack(first_images)))
    return {
        "out": str(out),
        "images": count,
        "seed": seed,
        "manifest": str(manifest),
        "grid": str(out / "grid.png") if grid else None,
        "model": card["model"],
    }


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out} already holds files; choose another --out, or pass --overwrite")


def _remove_generated(out: Path) -> None:
    """Remove what an earlier `generate` wrote, so that no folder mixes images of two models."""
    manifest = out / "manifest.csv"
    if not manifest.exists():
        return
    with open(manifest, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        earlier = list(rows) if rows.fieldnames == MANIFEST_COLUMNS else []
    for row in earlier:
        image = out / Path(row["file"]).name
        # The hash keeps a file that somebody else put under this name.
        if image.is_file() and content_hash(image.read_bytes()) == row["sha256"]:
            image.unlink()
    if earlier:
        manifest.unlink()
        (out / "grid.png").unlink(missing_ok=True)


def load_generator(source: str | Path) -> tuple[keras.Model, dict]:
    """Return (generator, card) of a run directory or an export directory."""
    source = Path(source)
    if (source / "card.json").is_file():
        return read_export(source)
    if not (source / "recipe.json").is_file():
        raise ValueError(
            f"{source} is no run and no export: it holds neither recipe.json nor card.json;"
            " train one with cxrgan train --out RUN"
        )
    recipe = Recipe.from_json((source / "recipe.json").read_text())
    weights, seen = state.generator_weights(source / "backup")
    # Plain layers in float32: the weights are the same whatever trained them.
    plain = dataclasses.replace(recipe, precision="float32")
    generator, _ = build_networks(plain, fused=False)
    generator.set_weights(weights)
    return generator, _card(recipe, source, weights, seen)


def export(run: str | Path, out: str | Path | None = None, *, overwrite: bool = False) -> Path:
    """Write a run's generator as SavedModel, `.keras` file and card; return the folder.

    Raises `ValueError` when the folder exists (unless `overwrite`) or cannot be written.
    """
    out = Path(out) if out else Path(run) / "export"
    _check_out(out, overwrite)
    generator, card = load_generator(run)

    def latents(seed, count):
        return indexed_latents(seed, 0, count, card["latent_dim"], card["latent_distribution"])

    try:
        write_export(out, generator, latents, card)
    except OSError as error:
        raise ValueError(
            f"cannot write the export to {out}: {error.strerror or error}; choose another --out"
        ) from error
    return out


def _is_exported(run: Path, images_seen: int) -> bool:
    card = run / "export" / "card.json"
    return card.is_file() and json.loads(card.read_text())["images_seen"] == images_seen


def figure(names: list[str], out: str | Path, *, columns: int = 10, seed: int = 0) -> Path:
    """Write a PNG that shows real images above generated ones, a band for each run.

    Generated images are the first of the seed, and real ones the first of the run's grid; none
    is chosen by eye.
    """
    bands = []
    for name in names:
        run = Path(name)
        generator, card = load_generator(run)
        if not (run / "reals.png").is_file():
            raise ValueError(f"{run} holds no reals.png; a figure compares runs, not exports")
        latents = indexed_latents(seed, 0, columns, card["latent_dim"], card["latent_distribution"])
        fakes = to_uint8(generator(latents, training=False).numpy())
        label = f"{card['recipe']['name']}, {card['images_seen']:,} images seen"
        bands.append((label, _first_reals(run, card["recipe"]["image_size"], columns), fakes))
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    compare_rows(bands, out)
    return out


def _first_reals(run: Path, image_size: int, count: int) -> np.ndarray:
    grid = decode((run / "reals.png").read_bytes())
    rows, per_row = ((side + GRID_GAP) // (image_size + GRID_GAP) for side in grid.shape)
    if count > rows * per_row:
        raise ValueError(
            f"{run / 'reals.png'} holds {rows * per_row} images; pass --columns {rows * per_row} or less"
        )
    starts = [divmod(index, per_row) for index in range(count)]
    step = image_size + GRID_GAP
    return np.stack(
        [grid[row * step :, column * step :][:image_size, :image_size] for row, column in starts]
    )


def _card(recipe: Recipe, run: Path, weights, images_seen: int) -> dict:
    data = json.loads((run / "data.json").read_text()) if (run / "data.json").is_file() else {}
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(np.ascontiguousarray(weight).tobytes())
    return {
        "format": 1,
        "what": "generator of synthetic chest X-rays; research use only, not for diagnosis",
        "software": f"keras_cxrgan {keras_cxrgan.__version__}",
        "model": digest.hexdigest()[:16],
        "images_seen": images_seen,
        "averaged_weights": recipe.ema_half_life > 0,
        "latent_dim": recipe.latent_dim,
        "latent_distribution": recipe.latent_distribution,
        "images": {
            "shape": [recipe.image_size, recipe.image_size, recipe.channels],
            "generator.keras": "float32 in [-1, 1]",
            "saved_model": "uint8 in [0, 255], rint((x + 1) * 127.5)",
        },
        "signatures": {
            "serving_default": "latents (n, latent_dim) float32 -> images",
            "sample": "n int32, seed int32 -> images; image i is fixed by (seed, i)",
        },
        "data": {
            key: data[key] for key in ("source", "classes", "count", "fingerprint") if key in data
        },
        "recipe": json.loads(recipe.to_json()),
    }
