"""The answer in one sentence: does it help, does it hurt, or was nothing shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

from keras_cxrgan.study.comparison import Comparison, holm

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
    p_corrected: float


def answer(name: str, comparison: Comparison, p_corrected: float | None = None) -> Answer:
    """Return what a comparison says about the arm of this name.

    Helps or hurts only where the interval, already as wide as the number of comparisons asks,
    leaves out 0, and the permutation test agrees: its p-value, corrected by Holm, must be below
    1 - confidence of the whole family. Bootstrap intervals alone are too narrow where four or
    five patients make the whole difference. An interval that ends at 0 has not left it out.
    """
    if comparison.comparisons > 1 and p_corrected is None:
        raise ValueError(
            f"one of {comparison.comparisons} comparisons has no answer alone: use answers, which"
            " corrects their p-values together"
        )
    p_corrected = comparison.p_value if p_corrected is None else p_corrected
    error_rate = (1 - comparison.confidence) * comparison.comparisons
    agrees = p_corrected < error_rate + 1e-12
    if comparison.low > 0 and agrees:
        verdict = HELPS
    elif comparison.high < 0 and agrees:
        verdict = HURTS
    else:
        verdict = NOT_SHOWN
    bound = max(abs(comparison.low), abs(comparison.high))
    return Answer(name, verdict, _sentence(name, verdict, comparison, bound), bound, p_corrected)


def answers(comparisons: dict[str, Comparison]) -> list[Answer]:
    """Return the answer for each arm held against one baseline, corrected for their number.

    Raises ValueError where a comparison was made for another number of arms.
    """
    for name, comparison in comparisons.items():
        if comparison.comparisons < len(comparisons):
            raise ValueError(
                f"{name} was compared as one of {comparison.comparisons}, but there are"
                f" {len(comparisons)}: give compare(..., comparisons={len(comparisons)})"
            )
    corrected = holm([comparison.p_value for comparison in comparisons.values()])
    return [
        answer(name, comparison, p_value)
        for (name, comparison), p_value in zip(comparisons.items(), corrected)
    ]


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
