"""The nearest training image of an image in pixels, after small shifts, rescaling or mirroring.

Chest films all look alike, so correlation alone finds every film near every other. Here what the
training images share (their mean and first principal components) is projected out of both images
first; what is left tells films apart, and copies stay close (measured on real films: unrelated
films 0.45 and above, copies shifted, rescaled, noisy or re-encoded 0.2 and below).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 64
"""Pixels along each side of the working images; every input is resized to it by area."""

SMALLEST_SIDE = 32
COMPONENTS = 16
"""Shared components projected out at most; one for each ten training images below 160."""

_COARSE = 32
_MARGIN = 3 / 32  # of the side: the window that stays inside the image under every shift
_SMOOTHING = 1.5  # pixels at SIDE: noise and half-pixel shifts then cost little
_SCALES = (0.92, 1.0, 1.08)
_STEPS = ((1.0, 0.04), (0.5, 0.02))  # of the refinement, in pixels at SIDE and in scale
_LARGEST_RESCALING = 0.125
_SHORTLIST = 3
_TOGETHER = 8  # queries whose coarse windows go into one matrix product
_ROWS = 300  # training images from which the shared components are estimated
_NOTHING_LEFT = 1e-4  # of the power: an image that is all shared components has no correlation


class Pose(NamedTuple):
    """How a query is read to lie on its neighbour: mirrored, then scaled, then shifted."""

    mirrored: bool
    scale: float  # above 1: the query is enlarged
    x: float  # pixels of the query at SIDE
    y: float


class Neighbour(NamedTuple):
    index: int
    distance: float  # sqrt(2 - 2 correlation): 0 for a copy, about 1.41 for unrelated images
    pose: Pose


@dataclass(frozen=True)
class _Level:
    """The training images at one working size."""

    shared: np.ndarray  # (components + 1, pixels), orthonormal; the first row is the constant
    films: np.ndarray  # (N, pixels): what is left of each image, of norm 1


@dataclass(frozen=True)
class Atlas:
    """Training images made ready for `nearest_in_atlas` and `distance_in_atlas`."""

    coarse: _Level
    fine: _Level

    @property
    def count(self) -> int:
        return len(self.fine.films)


def build_atlas(train: np.ndarray) -> Atlas:
    """Prepares uint8 (N, S, S) training images, S of 32 or more, two images or more."""
    images = _working(train, "training", 2)
    return Atlas(_level(np.stack([_halve(image) for image in images])), _level(images))


def nearest_in_pixels(
    queries: np.ndarray, train: np.ndarray, *, same: bool = False
) -> list[Neighbour]:
    """The nearest training image of each query: index, distance, and how the two were aligned.

    queries, train: uint8 (N, S, S) and (M, S, S). Each query is tried at shifts of up to 9 % of
    the side, scales of 0.88 to 1.12 and mirrored left to right. The distance is
    sqrt(2 - 2 r) with r the correlation over a fixed window, the central 81 % of each side of
    the training image, of what is left of both once the components all training images share
    are taken out; brightness and contrast do not count. Every training image and pose is tried
    at 32 pixels, the best three images then refined at 64 to half a pixel. `same=True` says
    that the queries are the training images, and leaves each one's own index out.
    """
    if same and len(queries) != len(train):
        raise ValueError(
            f"same=True needs the same images twice, got {len(queries)} and {len(train)}"
        )
    return nearest_in_atlas(queries, build_atlas(train), same=same)


def nearest_in_atlas(queries: np.ndarray, atlas: Atlas, *, same: bool = False) -> list[Neighbour]:
    """`nearest_in_pixels` for an atlas that was built before."""
    queries = _working(queries, "query", 1)
    found = []
    for start in range(0, len(queries), _TOGETHER):
        together = queries[start : start + _TOGETHER]
        windows = np.concatenate([_coarse_windows(_halve(query)) for query in together])
        correlations = _correlations(atlas.coarse, windows).reshape(len(together), -1, atlas.count)
        for own, (query, table) in enumerate(zip(together, correlations), start):
            best = table.max(axis=0)
            if same:
                best[own] = -np.inf
            count = min(_SHORTLIST, len(best) - same)
            neighbours = [
                _refine(query, int(index), _coarse_pose(int(table[:, index].argmax())), atlas)
                for index in np.argpartition(-best, count - 1)[:count]
            ]
            found.append(min(neighbours, key=lambda near: (near.distance, near.index)))
    return found


def distance_in_atlas(query: np.ndarray, index: int, atlas: Atlas) -> Neighbour:
    """The aligned distance of one uint8 (S, S) query to the training image `index`."""
    query = _working(query[None], "query", 1)[0]
    level = _Level(atlas.coarse.shared, atlas.coarse.films[index : index + 1])
    correlations = _correlations(level, _coarse_windows(_halve(query)))
    return _refine(query, index, _coarse_pose(int(correlations.argmax())), atlas)


def _working(images: np.ndarray, name: str, least: int) -> np.ndarray:
    if images.ndim != 3 or images.shape[1] != images.shape[2] or images.dtype != np.uint8:
        raise ValueError(
            f"{name} images are {images.dtype} {images.shape}; uint8 (N, S, S) is needed"
        )
    if len(images) < least or images.shape[1] < SMALLEST_SIDE:
        raise ValueError(
            f"{len(images)} {name} images of {images.shape[1]} pixels were given; at least "
            f"{least} of {SMALLEST_SIDE} pixels are needed"
        )
    way = cv2.INTER_AREA if images.shape[1] > SIDE else cv2.INTER_LINEAR
    out = np.empty((len(images), SIDE, SIDE), np.float32)
    for number, image in enumerate(images):
        small = cv2.resize(image.astype(np.float32), (SIDE, SIDE), interpolation=way)
        # The mean goes first: float32 would lose a pale image beside it.
        small -= small.mean()
        out[number] = cv2.GaussianBlur(small, (0, 0), _SMOOTHING, borderType=cv2.BORDER_REPLICATE)
    return out


def _halve(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)


def _level(images: np.ndarray) -> _Level:
    margin = round(_MARGIN * images.shape[1])
    windows = images[:, margin:-margin, margin:-margin].reshape(len(images), -1)
    windows = windows - windows.mean(axis=1, keepdims=True)
    windows /= np.maximum(np.linalg.norm(windows, axis=1, keepdims=True), 1e-6)
    some = windows[:: -(-len(windows) // _ROWS)].astype(np.float64)
    shared = [np.ones(some.shape[1])]
    # With few images the components would be the images themselves.
    count = min(COMPONENTS, len(images) // 10)
    if count:
        mean = some.mean(axis=0)
        rest = some - mean
        _, vectors = np.linalg.eigh(rest @ rest.T)
        shared += [mean, *(vectors[:, ::-1].T[: count - 1] @ rest)]
    shared = np.linalg.qr(np.stack(shared).T)[0].T.astype(np.float32)
    # Twice, for what rounding leaves behind the first time.
    left = windows - (windows @ shared.T) @ shared
    left -= (left @ shared.T) @ shared
    norms = np.linalg.norm(left, axis=1, keepdims=True)
    left *= np.where(norms > _NOTHING_LEFT**0.5, 1 / np.maximum(norms, 1e-6), 0)
    return _Level(shared, left)


def _correlations(level: _Level, windows: np.ndarray) -> np.ndarray:
    """Correlation of each window (V, pixels) with each film, shared components out: (V, N)."""
    inside = _products(windows, level.shared)
    total = np.einsum("ij,ij->i", windows, windows)
    left = total - np.einsum("ij,ij->i", inside, inside)
    something = left > _NOTHING_LEFT * total + 1e-6
    factors = np.where(something, 1 / np.sqrt(np.where(something, left, 1)), 0)
    return _products(windows * factors[:, None].astype(np.float32), level.films)


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b.T; small ones on one thread, since on a busy machine BLAS threads wait for long."""
    return a @ b.T if len(a) * len(b) > 1000 else np.einsum("ij,kj->ik", a, b)


def _warp(image: np.ndarray, scale: float, x: float, y: float, size: int) -> np.ndarray:
    """The `size` x `size` window of the enlarged image whose centre is (x, y) off the image's."""
    corner = (len(image) - 1) / 2 - (size - 1) / 2 / scale
    matrix = np.array([[1 / scale, 0, corner + x], [0, 1 / scale, corner + y]])
    return cv2.warpAffine(
        image,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _coarse_windows(image: np.ndarray) -> np.ndarray:
    """Every window of the coarse search, in the order that `_coarse_pose` knows."""
    size = _COARSE - 2 * round(_MARGIN * _COARSE)
    windows = []
    for mirrored, scale in product((False, True), _SCALES):
        scaled = _warp(_mirror(image, mirrored), scale, 0, 0, _COARSE)
        views = np.lib.stride_tricks.sliding_window_view(scaled, (size, size))
        windows.append(views.reshape(-1, size * size))
    return np.concatenate(windows)


def _coarse_pose(number: int) -> Pose:
    reach = round(_MARGIN * _COARSE)
    shape = (2, len(_SCALES), 2 * reach + 1, 2 * reach + 1)
    mirrored, scale, y, x = (int(part) for part in np.unravel_index(number, shape))
    pixel = SIDE / _COARSE / _SCALES[scale]
    return Pose(bool(mirrored), _SCALES[scale], (x - reach) * pixel, (y - reach) * pixel)


def _mirror(image: np.ndarray, mirrored: bool) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1]) if mirrored else image


def _refine(query: np.ndarray, index: int, pose: Pose, atlas: Atlas) -> Neighbour:
    level = _Level(atlas.fine.shared, atlas.fine.films[index : index + 1])
    size = SIDE - 2 * round(_MARGIN * SIDE)
    query = _mirror(query, pose.mirrored)
    low, high = 1 - _LARGEST_RESCALING, 1 + _LARGEST_RESCALING
    for shift, rescaling in _STEPS:
        # The pose it has comes first, so that a tie keeps it.
        moves = product((0, -1, 1), repeat=3)
        poses = [
            Pose(
                pose.mirrored,
                min(max(pose.scale + s * rescaling, low), high),
                pose.x + x * shift,
                pose.y + y * shift,
            )
            for s, y, x in moves
        ]
        windows = np.stack([_warp(query, p.scale, p.x, p.y, size).ravel() for p in poses])
        best = int(_correlations(level, windows)[:, 0].argmax())
        pose, window = poses[best], windows[best]
    return Neighbour(index, _distance(window, level), pose)


def _distance(window: np.ndarray, level: _Level) -> float:
    """In float64: 1 - r cancels for copies."""
    left = window - (level.shared.T @ (level.shared @ window))
    left = left.astype(np.float64)
    power, film = left @ left, level.films[0].astype(np.float64)
    norm = film @ film
    if power <= _NOTHING_LEFT * float(window @ window) + 1e-6 or norm == 0:
        return 2.0**0.5
    correlation = (left @ film) / np.sqrt(power * norm)
    return float(np.sqrt(max(0.0, 2 - 2 * correlation)))
