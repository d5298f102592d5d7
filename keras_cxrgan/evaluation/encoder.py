"""A small convolutional feature extractor for chest X-rays that ships with the package.

`python -m experiments.encoder` trains it; `card()` says on what, how well it did on patients it
never saw, and what it cannot see. Its features are made for distances between sets of images
(Frechet, kernel, neighbours), not for diagnosis.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import keras
import numpy as np
from keras import layers

IMAGE_SIZE = 128
WEIGHTS = Path(__file__).with_name("cxr_encoder.npz")
CARD = WEIGHTS.with_suffix(".json")

# (kernel, stride, filters) of each convolution, by stage; each stage halves the resolution.
_STAGES = (
    ((5, 2, 32),),
    ((3, 2, 64), (3, 1, 64)),
    ((3, 2, 96), (3, 1, 96)),
    ((3, 2, 128), (3, 1, 128)),
)
DIMS = 128


def prepare_for_encoder(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W) to float32 (N, S, S, 1) in [-1, 1], with S = `IMAGE_SIZE`.

    An axis that is longer is averaged over areas, one that is shorter is interpolated linearly;
    nothing is cropped, so a film that is not square is stretched. What areas average away stays
    unseen: in 256-pixel images a checkerboard of single pixels vanishes altogether.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape:
        raise ValueError(
            f"prepare_for_encoder needs uint8 images (N, H, W), got {images.dtype} {images.shape}"
        )
    prepared = np.empty((len(images), IMAGE_SIZE, IMAGE_SIZE, 1), np.float32)
    smaller = tuple(min(side, IMAGE_SIZE) for side in images.shape[:0:-1])
    for row, image in zip(prepared, images):
        # Floats, because OpenCV's integer paths round to whole grey levels and differ by release.
        image = cv2.resize(np.float32(image), smaller, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)
        row[..., 0] = image / np.float32(127.5) - 1
    return prepared


def build_encoder(dims: int = DIMS) -> keras.Model:
    """Untrained network: float32 (n, S, S, 1) in [-1, 1] to (n, dims).

    The global averages of every stage, from textures to the whole chest, go through one linear
    layer that turns them into `dims` components of a common scale. No layer looks at more than one
    image, and all compute in float32 whatever the precision of the run around them.
    """
    inputs = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), dtype="float32", name="films")
    x, averages = _layer(layers.Concatenate, "input")([inputs, *_details(inputs)]), []
    for number, stage in enumerate(_STAGES, 1):
        for step, (kernel, stride, filters) in enumerate(stage, 1):
            x = _layer(
                layers.Conv2D, f"stage{number}_{step}", filters, kernel, stride,
                padding="same", activation="relu", kernel_initializer="he_normal",
            )(x)  # fmt: skip
        averages.append(_layer(layers.GlobalAveragePooling2D, f"average{number}")(x))
    pooled = _layer(layers.Concatenate, "pooled")(averages)
    return keras.Model(inputs, _layer(layers.Dense, "projection", dims)(pooled), name="cxr_encoder")


def _details(films):
    """What differs from the neighbourhood, fine and coarse: most of a film is smooth and bright.

    Two levels of a Laplacian pyramid (Burt and Adelson 1983), bounded, so that one hard edge does
    not drown everything else.
    """
    for width, gain in ((2, 16.0), (8, 4.0)):
        around = _layer(layers.AveragePooling2D, f"average_{width}", width)(films)
        around = _layer(layers.UpSampling2D, f"around_{width}", width, interpolation="bilinear")(
            around
        )
        detail = _layer(layers.Subtract, f"detail_{width}")([films, around])
        detail = _layer(layers.Rescaling, f"gain_{width}", gain)(detail)
        yield _layer(layers.Activation, f"bounded_{width}", "tanh")(detail)


def _layer(kind: type, name: str, *arguments, **options):
    return kind(*arguments, name=name, dtype="float32", **options)


def save_encoder(encoder: keras.Model, path: Path) -> str:
    """Write the weights as float16 and return the file's SHA-256."""
    arrays = {weight.path: np.float16(weight.numpy()) for weight in encoder.weights}
    np.savez(path, **arrays)
    return _sha256(path)


def read_encoder(path: Path) -> keras.Model:
    """The encoder with the weights that `save_encoder` wrote to `path`."""
    with np.load(path) as arrays:
        encoder = build_encoder(dims=arrays["projection/bias"].size)
        for weight in encoder.weights:
            weight.assign(np.float32(arrays[weight.path]))
    return encoder


def load_encoder() -> tuple[keras.Model, str]:
    """The shipped encoder and the SHA-256 of its weights.

    >>> encoder, digest = load_encoder()
    >>> features = encoder(prepare_for_encoder(images))  # doctest: +SKIP
    """
    digest = _sha256(WEIGHTS)
    if digest != card()["sha256"]:
        raise ValueError(
            f"{WEIGHTS.name} is damaged: its SHA-256 is {digest}, its card says "
            f"{card()['sha256']}; install the package again"
        )
    return read_encoder(WEIGHTS), digest


def card() -> dict:
    """What the shipped encoder was trained on, its measured quality and its limits."""
    return json.loads(CARD.read_text(encoding="utf-8"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
