"""Is one arm of the study better than another: paired differences on the same films.

An arm is the probabilities (S, N, K) that S training seeds gave N films, each film predicted by
the network of the fold in which it was tested. Differences are arm minus baseline in shares
(0.01 is one percentage point), positive where the arm is better.

Chance enters twice: through the patients who happen to be in the set, and through the training
runs. Both are in the interval. Not in it: other training films, for all folds share theirs
(Nadeau & Bengio 2003); only an external test set speaks about other hospitals.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_cxrgan.study.classification import checked, overall

BLOCK = 4_000_000
"""Most weights in memory at once: 32 MB."""


@dataclass(frozen=True)
class Comparison:
    """One arm against the baseline; scores and interval in shares, `dataclasses.asdict` for JSON.

    Interval and `p_value` are corrected for `comparisons` (Bonferroni) and never contradict each
    other: a p-value below the error rate of the family means an interval that leaves out 0.
    `seed_sd` is the standard deviation of `by_seed`, None with a single seed: both then speak of
    these two networks only.
    """

    score: str
    baseline: float
    arm: float
    difference: float
    low: float
    high: float
    confidence: float
    p_value: float
    by_seed: tuple[float, ...]
    seed_sd: float | None
    films: int
    patients: int
    seeds: int
    resamples: int
    comparisons: int = 1


def compare(
    labels: np.ndarray,
    arm: np.ndarray,
    baseline: np.ndarray,
    patients: Sequence[Hashable],
    *,
    score: str = "balanced_accuracy",
    comparisons: int = 1,
    error_rate: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Return the difference of a score between two arms on the same films, with its interval.

    The interval is a percentile bootstrap over patients, all films of one drawn together and the
    same draw for both arms and all seeds. Within the class that most of a patient's films have,
    n - 1 of n patients are drawn and weighted up: the variance is then unbiased, where n of n
    would make it too small by 1 / n (Rao & Wu 1988). To each draw comes a t-distributed error of
    the training runs, of the variance between seeds: without it, 4 in 10 null studies came out
    "significant" in simulations where one training run in one arm is luckier than the next.
    A percentile interval because the difference of two rates is hardly skewed; the acceleration
    of BCa would be taken from the same few patients and knows no seeds. It reaches at least as
    far on both sides as what no patient of n can exclude, 1 - (error / 2)^(1 / n) (the rule of
    three), of all patients for accuracy, and for a mean over K classes a K-th of that of the class
    with the fewest: where hardly any prediction differs, or a class has five patients who happen
    to agree, resampling alone would promise too much.

    The p-value is the larger one of two: the error rate at which that interval would begin to
    hold 0, and the chance of so large a difference when arms are swapped for whole patients.
    Swapping alone takes lucky training runs for an effect, the bootstrap alone is too sure where
    four or five patients make the whole difference.

    Args:
        labels: classes (N,), integers.
        arm, baseline: probabilities (S, N, K), or (N, K) for one seed; equally many seeds.
        patients: a key for each film; films of one patient stand and fall together.
        comparisons: how many arms are held against the baseline: the interval has the coverage
            1 - error_rate / comparisons, so that all of them hold together (Bonferroni), and
            the p-value is as many times as large.

    Raises ValueError for shapes that do not match and a class with fewer than 2 patients.
    """
    labels, arm, baseline = _checked_pair(labels, arm, baseline)
    strata, of_film = _strata(labels, patients)
    if comparisons < 1 or not 0 < error_rate < 1 or resamples < 100:
        raise ValueError(
            f"comparisons {comparisons}, error_rate {error_rate}, resamples {resamples}: needed"
            " are 1 or more, a share between 0 and 1, and 100 or more"
        )
    rng = np.random.default_rng(seed)
    scores = [overall(score, labels, side)[0] for side in (arm, baseline)]
    by_seed = scores[0] - scores[1]
    count, seeds = len(of_film), len(by_seed)
    if np.isnan(by_seed).any():
        raise ValueError(f"{score} is undefined on these {count} films: all are of one class")

    drawn = []
    for rows in _blocks(resamples, count):
        weights = _draw(strata, rows, rng)[:, of_film]
        first, second = (overall(score, labels, side, weights) for side in (arm, baseline))
        drawn.append(first - second)
    drawn = np.concatenate(drawn)
    difference = float(by_seed.mean())
    replicates, seed_sd = drawn.mean(axis=1), None
    if seeds > 1:
        # The replicates have the films' part of this variance as well. Without the surplus 9 %
        # of null studies of 3 seeds came out "significant" at 5 %, with it 4 % at most.
        seed_sd = float(by_seed.std(ddof=1))
        replicates = replicates + seed_sd / math.sqrt(seeds) * rng.standard_t(
            seeds - 1, len(replicates)
        )
    error = error_rate / comparisons
    low, high = np.quantile(replicates, [error / 2, 1 - error / 2])
    patient_count = sum(len(stratum) for stratum in strata)
    groups = _groups(score, labels, of_film)
    unseen = max(part * (1 - (error / 2) ** (1 / n)) for n, part in groups)
    p_values = (
        2 * (1 + min(np.sum(replicates <= 0), np.sum(replicates >= 0))) / (1 + resamples),
        max(2 * (1 - min(1.0, abs(difference) / part)) ** n for n, part in groups),
        _permutation(score, labels, arm, baseline, of_film, resamples, rng),
    )
    return Comparison(
        score=score,
        baseline=float(scores[1].mean()),
        arm=float(scores[0].mean()),
        difference=difference,
        low=float(min(low, difference - unseen)),
        high=float(max(high, difference + unseen)),
        confidence=1 - error,
        p_value=float(min(1.0, comparisons * max(p_values))),
        by_seed=tuple(float(value) for value in by_seed),
        seed_sd=seed_sd,
        films=count,
        patients=patient_count,
        seeds=seeds,
        resamples=resamples,
        comparisons=comparisons,
    )


@dataclass(frozen=True)
class McNemar:
    """Films that only one of two arms gets right, and p-values of "neither is better".

    `p_exact` and `p_mid` count films as independent; `p_patients` does not.
    """

    only_arm_right: int
    only_baseline_right: int
    both_right: int
    both_wrong: int
    p_exact: float
    p_mid: float
    p_patients: float
    films: int
    patients: int


def mcnemar(
    labels: np.ndarray,
    arm: np.ndarray,
    baseline: np.ndarray,
    patients: Sequence[Hashable],
) -> McNemar:
    """Return McNemar's test of two sets of predicted classes (N,) on the same N films.

    Exact and mid-p (Fagerland et al. 2013), two-sided, with the film as unit. Films of one
    patient tend to be right or wrong together: these p-values are then too small. `p_patients`
    swaps the arms for whole patients, every combination of them (by convolution, not by drawing),
    and is the exact McNemar p-value where each patient has one film. It tests accuracy, in which
    large classes count most.

    The predictions are those of one network per film: of several seeds average the
    probabilities first, as the same film counted once for each seed is not new evidence.
    """
    labels, arm, baseline = (np.asarray(each) for each in (labels, arm, baseline))
    if not labels.shape == arm.shape == baseline.shape == (len(patients),) or not len(labels):
        raise ValueError(
            f"labels {labels.shape}, arm {arm.shape}, baseline {baseline.shape} and"
            f" {len(patients)} patients: one class and one patient for each film are needed"
        )
    right_arm, right_baseline = arm == labels, baseline == labels
    gained = int(np.sum(right_arm & ~right_baseline))
    lost = int(np.sum(right_baseline & ~right_arm))
    _, of_film = _numbered(patients)
    change = right_arm.astype(float) - right_baseline
    moves = np.abs(np.bincount(of_film, change)).astype(int)
    p_exact, p_mid = _sign_flips([1] * (gained + lost), gained - lost)
    return McNemar(
        only_arm_right=gained,
        only_baseline_right=lost,
        both_right=int(np.sum(right_arm & right_baseline)),
        both_wrong=int(np.sum(~right_arm & ~right_baseline)),
        p_exact=p_exact,
        p_mid=p_mid,
        p_patients=_sign_flips(moves[moves > 0], gained - lost)[0],
        films=len(labels),
        patients=len(moves),
    )


def seed_sign_test(by_seed: Sequence[float]) -> float:
    """P-value of "training runs are as often better as worse", from the differences by seed.

    All 2^S swaps of the arms within a seed, two-sided, with the mean difference as statistic
    (Fisher 1935). It speaks of these films only, and S seeds cannot give less than 2^(1 - S):
    0.0625 for 5, so that 6 or more are needed to reach 0.05.
    """
    values = np.asarray(by_seed, np.float64)
    if values.ndim != 1 or not 1 <= len(values) <= 20:
        raise ValueError(f"differences of shape {values.shape}: 1 to 20 seeds are needed")
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    observed = abs(values.sum())
    return float(np.mean(np.abs(sums) >= observed - 1e-12))


def _checked_pair(labels, arm, baseline):
    labels, arm = checked(labels, arm)
    labels, baseline = checked(labels, baseline)
    arm, baseline = (side[None] if side.ndim == 2 else side for side in (arm, baseline))
    if arm.shape != baseline.shape or arm.ndim != 3:
        raise ValueError(
            f"the arm has predictions of shape {arm.shape}, the baseline {baseline.shape}: both"
            " need the same seeds, films and classes"
        )
    return labels, arm, baseline


def _numbered(patients):
    numbers: dict[Hashable, int] = {}
    of_film = np.array([numbers.setdefault(patient, len(numbers)) for patient in patients])
    return numbers, of_film


def lone_class(labels: np.ndarray, patients: Sequence[str]) -> int | None:
    """Return a class with the films of one patient only, so that nothing can be compared; or None.

    >>> lone_class(np.array([0, 0, 1, 1]), ["a", "b", "c", "c"])
    1
    """
    numbers, of_film = _numbered(patients)
    strata = _of_majority(labels, numbers, of_film)
    return next((k for k, members in strata.items() if len(members) < 2), None)


def _of_majority(labels, numbers, of_film):
    """Return class -> the numbers of the patients most of whose films are of it."""
    films = np.zeros((len(numbers), labels.max() + 1))
    np.add.at(films, (of_film, labels), 1)
    classes = films.argmax(axis=1)
    return {int(k): np.flatnonzero(classes == k) for k in np.unique(classes)}


def _strata(labels, patients):
    """Return the patients of each class, as numbers, and the patient number of each film."""
    if len(patients) != len(labels):
        raise ValueError(f"{len(patients)} patients for {len(labels)} films: give each film one")
    numbers, of_film = _numbered(patients)
    lone = lone_class(labels, patients)
    if lone is not None:
        raise ValueError(
            f"class {lone} has the films of one patient only: 2 or more are needed to know how"
            " much patients differ"
        )
    return list(_of_majority(labels, numbers, of_film).values()), of_film


def _groups(score, labels, of_film):
    """Return (patients, part of the score) of what the score is a mean of: all films, or classes."""
    if score == "accuracy":
        return [(len(np.unique(of_film)), 1.0)]
    classes = np.unique(labels)
    return [(len(np.unique(of_film[labels == k])), 1 / len(classes)) for k in classes]


def _blocks(resamples, count):
    rows = max(1, BLOCK // count)
    while resamples > 0:
        yield min(rows, resamples)
        resamples -= rows


def _draw(strata, rows, rng):
    weights = np.empty((rows, sum(len(stratum) for stratum in strata)))
    for stratum in strata:
        n = len(stratum)
        weights[:, stratum] = rng.multinomial(n - 1, np.full(n, 1 / n), size=rows) * n / (n - 1)
    return weights


def _permutation(score, labels, arm, baseline, of_film, resamples, rng) -> float:
    """P-value of swapping the arms of whole patients, all seeds at once; never 0."""
    labels, both = np.tile(labels, 2), np.concatenate([arm, baseline], axis=1)
    keep = np.repeat([[1.0, 0.0]], len(of_film), axis=1)

    def difference(weights):
        mine = overall(score, labels, both, weights)
        return (mine - overall(score, labels, both, 1.0 - weights)).mean(axis=1)

    observed, as_large = abs(difference(keep)[0]), 0
    for rows in _blocks(resamples, 2 * len(of_film)):
        swapped = rng.integers(0, 2, (rows, of_film.max() + 1)).astype(float)[:, of_film]
        weights = np.concatenate([1.0 - swapped, swapped], axis=1)
        as_large += int(np.sum(np.abs(difference(weights)) >= observed - 1e-12))
    return (1 + as_large) / (1 + resamples)


def _sign_flips(sizes, total) -> tuple[float, float]:
    """Exact and mid p-values of |sum of +-sizes| >= |total| for random signs."""
    reach = int(np.sum(sizes))
    chances = np.ones(1)
    for size in sizes:
        step = np.zeros(2 * size + 1)
        step[0] = step[-1] = 0.5
        chances = np.convolve(chances, step)
    sums = np.abs(np.arange(-reach, reach + 1))
    beyond = float(chances[sums > abs(total)].sum())
    at = float(chances[sums == abs(total)].sum())
    return min(1.0, beyond + at), min(1.0, beyond + at / 2)
