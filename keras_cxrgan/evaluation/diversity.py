"""How varied a set of images is: Inception score, Vendi score, pairwise MS-SSIM."""

from __future__ import annotations

import math

import cv2
import numpy as np

from keras_cxrgan.evaluation.neighbours import blocks, check_features

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales (Wang 2003)."""

SMALLEST_SIDE = 64

_WINDOW, _SIGMA = 11, 1.5
_AT_ONCE = 2**16  # pixels of MS-SSIM filtered in one call: the fastest of 2^16, 2^18 and 2^20
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def inception_score(logits: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation over `splits` of exp(mean KL(p(y|x) || p(y))) (Salimans 2016).

    logits: (N, classes), of the network's last layer without its bias, as the original score has
    it. Between 1 and the number of classes. The classes are those of ImageNet: it says little
    about X-rays, and nothing about how near they are to real ones. The rows are first put into one
    fixed random order (seed 0): those of folders come class by class, and a split is of all.
    """
    check_features(logits, "logit", splits)
    logits = logits[np.random.default_rng(0).permutation(len(logits))]
    scores = []
    for part in range(splits):
        rows = slice(part * len(logits) // splits, (part + 1) * len(logits) // splits)
        x = logits[rows].astype(np.float64)
        x -= x.max(axis=1, keepdims=True)
        log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        marginal = p.mean(axis=0)
        log_marginal = np.log(np.where(marginal > 0, marginal, 1))
        scores.append(np.exp((p * (log_p - log_marginal)).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def vendi_score(features: np.ndarray, *, count: int = 2000, seed: int = 0) -> dict:
    """Effective number of different images: exp of the entropy of eig(K / n) (Friedman 2023).

    features: (N, D); K is their cosine kernel, q = 1. At most `count` rows, drawn with `seed`,
    are used. The score grows with n: compare sets of one n (`n` in the result), or its ratio to
    the real images'. 1 says that all are alike, n that all are orthogonal.

    >>> round(vendi_score(np.eye(4))["vendi"], 6)
    4.0
    """
    check_features(features, "image", 1)
    available = len(features)
    if available > count:
        drawn = np.random.default_rng(seed).choice(available, count, replace=False)
        features = features[np.sort(drawn)]
    x = np.array(features, np.float64)
    largest = np.abs(x).max(axis=1, keepdims=True)
    dead = largest == 0
    x /= np.where(dead, 1, largest)
    x /= np.where(dead, 1, np.sqrt((x * x).sum(axis=1, keepdims=True)))
    # A row of zeros has no direction: all such rows share one of their own.
    x = np.concatenate([x, dead], axis=1)
    gram = x @ x.T if len(x) <= x.shape[1] else x.T @ x  # the same eigenvalues but for zeros
    eigenvalues = np.linalg.eigvalsh(gram) / len(x)
    positive = eigenvalues[eigenvalues > len(gram) * np.finfo(float).eps]
    score = np.exp(-(positive * np.log(positive)).sum())
    return {"vendi": float(score), "n": len(x), "of": available, "seed": seed}


def ms_ssim_windows(side: int) -> list[int]:
    """Taps of the Gaussian window at each scale: 11, or the whole image where it is smaller.

    >>> ms_ssim_windows(64)
    [11, 11, 11, 8, 4]
    """
    if side < SMALLEST_SIDE:
        raise ValueError(
            f"images of {side} pixels are too small for five scales of MS-SSIM; it needs "
            f"{SMALLEST_SIDE} or more"
        )
    return [min(_WINDOW, -(-side // 2**scale)) for scale in range(len(SCALE_WEIGHTS))]


def ms_ssim(images_a: np.ndarray, images_b: np.ndarray) -> np.ndarray:
    """Multi-scale structural similarity (Wang 2003) of each pair: (N,) in [0, 1], 1 for equals.

    images_a, images_b: uint8 (N, S, S), S of 64 or more. Five scales, 11-tap Gaussian windows
    of sigma 1.5; below 176 pixels the last windows shrink to the image and their sigma with
    them (`ms_ssim_windows`), as the progressive-GAN paper's code does. Negative means of a
    scale count as 0.
    """
    if images_a.shape != images_b.shape or images_a.ndim != 3:
        raise ValueError(
            f"MS-SSIM needs two arrays (N, S, S) of one shape, got {images_a.shape} and "
            f"{images_b.shape}"
        )
    kernels = [_gaussian(taps) for taps in ms_ssim_windows(min(images_a.shape[1:]))]
    # Pairs lie beside each other as the channels of a picture: one call filters them all.
    at_once = max(1, _AT_ONCE // math.prod(images_a.shape[1:]))
    values = [
        _ms_ssim(np.moveaxis(images_a[part], 0, -1), np.moveaxis(images_b[part], 0, -1), kernels)
        for part in blocks(len(images_a), at_once)
    ]
    return np.concatenate(values) if values else np.zeros(0)


def pairwise_ms_ssim(images: np.ndarray, *, pairs: int = 1000, seed: int = 0) -> dict:
    """Mean MS-SSIM over random pairs of `images`: high where a generator repeats itself.

    images: uint8 (N, S, S). Show the real images' beside it. All pairs are taken when there are
    no more than `pairs`. The standard error allows for pairs that share an image.
    """
    if len(images) < 3:
        raise ValueError(f"{len(images)} images were given; pairwise MS-SSIM needs at least 3")
    total = len(images)
    if total * (total - 1) // 2 <= pairs:
        first, second = np.triu_indices(total, 1)
    else:
        random = np.random.default_rng(seed)
        first = random.integers(total, size=pairs)
        second = (first + random.integers(1, total, size=pairs)) % total
    values = np.concatenate(
        [ms_ssim(images[first[part]], images[second[part]]) for part in blocks(len(first), 64)]
    )
    deviations = values - values.mean()
    own = deviations @ deviations
    by_image = np.bincount(first, deviations, total) + np.bincount(second, deviations, total)
    # Each pair is in the sums of both its images, so once too often.
    variance = max(by_image @ by_image - own, own) / len(values) ** 2
    return {
        "ms_ssim": float(values.mean()),
        "standard_error": float(np.sqrt(variance)),
        "pairs": len(values),
        "n": total,
        "windows": ms_ssim_windows(min(images.shape[1:])),
        "seed": seed,
    }


def _gaussian(taps: int) -> np.ndarray:
    offsets = np.arange(taps) - (taps - 1) / 2
    weights = np.exp(-0.5 * (offsets / (_SIGMA * taps / _WINDOW)) ** 2)
    return weights / weights.sum()


def _ms_ssim(a: np.ndarray, b: np.ndarray, kernels: list[np.ndarray]) -> np.ndarray:
    """Return (N,) of pairs that lie in the last axis: (S, S, N)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    product = 1.0
    for scale, (kernel, weight) in enumerate(zip(kernels, SCALE_WEIGHTS)):
        if scale:
            a, b = _halve(a), _halve(b)
        mean_a, mean_b = _filter(a, kernel), _filter(b, kernel)
        covariance = _filter(a * b, kernel) - mean_a * mean_b
        variances = _filter(a * a + b * b, kernel) - mean_a**2 - mean_b**2
        similarity = (2 * covariance + _C2) / (variances + _C2)
        if scale == len(kernels) - 1:
            similarity *= (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
        product = product * np.maximum(similarity.mean((0, 1)), 0.0) ** weight
    return product


def _filter(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Separable correlation of (S, S, N), only where the whole window lies inside."""
    taps, before = len(kernel), len(kernel) // 2
    out = cv2.sepFilter2D(images, cv2.CV_64F, kernel, kernel, anchor=(before, before))
    height, width, _ = images.shape
    out = out.reshape(images.shape)  # OpenCV drops the axis of a single channel
    return out[before : before + height - taps + 1, before : before + width - taps + 1]


def _halve(images: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels; an odd last row or column is repeated."""
    height, width, _ = images.shape
    if height % 2 or width % 2:
        images = np.pad(images, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    return (images[::2, ::2] + images[1::2, ::2] + images[::2, 1::2] + images[1::2, 1::2]) / 4
