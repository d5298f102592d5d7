"""The DCGAN pair (Radford et al. 2016, arXiv 1511.06434) at any power-of-two size.

Depth is a loop and resolution a number: a network has log2(image_size / base_size) blocks, each
doubling (generator) or halving (discriminator) the side. All five papers are arguments of these
two functions; see `RECIPES` in recipe.py.

Two conventions of initial weights and constants exist in the papers' code, and both matter to
how a GAN starts:

| convention | kernels | BN scale | BN momentum, epsilon | biases in convolutions |
|---|---|---|---|---|
| `pytorch` | N(0, 0.02) | N(1, 0.02) | 0.9, 1e-5 | none |
| `keras` | Glorot uniform | 1 | 0.99, 1e-3 | yes, zero at first |
"""

from __future__ import annotations

import math

import keras
from keras import layers

from keras_cxrgan.models.layers import UpsampleConv2D


def build_generator(
    image_size: int = 64,
    channels: int = 1,
    latent_dim: int = 100,
    *,
    base_size: int = 4,
    width: int = 64,
    max_width: int = 512,
    upsampling: str = "transpose",
    fused: bool = False,
    kernel_size: int = 4,
    activation: str = "relu",
    normalization: str | None = "batch",
    normalize_base: bool = True,
    convention: str = "pytorch",
    synchronized: bool = False,
) -> keras.Model:
    """Return a generator: latents (N, latent_dim) -> images (N, S, S, channels) in [-1, 1].

    A dense layer makes the first map of `base_size`; each block doubles the side and has
    `min(max_width, width * image_size / 2 / side)` maps; the last ends in tanh.

    Args:
        upsampling: `"transpose"` is Conv2DTranspose of stride 2 (the DCGAN paper); `"resize"` is
            UpSampling2D followed by Conv2D (Venu 2020), which leaves no checkerboard.
        fused: with `"resize"`, compute each pair in one step (`UpsampleConv2D`): the same
            weights and the same images, faster. `False` gives the plain Keras layers.
        normalize_base: whether the first map is normalized too, as in the tutorial DCGAN.
        synchronized: batch statistics over all replicas; needed under a tf.distribute strategy.

    Example:
        >>> build_generator(64, channels=3).count_params()  # 3,576,704 of them trainable
        3578624
    """
    sides = _sides(image_size, base_size)
    settings = _convention(convention)

    def kernels():  # fresh each time: one initializer object gives all layers the same numbers
        return {"kernel_initializer": settings["kernel"](), "use_bias": settings["bias"]}

    def normalize_and_activate(x, normalized):
        if normalized:
            x = _normalization(normalization, settings, synchronized=synchronized)(x)
        return layers.LeakyReLU(0.2)(x) if activation == "leaky_relu" else layers.ReLU()(x)

    latents = keras.Input((latent_dim,), name="latents")
    maps = _maps(base_size, image_size, width, max_width)
    x = layers.Dense(base_size * base_size * maps, name="base", **kernels())(latents)
    x = layers.Reshape((base_size, base_size, maps))(x)
    x = normalize_and_activate(x, normalization and normalize_base)
    for side in sides[1:]:
        last = side == image_size
        maps = channels if last else _maps(side, image_size, width, max_width)
        name = "image_convolution" if last else f"convolution_{side}"
        if upsampling == "transpose":
            x = layers.Conv2DTranspose(
                maps, kernel_size, strides=2, padding="same", name=name, **kernels()
            )(x)
        elif fused:
            x = UpsampleConv2D(maps, kernel_size, name=name, **kernels())(x)
        else:
            x = layers.UpSampling2D(2, interpolation="nearest")(x)
            x = layers.Conv2D(maps, kernel_size, padding="same", name=name, **kernels())(x)
        if not last:
            x = normalize_and_activate(x, normalization)
    # Images are float32 whatever the precision inside: tanh in bfloat16 has 8 bits at most.
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model(latents, images, name="generator")


def build_discriminator(
    image_size: int = 64,
    channels: int = 1,
    *,
    base_size: int = 4,
    width: int = 64,
    max_width: int = 512,
    kernel_size: int = 4,
    normalization: str | None = "batch",
    normalization_affine: bool = True,
    dropout: tuple[float, ...] = (),
    convention: str = "pytorch",
    synchronized: bool = False,
) -> keras.Model:
    """Return a discriminator: images (N, S, S, channels) in [-1, 1] -> logits (N, 1).

    Mirrors `build_generator`: stride-2 convolutions from `width` maps, doubling to `max_width`,
    LeakyReLU 0.2, and a dense layer on the map of `base_size`. There is no sigmoid: losses take
    logits, and only reports show probabilities. The first block is never normalized.

    Args:
        normalization: `"batch"`, `"instance"` (the WGAN-GP critic) or None.
        normalization_affine: learnt scale and offset of each map.
        dropout: one rate for each block, after its activation. (Dropping commutes with
            LeakyReLU, so papers that drop before it are the same function.)

    Example:
        >>> build_discriminator(64, channels=3, normalization="instance").count_params()
        2765568
    """
    sides = _sides(image_size, base_size)[:-1][::-1]
    settings = _convention(convention)

    def kernels():
        return {"kernel_initializer": settings["kernel"](), "use_bias": settings["bias"]}

    images = keras.Input((image_size, image_size, channels), name="images")
    x = images
    for block, side in enumerate(sides):
        maps = _discriminator_maps(block, width, max_width)
        x = layers.Conv2D(
            maps, kernel_size, strides=2, padding="same", name=f"convolution_{side}", **kernels()
        )(x)
        if normalization and block > 0:
            x = _normalization(
                normalization, settings, affine=normalization_affine, synchronized=synchronized
            )(x)
        x = layers.LeakyReLU(0.2)(x)
        if dropout and dropout[block]:
            x = layers.Dropout(dropout[block])(x)
    x = layers.Flatten()(x)
    logits = layers.Dense(1, dtype="float32", name="logits", **kernels())(x)
    return keras.Model(images, logits, name="discriminator")


def _sides(image_size: int, base_size: int) -> list[int]:
    """Return the side of each feature map, from the base to the image."""
    doublings = math.log2(image_size / base_size)
    if doublings < 1 or doublings != int(doublings):
        raise ValueError(
            "image_size must be base_size doubled once or more,"
            f" got image_size={image_size} and base_size={base_size}"
        )
    return [base_size * 2**step for step in range(int(doublings) + 1)]


def _maps(side: int, image_size: int, width: int, max_width: int) -> int:
    return min(max_width, width * image_size // (2 * side))


def _discriminator_maps(block: int, width: int, max_width: int) -> int:
    return min(max_width, width * 2**block)


def _convention(name: str) -> dict:
    if name == "pytorch":
        return {
            "kernel": lambda: keras.initializers.RandomNormal(0.0, 0.02),
            "scale": lambda: keras.initializers.RandomNormal(1.0, 0.02),
            "bias": False,
            "momentum": 0.9,
            "epsilon": 1e-5,
        }
    if name == "keras":
        return {
            "kernel": keras.initializers.GlorotUniform,
            "scale": keras.initializers.Ones,
            "bias": True,
            "momentum": 0.99,
            "epsilon": 1e-3,
        }
    raise ValueError(f"convention must be pytorch or keras, got {name!r}")


def _normalization(name: str, settings: dict, *, affine: bool = True, synchronized: bool = False):
    if name == "batch":
        return layers.BatchNormalization(
            momentum=settings["momentum"],
            epsilon=settings["epsilon"],
            gamma_initializer=settings["scale"](),
            scale=affine,
            center=affine,
            synchronized=synchronized,
        )
    if name == "instance":
        # One group a map is instance normalization (Ulyanov et al. 2016).
        return layers.GroupNormalization(
            groups=-1,
            epsilon=settings["epsilon"],
            gamma_initializer=settings["scale"](),
            scale=affine,
            center=affine,
        )
    raise ValueError(f"normalization must be batch, instance or None, got {name!r}")
