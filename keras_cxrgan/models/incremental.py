"""Growing a DCGAN: what a larger network keeps of a smaller one, and what it costs.

The incremental DCGAN doubles its resolution by appending a block and a new output head (the
generator) or input convolution (the discriminator) to `build_generator(..., grown_from=64)`; every
learnt weight between them is kept.

What is appended starts at random, or carries the former image (the idea of Net2Net, Chen et al.
2016, arXiv 1511.05641): the former head writes the image x before its tanh as two maps, x and -x,
of the new block, for relu(x) - relu(-x) = x and lrelu(x) - lrelu(-x) = (1 + slope) x; the new head
enlarges their difference. The discriminator mirrors this with the image averaged down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

HEAD, FORMER_HEAD = "image_convolution", "previous_image_convolution"
STARTS = ("random", "former_image")
# Of the weights through which the other new maps are read at first: they come in from the first
# update on, and all together move an image by less than one grey level of 256.
NOISE = 0.0001


def transfer(
    previous: keras.Model,
    grown: keras.Model,
    *,
    start: str = "random",
    batches: Sequence = (),
    classes: Sequence[int | None] = (),
) -> list[str]:
    """Copy the weights that two sizes share; return the names of the layers copied.

    The previous head has no place in a larger network, unless that fades in: there it goes on
    as the former head. Between networks of one size all is copied but a former head that faded
    out. Weights include the moving statistics of normalizations.

    `start="former_image"` also sets what was appended. A grown generator then makes the former
    images with each pixel repeated, to 1/255 of their range; a grown discriminator gives the
    former's logits for images averaged down. Both hold exactly, but for that small noise, in
    inference, and in training without normalization. In training with batch normalization they
    hold for batches with the statistics of `batches`: the appended normalization gives every
    batch their mean and contrast. Instance normalization in the discriminator gives them to every
    image, in inference too, so its logits are only near the former's.

    Args:
        start: `"random"`, the appended layers stay as they are; or `"former_image"`.
        batches: for `"former_image"`, some arrays of what `previous` takes, each one a batch as
            in training: latents, or real images in [-1, 1] of the former size.
        classes: of conditional networks, for each class of `grown` its number in `previous`, or
            None where that has no such class, which then keeps its own weights; () for the same.

    Raises `ValueError` when `grown` is no growth of `previous`, or cannot carry its image: that
    takes two maps for each channel in every block, kernels of 2 or more pixels, no ways around the
    blocks, no spectral normalization, a learnt scale and offset in each normalization, and no
    instance normalization in the generator.

    Example:
        >>> small = build_generator(64, grown_from=64, width=8)
        >>> large = build_generator(128, grown_from=64, width=8)
        >>> transfer(small, large)[-1]
        'convolution_32'
        >>> latents = np.random.default_rng(0).normal(size=(4, 16, 100))
        >>> _ = transfer(small, large, start="former_image", batches=latents)
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    copied, head = [], HEAD if _size(previous) == _size(grown) else FORMER_HEAD
    for layer in previous.layers:
        # A former head and its fade have done their work by the time a network grows again.
        if not layer.weights or layer.name in (FORMER_HEAD, "fade_in"):
            continue
        try:
            target = grown.get_layer(head if layer.name == HEAD else layer.name)
            weights = layer.get_weights()
            if classes and (layer.name == "projection" or layer.name.startswith("class_")):
                weights = _of_classes(layer, target, classes)
            target.set_weights(weights)
        except ValueError:
            if layer.name == HEAD and head != HEAD:
                continue
            raise ValueError(
                f"the {grown.name} of {_size(grown)} pixels cannot take over the weights of one of"
                f" {_size(previous)}: layer {layer.name} has no equal; give both the same networks"
                " (width, channels, grown_from, growth_width, ...)"
            ) from None
        copied.append(layer.name)
    if start == "former_image":
        _carry_former_image(previous, grown, batches)
    return copied


def _of_classes(layer, target, classes) -> list[np.ndarray]:
    """Return a layer's own weights, but another's for the classes that both have."""
    theirs, (kernel, *others) = layer.get_weights()[0], target.get_weights()
    if layer.name == "projection":  # whose classes are columns, as those of scales are rows
        theirs, kernel = theirs.T, kernel.T
    kernel = kernel.copy()
    for place, number in enumerate(classes):
        if number is not None:
            kernel[place] = theirs[number]
    # A spectral norm's vector is found anew within a few updates.
    return [kernel.T if layer.name == "projection" else kernel, *others]


def _carry_former_image(previous, grown, batches) -> None:
    known = {layer.name for layer in previous.layers}
    appended = [
        layer
        for layer in grown.layers
        if layer.name.startswith("convolution_") and layer.name not in known
    ]
    former, head = previous.get_layer(HEAD), grown.get_layer(HEAD)
    generates = len(grown.outputs[0].shape) == 4
    channels = (grown.outputs if generates else grown.inputs)[0].shape[-1]
    # The image's way through the new layers; what the former head did is done at one end of it.
    way = [*appended, head] if generates else [head, *appended]
    reader = way[0] if generates else way[-1]
    normalizations = {
        layer: grown.get_layer(name)
        for layer in appended
        for name in [layer.name.replace("convolution", "normalization")]
        if any(other.name == name for other in grown.layers)
    }
    _check_can_carry(grown, way, channels, normalizations.values(), generates, batches)
    each_image = any(
        isinstance(layer, keras.layers.GroupNormalization) for layer in normalizations.values()
    )
    slope = next(
        (x.negative_slope for x in grown.layers if isinstance(x, keras.layers.LeakyReLU)), 0.0
    )
    if normalizations:
        read = _moments(_outputs(previous, former, batches), each_image)
        # Repeated pixels have the moments of the image itself.
        resampled = read if generates else _moments(batches, each_image)
    for layer in way:
        initial = _kernel(layer)
        if layer is reader:
            kernel, bias = _kernel(former), former.get_weights()[1:]
        else:
            kernel = _resampling(layer)[..., np.newaxis, np.newaxis] * np.eye(channels)
            bias = [np.zeros(channels)] * former.use_bias
        if layer is not way[0]:
            kernel = _of_difference(kernel, initial, slope)
        signs = np.ones(kernel.shape[3])
        if layer is not way[-1]:
            signs = np.array([1, -1]).repeat(channels)
            rest = initial[..., 2 * channels :]
            kernel = np.concatenate([kernel, -kernel, rest], axis=3)
            bias = [np.concatenate([b, -b, np.zeros(rest.shape[3])]) for b in bias]
        _set_kernel(layer, kernel, bias)
        if layer in normalizations:
            mean, variance = read if layer is reader else resampled
            of_map = np.arange(len(signs)) % len(mean)
            _pass_on(normalizations[layer], signs * mean[of_map], variance[of_map])


def _check_can_carry(grown, way, channels, normalizations, generates, batches) -> None:
    """Raise `ValueError` for networks that cannot carry a former image."""
    problem = ""
    narrowest = min(_kernel(layer).shape[3] for layer in way[:-1]) if way[1:] else 0
    if not way[1:]:
        problem = "it has no block that the former lacks"
    elif narrowest < 2 * channels:
        problem = (
            f"a block has {narrowest} maps and a plus and a minus image need {2 * channels}"
            f" (growth_width={2 * channels} or more)"
        )
    elif any(layer.name.startswith("around_") for layer in grown.layers):
        problem = "ways around its blocks add other maps to the image's (residual=False)"
    elif any(layer.non_trainable_weights for layer in way):
        problem = "spectral normalization scales what carries the image (spectral=False)"
    elif any(layer.kernel_size in (1, (1, 1)) for layer in way):
        problem = "its kernels have 1 pixel (give 2 or more)"
    elif any(layer.gamma is None or layer.beta is None for layer in normalizations):
        problem = "a normalization has no learnt scale and offset (normalization_affine=True)"
    elif generates and any(
        isinstance(layer, keras.layers.GroupNormalization) for layer in normalizations
    ):
        problem = "instance normalization takes each image's brightness (normalization='batch')"
    elif normalizations and not len(batches):
        problem = "its normalization needs batches of what the former network takes"
    if problem:
        raise ValueError(
            f"{grown.name} {_size(grown)} cannot start from the former image: {problem};"
            " or pass start='random'"
        )


def _kernel(layer) -> np.ndarray:
    """Return a convolution's kernel as (height, width, input maps, output maps)."""
    kernel = layer.get_weights()[0]
    return kernel.swapaxes(2, 3) if isinstance(layer, keras.layers.Conv2DTranspose) else kernel


def _set_kernel(layer, kernel, bias) -> None:
    if isinstance(layer, keras.layers.Conv2DTranspose):
        kernel = kernel.swapaxes(2, 3)
    layer.set_weights([kernel, *bias])


def _resampling(layer) -> np.ndarray:
    """Return the plane (height, width) with which a layer repeats pixels or averages 2x2."""
    size = _kernel(layer).shape[0]
    plane = np.zeros((size, size))
    if getattr(layer, "strides", (1, 1)) == (1, 1):  # repeats before it convolves
        plane[size // 2, size // 2] = 1
        return plane
    # The two pixels under one: where 'same' padding puts them for stride 2.
    first = (size - 2) // 2
    plane[first : first + 2, first : first + 2] = 1
    return plane if isinstance(layer, keras.layers.Conv2DTranspose) else plane / 4


def _of_difference(kernel, initial, slope) -> np.ndarray:
    """Return a kernel that reads images from activated plus and minus maps, the others hardly."""
    others = initial[:, :, 2 * kernel.shape[2] :, : kernel.shape[3]]
    if others.size:
        spread = np.sqrt(np.mean(np.square(others)) * others.shape[2])
        others = others * (NOISE / spread)
    kernel = kernel / (1 + slope)
    return np.concatenate([kernel, -kernel, others], axis=2)


def _outputs(network, layer, batches):
    """Yield what a layer makes of each batch in training; the network stays as it is."""
    weights = network.get_weights()
    part = keras.Model(network.inputs, layer.output)
    for batch in batches:
        outputs = part(keras.ops.convert_to_tensor(batch), training=True)
        yield keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))
    network.set_weights(weights)  # moving statistics


def _moments(batches, each_image: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and variance of each map in a batch (or in an image), on average."""
    moments = []
    for batch in batches:
        batch = np.asarray(batch, np.float64)
        axes = (1, 2) if each_image else (0, 1, 2)
        pair = batch.mean(axes), batch.var(axes)
        moments.append([moment.reshape(-1, batch.shape[-1]).mean(0) for moment in pair])
    mean, variance = np.mean(moments, axis=0)
    return mean, variance


def _pass_on(normalization, mean, variance) -> None:
    """Let a normalization leave its first maps, of such a mean and variance, as they are."""
    values = {
        "gamma": np.sqrt(variance + normalization.epsilon),
        "beta": mean,
        "moving_mean": mean,
        "moving_variance": variance,
    }
    for name, first in values.items():
        weight = getattr(normalization, name, None)
        if weight is not None:
            weight.assign(np.concatenate([first, weight.numpy()[len(first) :]]))


def _size(network) -> int:
    tensors = (*network.inputs, *network.outputs)
    return next(tensor.shape[1] for tensor in tensors if len(tensor.shape) == 4)


@dataclass(frozen=True)
class Cost:
    """What one image costs in a network: trainable weights, numbers kept, multiplications."""

    parameters: int
    activations: int  # outputs of all layers, numbers
    multiplications: int  # of one forward pass


def cost(network: keras.Model) -> Cost:
    """Count a functional network's cost for one image from the shapes of its layers.

    Example: `cost(build_generator(64, width=8)).parameters` is 145776.
    """
    activations = multiplications = 0
    for layer in network.layers:
        outputs = math.prod(layer.output.shape[1:])
        activations += outputs
        kernel = next((weight for weight in layer.weights if weight.name == "kernel"), None)
        if kernel is not None:
            # A convolution that enlarges uses its kernel once for each input pixel.
            pixels = min(_pixels(layer.input.shape), _pixels(layer.output.shape))
            fused = 4 if type(layer).__name__ == "UpsampleConv2D" else 1
            multiplications += fused * pixels * math.prod(kernel.shape)
    parameters = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    return Cost(parameters, activations, multiplications)


def _pixels(shape) -> int:
    return math.prod(shape[1:-1])
