"""Layers that Keras does not have."""

from __future__ import annotations

import keras
import numpy as np
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
        size = self.kernel_size
        # Along an axis, number i of the flipped sum over shifts has the taps size - 1 - i and the
        # next. One small matrix product; flips and paddings would take longer than it all saves.
        taps = np.add.outer(np.arange(size + 1), np.arange(size))
        shifts = np.isin(taps, (size - 1, size)).astype("float32")
        kernel = ops.reshape(self.kernel, (size * size, -1))
        kernel = ops.matmul(ops.cast(np.kron(shifts, shifts), kernel.dtype), kernel)
        kernel = ops.reshape(kernel, (size + 1, size + 1, -1, self.filters))
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


def _spectrally_normalized(layer, training):
    """Return a layer's kernel divided by its largest singular value, moving `layer.u` if training.

    The kernel is seen as the matrix (inputs of one output, outputs); Miyato et al. 2018.
    """
    kernel = ops.cast(layer.kernel, "float32")
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
    # Outside the gradient: then that of sigma is v u^T (section 2.3), not the iteration's.
    v = ops.stop_gradient(_unit(ops.matmul(matrix, layer.u)))
    images = ops.matmul(v, matrix)
    u = ops.stop_gradient(_unit(images))
    if training:
        layer.u.assign(u)
    sigma = ops.sum(images * u)
    return ops.cast(kernel / ops.maximum(sigma, 1e-12), layer.compute_dtype)


def _unit(vector):
    return vector / ops.maximum(ops.sqrt(ops.sum(ops.square(vector))), 1e-12)


def _add_singular_vector(layer):
    # The same on every replica: it follows from the kernel and not from the images.
    return layer.add_weight(
        name="u",
        shape=(layer.kernel.shape[-1],),
        initializer="random_normal",
        trainable=False,
        autocast=False,
        aggregation="only_first_replica",
    )


@keras.saving.register_keras_serializable(package="keras_cxrgan")
class SpectralConv2D(keras.layers.Conv2D):
    """A Conv2D that works with its kernel over the kernel's spectral norm (Miyato et al. 2018).

    The kernel is seen as a matrix of (height x width x inputs, filters). Its largest singular
    value is followed by one power iteration for each call with `training=True`; `kernel` itself
    stays as the optimizer left it. (Keras' `SpectralNormalization` overwrites it.)

    Example: `SpectralConv2D(64, 4, strides=2, padding="same")(keras.Input((32, 32, 1)))`
    """

    # Those of the parent class would save its own two weights and leave `u` out.
    save_own_variables = keras.layers.Layer.save_own_variables
    load_own_variables = keras.layers.Layer.load_own_variables

    def build(self, input_shape):
        super().build(input_shape)
        self.u = _add_singular_vector(self)

    def call(self, inputs, training=False):
        outputs = self.convolution_op(inputs, _spectrally_normalized(self, training))
        return self.activation(outputs + self.bias if self.use_bias else outputs)


@keras.saving.register_keras_serializable(package="keras_cxrgan")
class SpectralDense(keras.layers.Dense):
    """A Dense layer that works with its kernel over its spectral norm; see `SpectralConv2D`.

    Example: `SpectralDense(1)(keras.Input((64,)))` is a linear map of Lipschitz constant 1.
    """

    save_own_variables = keras.layers.Layer.save_own_variables
    load_own_variables = keras.layers.Layer.load_own_variables

    def build(self, input_shape):
        super().build(input_shape)
        self.u = _add_singular_vector(self)

    def call(self, inputs, training=False):
        outputs = ops.matmul(inputs, _spectrally_normalized(self, training))
        return self.activation(outputs + self.bias if self.use_bias else outputs)


@keras.saving.register_keras_serializable(package="keras_cxrgan")
class InstanceNormalization(keras.layers.GroupNormalization):
    """Normalize each map of each image by its own mean and variance (Ulyanov et al. 2016).

    (N, H, W, C) -> the same. The function, the weights and the gradient are those of Keras'
    `GroupNormalization(groups=-1)`; the gradient's gradient, by which a gradient penalty and R1
    train, is not. Keras (3.15) takes the variance about a mean that it holds constant: a shift of
    all pixels, which is normalized away, then seems to change the penalty.

    Example: `InstanceNormalization()(keras.Input((8, 8, 64)))` has shape (None, 8, 8, 64).
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "groups": -1})

    def call(self, inputs):
        images = ops.cast(inputs, "float32")
        images = images - ops.mean(images, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(images), axis=(1, 2), keepdims=True)
        images = images * ops.rsqrt(variance + self.epsilon)
        if self.scale:
            images = images * ops.cast(self.gamma, "float32")
        if self.center:
            images = images + ops.cast(self.beta, "float32")
        return ops.cast(images, inputs.dtype)


@keras.saving.register_keras_serializable(package="keras_cxrgan")
class GroupedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization that normalizes in use as it does in training: by a batch.

    (N, H, W, C) -> the same. Training, images are normalized by the statistics of their batch, and
    those a discriminator judges; in use, by moving averages, it has never seen one. An unusual
    image, itself a part of its batch, is tempered by the one and not by the other. Here each
    `group_size` consecutive images are normalized by their own statistics in use too. Of a last
    group of r images these count r / group_size and the moving averages the rest, of the mean and
    of the mean square (for r = 1 that is inference example weighing; Summers & Dinneen 2020, "Four
    things everyone should know to improve batch normalization", arXiv 1906.03548).

    Weights and training are those of `BatchNormalization`. An image depends on its group: who
    wants it to be fixed by its number makes whole groups (`whole_groups`).

    Example: `GroupedBatchNormalization(16)(keras.Input((8, 8, 64)))` has shape (None, 8, 8, 64).
    """

    def __init__(self, group_size: int, **kwargs):
        super().__init__(**kwargs)
        if group_size < 1:
            raise ValueError(
                f"GroupedBatchNormalization needs a group_size of 1 or more, got {group_size}"
            )
        self.group_size = group_size

    def call(self, inputs, training=False, mask=None):
        if training:
            return super().call(inputs, training=True, mask=mask)
        # In float32 whatever the precision, for 16 bits do not hold a mean of squares, and about the
        # moving mean: far from 0 even 32 could leave a variance below it.
        x = ops.cast(inputs, "float32") - self.moving_mean
        mean = self._mean_of_group(x, ops.zeros_like(self.moving_mean))
        variance = self._mean_of_group(ops.square(x), self.moving_variance) - ops.square(mean)
        x = (x - mean) * ops.rsqrt(variance + self.epsilon)
        if self.scale:
            x = x * ops.cast(self.gamma, "float32")
        if self.center:
            x = x + ops.cast(self.beta, "float32")
        return ops.cast(x, self.compute_dtype)

    def _mean_of_group(self, x, usual):
        """Return (N, 1, 1, C): means of a group's pixels, of missing images what is usual."""
        count, maps, size = ops.shape(x)[0], x.shape[-1], self.group_size
        missing = ops.broadcast_to(usual, (-count % size, maps))
        means = ops.concatenate([ops.mean(x, axis=(1, 2)), missing], axis=0)
        means = ops.mean(ops.reshape(means, (-1, size, maps)), axis=1)
        return ops.repeat(means, size, axis=0)[:count, None, None, :]

    def get_config(self):
        return {**super().get_config(), "group_size": self.group_size}


def group_size(generator: keras.Model) -> int:
    """Return how many images a generator makes together, 1 if it makes each by itself."""
    layers = generator.layers
    sizes = [layer.group_size for layer in layers if isinstance(layer, GroupedBatchNormalization)]
    return max(sizes, default=1)


def whole_groups(count: int, size: int) -> int:
    """Return how many images whole groups of a size have that hold so many.

    >>> [whole_groups(count, 16) for count in (0, 1, 16, 17)]
    [0, 16, 16, 32]
    """
    return -(-count // size) * size


@keras.saving.register_keras_serializable(package="keras_cxrgan")
class MinibatchStandardDeviation(keras.layers.Layer):
    """Append maps that tell how much the images of a group differ (Karras et al. 2018).

    (N, H, W, C) -> (N, H, W, C + min(features, C)). Groups are of `group_size` consecutive images,
    so that replicas with a part of a batch each form the groups of the whole batch; a remainder
    joins the last group. Of each of the H x W x C numbers the standard deviation over the group is
    taken. With one feature, as in the paper, a constant map is their mean: a generator that makes
    one image only is seen at once. With more, each is the mean over an equal share of the C maps:
    seen, too, is which of the things that the network looks for differ too little.

    Example: `MinibatchStandardDeviation()(keras.Input((8, 8, 64)))` has shape (None, 8, 8, 65).
    """

    def __init__(self, group_size: int = 4, features: int = 1, **kwargs):
        super().__init__(**kwargs)
        if group_size < 2:
            raise ValueError(
                f"MinibatchStandardDeviation needs a group_size of 2 or more, got {group_size}"
            )
        if features < 1:
            raise ValueError(f"MinibatchStandardDeviation needs 1 feature or more, got {features}")
        self.group_size = group_size
        self.features = features

    def call(self, inputs):
        count = ops.shape(inputs)[0]
        last_group = ops.maximum(count // self.group_size, 1) - 1
        group = ops.minimum(ops.arange(count, dtype="int32") // self.group_size, last_group)
        # Times a matrix of shares, the images of a group become the group's mean, whatever its
        # size; a batch is small, and so is this product.
        together = ops.cast(ops.equal(group[:, None], group[None, :]), "float32")
        shares = together / ops.sum(together, axis=1, keepdims=True)
        numbers = ops.reshape(ops.cast(inputs, "float32"), (count, -1))
        variance = ops.matmul(shares, ops.square(numbers - ops.matmul(shares, numbers)))
        # The square root has no gradient at 0, where equal images are.
        maps = inputs.shape[-1]
        deviation = ops.reshape(ops.sqrt(variance + 1e-8), (count, -1, maps))
        means = ops.matmul(ops.mean(deviation, axis=1), self._mean_of_shares(maps))
        told = ops.cast(means, inputs.dtype)[:, None, None, :]
        everywhere = ops.ones_like(inputs[..., : means.shape[-1]])
        return ops.concatenate([inputs, told * everywhere], axis=-1)

    def _mean_of_shares(self, maps: int) -> np.ndarray:
        """Return (maps, features): what of each map counts in each feature."""
        features = min(self.features, maps)
        member = np.arange(maps)[:, None] * features // maps == np.arange(features)
        return (member / member.sum(axis=0)).astype("float32")

    def compute_output_shape(self, input_shape):
        maps = input_shape[-1]
        return (*input_shape[:-1], maps + min(self.features, maps))

    def get_config(self):
        return {**super().get_config(), "group_size": self.group_size, "features": self.features}
