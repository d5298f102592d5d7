"""Nearest neighbours among features, and precision, recall, density and coverage built on them.

Squared distances come from one matrix product per tile, |x|^2 + |y|^2 - 2 x.y, in float64 and
after centring; wherever their rounding could decide something, the two rows are subtracted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

TILE = 1024
"""Rows and columns of distances held at a time: 8 MB of float64."""

_ROUNDING = 1e-12  # of |x|^2 + |y|^2: a thousand times the error of the matrix product


def check_features(features: np.ndarray, name: str, least: int) -> int:
    """Raises ValueError unless `features` is (at least `least`, D) and finite; gives D."""
    if features.ndim != 2 or features.shape[1] < 1:
        raise ValueError(f"{name} features have the shape {features.shape}; they must be (N, D)")
    if len(features) < least:
        raise ValueError(
            f"{len(features)} {name} feature rows were given; at least {least} are needed"
        )
    for rows in blocks(len(features)):
        if not np.isfinite(features[rows]).all():
            raise ValueError(f"{name} features contain NaN or infinity; check the extractor")
    return features.shape[1]


def blocks(count: int, size: int = TILE) -> Iterator[slice]:
    """Slices of at most `size` rows that cover `count` rows in order."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def nearest(
    queries: np.ndarray, references: np.ndarray, k: int = 1, *, same: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest rows of `references` for each row of `queries`, nearest first.

    queries, references: (N, D) and (M, D). `same=True` says that they are the same rows, and
    leaves each row's own index out. Returns indices (N, k) and Euclidean distances (N, k);
    equal rows are at a distance of exactly 0. Raises ValueError for fewer than `k` references.

    >>> nearest(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [1.0, 0.0]]))
    (array([[1]]), array([[1.]]))
    """
    _check_pair(queries, references, ("query", 1), ("reference", k + same))
    if same and len(queries) != len(references):
        raise ValueError(
            f"same=True needs the same rows twice, got {len(queries)} and {len(references)}"
        )
    indices = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k))
    for rows, columns, squared, _ in _tiles(queries, references):
        if columns.start == 0:
            # Some more than k, so that rounding cannot push a true neighbour off the list.
            best = np.full((squared.shape[0], k + 4), np.inf)
            found = np.full(best.shape, -1)
        if same and rows == columns:
            np.fill_diagonal(squared, np.inf)
        squared = np.concatenate([best, squared], axis=1)
        keep = np.argpartition(squared, k + 3, axis=1)[:, : k + 4]
        best = np.take_along_axis(squared, keep, axis=1)
        known = np.take_along_axis(found, np.minimum(keep, k + 3), axis=1)
        found = np.where(keep < k + 4, known, keep - (k + 4) + columns.start)
        if columns.stop == len(references):
            indices[rows], distances[rows] = _sharpen(queries[rows], references, found, best, k)
    return indices, distances


def prdc(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict:
    """Precision, recall (Kynkaanniemi 2019), density and coverage (Naeem 2020) of features.

    real, fake: (N, D) and (M, D). A point counts as inside the ball of another when it is
    strictly nearer than that one's k-th neighbour of its own set, as in Naeem's code. Beside
    the four numbers, the dict holds what coverage and density come to when both sets follow
    one law (`expected_coverage`; 1 for density), and `warnings`, a list of sentences. Raises
    ValueError for k + 1 rows or fewer.
    """
    for features, name in ((real, "real"), (fake, "generated")):
        if len(features) <= k + 1:
            raise ValueError(
                f"{len(features)} {name} images are too few for {k} neighbours: give at least "
                f"{k + 2}, or fewer neighbours"
            )
    _check_pair(real, fake, ("real", k + 2), ("generated", k + 2))
    real_radii = nearest(real, real, k, same=True)[1][:, -1]
    fake_radii = nearest(fake, fake, k, same=True)[1][:, -1]
    real_balls = np.zeros(len(fake), np.int64)  # how many real balls hold this generated image
    recalled = np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for rows, columns, squared, scale in _tiles(real, fake):
        in_real = _inside(squared, scale, real_radii[rows, None], real, fake, rows, columns)
        in_fake = _inside(squared, scale, fake_radii[None, columns], real, fake, rows, columns)
        real_balls[columns] += in_real.sum(axis=0)
        covered[rows] |= in_real.any(axis=1)
        recalled[rows] |= in_fake.any(axis=1)
    warnings = [
        f"{np.sum(radii == 0)} of {len(radii)} {name} images have {k} or more exact duplicates "
        "in feature space; their neighbourhoods are empty and these four numbers too low"
        for radii, name in ((real_radii, "real"), (fake_radii, "generated"))
        if np.any(radii == 0)
    ]
    return {
        "precision": float(np.mean(real_balls > 0)),
        "recall": float(np.mean(recalled)),
        "density": float(1 / k * real_balls.mean()),
        "coverage": float(np.mean(covered)),
        "expected_coverage": expected_coverage(len(real), len(fake), k),
        "k": k,
        "n_real": len(real),
        "n_fake": len(fake),
        "warnings": warnings,
    }


def expected_coverage(n_real: int, n_fake: int, k: int = 5) -> float:
    """Coverage to expect when real and generated features follow one law (Naeem 2020, eq. 10).

    >>> round(expected_coverage(50, 50, 5), 5)
    0.97334
    """
    factors = [(n_real - i) / (n_fake + n_real - i) for i in range(1, k + 1)]
    return 1.0 - float(np.prod(factors))


def _check_pair(a: np.ndarray, b: np.ndarray, first: tuple, second: tuple) -> None:
    dims = check_features(a, *first), check_features(b, *second)
    if dims[0] != dims[1]:
        raise ValueError(
            f"{first[0]} features have {dims[0]} dims and {second[0]} features {dims[1]}; "
            "both need the same extractor and layer"
        )


def _tiles(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray]]:
    """Rows, columns, squared distances (>= 0) and |x|^2 + |y|^2 of each tile, row after row."""
    # Features far from the origin would lose their digits in |x|^2 - 2 x.y + |y|^2.
    centre = sum(b[rows].sum(axis=0, dtype=np.float64) for rows in blocks(len(b))) / len(b)
    for rows in blocks(len(a)):
        x = a[rows] - centre
        for columns in blocks(len(b)):
            y = b[columns] - centre
            scale = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)
            yield rows, columns, np.maximum(scale - 2 * (x @ y.T), 0), scale


def _distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    difference = x.astype(np.float64) - y
    return np.sqrt((difference * difference).sum(axis=-1))


def _sharpen(queries, references, found, squared, k):
    """Distances of the candidates by subtraction; the first k by distance, then by index."""
    distances = np.full(found.shape, np.inf)
    for column in range(found.shape[1]):
        real = np.isfinite(squared[:, column])
        distances[real, column] = _distance(queries[real], references[found[real, column]])
    order = np.lexsort((found, distances), axis=1)[:, :k]
    return np.take_along_axis(found, order, 1), np.take_along_axis(distances, order, 1)


def _inside(squared, scale, radii, a, b, rows, columns) -> np.ndarray:
    """Whether each distance is strictly below the radius; near ties are subtracted out."""
    limit = radii * radii
    inside = squared < limit
    i, j = np.nonzero(np.abs(squared - limit) <= _ROUNDING * scale)
    radii = np.broadcast_to(radii, squared.shape)
    for part in blocks(len(i)):
        exact = _distance(a[rows][i[part]], b[columns][j[part]])
        inside[i[part], j[part]] = exact < radii[i[part], j[part]]
    return inside
