"""Two sets of features -> every score beside its floor, its error and what it cannot tell.

A score of generated images is never shown alone. What real images score against other real
images at the same count (the floor) says which part of a distance is only few images, and
degraded real images say how far a distance is in things one can see.
"""

from __future__ import annotations

import numpy as np

from keras_cxrgan.evaluation.diversity import vendi_score
from keras_cxrgan.evaluation.frechet import frechet, frechet_floor
from keras_cxrgan.evaluation.frechet_error import frechet_difference, frechet_standard_error
from keras_cxrgan.evaluation.kernel_distance import kid, kid_difference, kid_floor, kid_test
from keras_cxrgan.evaluation.neighbours import prdc

PRDC = ("precision", "density", "recall", "coverage")
METRICS = {
    "kid": "lower",
    "frechet": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
}
"""The numbers that may choose a checkpoint, and which way is better."""


# Shares of what real films reach at the same count, a Vendi score counted beyond 1. A tenth of the
# films repeated ten times has recall 0.00 and about two fifths of their Vendi score.
COLLAPSED = {"vendi": 0.25, "recall": 0.02}
NARROW = {"vendi": 0.5, "recall": 0.25}


def check_counts(n_real: int, n_fake: int, neighbours: int) -> None:
    """Raise `ValueError` unless there are images enough for a score with its floor."""
    needed = 2 * (neighbours + 2)
    for side, count in (("REAL", n_real), ("FAKE", n_fake)):
        if count < needed:
            raise ValueError(
                f"{side} has {count} image{'s' * (count != 1)}, and with --neighbours {neighbours}"
                f" an evaluation needs at least {needed}: add images, or lower --neighbours"
            )


def quick_scores(real: np.ndarray, fake: np.ndarray, neighbours: int = 5) -> dict[str, float]:
    """Return the numbers of `METRICS`, without floor or error: for a schedule during training."""
    nearest = prdc(real, fake, k=neighbours)
    return {
        "kid": kid(real, fake),
        "frechet": frechet(real, fake),
        **{name: nearest[name] for name in PRDC},
    }


def score(
    real: np.ndarray,
    fake: np.ndarray,
    *,
    held_out: np.ndarray | None = None,
    pool: np.ndarray | None = None,
    neighbours: int = 5,
    seed: int = 0,
    splits: int = 20,
    permutations: int = 1000,
) -> dict:
    """Return all scores of fake features (M, D) against real ones (N, D), ready for JSON.

    `floor` holds the same measures between random halves of the real set, and of as many fakes
    against those halves: like with like. `vendi` is at equal counts for the same reason.

    Args:
        pool: (K x M, D), many more fakes of the same generator: `draws` then holds what K sets of
            M of them score, and the fakes beside the floor are drawn from all of them, K times
            where K is more than `splits`.
    """
    check_counts(len(real), len(fake), neighbours)
    if pool is not None:
        splits = max(splits, len(pool) // len(fake))
    nearest = prdc(real, fake, k=neighbours)
    return {
        "n_real": len(real),
        "n_fake": len(fake),
        "dims": int(real.shape[1]),
        "neighbours": neighbours,
        **{name: nearest[name] for name in PRDC},
        "recall_of_as_many": _recall_of_as_many(real, fake, nearest["recall"], neighbours, seed),
        "expected_coverage": nearest["expected_coverage"],
        "duplicates": nearest["warnings"],
        "frechet": {
            "value": frechet(real, fake),
            "standard_error": frechet_standard_error(real, fake),
            "rank_deficient": min(len(real), len(fake)) <= real.shape[1],
        },
        "kid": kid_test(real, fake, permutations=permutations, seed=seed),
        "vendi": _vendi(real, fake, seed),
        "floor": floor(
            real, fake if pool is None else pool, neighbours=neighbours, splits=splits, seed=seed
        ),
        "draws": None if pool is None else score_draws(real, pool, len(fake), neighbours, seed),
        "held_out": None
        if held_out is None
        else _against_held_out(real, fake, held_out, pool, neighbours, seed),
    }


def score_draws(
    real: np.ndarray, pool: np.ndarray, count: int, neighbours: int = 5, seed: int = 0
) -> dict:
    """Return mean and sd of `quick_scores` over disjoint random sets of `count` rows of `pool`.

    One set of a few dozen images is a draw: another one of the same generator has a recall that
    differs by 0.05, and now and then a distance twice as large. The sd tells how much; it knows
    nothing of other films, nor of another training.

    >>> score_draws(real, pool, 70)["recall"]["mean"]  # doctest: +SKIP
    """
    sets = len(pool) // count
    order = np.random.default_rng(seed).permutation(len(pool))
    rows = [
        quick_scores(real, pool[order[index * count : (index + 1) * count]], neighbours)
        for index in range(sets)
    ]
    columns = {name: np.array([row[name] for row in rows]) for name in METRICS}
    return {
        "n": count,
        "sets": sets,
        **{
            name: {"mean": float(values.mean()), "sd": float(values.std(ddof=1))}
            for name, values in columns.items()
        },
    }


def score_reals(
    held_out: np.ndarray, train: np.ndarray, *, neighbours: int = 5, splits: int = 20, seed: int = 0
) -> dict[str, float]:
    """Return what films trained on score against held-out ones: what a generator may hope for.

    Means of `quick_scores` over random sets of as many films trained on; {} where these are fewer.
    """
    if len(train) < len(held_out):
        return {}
    random = np.random.default_rng(seed)
    rows = [
        quick_scores(held_out, train[random.permutation(len(train))[: len(held_out)]], neighbours)
        for _ in range(splits)
    ]
    return {name: float(np.mean([row[name] for row in rows])) for name in METRICS}


def floor(
    real: np.ndarray, fake: np.ndarray, *, neighbours: int = 5, splits: int = 20, seed: int = 0
) -> dict:
    """Return what real halves score against each other, and equally many fakes against them."""
    random = np.random.default_rng(seed)
    count = min(len(real) // 2, len(fake))
    rows = []
    # Many of few images, whose splits differ; few of many, where each costs most.
    for _ in range(min(splits, max(5, 5000 // count))):
        order = random.permutation(len(real))
        half, other = real[order[:count]], real[order[count : 2 * count]]
        some = fake[random.permutation(len(fake))[:count]]
        rows.append([prdc(half, other, k=neighbours), prdc(half, some, k=neighbours)])
    means = [
        {name: float(np.mean([row[side][name] for row in rows])) for name in PRDC}
        for side in (0, 1)
    ]
    return {
        "n": count,
        "splits": splits,
        "frechet": frechet_floor(real, splits=splits, seed=seed, fake=fake),
        "kid": kid_floor(real, splits=splits, seed=seed, fake=fake),
        "real": means[0],
        "fake": means[1],
    }


def _recall_of_as_many(real, fake, recall: float, neighbours: int, seed: int) -> float:
    """Return the recall of no more fakes than films: of more, smaller balls reach fewer films."""
    if len(fake) <= len(real):
        return recall
    some = np.random.default_rng(seed).permutation(len(fake))[: len(real)]
    return prdc(real, fake[some], k=neighbours)["recall"]


def _vendi(real, fake, seed) -> dict:
    count = min(len(real), len(fake))
    random = np.random.default_rng(seed)
    # A Vendi score grows with the number of images, so both sides give equally many.
    values = [
        float(vendi_score(side[random.permutation(len(side))[:count]], seed=seed)["vendi"])
        for side in (real, fake)
    ]
    # One image alone scores 1, and where features share a direction all films score little more:
    # variety is what lies beyond that.
    beyond = values[0] - 1
    share = (values[1] - 1) / beyond if beyond > 1e-9 else 1.0
    ratio = values[1] / values[0]
    return {"n": count, "real": values[0], "fake": values[1], "ratio": ratio, "share": share}


def _against_held_out(real, fake, held_out, pool, neighbours, seed) -> dict:
    random = np.random.default_rng(seed)
    count = min(len(real), len(fake), len(held_out))
    real, fake, held_out = (
        side[random.permutation(len(side))[:count]] for side in (real, fake, held_out)
    )
    return {
        "n": count,
        "fake_to_real": frechet(real, fake),
        "fake_to_held_out": frechet(held_out, fake),
        "real_to_held_out": frechet(held_out, real),
        # From the generated images to both sets of films. How near held-out films come to the
        # training films is no measure: too little variety brings a generator nearer than any.
        "training_minus_held_out": frechet_difference(fake, real, held_out, seed=seed),
        "kid": {
            "fake_to_real": kid(real, fake),
            "fake_to_held_out": kid(held_out, fake),
            "real_to_held_out": kid(held_out, real),
        },
        # What films trained on reach of the others is what a generator may hope for.
        "prdc": {
            name: {key: found[key] for key in PRDC}
            for name, side in (("fake_to_held_out", fake), ("real_to_held_out", real))
            for found in (prdc(held_out, side, k=neighbours),)
        },
        "draws": None if pool is None else score_draws(held_out, pool, count, neighbours, seed),
    }


def ladder(
    reference: np.ndarray, candidates: dict[str, np.ndarray], *, neighbours: int = 5
) -> list[dict]:
    """Return the scores of several sets of one size against one reference half of real films.

    Where a generator's row stands among real, blurred, noisy and collapsed films says more than
    its number. All sets must have the same count, because every score depends on it.
    """
    counts = {len(features) for features in candidates.values()}
    if len(counts) != 1:
        raise ValueError(f"the sets of a ladder must be of one size, got {sorted(counts)}")
    return [
        {"name": name, **quick_scores(reference, features, neighbours)}
        for name, features in candidates.items()
    ]


def compare(
    real: np.ndarray, first: np.ndarray, second: np.ndarray, *, permutations: int, seed: int
) -> dict:
    """Return how far the first fakes are from the reals beyond the second, with error and p."""
    return {
        "frechet": frechet_difference(real, first, second, seed=seed),
        "kid": kid_difference(real, first, second, permutations=permutations, seed=seed),
    }


def findings(scores: dict) -> list[str]:
    """Return in words what the scores show about variety and realism: collapse is named here."""
    real, fake = scores["floor"]["real"], scores["floor"]["fake"]
    found = []
    # Images repeated a few times each show at the larger count, where their neighbours are copies.
    fake = fake | {"recall": min(fake["recall"], scores["recall_of_as_many"])}
    if variety := _variety(real, fake, scores["vendi"]):
        found.append(variety)
    if fake["precision"] < 0.1 * real["precision"]:
        found.append(
            f"NOT REALISTIC: precision {fake['precision']:.2f}, where another half of the real"
            f" films has {real['precision']:.2f}: hardly any generated image lies among real ones."
        )
    held_out = scores["held_out"]
    if held_out is not None:
        nearer = held_out["training_minus_held_out"]
        if nearer["high"] < 0 and nearer["p_value"] < 0.01:
            found.append(
                "COPIES? The generated images are nearer to the training films"
                f" ({held_out['fake_to_real']:.3g}) than to the held-out ones"
                f" ({held_out['fake_to_held_out']:.3g}, p {nearer['p_value']:.1g}): run cxrgan"
                " audit, unless these are films of another kind."
            )
    return found


def _variety(real: dict, fake: dict, vendi: dict) -> str | None:
    """Return the sentence on too little variety; `fake` and `real` hold precision and recall."""
    realistic = fake["precision"] >= 0.1  # far from all films, recall says nothing about variety
    recall = fake["recall"] / real["recall"] if real["recall"] else 1.0
    if vendi["share"] < COLLAPSED["vendi"] or (realistic and recall < COLLAPSED["recall"]):
        name, least = "COLLAPSE", COLLAPSED
    elif vendi["share"] < NARROW["vendi"] or (realistic and recall < NARROW["recall"]):
        name, least = "LOW DIVERSITY", NARROW
    else:
        return None
    reasons = []
    if vendi["share"] < least["vendi"]:
        reasons.append(
            f"the generated images are as varied as {vendi['fake']:.3g} different ones where real"
            f" films reach {vendi['real']:.3g} (Vendi score)"
        )
    if realistic and recall < least["recall"]:
        reasons.append(
            f"recall {fake['recall']:.2f}, where another half of the real films has"
            f" {real['recall']:.2f}"
        )
    return f"{name}: {'; '.join(reasons)}. A good distance does not contradict it."


def warnings(scores: dict) -> list[str]:
    """Return what limits these scores: counts, rank."""
    n_real, n_fake, dims = scores["n_real"], scores["n_fake"], scores["dims"]
    warned = list(scores["duplicates"])
    if scores["frechet"]["rank_deficient"]:
        warned.append(
            f"N < D: {min(n_real, n_fake)} images for {dims} dimensions leave the covariance"
            " rank-deficient and the Fréchet distance biased upwards; compare it with its floor"
            " only, and prefer KID"
        )
    if n_real != n_fake:
        warned.append(
            f"unequal counts: {n_real} real and {n_fake} generated; scores at other counts are"
            " not comparable with these"
        )
    if min(n_real, n_fake) < 50:
        warned.append(
            f"only {min(n_real, n_fake)} images on one side: below 50 no score here is reliable"
        )
    return warned
