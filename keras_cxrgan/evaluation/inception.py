"""The Inception network that FID was defined on (2015-12-05, 1008 classes), as a Keras model.

It is not `keras.applications.InceptionV3`: that has other weights, 1000 classes, and an average
pool where this network has a max pool in its last block.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np

from keras_cxrgan.evaluation.resize import INCEPTION_SIZE

CLASSES = 1008

EPSILON = 1e-3
"""Added to the variances by the batch normalizations of the checkpoint."""

TAPS = (64, 192, 768, 2048, "logits", "logits_unbiased")
"""Where features can be taken: globally averaged maps by their channels, and the class logits.

`logits_unbiased` leaves out the bias of the last layer, as the Inception Score does.
"""


class Conv(NamedTuple):
    """Convolution, batch normalization and ReLU: one BasicConv2d of the PyTorch port."""

    name: str
    filters: int
    kernel: tuple[int, int]
    strides: int = 1
    padding: str = "same"


class Pool(NamedTuple):
    """A 3x3 pool."""

    kind: str
    strides: int = 1
    padding: str = "same"


class Fork(NamedTuple):
    """Branches that start from the same map and are concatenated in this order."""

    prefix: str
    branches: tuple[tuple[Conv | Pool | Fork, ...], ...]


class Tap(NamedTuple):
    """The global average of the map at this point is one of the features."""

    channels: int


def _halve(name: str, filters: int) -> Conv:
    return Conv(name, filters, (3, 3), strides=2, padding="valid")


def _block_35(prefix: str, pooled: int) -> Fork:
    one = (Conv("branch1x1", 64, (1, 1)),)
    five = Conv("branch5x5_1", 48, (1, 1)), Conv("branch5x5_2", 64, (5, 5))
    double = (
        Conv("branch3x3dbl_1", 64, (1, 1)),
        Conv("branch3x3dbl_2", 96, (3, 3)),
        Conv("branch3x3dbl_3", 96, (3, 3)),
    )
    pool = Pool("average"), Conv("branch_pool", pooled, (1, 1))
    return Fork(prefix, (one, five, double, pool))


def _block_35_to_17(prefix: str) -> Fork:
    double = (
        Conv("branch3x3dbl_1", 64, (1, 1)),
        Conv("branch3x3dbl_2", 96, (3, 3)),
        _halve("branch3x3dbl_3", 96),
    )
    return Fork(prefix, ((_halve("branch3x3", 384),), double, (Pool("max", 2, "valid"),)))


def _block_17(prefix: str, inner: int) -> Fork:
    one = (Conv("branch1x1", 192, (1, 1)),)
    seven = (
        Conv("branch7x7_1", inner, (1, 1)),
        Conv("branch7x7_2", inner, (1, 7)),
        Conv("branch7x7_3", 192, (7, 1)),
    )
    double = (
        Conv("branch7x7dbl_1", inner, (1, 1)),
        Conv("branch7x7dbl_2", inner, (7, 1)),
        Conv("branch7x7dbl_3", inner, (1, 7)),
        Conv("branch7x7dbl_4", inner, (7, 1)),
        Conv("branch7x7dbl_5", 192, (1, 7)),
    )
    pool = Pool("average"), Conv("branch_pool", 192, (1, 1))
    return Fork(prefix, (one, seven, double, pool))


def _block_17_to_8(prefix: str) -> Fork:
    three = Conv("branch3x3_1", 192, (1, 1)), _halve("branch3x3_2", 320)
    seven = (
        Conv("branch7x7x3_1", 192, (1, 1)),
        Conv("branch7x7x3_2", 192, (1, 7)),
        Conv("branch7x7x3_3", 192, (7, 1)),
        _halve("branch7x7x3_4", 192),
    )
    return Fork(prefix, (three, seven, (Pool("max", 2, "valid"),)))


def _block_8(prefix: str, pool_kind: str) -> Fork:
    def both(across: str, down: str) -> Fork:
        return Fork("", ((Conv(across, 384, (1, 3)),), (Conv(down, 384, (3, 1)),)))

    one = (Conv("branch1x1", 320, (1, 1)),)
    three = Conv("branch3x3_1", 384, (1, 1)), both("branch3x3_2a", "branch3x3_2b")
    double = (
        Conv("branch3x3dbl_1", 448, (1, 1)),
        Conv("branch3x3dbl_2", 384, (3, 3)),
        both("branch3x3dbl_3a", "branch3x3dbl_3b"),
    )
    pool = Pool(pool_kind), Conv("branch_pool", 192, (1, 1))
    return Fork(prefix, (one, three, double, pool))


NETWORK: tuple[Conv | Pool | Fork | Tap, ...] = (
    _halve("Conv2d_1a_3x3", 32),
    Conv("Conv2d_2a_3x3", 32, (3, 3), padding="valid"),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    Pool("max", 2, "valid"),
    Tap(64),
    Conv("Conv2d_3b_1x1", 80, (1, 1)),
    Conv("Conv2d_4a_3x3", 192, (3, 3), padding="valid"),
    Pool("max", 2, "valid"),
    Tap(192),
    _block_35("Mixed_5b.", 32),
    _block_35("Mixed_5c.", 64),
    _block_35("Mixed_5d.", 64),
    _block_35_to_17("Mixed_6a."),
    _block_17("Mixed_6b.", 128),
    _block_17("Mixed_6c.", 160),
    _block_17("Mixed_6d.", 160),
    _block_17("Mixed_6e.", 192),
    Tap(768),
    _block_17_to_8("Mixed_7a."),
    _block_8("Mixed_7b.", "average"),
    # The checkpoint has a max pool here and nowhere else at stride 1. An average pool, as in
    # every later Inception, makes the last 192 of the 2048 features wrong, and only those.
    _block_8("Mixed_7c.", "max"),
    Tap(2048),
)
"""Szegedy et al. 2016, "Rethinking the Inception Architecture", as in the 2015-12-05 checkpoint.

The graph, the names and the shapes of all weights derive from this table.
"""


def _add_shapes(steps: Sequence, channels: int, prefix: str, shapes: dict) -> int:
    """Adds the names and shapes of the steps' weights; returns the channels that come out."""
    for step in steps:
        if isinstance(step, Conv):
            shapes[f"{prefix}{step.name}.conv.weight"] = (step.filters, channels, *step.kernel)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{prefix}{step.name}.bn.{part}"] = (step.filters,)
            channels = step.filters
        elif isinstance(step, Fork):
            channels = sum(
                _add_shapes(branch, channels, prefix + step.prefix, shapes)
                for branch in step.branches
            )
    return channels


def _all_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    channels = _add_shapes(NETWORK, 3, "", shapes)
    return shapes | {"fc.weight": (CLASSES, channels), "fc.bias": (CLASSES,)}


SHAPES = _all_shapes()
"""Name -> shape of the 472 arrays of the checkpoint, in PyTorch's names, layout and order."""


def build_inception(taps: Sequence[int | str] = (768,)) -> keras.Model:
    """The network up to the deepest of the `TAPS` asked for, with weights of zero.

    Takes float32 (N, 299, 299, 3) in [-1, 1], as `resize.prepare_for_inception` makes it; gives
    float32 (N, D): one tensor for one tap, a list in the order asked for several. Batch
    normalizations are folded into the convolutions by `load_state_dict`, so that no `training`
    flag can change a feature. Raises ValueError for an unknown tap.

    Example:
        model = build_inception((64, 768))
        load_state_dict(model, random_state_dict())
        shallow, deep = model(np.zeros((1, 299, 299, 3), np.float32))
    """
    taps = tuple(taps)
    if not taps or not set(taps) <= set(TAPS):
        raise ValueError(f"got the taps {taps}: needs one or more of {TAPS}")
    inputs = tensor = keras.Input((INCEPTION_SIZE, INCEPTION_SIZE, 3), dtype="float32")
    features = {}
    for step in NETWORK:
        if not isinstance(step, Tap):
            tensor = _apply((step,), tensor, "")
            continue
        average = keras.layers.GlobalAveragePooling2D(name=f"features_{step.channels}", **_FLOAT32)
        features[step.channels] = average(tensor)
        if features.keys() >= set(taps):
            break
    for tap in {"logits", "logits_unbiased"}.intersection(taps):
        dense = keras.layers.Dense(
            CLASSES, use_bias=tap == "logits", kernel_initializer="zeros", name=tap, **_FLOAT32
        )
        features[tap] = dense(features[2048])
    outputs = [features[tap] for tap in taps]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name="fid_inception")


def _apply(steps: Sequence[Conv | Pool | Fork], tensor, prefix: str):
    for step in steps:
        if isinstance(step, Conv):
            layer = keras.layers.Conv2D(
                step.filters,
                step.kernel,
                step.strides,
                step.padding,
                activation="relu",
                kernel_initializer="zeros",
                name=prefix + step.name,
                **_FLOAT32,
            )
            tensor = layer(tensor)
        elif isinstance(step, Pool):
            tensor = _POOLS[step.kind](3, step.strides, step.padding, **_FLOAT32)(tensor)
        else:
            branches = [_apply(branch, tensor, prefix + step.prefix) for branch in step.branches]
            tensor = keras.layers.Concatenate(**_FLOAT32)(branches)
    return tensor


# Whatever the global policy is: in half precision the same images have another score.
_FLOAT32 = {"dtype": "float32"}
# Keras does not count the padding in averages; this network does not either, torchvision's does.
_POOLS = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}


def load_state_dict(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Fills a model of `build_inception` with arrays named and laid out as in PyTorch.

    `arrays` must have exactly the keys and shapes of `SHAPES`, also for a model that was cut;
    `num_batches_tracked` is ignored. Raises ValueError for a missing, extra or misshaped key.
    """
    keys = {key for key in arrays if not key.endswith(".num_batches_tracked")}
    missing, extra = sorted(SHAPES.keys() - keys), sorted(keys - SHAPES.keys())
    shapes = {key: np.shape(arrays[key]) for key in SHAPES.keys() & keys}
    wrong = [
        f"{key} {shapes[key]} instead of {shape}"
        for key, shape in SHAPES.items()
        if key in shapes and shapes[key] != shape
    ]
    faults = {"missing": missing, "extra": extra, "misshaped": wrong}
    if any(faults.values()):
        counts = "; ".join(
            f"{len(found)} {word}: {found[0]}" for word, found in faults.items() if found
        )
        raise ValueError(f"these are not weights of the FID Inception ({counts})")
    for layer in model.layers:
        if layer.name in ("logits", "logits_unbiased"):
            bias = [arrays["fc.bias"]] if layer.use_bias else []
            layer.set_weights([np.transpose(arrays["fc.weight"]), *bias])
        elif layer.weights:
            layer.set_weights(_fold(layer.name, arrays))


def _fold(name: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Kernel (rows, columns, in, out) and bias of a convolution with its batch normalization."""
    gamma, beta, mean, variance = (
        np.asarray(arrays[f"{name}.bn.{part}"], np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    # From (out, in, rows, columns). In float64, so that only the last rounding is lost.
    kernel = np.transpose(arrays[f"{name}.conv.weight"], (2, 3, 1, 0))
    return [(kernel * scale).astype(np.float32), (beta - mean * scale).astype(np.float32)]


def random_state_dict(seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded random weights for all of `SHAPES`, each array drawn from its own name.

    They are scaled (He et al. 2015) so that activations neither vanish nor explode: an untrained
    network tells many images apart. Its distances are no FID and must be labelled random.
    """
    return {name: _random(name, shape, seed) for name, shape in SHAPES.items()}


def _random(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    # Seed 0 is the rule by which the numbers in tests/evaluation/data were made elsewhere.
    random = np.random.RandomState(zlib.crc32((f"{seed}:{name}" if seed else name).encode()))
    if name.endswith((".bn.weight", ".bn.running_var")):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith(".conv.weight"):
        deviation = np.sqrt(2 / np.prod(shape[1:]))
    elif name.startswith("fc."):
        deviation = 0.02
    else:
        deviation = 0.2 if name.endswith(".bn.bias") else 0.3
    return (random.standard_normal(shape) * deviation).astype(np.float32)
