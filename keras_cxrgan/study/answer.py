"""The answer in one sentence: does it help, does it hurt, or was nothing shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

from keras_cxrgan.study.comparison import Comparison

HELPS, HURTS, NOT_SHOWN = "helps", "hurts", "no difference shown"


@dataclass(frozen=True)
class Answer:
    """A verdict of `HELPS`, `HURTS` or `NOT_SHOWN`, its sentence, and what it rests on.

    `not_excluded` is the largest difference in either direction that the interval leaves
    possible, as a share.
    """

    name: str
    verdict: str
    sentence: str
    not_excluded: float


def answer(name: str, comparison: Comparison) -> Answer:
    """Return what a comparison says about the arm of this name.

    Helps or hurts only where the interval, as wide as the number of comparisons asks, leaves out
    0 and the p-value, corrected as well, is below the error rate of all comparisons together. An
    interval that ends at 0 has not left it out.
    """
    error_rate = (1 - comparison.confidence) * comparison.comparisons
    agrees = comparison.p_value < error_rate + 1e-12
    if comparison.low > 0 and agrees:
        verdict = HELPS
    elif comparison.high < 0 and agrees:
        verdict = HURTS
    else:
        verdict = NOT_SHOWN
    bound = max(abs(comparison.low), abs(comparison.high))
    return Answer(name, verdict, _sentence(name, verdict, comparison, bound), bound)


def answers(comparisons: dict[str, Comparison]) -> list[Answer]:
    """Return the answer for each arm held against one baseline.

    Raises ValueError where a comparison was made for another number of arms.
    """
    for name, comparison in comparisons.items():
        if comparison.comparisons < len(comparisons):
            raise ValueError(
                f"{name} was compared as one of {comparison.comparisons}, but there are"
                f" {len(comparisons)}: give compare(..., comparisons={len(comparisons)})"
            )
    return [answer(name, comparison) for name, comparison in comparisons.items()]


def _sentence(name: str, verdict: str, comparison: Comparison, bound: float) -> str:
    score = comparison.score.replace("_", " ")
    if verdict == NOT_SHOWN:
        found = (
            f"No difference shown for {name}: {score} differs by"
            f" {points(comparison.difference)} percentage points"
        )
        end = f"; a difference under {_up(bound)} points cannot be excluded."
    else:
        found = (
            f"{name} {verdict}: {score} {'rises' if verdict == HELPS else 'falls'} by"
            f" {points(abs(comparison.difference), sign=False)} percentage points"
        )
        end = "."
    level = f"{100 * comparison.confidence:.4g} %"
    if comparison.comparisons > 1:
        level += f", corrected for {comparison.comparisons} comparisons"
    basis = (
        f" ({points(comparison.low)} to {points(comparison.high)}; {level}; {comparison.films}"
        f" films of {comparison.patients} patients, {comparison.seeds}"
        f" seed{'s' * (comparison.seeds != 1)})"
    )
    if comparison.seeds == 1:
        end = end[:-1] + "; with one seed this is about two networks, not about the method."
    return found + basis + end


def points(share: float, sign: bool = True) -> str:
    """Return a share in percentage points, with digits enough that it does not read 0.

    >>> points(0.0312), points(-0.0001), points(0.0)
    ('+3.1', '-0.01', '0.0')
    """
    value = 100 * share
    text = f"{value:+.1f}" if abs(value) >= 0.05 else f"{value:+.1g}"
    if value == 0:
        return "0.0"
    return text if sign else text.lstrip("+")


def _up(share: float) -> str:
    return f"{math.ceil(1000 * share - 1e-9) / 10:.1f}"
