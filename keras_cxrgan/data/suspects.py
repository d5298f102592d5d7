"""Rules that find images which are probably no frontal chest film: suspects, not verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

BLANK_BELOW = 2.0  # grey levels
TWO_VALUED_FROM = 0.97
WHITE_FROM = 0.60
COLOUR_FROM = 0.05
SYMMETRY_BELOW = 0.25

_SIDE = 64
_SAMPLE = 512
_WHITE, _BLACK, _BAND = 230, 24, 9


@dataclass(frozen=True)
class Suspicion:
    """Which rule an image met: its name, what it suspects, the measure's name and value."""

    rule: str
    suspects: str
    measure: str
    value: float


def suspicions(grey: np.ndarray, coloured: float = 0.0) -> tuple[Suspicion, ...]:
    """The rules that an image, uint8 (H, W), meets; `coloured` is its share of coloured pixels.

    At most one rule of shape is given, the most certain first, and the one of colour beside it.
    The thresholds were set so that few of some 1,400 frontal films meet any.

    >>> [found.rule for found in suspicions(np.zeros((64, 64), np.uint8))]
    ['blank']
    """
    step = max(1, min(grey.shape) // _SAMPLE)
    # Averaging would fill a mask's two values with those between them; skipping pixels does not.
    sample = np.ascontiguousarray(grey[::step, ::step])
    shares = cv2.calcHist([sample], [0], None, [256], [0, 256]).ravel() / sample.size
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    found = next(filter(None, (rule(shares, small) for rule in _RULES)), None)
    colour = []
    if coloured >= COLOUR_FROM:
        colour = [Suspicion("colour", "a colour picture", "share of coloured pixels", coloured)]
    return (*([found] if found else []), *colour)


def _blank(shares: np.ndarray, small: np.ndarray) -> Suspicion | None:
    levels = np.arange(256)
    spread = float(np.sqrt(max(0.0, shares @ levels**2 - (shares @ levels) ** 2)))
    if spread < BLANK_BELOW:
        return Suspicion("blank", "an empty image", "spread of the grey levels", spread)
    return None


def _text(shares: np.ndarray, small: np.ndarray) -> Suspicion | None:
    white = float(shares[_WHITE:].sum())
    # Strokes are too thin to darken a sixteenth of the page's side; lungs and figures do.
    darkest = small.reshape(16, 4, 16, 4).mean(axis=(1, 3)).min()
    if white >= WHITE_FROM and darkest > 60:
        return Suspicion("text", "a page of text or a drawing", "share of white pixels", white)
    return None


def _mask(shares: np.ndarray, small: np.ndarray) -> Suspicion | None:
    shares, share = shares.copy(), 0.0
    for _ in range(2):
        # JPEG spreads each of a mask's two values over a few levels.
        band = np.convolve(shares, np.ones(_BAND), "same")
        level = int(band.argmax())
        share += float(band[level])
        shares[max(0, level - _BAND // 2) : level + _BAND // 2 + 1] = 0
    if share >= TWO_VALUED_FROM:
        return Suspicion("mask", "a mask", "share of pixels near two grey levels", share)
    return None


def _computed_tomography(shares: np.ndarray, small: np.ndarray) -> Suspicion | None:
    """A bright disc in a black frame; a collimated film has bright corners inside its frame."""
    bright = small > _BLACK
    frame = np.concatenate([bright[0], bright[-1], bright[1:-1, 0], bright[1:-1, -1]])
    black = 1 - float(frame.mean())
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > 0.05) for axis in (1, 0))
    if black < 0.75 or min(len(rows), len(columns)) < 0.4 * _SIDE:
        return None
    body = bright[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    high, wide = (max(1, side // 8) for side in body.shape)
    corners = [body[y, x] for y in (slice(high), slice(-high, None))
               for x in (slice(wide), slice(-wide, None))]  # fmt: skip
    dark = 1 - float(np.mean(corners))
    if dark >= 0.8 and body.shape[0] <= 1.2 * body.shape[1]:
        return Suspicion("ct", "a CT slice", "share of black in the frame", black)
    return None


def _asymmetric(shares: np.ndarray, small: np.ndarray) -> Suspicion | None:
    """The best correlation with the mirror image over small shifts of its axis."""
    coarse = small.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    mirrored, best = coarse[:, ::-1], -1.0
    for shift in range(-3, 4):
        one = coarse[:, max(shift, 0) : 16 + min(shift, 0)]
        other = mirrored[:, max(-shift, 0) : 16 + min(-shift, 0)]
        one, other = one - one.mean(), other - other.mean()
        scale = np.sqrt((one**2).sum() * (other**2).sum())
        best = max(best, float((one * other).sum() / scale) if scale > 0 else 1.0)
    if best < SYMMETRY_BELOW:
        suspects = "a lateral view, one side only, or a turned film"
        return Suspicion("asymmetric", suspects, "correlation with its mirror image", best)
    return None


_RULES: tuple[Callable[[np.ndarray, np.ndarray], Suspicion | None], ...] = (
    _blank, _text, _mask, _computed_tomography, _asymmetric,
)  # fmt: skip
