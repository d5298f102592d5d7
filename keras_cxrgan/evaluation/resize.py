"""Resizing and scaling before Inception: the three conventions under which FID is reported.

The same images and weights give three different scores, so a score is named with its mode.
Every method is separable: one matrix for the rows of an image and one for its columns.
"""

from __future__ import annotations

import functools

import numpy as np

INCEPTION_SIZE = 299

MODES = {
    "pytorch-fid": ("bilinear", 127.5, 127.5),
    "legacy-tf": ("bilinear_tf1", 128.0, 128.0),
    "clean": ("bicubic_antialias", 128.0, 128.0),
}
"""Name -> (resize method, centre, half range): a grey level g becomes (g - centre) / half range.

`pytorch-fid` is that of pytorch-fid; `legacy-tf` that of the TensorFlow graph, which TTUR,
StyleGAN and torch-fidelity follow; `clean` that of clean-fid (Parmar et al. 2022).
"""


@functools.cache
def resize_matrix(size_in: int, size_out: int, method: str) -> np.ndarray:
    """The float64 (size_out, size_in) matrix that resizes one axis; each row sums to 1.

    `bilinear`: pixels are areas (half-pixel centres), no antialiasing, as PyTorch's
    `interpolate(align_corners=False)`. `bilinear_tf1`: output i lies at input i * scale, as in
    TensorFlow 1. `bicubic_antialias`: Keys' cubic with a = -0.5 whose support grows when it
    shrinks, as Pillow's BICUBIC. The result is shared and read-only.
    """
    if method not in _WEIGHTS:
        raise ValueError(f"got the resize method {method!r}: needs one of {', '.join(_WEIGHTS)}")
    matrix = _WEIGHTS[method](size_in, size_out)
    matrix.flags.writeable = False
    return matrix


def _bilinear(size_in: int, size_out: int) -> np.ndarray:
    return _between((np.arange(size_out) + 0.5) * _step(size_in, size_out) - 0.5, size_in)


def _bilinear_tf1(size_in: int, size_out: int) -> np.ndarray:
    return _between(np.arange(size_out) * _step(size_in, size_out), size_in)


def _step(size_in: int, size_out: int) -> float:
    return float(np.float32(size_in / size_out))


def _between(positions: np.ndarray, size_in: int) -> np.ndarray:
    """Linear interpolation at positions in pixels; beyond the edge the last pixel goes on."""
    # PyTorch and TensorFlow round step and position to float32, once each. From 1024 pixels that
    # moves a grey level by up to 4e-5 of the range, and nothing else differs from them.
    rounded = np.clip(positions.astype(np.float32), 0, size_in - 1).astype(np.float64)
    return np.maximum(0, 1 - np.abs(rounded[:, None] - np.arange(size_in)))


def _bicubic_antialias(size_in: int, size_out: int) -> np.ndarray:
    scale = size_in / size_out
    centres = (np.arange(size_out) + 0.5) * scale
    x = np.abs(np.arange(size_in) + 0.5 - centres[:, None]) / max(scale, 1)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


_WEIGHTS = {
    "bilinear": _bilinear,
    "bilinear_tf1": _bilinear_tf1,
    "bicubic_antialias": _bicubic_antialias,
}


def resize(images: np.ndarray, size: int, method: str) -> np.ndarray:
    """Resizes (N, H, W) or (N, H, W, C) to float32 (N, size, size[, C]) on the same grey scale.

    Nothing is rounded or clipped: bicubic overshoots at edges.
    """
    if images.ndim not in (3, 4):
        raise ValueError(f"got images of shape {images.shape}: needs (N, H, W) or (N, H, W, C)")
    rows = resize_matrix(images.shape[1], size, method).astype(np.float32)
    columns = resize_matrix(images.shape[2], size, method).astype(np.float32).T
    resized = np.empty((len(images), size, size, *images.shape[3:]), np.float32)
    for image, output in zip(images, resized, strict=True):
        if image.ndim == 2:
            output[:] = rows @ image.astype(np.float32) @ columns
        else:
            for channel in range(image.shape[2]):
                output[..., channel] = rows @ image[..., channel].astype(np.float32) @ columns
    return resized


def prepare_for_inception(images: np.ndarray, mode: str = "pytorch-fid") -> np.ndarray:
    """uint8 grey (N, H, W) or colour (N, H, W, 3) -> float32 (N, 299, 299, 3) for Inception.

    About 1 MB per image: hand it one batch after the other. Raises ValueError for an unknown
    mode and for images that are not uint8, because the scale of other types is not known.

    Example: `prepare_for_inception(np.zeros((8, 64, 64), np.uint8)).shape` is (8, 299, 299, 3).
    """
    if mode not in MODES:
        raise ValueError(f"got the mode {mode!r}: needs one of {', '.join(MODES)}")
    if images.dtype != np.uint8:
        raise ValueError(f"got images of type {images.dtype}: needs uint8 (data.images.to_uint8)")
    if images.ndim != 3 and images.shape[3:] != (3,):
        raise ValueError(f"got images of shape {images.shape}: needs (N, H, W) or (N, H, W, 3)")
    method, centre, half_range = MODES[mode]
    scaled = (resize(images, INCEPTION_SIZE, method) - np.float32(centre)) / np.float32(half_range)
    return np.repeat(scaled[..., None], 3, axis=3) if images.ndim == 3 else scaled
