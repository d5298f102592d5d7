"""How good the predictions of a classifier are, per class and over all classes.

Labels are integers (N,), probabilities (N, K), a prediction is the most probable class (of equals
the first). Per-class scores set one class against all others. What has no value, such as the
sensitivity to a class without films, is None: not 0, not NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 15

PER_CLASS = ("sensitivity", "specificity", "precision", "f1", "accuracy", "auc")
SCORES = ("balanced_accuracy", "accuracy", *(f"macro_{name}" for name in PER_CLASS))
"""Scores of all classes together: shares from 0 to 1, higher is better.

`balanced_accuracy` is `macro_sensitivity` by its usual name, and `accuracy` the share of films
that are right. `macro_accuracy` is neither: one class against the rest, always saying "no" has
(K - 1) / K of it.
"""


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest; each score is None where it is undefined."""

    name: str
    films: int
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    f1: float | None
    accuracy: float
    auc: float | None
    davoodi2021_f1: float | None


@dataclass(frozen=True)
class Classification:
    """All scores of one set of predictions; `dataclasses.asdict` makes it ready for JSON.

    `confusion[i][j]` counts the films of class i that were taken for class j.
    """

    films: int
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[ClassScores, ...]
    absent: tuple[str, ...]
    macro: dict[str, float | None]
    balanced_accuracy: float
    accuracy: float
    calibration_error: float
    calibration_bins: int
    brier: float


def classify(
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    parts: np.ndarray | None = None,
) -> Classification:
    """Return every score of the predicted probabilities (N, K) of films with labels (N,).

    Macro means are over the classes that have films (`absent` names the others). In them a class
    that was never predicted has precision 0, or ignoring it would pay; its own precision is None.
    With `parts` (N,), the network that each film is predicted by, `auc` ranks films within each.

    Raises ValueError for labels or probabilities that cannot be such.

    >>> scores = classify([0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], ["normal", "covid"])
    >>> scores.balanced_accuracy, scores.classes[1].precision
    (0.75, 0.5)
    """
    labels, probabilities = checked(labels, probabilities)
    count = probabilities.shape[1]
    if len(class_names) != count:
        raise ValueError(f"{len(class_names)} class names for probabilities of {count} classes")
    values = {name: per_class(name, labels, probabilities[None])[0, 0] for name in PER_CLASS}
    if parts is not None:
        ranked = [auc(labels == k, probabilities[:, k], parts) for k in range(count)]
        values["auc"] = np.array([np.nan if value is None else value for value in ranked])
    harmonic = davoodi2021_f1(values["sensitivity"], values["specificity"])
    films = np.bincount(labels, minlength=count)
    classes = tuple(
        ClassScores(
            name=str(name),
            films=int(films[i]),
            **{key: _number(values[key][i]) for key in PER_CLASS},
            davoodi2021_f1=_number(harmonic[i]),
        )
        for i, name in enumerate(class_names)
    )
    macro = {
        name: _number(overall(f"macro_{name}", labels, probabilities[None])[0, 0])
        for name in PER_CLASS
    }
    if parts is not None:
        defined = values["auc"][(films > 0) & ~np.isnan(values["auc"])]
        macro["auc"] = _number(defined.mean() if len(defined) else np.nan)
    present = harmonic[films > 0]
    macro["davoodi2021_f1"] = _number(present.mean())
    return Classification(
        films=len(labels),
        confusion=tuple(
            tuple(int(cell) for cell in row)
            for row in confusion_matrix(labels, probabilities.argmax(axis=1), count)
        ),
        classes=classes,
        absent=tuple(each.name for each in classes if not each.films),
        macro=macro,
        balanced_accuracy=macro["sensitivity"],
        accuracy=float(np.mean(probabilities.argmax(axis=1) == labels)),
        calibration_error=calibration_error(labels, probabilities),
        calibration_bins=CALIBRATION_BINS,
        brier=brier_score(labels, probabilities),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits (..., K), in float64; large logits do not overflow."""
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return counts (K, K): rows are the true classes, columns the predicted ones.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    cells = np.asarray(labels) * classes + np.asarray(predicted)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def auc(positive: np.ndarray, scores: np.ndarray, parts: np.ndarray | None = None) -> float | None:
    """Area under the ROC curve: how often a positive film has a higher score than a negative one.

    Equal scores count half, as in the Mann-Whitney statistic (Hanley & McNeil 1982). None
    without films of both kinds. With `parts` (N,) only films of one part are compared: the folds
    of a cross-validation have networks of their own, whose scores need no common scale (Forman
    & Scholz 2010).

    >>> auc([True, True, False, False], [0.9, 0.4, 0.4, 0.1])
    0.875
    """
    positive = np.asarray(positive, bool)
    scores, parts = np.asarray(scores), np.zeros(len(positive)) if parts is None else parts
    right = pairs = 0.0
    for part in np.unique(parts):
        here = np.asarray(parts) == part
        weight = float(positive[here].sum()) * float((~positive[here]).sum())
        if weight:
            ones = np.ones((1, int(here.sum())))
            right += weight * float(_weighted_auc(positive[here], scores[here], ones)[0])
            pairs += weight
    return right / pairs if pairs else None


def davoodi2021_f1(sensitivity, specificity):
    """The "F1" of Davoodi & Lo Giudice 2021: harmonic mean of sensitivity and specificity.

    It is not the F1 score, which knows precision and with it how rare a class is: at one film in
    four, their 0.767 is a true F1 of 0.756 and their 0.776 one of 0.666. Arrays or numbers.
    """
    sensitivity, specificity = np.asarray(sensitivity), np.asarray(specificity)
    return _ratio(2.0 * sensitivity * specificity, sensitivity + specificity, when_zero=0.0)


def calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error: by how much confidence and accuracy differ, 0 to 1.

    The confidence of the predicted class is put into `bins` bins of equal width, closed at their
    right end; |accuracy - mean confidence| is averaged over the films (Guo et al. 2017, eq. 3,
    and their 15 bins). With few films in a bin it is too large even for a calibrated classifier.
    """
    labels, probabilities = checked(labels, probabilities)
    confidence = probabilities.max(axis=1)
    gaps = (probabilities.argmax(axis=1) == labels) - confidence
    where = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(where, gaps, bins)).sum() / len(labels))


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 to 2.

    Brier 1950. Always saying 1 / K has 1 - 1 / K.
    """
    labels, probabilities = checked(labels, probabilities)
    truth = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - truth).sum(axis=1).mean())


def overall(
    name: str,
    labels: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Return one of `SCORES` for S sets of predictions (S, N, K) and B weightings (B, N): (B, S).

    A weight says how often a film counts: resampling is a change of weights.
    """
    if name not in SCORES:
        raise ValueError(f"unknown score {name!r}: choose one of {', '.join(SCORES)}")
    weights = np.ones((1, len(labels))) if weights is None else weights
    if name == "accuracy":
        right = probabilities.argmax(axis=2) == labels
        return weights @ right.T / weights.sum(axis=1, keepdims=True)
    part = "sensitivity" if name == "balanced_accuracy" else name.removeprefix("macro_")
    values = per_class(part, labels, probabilities, weights)
    films = weights @ np.eye(probabilities.shape[2])[labels]
    present = np.broadcast_to((films > 0)[:, None, :], values.shape)
    if part == "precision":
        values = np.nan_to_num(values)
    present = present & ~np.isnan(values)
    return _ratio(np.where(present, values, 0.0).sum(axis=2), present.sum(axis=2))


def per_class(
    name: str,
    labels: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Return one of `PER_CLASS` for each class: (B, S, K), NaN where undefined; see `overall`."""
    if name not in PER_CLASS:
        raise ValueError(f"unknown score {name!r}: choose one of {', '.join(PER_CLASS)}")
    weights = np.ones((1, len(labels))) if weights is None else weights
    sets, _, classes = probabilities.shape
    if name == "auc":
        values = np.empty((len(weights), sets, classes))
        for s in range(sets):
            for k in range(classes):
                values[:, s, k] = _weighted_auc(labels == k, probabilities[s, :, k], weights)
        return values
    predicted = np.eye(classes)[probabilities.argmax(axis=2)]
    truth = np.eye(classes)[labels]
    hits = np.einsum("bn,snk->bsk", weights, predicted * truth, optimize=True)
    named = np.einsum("bn,snk->bsk", weights, predicted, optimize=True)
    films = (weights @ truth)[:, None, :]
    total = weights.sum(axis=1)[:, None, None]
    others_right = total - films - named + hits
    if name == "sensitivity":
        return _ratio(hits, films)
    if name == "specificity":
        return _ratio(others_right, total - films)
    if name == "precision":
        return _ratio(hits, named)
    if name == "f1":  # without a film of the class there is nothing to find, whatever was named
        return np.where(films > 0, _ratio(2.0 * hits, films + named), np.nan)
    return _ratio(hits + others_right, total)


def checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (N,) and probabilities (..., N, K) as arrays, or raise ValueError."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels are {labels.dtype} of shape {labels.shape}: one integer for each film is"
            " needed"
        )
    if probabilities.ndim < 2 or probabilities.shape[-2] != len(labels):
        raise ValueError(
            f"probabilities of shape {probabilities.shape} for {len(labels)} labels: a row for"
            " each film and a column for each class are needed"
        )
    classes = probabilities.shape[-1]
    if classes < 2 or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} for {classes} columns of"
            " probabilities: two classes or more and labels from 0 to K - 1 are needed"
        )
    sums = probabilities.sum(axis=-1)
    # NaN fails both comparisons.
    if not (probabilities.min() >= 0 and np.abs(sums - 1).max() < 1e-3):
        raise ValueError(
            "these are not probabilities: each row must be 0 or more and sum to 1; logits go"
            " through softmax first"
        )
    return labels, probabilities


def _weighted_auc(positive, scores, weights):
    order = np.argsort(scores, kind="stable")
    _, first = np.unique(scores[order], return_index=True)
    weights, positive = weights[:, order], positive[order]
    of_positives = np.add.reduceat(weights * positive, first, axis=1)
    of_negatives = np.add.reduceat(weights * ~positive, first, axis=1)
    below = np.cumsum(of_negatives, axis=1) - of_negatives / 2.0
    pairs = of_positives.sum(axis=1) * of_negatives.sum(axis=1)
    return _ratio((of_positives * below).sum(axis=1), pairs)


def _ratio(top, bottom, when_zero=np.nan):
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    out = np.full(top.shape, when_zero)
    return np.divide(top, bottom, out=out, where=bottom != 0)


def _number(value) -> float | None:
    return None if np.isnan(value) else float(value)
