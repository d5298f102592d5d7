"""Feature extractors: which network looks at the images, with which weights and preparation.

A Fréchet distance, a KID or a recall is a number about features, so it means nothing without
the name of the extractor. `EXTRACTORS` lists them; a path to a Keras model or a SavedModel is one
more. Each carries the SHA-256 of its weights, which every score is reported with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf

from keras_cxrgan.evaluation import encoder, inception, torch_weights
from keras_cxrgan.evaluation.resize import INCEPTION_SIZE, MODES, prepare_for_inception

INCEPTION_DIMS = (64, 192, 768, 2048)
DEFAULT_DIMS = 768
"""The layer the papers report, because 2048 dimensions want more films than anybody has here."""

KERAS_WEIGHTS = {
    "name": "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "url": "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "md5": "bcbd6486424b2319ff4ef7d526e38f63",
}


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that turns images into features, and everything its scores must be named with."""

    name: str  # as given to --features
    score: str  # what a Fréchet distance of these features may be called
    dims: int
    input_size: int  # pixels; larger images are shrunk to it
    preparation: str  # resize and range, in words or as the name of a mode
    weights: str  # SHA-256 of the weights
    verified: bool  # the weights are the published ones
    about: str
    prepare: Callable[[np.ndarray], np.ndarray]  # uint8 (n, H, W) -> the network's input
    model: keras.Model | Callable

    def identity(self) -> dict:
        """Return what decides the features, ready for JSON."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("prepare", "model")
        }


def build_extractor(
    name: str,
    *,
    dims: int | str | None = None,
    mode: str = "pytorch-fid",
    weights: str | Path | None = None,
    preparation: str | None = None,
    seed: int = 0,
) -> Extractor:
    """Return an extractor by name: cxr, fid2015, imagenet, random, or the path of a model.

    Args:
        dims: 64, 192, 768 or 2048 for the Inceptions (None for 768); `fid2015` also gives
            "logits_unbiased" for the Inception Score.
        mode: resize and range of the Inceptions: pytorch-fid, legacy-tf or clean.
        weights: file of the Inception's weights; None looks in Keras' cache, then downloads.
        preparation: for a path, how its images are prepared: see `build_custom`.
        seed: of `random`.

    Raises `ValueError` for an unknown name, missing or wrong weights.

    Example:
        >>> build_extractor("random", dims=64).score
        'FD-random64'
    """
    if mode not in MODES:
        raise ValueError(f"--mode must be one of {', '.join(MODES)}, got {mode!r}")
    if name not in EXTRACTORS:
        if Path(name).exists():
            return build_custom(Path(name), preparation)
        raise ValueError(
            f"--features must be {', '.join(EXTRACTORS)} or the path of a Keras model, got {name!r}"
        )
    if name == "cxr":
        return build_cxr()
    dims = dims or DEFAULT_DIMS
    allowed = (768, 2048) if name == "imagenet" else INCEPTION_DIMS
    if dims not in allowed and (name, dims) != ("fid2015", "logits_unbiased"):
        raise ValueError(
            f"--dims of {name} must be one of {', '.join(map(str, allowed))}, got {dims}"
        )
    if name == "random":
        return build_random(dims, mode, seed)
    return EXTRACTORS[name](dims, mode, weights)  # fid2015 or imagenet


def build_cxr() -> Extractor:
    """Return the small encoder of chest X-rays that ships with the package."""
    model, digest = encoder.load_encoder()
    return Extractor(
        name="cxr",
        score="FD-cxr",
        dims=model.output_shape[-1],
        input_size=encoder.IMAGE_SIZE,
        preparation=f"grey, {encoder.IMAGE_SIZE} px, [-1, 1]",
        weights=digest,
        verified=True,
        about="encoder trained on chest X-rays; comparable only with itself",
        prepare=encoder.prepare_for_encoder,
        model=model,
    )


def build_fid2015(dims: int | str, mode: str, weights: str | Path | None) -> Extractor:
    """Return the Inception of 2015 that FID is defined on (Heusel et al. 2017)."""
    path = torch_weights.locate_fid_weights(weights)
    digest = torch_weights.sha256_of(path)
    model = inception.build_inception((dims,))
    inception.load_state_dict(model, torch_weights.read_state_dict(path))
    return _inception(
        "fid2015",
        f"FID{dims}",
        dims,
        mode,
        model,
        digest,
        verified=digest == torch_weights.FID_WEIGHTS["sha256"],
        about="the network of pytorch-fid, TTUR and the papers, with its 2015 weights",
    )


def build_random(dims: int, mode: str, seed: int = 0) -> Extractor:
    """Return the same network with seeded random weights: a baseline for what weights add."""
    state = inception.random_state_dict(seed)
    model = inception.build_inception((dims,))
    inception.load_state_dict(model, state)
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(np.ascontiguousarray(state[key]))
    return _inception(
        "random",
        f"FD-random{dims}",
        dims,
        mode,
        model,
        digest.hexdigest(),
        verified=False,
        about=f"Inception with random weights (seed {seed}); no FID",
    )


def build_imagenet(dims: int, mode: str, weights: str | Path | None) -> Extractor:
    """Return Keras' InceptionV3 with its ImageNet weights: another network than FID's."""
    path = Path(weights) if weights else _locate_keras_weights()
    try:
        whole = keras.applications.InceptionV3(
            include_top=False, weights=None, input_shape=(299, 299, 3)
        )
        whole.load_weights(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold the weights of Keras' InceptionV3 without its top:"
            f" {str(error).splitlines()[0]} (--weights)"
        ) from error
    tap = whole.get_layer({768: "mixed7", 2048: "mixed10"}[dims]).output
    model = keras.Model(whole.input, keras.layers.GlobalAveragePooling2D()(tap))
    return _inception(
        "imagenet",
        f"FID-keras-imagenet{dims}",
        dims,
        mode,
        model,
        torch_weights.sha256_of(path),
        verified=hashlib.md5(path.read_bytes()).hexdigest() == KERAS_WEIGHTS["md5"],
        about="Keras' InceptionV3 on ImageNet: not the network of FID, never compare with it",
    )


def _inception(name, score, dims, mode, model, digest, *, verified, about) -> Extractor:
    return Extractor(
        name=name,
        score=score,
        dims=model.output_shape[-1],
        input_size=INCEPTION_SIZE,
        preparation=mode,
        weights=digest,
        verified=verified,
        about=about,
        prepare=lambda images: prepare_for_inception(images, mode),
        model=model,
    )


def _locate_keras_weights() -> Path:
    try:
        # Keras says on stdout that it downloads, and there a result as JSON may be expected.
        with contextlib.redirect_stdout(sys.stderr):
            return Path(
                keras.utils.get_file(
                    KERAS_WEIGHTS["name"],
                    KERAS_WEIGHTS["url"],
                    cache_subdir="models",
                    file_hash=KERAS_WEIGHTS["md5"],
                )
            )
    except Exception as error:  # urllib, sockets and Keras each raise their own
        raise ValueError(
            f"the weights {KERAS_WEIGHTS['name']} are not in Keras' cache and cannot be downloaded"
            f" from {KERAS_WEIGHTS['url']}; fetch that file elsewhere and pass --weights PATH"
        ) from error


def build_custom(path: Path, preparation: str | None) -> Extractor:
    """Return a user's own Keras model (.keras, .h5) or SavedModel as extractor.

    Args:
        preparation: `range=LOW:HIGH` (required: the grey levels 0 and 255 in the model's units),
            and `size=PIXELS` where the model takes any size, separated by commas. One or three
            channels follow from the model; images are area-averaged or linearly interpolated.

    Maps (N, h, w, C) that the model gives are averaged over h and w.
    """
    low, high, size = _read_preparation(path, preparation)
    try:
        if path.is_dir():
            loaded = tf.saved_model.load(str(path))
            function = loaded.signatures["serving_default"]
            (name, spec), *_ = function.structured_input_signature[1].items()
            shape = tuple(spec.shape)

            def model(images, owner=loaded):  # the signature alone would lose its variables
                return next(iter(function(**{name: images}).values()))
        else:
            model = keras.models.load_model(path, compile=False)
            shape = tuple(model.input_shape)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no Keras model (.keras, .h5) and no SavedModel with one input and a"
            f" serving_default signature: {str(error).splitlines()[0]}"
        ) from error
    if len(shape) != 4 or shape[-1] not in (1, 3):
        raise ValueError(f"{path} must take images (N, H, W, 1 or 3), it takes {shape}")
    size = size or shape[1]
    if not size or shape[1] not in (None, size):
        raise ValueError(f"{path} takes images {shape}: add size=PIXELS to --preparation")

    def prepare(images):
        scaled = np.stack([_resize(image, size) for image in images])[..., np.newaxis]
        scaled = scaled / np.float32(255) * np.float32(high - low) + np.float32(low)
        return np.repeat(scaled, shape[-1], axis=-1)

    def pooled(images):
        features = tf.convert_to_tensor(model(images))
        return tf.reduce_mean(features, [1, 2]) if features.shape.rank == 4 else features

    features = pooled(prepare(np.zeros((1, size, size), np.uint8)))
    if features.shape.rank != 2:
        raise ValueError(f"{path} must give (N, D) or (N, h, w, D), it gives {features.shape}")
    return Extractor(
        name=str(path),
        score=f"FD-{path.stem}",
        dims=int(features.shape[1]),
        input_size=size,
        preparation=f"size={size},range={low:g}:{high:g},channels={shape[-1]}",
        weights=_hash_path(path),
        verified=False,
        about="your own model",
        prepare=prepare,
        model=pooled,
    )


def _read_preparation(path: Path, text: str | None) -> tuple[float, float, int | None]:
    needed = (
        f"--features {path} needs its preparation stated: --preparation range=LOW:HIGH[,size=PIXELS],"
        " such as range=-1:1,size=224"
    )
    fields = {}
    for part in (text or "").split(","):
        key, _, value = part.partition("=")
        fields[key.strip()] = value.strip()
    try:
        low, high = map(float, fields.pop("range").split(":"))
        size = int(fields.pop("size")) if "size" in fields else None
    except (KeyError, ValueError):
        raise ValueError(f"{needed}; got {text!r}") from None
    if fields or high <= low or (size is not None and size < 1):
        raise ValueError(f"{needed}; got {text!r}")
    return low, high, size


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    smaller = tuple(min(side, size) for side in image.shape[::-1])
    image = cv2.resize(np.float32(image), smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def _hash_path(path: Path) -> str:
    if path.is_file():
        return torch_weights.sha256_of(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    parts = [f"{file.relative_to(path)}:{torch_weights.sha256_of(file)}" for file in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


EXTRACTORS = {
    "cxr": build_cxr,
    "fid2015": build_fid2015,
    "imagenet": build_imagenet,
    "random": build_random,
}
