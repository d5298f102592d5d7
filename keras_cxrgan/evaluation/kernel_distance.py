"""KID: the squared maximum mean discrepancy of two sets of features, its error, test and floor.

    E k(x, x') + E k(y, y') - 2 E k(x, y)  with  k(x, y) = (x.y / D + 1)^3

(Binkowski et al. 2018; Gretton et al. 2012, eq. 3). Unlike the Fréchet distance it has no bias at
any count and may be a little below 0. Features are (N, D) arrays, perhaps memory maps; kernels
are computed in float64 from blocks of rows, all pairs unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from keras_cxrgan.evaluation.frechet import (
    check_features,
    floor_summary,
    half_splits,
    row_blocks,
)
from keras_cxrgan.evaluation.frechet_error import difference_with_error

PERMUTATION_ROWS = 2000
SUBSET = 1000  # images of a subset, as papers print it
"""Most rows of each set in a permutation test: its table of all pairs then takes 128 MB."""


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Unbiased KID of features (N, D) and (M, D) over all pairs, at least 2 rows each.

    Not clipped: for a perfect generator half the values are negative.

    >>> kid(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]]))
    -3.5
    """
    check_features(2, real=real, fake=fake)
    return _distance(_Pairs(real), _Pairs(fake), _Pairs(real, fake))


def kid_test(real: np.ndarray, fake: np.ndarray, *, permutations: int = 1000, seed: int) -> dict:
    """KID with its standard error, and the p-value of "both sets come from one distribution".

    The variance of the U-statistic, from its Hoeffding decomposition (as Sutherland et al. 2017
    for equal counts), with the kernel k~ centred in rows and columns:

        4/n Var w(x) + 4/m Var w(y) + 2/(n(n-1)) E k~(x,x')^2 + 2/(m(m-1)) E k~(y,y')^2
            + 4/(nm) E k~(x,y)^2,          w(z) = E k(z, x) - E k(z, y),

    each estimated without the noise of the other terms. The first two together are kept from
    falling below 0: where nothing differs the error is up to 1.4 times too wide, elsewhere within
    about 6 %. The p-value, (1 + permutations at least as large) / (1 + permutations), is exact; it is
    taken on at most `PERMUTATION_ROWS` rows of each set, drawn with `seed`.

    Returns kid, standard_error, p_value, permutations, n_real, n_fake, n_real_permuted,
    n_fake_permuted. Raises ValueError for fewer than 4 rows.
    """
    check_features(4, real=real, fake=fake)
    within_real, within_fake, across = _Pairs(real), _Pairs(fake), _Pairs(real, fake)
    n, m = len(real), len(fake)
    noise_real, noise_fake, noise_across = (
        pairs.centred_square() for pairs in (within_real, within_fake, across)
    )
    witness_real = within_real.row_effects() - across.row_effects()
    witness_fake = within_fake.row_effects() - across.column_effects()
    first_order = 4 / n * (_variance(witness_real) - noise_real / n - noise_across / m)
    first_order += 4 / m * (_variance(witness_fake) - noise_fake / m - noise_across / n)
    second_order = 2 / (n * (n - 1)) * noise_real + 2 / (m * (m - 1)) * noise_fake
    second_order += 4 / (n * m) * noise_across

    rng = np.random.default_rng(seed)
    rows_real, rows_fake = (_at_most(PERMUTATION_ROWS, len(part), rng) for part in (real, fake))
    mean1, mean2, between, _ = _permuted(real[rows_real], fake[rows_fake], permutations, rng)
    return {
        "kid": _distance(within_real, within_fake, across),
        "standard_error": math.sqrt(max(first_order, 0.0) + second_order),
        "p_value": _p_value(mean1 + mean2 - 2.0 * between, between),
        "permutations": permutations,
        "n_real": n,
        "n_fake": m,
        "n_real_permuted": len(rows_real),
        "n_fake_permuted": len(rows_fake),
    }


def kid_subsets(
    real: np.ndarray, fake: np.ndarray, *, subsets: int = 100, subset_size: int = SUBSET, seed: int
) -> dict:
    """KID as torch-fidelity and StyleGAN report it: mean and sd over random subsets of one size.

    For comparison with published numbers only: the sd describes subsets of `subset_size` images
    that overlap, and falls to 0 where a subset is the whole set. `kid_test` has the error of the
    estimate from all pairs.

    Returns kid_mean, kid_sd, subsets, subset_size. Raises ValueError if a set is smaller.
    """
    check_features(2, real=real, fake=fake)
    smallest = min(len(real), len(fake))
    if not 2 <= subset_size <= smallest:
        raise ValueError(
            f"subsets of {subset_size} images from sets of {len(real)} reals and {len(fake)} "
            f"fakes: choose 2 to {smallest}, or read kid, which has no such limit"
        )
    if subsets < 2:
        raise ValueError(f"subsets is {subsets}: at least 2 are needed for a standard deviation")
    rng = np.random.default_rng(seed)
    groups_real, groups_fake = (
        [np.sort(rng.choice(len(part), subset_size, replace=False)) for _ in range(subsets)]
        for part in (real, fake)
    )
    values = _group_means(real, groups_real) + _group_means(fake, groups_fake)
    values -= 2.0 * _group_means(real, groups_real, fake, groups_fake)
    return {
        "kid_mean": float(values.mean()),
        "kid_sd": float(values.std()),
        "subsets": subsets,
        "subset_size": subset_size,
    }


def kid_difference(
    real: np.ndarray,
    fake_a: np.ndarray,
    fake_b: np.ndarray,
    *,
    permutations: int = 1000,
    seed: int,
) -> dict:
    """Is a nearer to the reals than b: kid(real, a) - kid(real, b), negative if so.

    Counts may differ, KID has no bias. The pairs of reals cancel; the joint variance of the rest
    (the relative test of Bounliphone et al. 2016 with the second-order terms of `kid_test`) gives
    the standard error and the normal 95 % interval. The p-value (two-sided) permutes the labels
    of a and b on at most `PERMUTATION_ROWS` rows of each: it tests "a and b come from one
    distribution", so that two different sets that are equally far from the reals may have a
    small one beside an interval that holds 0; trust the interval for "which is nearer".

    Returns kid_a, kid_b, difference, standard_error, low, high (95 %), p_value, permutations,
    n_real, n_fake_a, n_fake_b, n_fake_a_permuted, n_fake_b_permuted. Raises ValueError for fewer
    than 4 rows.
    """
    check_features(4, real=real, fake_a=fake_a, fake_b=fake_b)
    within_real, across_a, across_b = _Pairs(real), _Pairs(real, fake_a), _Pairs(real, fake_b)
    n, values = len(real), []
    preference = across_a.row_effects() - across_b.row_effects()
    first_order, second_order = 4 / n * _variance(preference), 0.0
    for fake, across in ((fake_a, across_a), (fake_b, across_b)):
        m, within = len(fake), _Pairs(fake)
        noise, noise_across = within.centred_square(), across.centred_square()
        witness = within.row_effects() - across.column_effects()
        first_order += 4 / m * (_variance(witness) - noise / m - 2 * noise_across / n)
        second_order += 2 / (m * (m - 1)) * noise + 4 / (n * m) * noise_across
        values.append(_distance(within_real, within, across))
    error = math.sqrt(max(first_order, 0.0) + second_order)
    rng = np.random.default_rng(seed)
    rows_a, rows_b = (_at_most(PERMUTATION_ROWS, len(fake), rng) for fake in (fake_a, fake_b))
    mean_a, mean_b, _, labels = _permuted(fake_a[rows_a], fake_b[rows_b], permutations, rng)
    to_reals = np.concatenate([across_a.column_sums[rows_a], across_b.column_sums[rows_b]]) / n
    to_reals_a = to_reals @ labels / len(rows_a)
    to_reals_b = to_reals @ (1.0 - labels) / len(rows_b)
    permuted = np.abs(mean_a - mean_b - 2.0 * (to_reals_a - to_reals_b))
    return {
        "kid_a": values[0],
        "kid_b": values[1],
        **difference_with_error(values[0] - values[1], error),
        "p_value": _p_value(permuted, mean_a),
        "permutations": permutations,
        "n_real": n,
        "n_fake_a": len(fake_a),
        "n_fake_b": len(fake_b),
        "n_fake_a_permuted": len(rows_a),
        "n_fake_b_permuted": len(rows_b),
    }


def kid_floor(
    real: np.ndarray, *, splits: int = 20, seed: int, fake: np.ndarray | None = None
) -> dict:
    """What a perfect generator would score: KID between random halves of the reals, about 0.

    The floor of KID is its scatter (`floor_sd`), not an offset. Parts, fakes, excess and what is
    returned are those of `frechet_floor`.
    """
    check_features(4, real=real)
    if fake is not None:
        check_features(2, real=real, fake=fake)
    firsts, seconds, drawn = zip(*half_splits(len(real), fake, splits, seed))
    within_first = _group_means(real, firsts)
    floors = within_first + _group_means(real, seconds)
    floors -= 2.0 * _group_means(real, firsts, real, seconds)
    scores = []
    if fake is not None:
        scores = within_first + _group_means(fake, drawn)
        scores -= 2.0 * _group_means(real, firsts, fake, drawn)
    return floor_summary(len(firsts[0]), floors, scores)


class _Pairs:
    """Row sums, column sums and sum of squares of the kernel: of one set without i = j, or two."""

    def __init__(self, x: np.ndarray, y: np.ndarray | None = None):
        self.within = y is None
        n, m = len(x), len(x if y is None else y)
        self.row_sums, self.column_sums, self.squares = np.zeros(n), np.zeros(m), 0.0
        for rows, columns, kernel in _kernel_blocks(x, y):
            mirrored = self.within and rows != columns
            self.row_sums[rows] += kernel.sum(axis=1)
            self.column_sums[columns] += kernel.sum(axis=0)
            if mirrored:
                self.row_sums[columns] += kernel.sum(axis=0)
            self.squares += (1 + mirrored) * np.vdot(kernel, kernel)
        self.count = n * (n - 1) if self.within else n * m
        self.mean = self.row_sums.sum() / self.count

    def row_effects(self):
        """By how much the mean kernel of each row exceeds the mean of all."""
        columns = len(self.row_sums) - 2 if self.within else len(self.column_sums)
        return (self.row_sums - self.row_sums.mean()) / columns

    def column_effects(self):
        return (self.column_sums - self.column_sums.mean()) / len(self.row_sums)

    def centred_square(self):
        """E k~^2: what row and column effects leave of the variance (two-way layout)."""
        n, m = len(self.row_sums), len(self.column_sums)
        left = self.squares - self.count * self.mean**2
        if self.within:
            left -= 2 * (n - 2) * np.square(self.row_effects()).sum()
            return max(left, 0.0) / (n * (n - 3))
        left -= m * np.square(self.row_effects()).sum()
        left -= n * np.square(self.column_effects()).sum()
        return max(left, 0.0) / ((n - 1) * (m - 1))


def _distance(within_real, within_fake, across):
    return float(within_real.mean + within_fake.mean - 2.0 * across.mean)


def _variance(values):
    return float(np.var(values, ddof=1))


def _kernel_blocks(x, y=None, rows_x=None, rows_y=None) -> Iterator:
    """Yields (row slice, column slice, kernel); of one set the upper triangle, k(i, i) = 0."""
    for rows, left in row_blocks(x, rows_x):
        for columns, right in row_blocks(x, rows_x) if y is None else row_blocks(y, rows_y):
            if y is None and columns.start < rows.start:
                continue
            kernel = _kernel(left, right)
            if y is None and rows == columns:
                np.fill_diagonal(kernel, 0.0)
            yield rows, columns, kernel


def _kernel(left, right):
    base = left @ right.T / left.shape[1] + 1.0
    return base * base * base


def _group_means(x, groups_x, y=None, groups_y=None):
    """Mean kernel within each group of rows (i != j), or between the paired groups of two sets.

    All groups share one pass over the pairs of rows, unless that would be more work than a pass
    for each group.
    """
    groups_y = groups_x if y is None else groups_y
    pairs = [len(a) * len(b) for a, b in zip(groups_x, groups_y)]
    size = len(x) * len(x if y is None else y)
    if len(pairs) > 1 and size > sum(pairs):
        each = [_group_means(x, [a], y, [b]) for a, b in zip(groups_x, groups_y)]
        return np.concatenate(each)
    rows_x, members_x = _members(groups_x)
    rows_y, members_y = _members(groups_y)
    sums = np.zeros(len(pairs))
    for rows, columns, kernel in _kernel_blocks(x, y, rows_x, rows_y):
        part = np.einsum("ip,ip->p", members_x[rows], kernel @ members_y[columns])
        sums += part if y is not None or rows == columns else 2.0 * part
    if y is None:
        pairs = [len(group) * (len(group) - 1) for group in groups_x]
    return sums / pairs


def _members(groups):
    rows = np.unique(np.concatenate(groups))
    members = np.zeros((len(rows), len(groups)))
    for column, group in enumerate(groups):
        members[np.searchsorted(rows, group), column] = 1.0
    return rows, members


def _permuted(first, second, permutations, rng):
    """Mean kernels within the first, within the second and between both, for shuffled labels.

    Returns three arrays (1 + permutations,) and the labels (N + M, 1 + permutations), 1 for the
    first set; column 0 is the truth.
    """
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}: at least 1 is needed")
    n, m = len(first), len(second)
    pooled = np.concatenate([first, second]).astype(np.float64)
    kernel = _kernel(pooled, pooled)
    np.fill_diagonal(kernel, 0.0)
    truth = np.arange(n + m) < n
    labels = np.tile(truth, (permutations + 1, 1))
    rng.permuted(labels[1:], axis=1, out=labels[1:])
    labels = labels.T.astype(np.float64)
    row_sums = kernel.sum(axis=1)
    touching = row_sums @ labels
    inside = np.einsum("ip,ip->p", labels, kernel @ labels)
    outside = row_sums.sum() - 2.0 * touching + inside
    between = touching - inside
    return inside / (n * (n - 1)), outside / (m * (m - 1)), between / (n * m), labels


def _p_value(values, kernels):
    # Rounding must not break a tie with the truth (equal images, small sets) in its favour.
    tie = 1e-12 * np.abs(kernels).max()
    return float(1 + np.count_nonzero(values[1:] >= values[0] - tie)) / len(values)


def _at_most(most, count, rng):
    return np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
