"""Known ways to spoil films, so that a reader sees where a score lies and an extractor is tested.

Each function takes uint8 images (N, H, W), a severity above 0 and up to 1 (strong, but still a
chest), and a seed, and returns new uint8 images. The same seed draws the same patterns at every
severity, so that they grow. Lengths are shares of the height: 64 and 256 pixels spoil alike,
except where single pixels matter (`noise`, `checkerboard`, `blocks`).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def blur(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """Gaussian blur with a standard deviation of up to 1/16 of the height."""

    def spoil(image, _):
        return cv2.GaussianBlur(image, (0, 0), severity * image.shape[0] / 16)

    return _each(images, severity, spoil)


def noise(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """White Gaussian noise with a standard deviation of up to 40 grey levels."""

    def spoil(image, number):
        random = np.random.default_rng([seed, number])
        return image + 40 * severity * random.standard_normal(image.shape, dtype=np.float32)

    return _each(images, severity, spoil)


def checkerboard(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """Checkerboards of 1-pixel and 2-pixel cells, each of up to 20 grey levels either way.

    What transposed convolutions of stride 2 leave (Odena, Dumoulin and Olah 2016).
    """

    def spoil(image, _):
        rows, columns = np.indices(image.shape)
        single, double = (1 - 2 * ((rows // cell + columns // cell) % 2) for cell in (1, 2))
        return image + np.float32(20 * severity) * (single + double)

    return _each(images, severity, spoil)


def borders(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """A black frame of up to 1/8 of the height on every side."""

    def spoil(image, _):
        frame = severity * image.shape[0] / 8
        # 2.5 pixels darken the third by half, so that severities closer than a pixel still differ.
        inside = [
            np.clip(np.minimum(np.arange(side), np.arange(side)[::-1]) + 1 - frame, 0, 1)
            for side in image.shape
        ]
        return image * np.outer(*inside)

    return _each(images, severity, spoil)


def rotation(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """Each film turned its own way by up to 20 degrees, with black corners."""

    def spoil(image, number):
        height, width = image.shape
        angle = 20 * severity * np.random.default_rng([seed, number]).uniform(-1, 1)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
        return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)

    return _each(images, severity, spoil)


def contrast(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """Contrast about each film's mean lowered by up to 70 %."""

    def spoil(image, _):
        mean = image.mean()
        return mean + (1 - 0.7 * severity) * (image - mean)

    return _each(images, severity, spoil)


def brightness(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """Up to 60 grey levels darker."""
    return _each(images, severity, lambda image, _: image - 60 * severity)


def low_resolution(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """Shrunk by up to 8 and grown again."""

    def spoil(image, _):
        height, width = image.shape
        small = [max(2, round(side / 8**severity)) for side in (width, height)]
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)

    return _each(images, severity, spoil)


def blocks(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """JPEG with a quality of down to 3 of 100: blocks of 8 pixels."""
    quality = round(3 ** (1 + 3 * (1 - severity)))

    def spoil(image, _):
        code = cv2.imencode(".jpg", np.uint8(image), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(code, cv2.IMREAD_GRAYSCALE)

    return _each(images, severity, spoil)


def warp(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """Smooth local shifts with a standard deviation of up to 1/20 of the height."""

    def spoil(image, number):
        height, width = image.shape
        coarse = np.random.default_rng([seed, number]).standard_normal((2, 6, 6))
        down, across = (
            cv2.resize(np.float32(field), (width, height), interpolation=cv2.INTER_CUBIC)
            * np.float32(severity * height / 20)
            for field in coarse
        )
        rows, columns = np.indices(image.shape, dtype=np.float32)
        return cv2.remap(
            image, columns + across, rows + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    return _each(images, severity, spoil)


def occlusion(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """One grey square of up to half the height on each film."""

    def spoil(image, number):
        random = np.random.default_rng([seed, number])
        half = severity * image.shape[0] / 4 * np.array([-1, 1])
        (top, bottom), (left, right) = (
            np.rint(np.clip(random.uniform(0.2, 0.8) * side + half, 0, side)).astype(int)
            for side in image.shape
        )
        image = image.copy()
        image[top:bottom, left:right] = 128
        return image

    return _each(images, severity, spoil)


def mode_dropping(images: np.ndarray, severity: float, seed: int = 0) -> np.ndarray:
    """Keep a share of 1 - severity of the films (one at least) and repeat them, N in all."""
    _check(images, severity)
    order = np.random.default_rng(seed).permutation(len(images))
    kept = order[: max(1, round((1 - severity) * len(images)))]
    return images[kept[np.arange(len(images)) % len(kept)]]


def wrong_class(
    images: np.ndarray, severity: float, seed: int = 0, *, others: np.ndarray
) -> np.ndarray:
    """Replace a share of `severity` of the films by films of `others`, uint8 (M, H, W).

    None of `others` is taken twice, so M must be at least that share of N.
    """
    _check(images, severity)
    _check(others, severity)
    count = round(severity * len(images))
    if others.shape[1:] != images.shape[1:] or len(others) < count:
        raise ValueError(
            f"wrong_class needs {count} other images of {images.shape[1:]}, got {others.shape}"
        )
    random = np.random.default_rng(seed)
    replaced, by = random.permutation(len(images)), random.permutation(len(others))
    mixed = images.copy()
    mixed[replaced[:count]] = others[by[:count]]
    return mixed


DEGRADATIONS: dict[str, Callable[..., np.ndarray]] = {
    function.__name__: function
    for function in (
        blur, noise, checkerboard, borders, rotation, contrast, brightness, low_resolution,
        blocks, warp, occlusion, mode_dropping,
    )
}  # fmt: skip
"""Every degradation that needs no other images, by name."""

REFERENCE = (
    ("blur", 0.25),
    ("noise", 0.5),
    ("checkerboard", 0.5),
    ("warp", 0.5),
    ("mode_dropping", 0.9),
)
"""(name, severity) of those that stand beside a score: what a mild or a severe fault costs."""


def _each(images: np.ndarray, severity: float, spoil: Callable) -> np.ndarray:
    _check(images, severity)
    spoiled = np.empty(images.shape, np.uint8)
    for number, image in enumerate(images):
        spoiled[number] = np.rint(np.clip(spoil(np.float32(image), number), 0, 255))
    return spoiled


def _check(images: np.ndarray, severity: float) -> None:
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape:
        raise ValueError(
            f"degradations need uint8 images (N, H, W), got {images.dtype} {images.shape}"
        )
    if not 0 < severity <= 1:
        raise ValueError(f"severity is {severity}: it must be above 0 and at most 1")
