"""What images look like without any network: power spectra and grey levels, real beside generated.

Generators that upsample leave a trace at the Nyquist corners of the spectrum (Odena 2016's
checkerboards) and lose or invent power at high frequencies; both show here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SMALLEST_SIDE = 16

CORNERS = {"horizontal": (0, 1), "vertical": (1, 0), "diagonal": (1, 1)}
"""Nyquist corners as (rows, columns) in half cycles per pixel: columns alternating, rows, both."""

_BLOCK_PIXELS = 2**20
# Rounding to whole grey levels alone has a power of 1/12 at every frequency; below it is nothing.
_FLOOR = 1e-4


def power_spectrum(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radially averaged power of a set of images: frequencies and log10 of power.

    images: uint8 (N, S, S), read in blocks. Each image loses its mean and is weighted with a
    Hann window, so that its borders do not leak into all frequencies; the power is averaged over
    images, then over rings one frequency step wide. Returns cycles per pixel, from 1/S to the
    corners at 0.707 (0.5 is Nyquist along an axis), and log10 of grey levels squared, scaled
    such that white noise of variance v has the power v at every frequency.
    """
    return _radial(_mean_power(images))


def spectral_comparison(real: np.ndarray, fake: np.ndarray) -> dict:
    """Power spectra of real and generated images, and how far apart they lie.

    real, fake: uint8 (N, S, S) and (M, S, S). `rms_log10_difference` is over the rings up to
    0.5 cycles per pixel (1 is a factor of ten in power). `checkerboard_db` is the largest of
    `corners_db`: how much a Nyquist corner stands out of its surroundings in the generated
    images, relative to the real ones; 0 for one law, 10 for ten times the power.
    """
    if real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"real images are {real.shape[1:]} and generated ones {fake.shape[1:]} pixels; "
            "resize one side"
        )
    real_power, fake_power = _mean_power(real), _mean_power(fake)
    frequencies, real_curve = _radial(real_power)
    _, fake_curve = _radial(fake_power)
    inner = frequencies <= 0.5
    rms = np.sqrt(np.mean((fake_curve[inner] - real_curve[inner]) ** 2))
    corners = {
        name: 10 * (_prominence(fake_power, where) - _prominence(real_power, where))
        for name, where in CORNERS.items()
    }
    return {
        "cycles_per_pixel": frequencies.tolist(),
        "real_log10_power": real_curve.tolist(),
        "fake_log10_power": fake_curve.tolist(),
        "rms_log10_difference": float(rms),
        "corners_db": corners,
        "checkerboard_db": max(corners.values()),
        "window": "Hann, mean removed",
        "n_real": len(real),
        "n_fake": len(fake),
    }


def grey_histogram(images: np.ndarray) -> np.ndarray:
    """The share of pixels at each of the 256 grey levels of uint8 images (N, H, W)."""
    _check(images)
    counts = np.zeros(256, np.int64)
    for rows in _image_blocks(images):
        counts += np.bincount(images[rows].ravel(), minlength=256)
    return counts / counts.sum()


def histogram_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Wasserstein distance of the grey levels of two sets of images, in grey levels.

    The mean number of levels by which pixels must change to give one histogram the other's
    shape: the area between the two cumulative histograms.

    >>> black = np.zeros((2, 8, 8), np.uint8)
    >>> histogram_distance(black, black + np.uint8(10))
    10.0
    """
    difference = np.cumsum(grey_histogram(real)) - np.cumsum(grey_histogram(fake))
    return float(np.abs(difference[:-1]).sum())


def _check(images: np.ndarray) -> None:
    if images.ndim != 3 or len(images) < 1 or images.dtype != np.uint8:
        raise ValueError(
            f"images are {images.dtype} {images.shape}; uint8 (N, H, W) with at least one image "
            "is needed"
        )


def _image_blocks(images: np.ndarray) -> Iterator[slice]:
    step = max(1, _BLOCK_PIXELS // (images.shape[1] * images.shape[2]))
    return (slice(start, start + step) for start in range(0, len(images), step))


def _mean_power(images: np.ndarray) -> np.ndarray:
    """Windowed power averaged over images: (S, S), frequency 0 first as in `np.fft`."""
    _check(images)
    side = images.shape[1]
    if images.shape[2] != side or side < SMALLEST_SIDE:
        raise ValueError(
            f"spectra need square images of at least {SMALLEST_SIDE} pixels, got "
            f"{images.shape[1]} x {images.shape[2]}"
        )
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(side) + 0.5) / side)
    window = hann[:, None] * hann
    total = np.zeros((side, side // 2 + 1))
    for rows in _image_blocks(images):
        x = images[rows].astype(np.float64)
        mean = (x * window).sum(axis=(1, 2), keepdims=True) / window.sum()
        transform = np.fft.rfft2((x - mean) * window)
        total += (transform.real**2 + transform.imag**2).sum(axis=0)
    total /= len(images) * (window**2).sum()
    # The other half of a real image's spectrum is its mirror image through the origin.
    columns = np.arange(side // 2 + 1, side)
    mirrored = total[np.ix_(-np.arange(side) % side, side - columns)]
    return np.concatenate([total, mirrored], axis=1)


def _radial(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    side = len(power)
    steps = np.fft.fftfreq(side) * side
    ring = np.rint(np.hypot(steps[:, None], steps)).astype(np.int64).ravel()
    count = np.bincount(ring)
    mean = np.bincount(ring, power.ravel()) / count
    return np.arange(1, len(mean)) / side, np.log10(np.maximum(mean[1:], _FLOOR))


def _prominence(power: np.ndarray, corner: tuple[int, int]) -> float:
    """log10 of the power at a Nyquist corner over that of the frequencies around it.

    The corner is 3 x 3 frequencies, as wide as the Hann window spreads a pure alternation; its
    surroundings reach an eighth of a cycle per pixel or less.
    """
    side = len(power)
    centred = np.roll(power, [side // 2 - c * (side // 2) for c in corner], axis=(0, 1))
    middle, reach = side // 2, max(3, min(side // 8, 16))
    patch = centred[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    offsets = np.abs(np.arange(-reach, reach + 1))
    distance = np.maximum(offsets[:, None], offsets)
    peak, around = patch[distance <= 1].mean(), patch[distance > 2].mean()
    return float(np.log10(max(peak, _FLOOR)) - np.log10(max(around, _FLOOR)))
