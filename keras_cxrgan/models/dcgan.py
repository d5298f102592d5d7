"""The DCGAN pair (Radford et al. 2016, arXiv 1511.06434) at any power-of-two size.

Depth is a loop and resolution a number: a network has log2(image_size / base_size) blocks, each
doubling (generator) or halving (discriminator) the side. All five papers are arguments of these
two functions; see `RECIPES` in recipe.py.

A pair can be grown: `grown_from` is the size whose networks it contains, and each doubling beyond
it appends a block at the image's end. Layers are named by the side of their feature map, so that
what two sizes share has one name (models/incremental.py copies the weights).

Two conventions of initial weights and constants exist in the papers' code, and both matter to
how a GAN starts:

| convention | kernels | BN scale | BN momentum, epsilon | biases in convolutions |
|---|---|---|---|---|
| `pytorch` | N(0, 0.02) | N(1, 0.02) | 0.9, 1e-5 | none |
| `keras` | Glorot uniform | 1 | 0.99, 1e-3 | yes, zero at first |

N(0, 0.02) relies on the normalization after it: in a network without any, each layer shrinks what
passes through, and a discriminator learns next to nothing (experiments/results, "Few films").
"""

from __future__ import annotations

import functools
import math

import keras
from keras import layers, ops

from keras_cxrgan.models.layers import (
    FadeIn,
    GroupedBatchNormalization,
    InstanceNormalization,
    MinibatchStandardDeviation,
    SpectralConv2D,
    SpectralDense,
    UpsampleConv2D,
)

MODULATION_UNITS = 32  # hidden ones of self-modulation, as in its paper


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
    grown_from: int = 0,
    growth_width: tuple[int, ...] = (8,),
    previous_size: int = 0,
    fade_in: int = 0,
    classes: int = 0,
    residual: bool = False,
    self_modulation: bool = False,
    group_size: int = 0,
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
        grown_from: size of the network that this one contains; 0 for one that was never grown.
        growth_width: feature maps of each block appended to it; one number is for all of them.
        previous_size: size from which it grew to this one, for `fade_in`; 0 for half of it.
        fade_in: training images over which the blocks appended since `previous_size` come in,
            the former image, enlarged, going out; 0 for at once, without the former head.
        classes: 0 for none; else the network takes [latents, labels], labels one-hot
            (N, classes), and each normalization is followed by a scale and an offset of the
            class, 1 and 0 at first (conditional batch normalization, de Vries et al. 2017).
        residual: add to each block's map, before its normalization, the map that the block
            started from, enlarged (after a 1x1 convolution where the number of maps changes).
        self_modulation: follow each normalization by a scale and an offset of the latents, each
            by a network of one hidden layer of `MODULATION_UNITS`, 1 and 0 at first: what an image
            shall be is heard at every size, not at the first only (Chen et al. 2019, "On self
            modulation for generative adversarial networks", arXiv 1810.01365).
        group_size: with `"batch"`, images that are normalized together in use, as in training
            (`GroupedBatchNormalization`); 0 for Keras' moving averages.

    Example:
        >>> build_generator(64, channels=3).count_params()  # 3,576,704 of them trainable
        3578624
    """
    if classes and not normalization:
        raise ValueError(
            f"classes={classes} needs a normalized generator, whose scales are of the classes:"
            " give normalization batch or instance, or classes=0"
        )
    if self_modulation and not normalization:
        raise ValueError(
            "self_modulation needs a normalized generator, whose scales are of the latents:"
            " give normalization batch or instance, or self_modulation=False"
        )
    sides = _sides(image_size, base_size)
    maps = _maps(sides, width, max_width, grown_from, growth_width)
    settings = _convention(convention)
    previous_size = _previous(image_size, grown_from, previous_size) if fade_in else 0

    def kernels():  # fresh each time: one initializer object gives all layers the same numbers
        return {"kernel_initializer": settings["kernel"](), "use_bias": settings["bias"]}

    def double(x, maps, name):
        if upsampling == "transpose":
            return layers.Conv2DTranspose(
                maps, kernel_size, strides=2, padding="same", name=name, **kernels()
            )(x)
        if fused:
            return UpsampleConv2D(maps, kernel_size, name=name, **kernels())(x)
        x = layers.UpSampling2D(2, interpolation="nearest")(x)
        return layers.Conv2D(maps, kernel_size, padding="same", name=name, **kernels())(x)

    def normalize_and_activate(x, side, normalized):
        if normalized:
            x = _normalization(
                normalization, settings, side, synchronized=synchronized, group_size=group_size
            )(x)
            if self_modulation:
                x = layers.Multiply()([x, of_latents("ones", f"latent_scale_{side}", x.shape[-1])])
                x = layers.Add()([x, of_latents("zeros", f"latent_offset_{side}", x.shape[-1])])
            if classes:
                # Beside the scale and offset that all classes share, so that a class of few films
                # has little to learn by itself, and named apart, so that a generator of one class
                # hands its weights on to one of several.
                x = layers.Multiply()([x, of_class("ones", f"class_scale_{side}", x.shape[-1])])
                x = layers.Add()([x, of_class("zeros", f"class_offset_{side}", x.shape[-1])])
        return layers.LeakyReLU(0.2)(x) if activation == "leaky_relu" else layers.ReLU()(x)

    def of_latents(initial, name, maps):
        hidden = layers.Dense(MODULATION_UNITS, activation="relu", name=f"{name}_hidden")(latents)
        # The kernel's zeros: all latents have the same scale, or offset, at first.
        numbers = layers.Dense(
            maps, kernel_initializer="zeros", bias_initializer=initial, name=name
        )(hidden)
        return layers.Reshape((1, 1, maps))(numbers)

    def of_class(initial, name, maps):
        numbers = layers.Dense(maps, use_bias=False, kernel_initializer=initial, name=name)(labels)
        return layers.Reshape((1, 1, maps))(numbers)

    def to_image(x, name):
        # Images are float32 whatever the precision inside: tanh in bfloat16 has 8 bits at most.
        return layers.Activation("tanh", dtype="float32", name=name)(x)

    latents = keras.Input((latent_dim,), name="latents")
    labels = keras.Input((classes,), name="labels") if classes else None
    x = layers.Dense(base_size * base_size * maps[base_size], name="base", **kernels())(latents)
    start = layers.Reshape((base_size, base_size, maps[base_size]))(x)
    x = normalize_and_activate(start, base_size, normalization and normalize_base)
    former = None
    for side in sides[1:]:
        if side == previous_size:
            former = double(x, channels, "previous_image_convolution")
            former = to_image(former, "previous_images")
        if side < image_size:
            x = double(x, maps[side], f"convolution_{side}")
            if residual:
                skip = _to_maps(layers.Conv2D, start, maps[side], side)
                enlarged = layers.UpSampling2D(2)(skip)
                start = x = layers.Add(name=f"around_{side}")([x, enlarged])
            x = normalize_and_activate(x, side, normalization)
    images = to_image(double(x, channels, "image_convolution"), "images")
    if former is not None:
        former = layers.UpSampling2D(image_size // previous_size, dtype="float32")(former)
        images = FadeIn(fade_in, name="fade_in", dtype="float32")([former, images])
    return keras.Model([latents, labels] if classes else latents, images, name="generator")


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
    grown_from: int = 0,
    growth_width: tuple[int, ...] = (8,),
    previous_size: int = 0,
    fade_in: int = 0,
    spectral: bool = False,
    minibatch_stddev: bool = False,
    minibatch_group: int = 4,
    minibatch_features: int = 1,
    classes: int = 0,
    residual: bool = False,
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
        grown_from, growth_width, previous_size, fade_in: as of `build_generator`; the former
            network sees the image averaged down to its size.
        spectral: divide every kernel by its spectral norm (Miyato et al. 2018). All layers then
            have biases, whatever the convention: without one, and without normalization, an
            image of half the contrast would have half the logit.
        minibatch_stddev: show the last convolution how much each `minibatch_group` consecutive
            images differ, as so many numbers as `minibatch_features`
            (`MinibatchStandardDeviation`).
        classes: 0 for none; else the network takes [images, labels], labels one-hot
            (N, classes), and the logit gains the inner product of a vector of the class and the
            last maps summed over their pixels (projection; Miyato & Koyama 2018).
        residual: add to the map of each block but the first, before its normalization, the one
            the block started from, averaged down (after a 1x1 convolution).

    Example:
        >>> build_discriminator(64, channels=3, normalization="instance").count_params()
        2765568
    """
    sides = _sides(image_size, base_size)
    maps = _maps(sides, width, max_width, grown_from, growth_width)
    settings = _convention(convention)
    previous_size = _previous(image_size, grown_from, previous_size) if fade_in else 0
    if previous_size and residual:
        raise ValueError("a residual discriminator cannot fade in: give fade_in=0")
    if minibatch_stddev and len(sides) < 3:
        raise ValueError(
            "minibatch_stddev needs a second block: image_size of 4 times base_size or more,"
            f" got image_size={image_size} and base_size={base_size}"
        )
    convolution = SpectralConv2D if spectral else layers.Conv2D
    dense = SpectralDense if spectral else layers.Dense
    use_bias = spectral or settings["bias"]

    def halve(x, side, name):
        kernels = {"kernel_initializer": settings["kernel"](), "use_bias": use_bias}
        return convolution(
            maps[side], kernel_size, strides=2, padding="same", name=name, **kernels
        )(x)

    images = keras.Input((image_size, image_size, channels), name="images")
    x = start = images
    for block, side in enumerate(sides[-2::-1]):
        if minibatch_stddev and side == base_size:
            x = MinibatchStandardDeviation(
                minibatch_group, minibatch_features, name="minibatch_stddev"
            )(x)
        x = halve(x, side, f"convolution_{side}" if block else "image_convolution")
        if residual:
            if block > 0:
                skip = layers.AveragePooling2D(2)(start)
                skip = _to_maps(convolution, skip, maps[side], side)
                x = layers.Add(name=f"around_{side}")([x, skip])
            start = x
        if normalization and block > 0:
            x = _normalization(
                normalization,
                settings,
                side,
                affine=normalization_affine,
                synchronized=synchronized,
                instance=InstanceNormalization,
            )(x)
        x = layers.LeakyReLU(0.2)(x)
        if dropout and dropout[block]:
            x = layers.Dropout(dropout[block])(x)
        if 2 * side == previous_size:
            former = layers.AveragePooling2D(image_size // previous_size)(images)
            former = layers.LeakyReLU(0.2)(halve(former, side, "previous_image_convolution"))
            x = FadeIn(fade_in, name="fade_in")([former, x])
    logits = dense(
        1,
        dtype="float32",
        name="logits",
        kernel_initializer=settings["kernel"](),
        use_bias=use_bias,
    )(layers.Flatten()(x))
    if not classes:
        return keras.Model(images, logits, name="discriminator")
    labels = keras.Input((classes,), name="labels")
    # The inner products with the vectors of all classes, which are the kernel's columns.
    products = dense(
        classes,
        dtype="float32",
        name="projection",
        kernel_initializer=settings["kernel"](),
        use_bias=False,
    )(ops.sum(x, axis=(1, 2)))
    logits = layers.Add(dtype="float32")(
        [logits, layers.Dot(axes=1, dtype="float32")([labels, products])]
    )
    return keras.Model([images, labels], logits, name="discriminator")


def _to_maps(convolution, x, maps: int, side: int):
    """Return a skip path's map with so many channels."""
    if x.shape[-1] == maps:
        return x
    # Glorot in both conventions: of N(0, 0.02) a map of 64 would come through at a sixth.
    return convolution(
        maps, 1, use_bias=False, kernel_initializer="glorot_uniform", name=f"skip_{side}"
    )(x)


def _sides(image_size: int, base_size: int) -> list[int]:
    """Return the side of each feature map, from the base to the image."""
    doublings = math.log2(image_size / base_size)
    if doublings < 1 or doublings != int(doublings):
        raise ValueError(
            "image_size must be base_size doubled once or more,"
            f" got image_size={image_size} and base_size={base_size}"
        )
    return [base_size * 2**step for step in range(int(doublings) + 1)]


def _maps(sides, width, max_width, grown_from, growth_width) -> dict[int, int]:
    """Return the number of feature maps at each side but the image's."""
    trunk = grown_from or sides[-1]
    appended = [side for side in sides[:-1] if side >= trunk]
    if 1 != len(growth_width) < len(appended):
        raise ValueError(
            f"growth_width needs one number, or one for each of the {len(appended)} blocks from"
            f" {grown_from} to {sides[-1]}, got {len(growth_width)}"
        )
    if trunk not in sides:
        raise ValueError(f"grown_from must be one of {sides[1:]}, got {grown_from}")
    maps = {side: min(max_width, width * trunk // (2 * side)) for side in sides if side < trunk}
    widths = growth_width * len(appended) if len(growth_width) == 1 else growth_width
    return {**maps, **dict(zip(appended, widths))}


def _previous(image_size: int, grown_from: int, previous_size: int) -> int:
    """Return the size that a network grew from, or 0 for the first."""
    if not grown_from or image_size <= grown_from:
        return 0
    return previous_size or image_size // 2


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


def _normalization(
    kind: str,
    settings: dict,
    side: int,
    *,
    affine: bool = True,
    synchronized: bool = False,
    group_size: int = 0,
    instance=functools.partial(layers.GroupNormalization, groups=-1),
):
    name = f"normalization_{side}"
    if kind == "batch":
        batch = layers.BatchNormalization
        if group_size:
            batch = functools.partial(GroupedBatchNormalization, group_size)
        return batch(
            name=name,
            momentum=settings["momentum"],
            epsilon=settings["epsilon"],
            gamma_initializer=settings["scale"](),
            scale=affine,
            center=affine,
            synchronized=synchronized,
        )
    if kind == "instance":
        # Keras' own where no penalty's gradient passes: an exported generator then needs nothing
        # but Keras. One group a map is instance normalization (Ulyanov et al. 2016).
        return instance(
            name=name,
            epsilon=settings["epsilon"],
            gamma_initializer=settings["scale"](),
            scale=affine,
            center=affine,
        )
    raise ValueError(f"normalization must be batch, instance or None, got {kind!r}")
