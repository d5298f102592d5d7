"""Growing a DCGAN: what a larger network keeps of a smaller one, and what it costs.

The incremental DCGAN doubles its resolution by appending a block and a new output head (the
generator) or input convolution (the discriminator) to `build_generator(..., grown_from=64)`; every
learnt weight between them is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np

HEAD, FORMER_HEAD = "image_convolution", "previous_image_convolution"


def transfer(previous: keras.Model, grown: keras.Model) -> list[str]:
    """Copy the weights that two sizes share; return the names of the layers copied.

    The previous head has no place in the grown network, unless that fades in: there it goes on
    as the former head. Weights include the moving statistics of normalizations.

    Raises `ValueError` when `grown` is no growth of `previous`.

    Example:
        >>> small = build_generator(64, grown_from=64, width=8)
        >>> large = build_generator(128, grown_from=64, width=8)
        >>> transfer(small, large)[-1]
        'convolution_32'
    """
    copied = []
    for layer in previous.layers:
        # A former head and its fade have done their work by the time a network grows again.
        if not layer.weights or layer.name in (FORMER_HEAD, "fade_in"):
            continue
        try:
            target = grown.get_layer(FORMER_HEAD if layer.name == HEAD else layer.name)
            target.set_weights(layer.get_weights())
        except ValueError as error:
            if layer.name == HEAD:
                continue
            raise ValueError(
                f"{grown.name} {_size(grown)} did not grow from {previous.name} {_size(previous)}:"
                f" layer {layer.name} has no equal ({str(error).splitlines()[0]}); give both the"
                " same grown_from, width and growth_width"
            ) from None
        copied.append(layer.name)
    return copied


def _size(network) -> int:
    shapes = (network.input_shape, network.output_shape)
    return next(shape[1] for shape in shapes if len(shape) == 4)


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
