"""A generator as files that outlive this package.

saved_model/     TensorFlow alone can load it: no Keras, no keras_cxrgan
generator.keras  a Keras model of standard layers (and FadeIn of a stage that faded in, and
                 GroupedBatchNormalization of a recipe with batches_in_use)
card.json        recipe, data fingerprint, image contract
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Callable

import keras
import tensorflow as tf

PARTS = ("saved_model", "generator.keras", "card.json")


def write_export(
    folder: Path, generator: keras.Model, latents: Callable, card: dict, group: int = 1
) -> None:
    """Write the three parts, first under a temporary name; those of an earlier export are replaced.

    The card comes last and goes first: without one, nothing is read as an export. Hidden files,
    such as a repository's, stay.

    Args:
        generator: latents (n, latent_dim) -> float32 images (n, S, S, C) in [-1, 1]. One that
            takes [latents, labels], labels one-hot (n, classes), gives both signatures another
            argument: `label`, the number of the class of all n images.
        latents: function (seed, n) of tensors -> latents (n, latent_dim), part of `sample`.
        group: images that the generator makes together; `sample` makes whole groups, so that its
            images do not depend on how many are asked for.

    Raises `OSError` when the folder cannot be written, `ValueError` when it holds anything else.

    Example, without this package installed:
        >>> sample = tf.saved_model.load("export/saved_model").signatures["sample"]
        >>> images = sample(n=tf.constant(16), seed=tf.constant(0))["images"]  # uint8
    """
    folder = Path(folder).resolve()  # "." has no name beside which to write
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = sorted(name for name in names.difference(PARTS) if not name.startswith("."))
    if others:
        raise ValueError(f"{folder} holds more than an export ({others[0]}); choose another --out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _save_graph(temporary / "saved_model", generator, latents, group)
        generator.save(temporary / "generator.keras")
        (temporary / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        folder.mkdir(exist_ok=True)
        for name in reversed(PARTS):
            _remove(folder / name)
        for name in PARTS:
            os.replace(temporary / name, folder / name)
    except tf.errors.OpError as error:
        # TensorFlow's file layer has its own exceptions for a full or read-only disk.
        raise OSError(str(error).splitlines()[0]) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _save_graph(path: Path, generator, latents, group: int) -> None:
    latent_dim, *classes = (spec.shape[-1] for spec in generator.inputs)
    label_specs = [tf.TensorSpec([], tf.int32, name="label") for _ in classes]

    def to_images(vectors, *label):
        if label:
            # One-hot, a number that is no class would be none, and the image grey.
            message = f"label must be from 0 to {classes[0] - 1}"
            tf.debugging.assert_non_negative(*label, message=message)
            tf.debugging.assert_less(*label, *classes, message=message)
            labels = tf.fill(tf.shape(vectors)[:1], *label)
            vectors = [vectors, tf.one_hot(labels, *classes)]
        floats = generator(vectors, training=False)
        # `images.to_uint8` in the graph: clip, then round to the nearest level.
        levels = tf.round(tf.clip_by_value((floats + 1.0) * 127.5, 0.0, 255.0))
        return {"images": tf.cast(levels, tf.uint8)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, latent_dim], tf.float32, name="latents"),
            *label_specs,
        ]
    )
    def serving_default(latents, *label):
        return to_images(latents, *label)

    @tf.function(
        input_signature=[
            tf.TensorSpec([], tf.int32, name="n"),
            tf.TensorSpec([], tf.int32, name="seed"),
            *label_specs,
        ]
    )
    def sample(n, seed, *label):
        images = to_images(latents(seed, -(-n // group) * group), *label)["images"]
        return {"images": images[:n]}

    # A bare module that holds the variables: nothing in the file names Keras.
    module = tf.Module()
    module.weights = [variable.value for variable in generator.variables]
    tf.saved_model.save(
        module, str(path), signatures={"serving_default": serving_default, "sample": sample}
    )


def read_export(folder: Path) -> tuple[keras.Model, dict]:
    """Return (generator, card) of an export directory.

    Raises `ValueError` when a part is missing or unreadable.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / "card.json").read_text())
        return keras.models.load_model(folder / "generator.keras"), card
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{folder} is no complete export ({reason}); make it again with cxrgan export RUN"
        ) from error
