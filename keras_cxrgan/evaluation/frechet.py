"""The Fréchet distance of two sets of features: its value, its floor, its limit.

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)          (Dowson & Landau 1982, eq. 4)

is FID when the features are those of the FID-Inception (Heusel et al. 2017, eq. 6). Features are
(N, D) arrays, perhaps memory maps, one row for each image; everything is computed in float64 from
blocks of rows. The distance is biased upwards, the more so the fewer the images: compare values
at equal counts only, and beside `frechet_floor`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

BLOCK_ROWS = 1024


class Moments:
    """Count, mean and covariance of rows that arrive in blocks (Chan et al. 1983), in float64.

    Unlike sums of raw squares it keeps all digits when the mean is large beside the spread.

    >>> moments = Moments()
    >>> moments.update(np.array([[0.0], [2.0]]))
    >>> moments.update(np.array([[4.0]]))
    >>> moments.mean.tolist(), moments.covariance.tolist()
    ([2.0], [[4.0]])
    """

    def __init__(self):
        self.count = 0
        self._mean = self._scatter = None

    def update(self, block: np.ndarray) -> None:
        """Takes in a block of rows (n, D), n >= 1."""
        block = np.asarray(block, np.float64)
        if block.ndim != 2 or not len(block):
            raise ValueError(f"a block of rows (n, D) is needed, got the shape {block.shape}")
        if not np.isfinite(block).all():
            raise ValueError("features hold NaN or infinity: moments need finite numbers")
        mean = block.mean(axis=0)
        centred = block - mean
        self._add(len(block), mean, centred.T @ centred)

    def merge(self, other: Moments) -> None:
        """Takes in all rows that another Moments has seen."""
        if other.count:
            self._add(other.count, other._mean, other._scatter)

    def _add(self, count, mean, scatter):
        if self.count == 0:
            self.count, self._mean, self._scatter = count, mean, scatter
            return
        if mean.shape != self._mean.shape:
            raise ValueError(f"rows of {len(mean)} numbers after rows of {len(self._mean)}")
        total = self.count + count
        step = mean - self._mean
        self._mean = self._mean + step * (count / total)
        self._scatter = self._scatter + scatter
        self._scatter += np.outer(step, step * (self.count * count / total))
        self.count = total

    @property
    def mean(self) -> np.ndarray:
        """(D,). Raises ValueError before the first row."""
        if not self.count:
            raise ValueError("a mean needs at least 1 row, got 0")
        return self._mean

    @property
    def covariance(self) -> np.ndarray:
        """(D, D), divided by n - 1. Raises ValueError for fewer than 2 rows."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows, got {self.count}")
        return self._scatter / (self.count - 1)


def frechet_distance(
    mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray
) -> float:
    """Fréchet distance of two Gaussians from means (D,) and covariances (D, D), >= 0.

    Raises ValueError for NaN, infinity, shapes that do not match, and matrices that are no
    covariances.

    >>> frechet_distance(np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2))
    4.0
    """
    parts = [np.asarray(part, np.float64) for part in (mean1, covariance1, mean2, covariance2)]
    mean1, covariance1, mean2, covariance2 = parts
    dims = mean1.size
    if [part.shape for part in parts] != [(dims,), (dims, dims)] * 2:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ValueError(f"means (D,) and covariances (D, D) are needed, got the shapes {shapes}")
    if not all(np.isfinite(part).all() for part in parts):
        raise ValueError("means or covariances hold NaN or infinity: the distance is undefined")
    for matrix in (covariance1, covariance2):
        if np.abs(matrix - matrix.T).max() > 1e-5 * np.abs(matrix).max():
            raise ValueError("a covariance is not symmetric: give np.cov(features, rowvar=False)")
    return distance_of_sides((mean1, _root(covariance1)), (mean2, _root(covariance2)))


def frechet(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of features (N, D) and (M, D), at least 2 rows each; >= 0.

    Exact also when N or M is below D, where it comes from the N x M matrix of inner products.

    >>> frechet(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0], [7.0]]))
    16.34314575050762
    """
    check_features(2, real=real, fake=fake)
    return distance_of_sides(side_of(real), side_of(fake))


def frechet_floor(
    real: np.ndarray, *, splits: int = 20, seed: int, fake: np.ndarray | None = None
) -> dict:
    """What a perfect generator would score: the distance between random halves of the reals.

    Each split draws two disjoint parts of `n` reals, n being half the reals (or the number of
    fakes, if that is smaller), and with `fake` also n fakes, which are scored against the first
    part: like with like. The excess is fake minus floor, split by split; near 0 the fakes cannot
    be told from reals by this distance. The standard deviations describe the splits, which
    overlap: they are no standard errors.

    Returns n, splits, floor_mean, floor_sd and, with `fake`, fake_mean, fake_sd, excess_mean,
    excess_sd. Raises ValueError for fewer than 4 reals or 2 fakes.
    """
    check_features(4, real=real)
    if fake is not None:
        check_features(2, real=real, fake=fake)
    floors, scores = [], []
    for first, second, drawn in half_splits(len(real), fake, splits, seed):
        reference = side_of(real, first)
        floors.append(distance_of_sides(reference, side_of(real, second)))
        if fake is not None:
            scores.append(distance_of_sides(reference, side_of(fake, drawn)))
    return floor_summary(len(first), floors, scores)


def frechet_infinity(real: np.ndarray, fake: np.ndarray, *, points: int = 15, seed: int) -> dict:
    """The distance extrapolated to endlessly many fakes (Chong & Forsyth 2020).

    A straight line in 1/n through the distances of `points` random parts of the fakes, from 5,000
    (or half the fakes, if fewer than 10,000) to all of them, against all reals.

    Returns frechet_infinity, slope, sizes, distances. Raises ValueError below 5,000 fakes, or
    fewer than 5 D of either side, where the distance is no straight line in 1/n: between 50 and
    800 images at D = 768 the line ends at a quarter of the total variance instead of 0.
    """
    check_features(2, real=real, fake=fake)
    check_infinity(len(real), len(fake), fake.shape[1])
    rng = np.random.default_rng(seed)
    reference = side_of(real)
    sizes = np.linspace(min(5000, len(fake) // 2), len(fake), points).astype(int)
    drawn = (np.sort(rng.choice(len(fake), size, replace=False)) for size in sizes)
    distances = [distance_of_sides(reference, side_of(fake, rows)) for rows in drawn]
    slope, limit = np.polyfit(1.0 / sizes, distances, 1)
    return {
        "frechet_infinity": float(limit),
        "slope": float(slope),
        "sizes": sizes.tolist(),
        "distances": distances,
    }


def check_infinity(n_real: int, n_fake: int, dims: int) -> None:
    """Raise `ValueError` where too few images are given for `frechet_infinity`."""
    needed = max(5000, 5 * dims)
    if n_fake < needed or n_real < 5 * dims:
        raise ValueError(
            f"{n_real} reals and {n_fake} fakes at {dims} dims cannot be extrapolated"
            f" (--frechet-infinity): it needs {5 * dims} and {needed}; give more images or read"
            " kid, which has no bias"
        )


def check_features(minimum: int, **sets: np.ndarray) -> None:
    """Refuses sets of fewer than `minimum` rows, of no columns, or of different columns."""
    dims = {}
    for name, features in sets.items():
        if features.ndim != 2 or not features.shape[1]:
            raise ValueError(f"{name} features have the shape {features.shape}: (N, D) is needed")
        if len(features) < minimum:
            raise ValueError(
                f"{len(features)} {name} images: at least {minimum} are needed, give more"
            )
        dims[name] = features.shape[1]
    if len(set(dims.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in dims.items())
        raise ValueError(
            f"features differ in dims ({listed}): extract all with the same --features"
        )


def row_blocks(features: np.ndarray, rows: np.ndarray | None = None) -> Iterator:
    """Yields (slice, float64 block) over all rows, or over those named; finite or ValueError."""
    count = len(features) if rows is None else len(rows)
    for start in range(0, count, BLOCK_ROWS):
        part = slice(start, min(start + BLOCK_ROWS, count))
        block = np.asarray(features[part if rows is None else rows[part]], np.float64)
        if not np.isfinite(block).all():
            raise ValueError("features hold NaN or infinity: extract them again, in float32")
        yield part, block


def side_of(features: np.ndarray, rows: np.ndarray | None = None) -> tuple:
    """Mean (D,) and factor (k, D), k <= D, whose factor.T @ factor is the covariance."""
    count = len(features) if rows is None else len(rows)
    if count < features.shape[1]:
        centred = np.concatenate([block for _, block in row_blocks(features, rows)])
        mean = centred.mean(axis=0)
        centred -= mean
        return mean, centred / math.sqrt(count - 1)
    moments = Moments()
    for _, block in row_blocks(features, rows):
        moments.update(block)
    return moments.mean, _root(moments.covariance)


def _root(covariance):
    # A null eigenvalue is known to eps * max and its root only to sqrt(eps * max): 1e-8 of noise
    # in each empty direction, unless these are left out.
    values, vectors = np.linalg.eigh(covariance)
    largest = np.abs(values).max()
    if values.min() < -1e-5 * largest:
        raise ValueError(f"a covariance has the negative eigenvalue {values.min():.3g}")
    keep = values > len(values) * np.finfo(np.float64).eps * largest
    return np.sqrt(values[keep])[:, None] * vectors[:, keep].T


def distance_of_sides(side1: tuple, side2: tuple, overlap: float | None = None) -> float:
    """The Fréchet distance of two results of `side_of`; `overlap` if it is known already."""
    (mean1, factor1), (mean2, factor2) = side1, side2
    if overlap is None:
        # The roots of the eigenvalues of C1 C2 are the singular values of factor1 @ factor2.T: no
        # matrix square root, nothing complex, and N x M numbers suffice when N and M are small.
        overlap = np.linalg.svd(factor1 @ factor2.T, compute_uv=False).sum()
    spread = np.square(factor1).sum() + np.square(factor2).sum()
    distance = np.square(mean1 - mean2).sum() + spread - 2.0 * overlap
    if not distance >= -1e-9 * spread:
        raise ValueError(f"the distance is {distance}: features are too large for float64")
    return max(float(distance), 0.0)


def half_splits(n_real: int, fake: np.ndarray | None, splits: int, seed: int) -> list:
    """Row numbers of two disjoint parts of the reals and one of the fakes, all of one size."""
    if splits < 2:
        raise ValueError(f"splits is {splits}: at least 2 are needed for a standard deviation")
    rng = np.random.default_rng(seed)
    n = n_real // 2 if fake is None else min(n_real // 2, len(fake))
    parts = []
    for _ in range(splits):
        order = rng.permutation(n_real)
        drawn = None if fake is None else np.sort(rng.choice(len(fake), n, replace=False))
        parts.append((np.sort(order[:n]), np.sort(order[n : 2 * n]), drawn))
    return parts


def floor_summary(n: int, floors: list, scores: list) -> dict:
    """Mean and standard deviation over splits of the floor, the fakes' scores, the excess."""
    columns = {"floor": np.asarray(floors)}
    if len(scores):
        columns["fake"] = np.asarray(scores)
        columns["excess"] = columns["fake"] - columns["floor"]
    summary = {"n": n, "splits": len(floors)}
    for name, values in columns.items():
        summary[f"{name}_mean"] = float(values.mean())
        summary[f"{name}_sd"] = float(values.std(ddof=1))
    return summary
