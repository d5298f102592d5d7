"""Layers that Keras does not have."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_cxrgan")
class UpsampleConv2D(keras.layers.Layer):
    """Nearest-neighbour UpSampling2D(2) followed by a 'same' Conv2D, computed in one step.

    (N, H, W, C) -> (N, 2H, 2W, filters). Upsampling repeats each pixel, so three taps of a 3x3
    kernel fall on only two different pixels along an axis. The pair of layers is therefore one
    transposed convolution of stride 2 whose 4x4 kernel is the flipped 3x3 kernel summed over its
    four shifts: the same function of the same weights, without the four times larger map between.

    The weights are those of the plain `Conv2D` (kernel, bias), in its order and shape, so that
    `plain_model.set_weights(fused_model.get_weights())` exports it to standard layers.

    Example: `UpsampleConv2D(64)(keras.Input((8, 8, 128)))` has shape (None, 16, 16, 64).
    """

    def __init__(
        self, filters, kernel_size=3, use_bias=True, kernel_initializer="glorot_uniform", **kwargs
    ):
        super().__init__(**kwargs)
        if kernel_size % 2 == 0:
            raise ValueError(f"UpsampleConv2D needs an odd kernel_size, got {kernel_size}")
        self.filters = filters
        self.kernel_size = kernel_size
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        size = self.kernel_size
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size, size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs):
        # Not ops.flip, which fails for two axes in Keras 3.9.
        flipped = ops.convert_to_tensor(self.kernel)[::-1, ::-1]
        kernel = sum(
            ops.pad(flipped, ((row, 1 - row), (column, 1 - column), (0, 0), (0, 0)))
            for row in (0, 1)
            for column in (0, 1)
        )
        # A transposed convolution takes its kernel as (height, width, output, input).
        outputs = ops.conv_transpose(
            inputs, ops.transpose(kernel, (0, 1, 3, 2)), strides=2, padding="same"
        )
        return outputs + self.bias if self.use_bias else outputs

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        double = [None if side is None else 2 * side for side in (height, width)]
        return (batch, *double, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="keras_cxrgan")
class FadeIn(keras.layers.Layer):
    """A blend of what a network was before it grew with what was appended (Karras et al. 2018).

    [former, grown], of one shape -> (1 - alpha) former + alpha grown. `alpha` rises from 0 to 1
    over `images` training images; it is a weight, so it is saved, resumed and exported.

    Example: `FadeIn(10_000)([former, grown])` is `former` until `follow` is told of an image.
    """

    def __init__(self, images: int, **kwargs):
        super().__init__(**kwargs)
        if images < 1:
            raise ValueError(f"FadeIn needs 1 image or more to fade over, got {images}")
        self.images = images

    def build(self, input_shape):
        self.alpha = self.add_weight(
            name="alpha",
            shape=(),
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def follow(self, images_seen):
        """Set alpha to what it is after so many images of this stage."""
        self.alpha.assign(ops.minimum(ops.cast(images_seen, "float32") / self.images, 1.0))

    def call(self, inputs):
        former, grown = inputs
        alpha = ops.cast(self.alpha, grown.dtype)
        return (1 - alpha) * former + alpha * grown

    def compute_output_shape(self, input_shape):
        return input_shape[1]

    def get_config(self):
        return {**super().get_config(), "images": self.images}
