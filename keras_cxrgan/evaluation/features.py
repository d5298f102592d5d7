"""Images -> features: in batches of one size, over all replicas, kept by content."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_cxrgan.evaluation.extractors import Extractor

_CACHE_FORMAT = 1


def extract(
    extractor: Extractor,
    images: np.ndarray,
    *,
    batch_size: int = 32,
    strategy: tf.distribute.Strategy | None = None,
    cache_dir: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return the float32 features (N, dims) of uint8 images (N, H, W), in their order.

    The network sees batches of one size only, so that features do not depend on how many images
    came together. Build the extractor in the scope of the `strategy` that is given here.

    Args:
        cache_dir: keep the features in a file there, found again by the pixels, the weights and
            the preparation, whatever the images are called. They are then memory-mapped.
    """
    images = _checked(images)
    strategy = strategy or tf.distribute.get_strategy()
    if cache_dir is None:
        features = np.empty((len(images), extractor.dims), np.float32)
        for first, block in _blocks(extractor, images, batch_size, strategy, progress):
            features[first : first + len(block)] = block
        return features
    path = Path(cache_dir) / f"{_cache_key(extractor, images)}.npy"
    shape = (len(images), extractor.dims)
    features = _open_cached(path, shape)
    if features is not None:
        if progress:
            progress(len(images), len(images))
        return features
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for _, block in _blocks(extractor, images, batch_size, strategy, progress):
                file.write(np.ascontiguousarray(block, "<f4"))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _checked(images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim != 3 or not len(images):
        raise ValueError(
            f"features need uint8 images (N, H, W), at least one; got {images.dtype} {images.shape}"
        )
    return images


@functools.lru_cache(maxsize=4)
def _compiled(extractor: Extractor, strategy: tf.distribute.Strategy):
    """Return the traced network; tracing an Inception anew for each set would take seconds."""

    def call(batch):
        kwargs = {"training": False} if isinstance(extractor.model, keras.Model) else {}
        return extractor.model(batch, **kwargs)

    @tf.function
    def run(batch):
        return strategy.run(call, args=(batch,))

    return run


def _blocks(extractor, images, batch_size, strategy, progress):
    """Yield (first row, features) in order."""
    replicas = strategy.num_replicas_in_sync
    batch_size = max(1, batch_size // replicas) * replicas

    run = _compiled(extractor, strategy)
    for first in range(0, len(images), batch_size):
        part = images[first : first + batch_size]
        number = len(part)
        if number < batch_size:
            part = np.concatenate([part, np.repeat(part[:1], batch_size - number, axis=0)])
        shares = np.split(extractor.prepare(part), replicas)
        batch = strategy.experimental_distribute_values_from_function(
            lambda context, shares=shares: tf.constant(
                shares[context.replica_id_in_sync_group], tf.float32
            )
        )
        features = strategy.gather(run(batch), axis=0).numpy()[:number]
        if not np.isfinite(features).all():
            raise ValueError(
                f"{extractor.name} gave features that are no numbers: check its weights"
            )
        yield first, features
        if progress:
            progress(first + number, len(images))


def _cache_key(extractor: Extractor, images: np.ndarray) -> str:
    digest = hashlib.sha256()
    about = [extractor.name, extractor.dims, extractor.preparation, extractor.weights]
    digest.update(json.dumps([_CACHE_FORMAT, about, images.shape]).encode())
    for first in range(0, len(images), 256):
        digest.update(np.ascontiguousarray(images[first : first + 256]))
    return digest.hexdigest()


def _open_cached(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        features = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return features if (features.shape, features.dtype) == (shape, np.float32) else None
