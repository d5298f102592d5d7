"""How near generated images come to the training images, beside how near unseen real ones do.

Distances only: a generator that passes may still give a patient away in ways that none of these
distances measures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np

from keras_cxrgan.evaluation.alignment import (
    SIDE,
    Atlas,
    Neighbour,
    build_atlas,
    distance_in_atlas,
    nearest_in_atlas,
    nearest_in_pixels,
)
from keras_cxrgan.evaluation.neighbours import nearest

__all__ = [
    "audit",
    "authenticity",
    "copy_finder",
    "copy_threshold",
    "nearer_than",
    "nearest_in_pixels",
]

SMALLEST_CALIBRATION = 20
"""Real images from which a threshold for copies can be set."""

FARTHEST_COPY = 0.5
"""Pixel distance beyond which nothing counts as a copy: a correlation of 0.875 after alignment.

Where all images of a set are alike far from each other, a few deviations below their median would
still be no likeness that an eye accepts.
"""

QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 1)

_DEVIATIONS = 4.5  # the threshold's place below the median, in robust standard deviations
_DECILE, _QUARTILE = 1.2815515655446004, 0.6744897501960817  # of the normal law
_Z95 = 1.959963984540054


def authenticity(fake: np.ndarray, train: np.ndarray) -> float:
    """Share of generated features farther from their nearest training feature than that is
    from its own nearest training neighbour (Alaa 2022).

    fake, train: (N, D) and (M, D). No value is good by itself: generating from the true law
    gives 1/3 in one dimension and 0.86 in 768. Compare with `authenticity(held_out, train)`.

    >>> authenticity(np.array([[0.1], [9.0]]), np.array([[0.0], [1.0], [2.0]]))
    0.5
    """
    return float(np.mean(_authentic(nearest(fake, train), _own_distances(train))))


def copy_threshold(distances: np.ndarray) -> float:
    """The distance at or below which an image counts as a copy, from those of real images.

    distances: (N,), to the nearest training image, of held-out or (themselves left out) of
    training images; 20 or more that are not 0. In logarithms: the median less 4.5 standard
    deviations, read off the lower decile or quartile, whichever gives more. Several films of
    one patient and duplicates among the training images, up to a tenth of them, hardly move
    it; more of them only lower it.

    >>> round(copy_threshold(np.exp(np.linspace(-1, 1, 41))), 4)
    0.0356
    """
    distances = distances[distances > 0]
    if len(distances) < SMALLEST_CALIBRATION:
        raise ValueError(
            f"{len(distances)} distances between different real images are too few to tell a "
            f"copy from a look-alike; {SMALLEST_CALIBRATION} are needed (--held-out)"
        )
    decile, quartile, median = np.quantile(np.log(distances), (0.1, 0.25, 0.5))
    deviation = max((median - decile) / _DECILE, (median - quartile) / _QUARTILE)
    return float(np.exp(median - _DEVIATIONS * deviation))


def nearer_than(distances: np.ndarray, others: np.ndarray) -> dict:
    """Probability that one of `distances` is below one of `others`, ties counting half.

    Mann and Whitney's statistic: 0.5 when both follow one law. `low` and `high` bound it with
    95 % confidence (Newcombe 2006, method 5); `z` above 1.64 is significant at 5 %, one-sided.
    Films of one patient count as independent, so intervals are somewhat too narrow.

    >>> nearer_than(np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0]))["probability"]
    1.0
    """
    m, n = len(distances), len(others)
    ordered = np.sort(others)
    above = n - np.searchsorted(ordered, distances, side="right")
    equal = n - np.searchsorted(ordered, distances, side="left") - above
    probability = float((above + 0.5 * equal).sum() / (m * n))
    _, ties = np.unique(np.concatenate([distances, others]), return_counts=True)
    total = m + n
    correction = float((ties.astype(np.float64) ** 3 - ties).sum()) / (total * (total - 1))
    variance = (total + 1 - correction) / (12 * m * n)
    z = (probability - 0.5) / math.sqrt(variance) if variance > 1e-12 else 0.0
    return {
        "probability": probability,
        "low": _bound(probability, 0.0, m, n),
        "high": _bound(probability, 1.0, m, n),
        "z": z,
    }


def copy_finder(
    train_pixels: np.ndarray,
    train_features: np.ndarray,
    held_out_pixels: np.ndarray | None = None,
    held_out_features: np.ndarray | None = None,
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function (pixels, features) -> (N,) bool: which images `audit` would flag.

    It may be called with any number of images, block after block. The arguments and the
    thresholds are those of `audit`.

    >>> random = np.random.default_rng(0)
    >>> films = random.integers(0, 256, (24, 32, 32)).astype(np.uint8)
    >>> features = random.normal(size=(24, 8)).astype(np.float32)
    >>> copy_finder(films, features)(films[:1], features[1:2] + 100)
    array([ True])
    """
    _check_rows(train_pixels, train_features, "training")
    atlas = build_atlas(train_pixels)
    if _calibrated_on(held_out_pixels) == "train":
        in_pixels = nearest_in_atlas(train_pixels, atlas, same=True)
        in_features = _own_distances(train_features)
    else:
        in_pixels = nearest_in_atlas(held_out_pixels, atlas)
        in_features = nearest(held_out_features, train_features)[1][:, 0]
    pixel_threshold = min(copy_threshold(_distances(in_pixels)), FARTHEST_COPY)
    feature_threshold = copy_threshold(in_features)

    def is_copy(pixels: np.ndarray, features: np.ndarray) -> np.ndarray:
        near = _distances(nearest_in_atlas(pixels, atlas)) <= pixel_threshold
        return near | (nearest(features, train_features)[1][:, 0] <= feature_threshold)

    return is_copy


def audit(
    train_pixels: np.ndarray,
    fake_pixels: np.ndarray,
    train_features: np.ndarray,
    fake_features: np.ndarray,
    held_out_pixels: np.ndarray | None = None,
    held_out_features: np.ndarray | None = None,
    *,
    closest: int = 16,
) -> dict:
    """Distances of generated images to the training images, in pixels and in features.

    *_pixels: uint8 (N, S, S), S of 32 or more; *_features: (N, D), row for row the same images.
    Held-out images are real ones of patients that are not in the training set; with 20 or more
    of them they say what distance is to be expected without copying, else the training images'
    distances to each other do. Returns a dict that goes into JSON:

    - `pixels`, `features`: `quantiles` of fake, held-out and train distances to the nearest
      (other) training image; the `threshold` for copies and what it was `calibrated_on`;
      `calibration_below`, how many of `calibration_count` real images it would flag, and the
      95 % upper bound `false_flag_bound` on that share; `comparison`, see `nearer_than`; for
      features `authenticity` of fake and held-out images;
    - `flagged`: generated images at or below a threshold, with the training image, both
      distances and the rule ("pixels", "features" or both); `closest`: the nearest pairs in
      pixels; poses tell how the generated image was laid on the training image;
    - `train_duplicates`: exact ones, and pairs nearer than the pixel threshold;
    - `warnings`: sentences.
    """
    _check_rows(train_pixels, train_features, "training")
    _check_rows(fake_pixels, fake_features, "generated")
    if (held_out_pixels is None) != (held_out_features is None):
        raise ValueError("held-out images need both pixels and features; one of them is missing")
    held_out = held_out_pixels is not None
    if held_out:
        _check_rows(held_out_pixels, held_out_features, "held-out")
    warnings = []
    calibrated_on = _calibrated_on(held_out_pixels)
    if calibrated_on == "train":
        given = f"only {len(held_out_pixels)}" if held_out else "no"
        warnings.append(
            f"{given} held-out images were given: the thresholds come from the training images' "
            "distances to each other, which patients with several films make smaller (--held-out)"
        )

    atlas = build_atlas(train_pixels)
    fakes = nearest_in_atlas(fake_pixels, atlas)
    trains = nearest_in_atlas(train_pixels, atlas, same=True)
    in_pixels = {"fake": _distances(fakes), "train": _distances(trains)}
    own = _own_distances(train_features)
    fake_nearest = nearest(fake_features, train_features)
    in_features = {"fake": fake_nearest[1][:, 0], "train": own}
    authentic = {"fake": float(np.mean(_authentic(fake_nearest, own)))}
    if held_out:
        in_pixels["held-out"] = _distances(nearest_in_atlas(held_out_pixels, atlas))
        held_nearest = nearest(held_out_features, train_features)
        in_features["held-out"] = held_nearest[1][:, 0]
        authentic["held-out"] = float(np.mean(_authentic(held_nearest, own)))

    pixels = _summary(in_pixels, calibrated_on, FARTHEST_COPY)
    features = {**_summary(in_features, calibrated_on), "authenticity": authentic}
    flagged = _flagged(
        fakes, fake_nearest, pixels["threshold"], features["threshold"],
        fake_pixels, fake_features, train_features, atlas,
    )  # fmt: skip
    duplicates = _duplicates(train_pixels, trains, pixels["threshold"])
    warnings += _warnings(pixels, features, flagged, duplicates, len(fakes), calibrated_on)
    order = np.argsort(in_pixels["fake"], kind="stable")[:closest]
    like = [
        distances[calibrated_on] <= space["threshold"]
        for distances, space in ((in_pixels, pixels), (in_features, features))
    ]
    return {
        "calibration_flagged": int(np.sum(like[0] | like[1])),
        "n_train": len(train_pixels),
        "n_fake": len(fake_pixels),
        "n_held_out": len(held_out_pixels) if held_out else 0,
        "working_side": SIDE,
        "pixels": pixels,
        "features": features,
        "flagged": flagged,
        "closest": [_pair(int(i), fakes[i], fake_features, train_features) for i in order],
        "train_duplicates": duplicates,
        "warnings": warnings,
    }


def _check_rows(pixels: np.ndarray, features: np.ndarray, name: str) -> None:
    if len(pixels) != len(features):
        raise ValueError(
            f"{len(pixels)} {name} images but {len(features)} rows of features were given; both "
            "must come from the same files"
        )


def _calibrated_on(held_out_pixels: np.ndarray | None) -> str:
    enough = held_out_pixels is not None and len(held_out_pixels) >= SMALLEST_CALIBRATION
    return "held-out" if enough else "train"


def _own_distances(train: np.ndarray) -> np.ndarray:
    return nearest(train, train, same=True)[1][:, 0]


def _authentic(found: tuple[np.ndarray, np.ndarray], own: np.ndarray) -> np.ndarray:
    indices, distances = found
    # The training image's own distance, looked up by the training image's index.
    return distances[:, 0] > own[indices[:, 0]]


def _distances(neighbours: list[Neighbour]) -> np.ndarray:
    return np.array([neighbour.distance for neighbour in neighbours])


def _bound(probability: float, end: float, m: int, n: int) -> float:
    """Where the score interval around `probability` ends on the side of 0 or 1, by bisection."""

    def within(value: float) -> bool:
        spread = 1 + ((m + n) / 2 - 1) * ((1 - value) / (2 - value) + value / (1 + value))
        return (probability - value) ** 2 <= _Z95**2 * value * (1 - value) * spread / (m * n)

    inside, outside = probability, end
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if within(middle) else (inside, middle)
    return inside


def _wilson_upper(count: int, total: int) -> float:
    """Upper end of Wilson's 95 % interval for a share."""
    share, z2 = count / total, _Z95**2
    spread = _Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return (share + z2 / (2 * total) + spread) / (1 + z2 / total)


def _summary(distances: dict, calibrated_on: str, most: float = math.inf) -> dict:
    calibration = distances[calibrated_on]
    threshold = min(copy_threshold(calibration), most)
    below = int(np.sum(calibration <= threshold))
    return {
        "quantiles": {
            name: {f"{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(d, QUANTILES))}
            for name, d in distances.items()
        },
        "threshold": threshold,
        "calibrated_on": calibrated_on,
        "calibration_count": len(calibration),
        "calibration_below": below,
        "false_flag_bound": _wilson_upper(below, len(calibration)),
        "comparison": {
            "with": calibrated_on, **nearer_than(distances["fake"], calibration)
        },
    }  # fmt: skip


def _pair(fake: int, neighbour: Neighbour, fake_features, train_features) -> dict:
    difference = fake_features[fake].astype(np.float64) - train_features[neighbour.index]
    return {
        "fake": fake,
        "train": neighbour.index,
        "pixel_distance": neighbour.distance,
        "feature_distance": float(np.sqrt(difference @ difference)),
        "mirrored": neighbour.pose.mirrored,
        "scale": round(neighbour.pose.scale, 3),
        "shift": [round(neighbour.pose.x / SIDE, 4), round(neighbour.pose.y / SIDE, 4)],
    }


def _flagged(
    fakes: list[Neighbour],
    fake_nearest: tuple[np.ndarray, np.ndarray],
    pixel_threshold: float,
    feature_threshold: float,
    fake_pixels: np.ndarray,
    fake_features: np.ndarray,
    train_features: np.ndarray,
    atlas: Atlas,
) -> list[dict]:
    """One entry for each pair of a generated and a training image that a threshold holds."""
    pairs = []
    for fake, neighbour in enumerate(fakes):
        index, distance = int(fake_nearest[0][fake, 0]), fake_nearest[1][fake, 0]
        by_pixels = neighbour.distance <= pixel_threshold
        by_features = distance <= feature_threshold
        if by_pixels:
            pair = _pair(fake, neighbour, fake_features, train_features)
            also = pair["feature_distance"] <= feature_threshold
            pairs.append({**pair, "rule": "pixels and features" if also else "pixels"})
        if by_features and not (by_pixels and index == neighbour.index):
            aligned = distance_in_atlas(fake_pixels[fake], index, atlas)
            pair = _pair(fake, aligned, fake_features, train_features)
            also = aligned.distance <= pixel_threshold
            pairs.append({**pair, "rule": "pixels and features" if also else "features"})
    return sorted(pairs, key=lambda pair: pair["pixel_distance"])


def _duplicates(train: np.ndarray, neighbours: list[Neighbour], threshold: float) -> dict:
    digests = {hashlib.sha256(np.ascontiguousarray(image)).digest() for image in train}
    near = {
        (min(i, neighbour.index), max(i, neighbour.index)): neighbour.distance
        for i, neighbour in enumerate(neighbours)
        if neighbour.distance <= threshold
    }
    return {
        "exact": len(train) - len(digests),
        "near_pairs": [[i, j, distance] for (i, j), distance in sorted(near.items())],
    }


def _warnings(
    pixels: dict, features: dict, flagged: list[dict], duplicates: dict, n_fake: int, real: str
) -> list[str]:
    sentences = []
    unlike = "held-out" if real == "held-out" else "training"
    if flagged:
        count = len({pair["fake"] for pair in flagged})
        sentences.append(
            f"{count} of {n_fake} generated images lie as near to a training image as a copy of "
            "it would: look at the pairs"
        )
    for name, space in (("pixels", pixels), ("features", features)):
        result = space["comparison"]
        if result["low"] > 0.5:
            sentences.append(
                f"in {name} a generated image is nearer to the training images than a {unlike} "
                f"image with probability {result['probability']:.2f} (95 % interval "
                f"{result['low']:.2f} to {result['high']:.2f}): copying does this, and so does "
                "a generator of typical films only"
            )
        if real == "held-out" and space["calibration_below"]:
            sentences.append(
                f"{space['calibration_below']} of {space['calibration_count']} held-out images "
                f"lie as near to a training image in {name} as a copy would: the same films or "
                "patients may be on both sides"
            )
    authentic = features["authenticity"]
    if "held-out" in authentic and authentic["fake"] < 0.5 * authentic["held-out"]:
        sentences.append(
            f"authenticity of the generated images is {authentic['fake']:.2f}, of held-out "
            f"images {authentic['held-out']:.2f}"
        )
    if duplicates["near_pairs"]:
        sentences.append(
            f"pairs of training images that are duplicates or nearly so: "
            f"{len(duplicates['near_pairs'])} (images repeated exactly: {duplicates['exact']})"
        )
    return sentences
