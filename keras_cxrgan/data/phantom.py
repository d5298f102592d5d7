"""The digital chest phantom: simulated, labelled chest films for use without any data at hand.

X-rays cross a random patient (`anatomy.py`), are attenuated by the Beer-Lambert law, scattered,
counted as photons by a blurred detector, and shown as a film: dense is bright, lungs are dark.
It is a physics toy for testing and teaching, and no source of medical images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index as as_integer

import numpy as np

from keras_cxrgan.data.anatomy import (
    BONE,
    LUNG,
    SOFT,
    Anatomy,
    cage_half_width,
    sample_anatomy,
    tissue_path,
    tube_chords,
)

LABELS = ("normal", "pneumonia", "covid")
SMALLEST, LARGEST = 32, 2048

# One random stream each, so that neither the label nor the size of a film changes the patient.
_PATIENT, _OPACITIES, _NOISE, _TEXTURE = range(4)
# Gains set by eye against real films, not measured: the tubes drawn stand for far richer trees.
_VESSEL_GAIN, _AIRWAY_GAIN = 2.2, 1.3
_TEXTURE_PER_CM = 0.0045  # optical path of lung structure too fine to draw, per cm of lung
_TEXTURE_SPACINGS = (2.0, 1.0, 0.5, 0.25, 0.125)  # cm
_MARKERS = {  # lead letters as strokes (x0, y0, x1, y1), in cm
    "L": [(0, 0, 0, 1.6), (0, 1.6, 0.9, 1.6)],
    "R": [
        (0, 0, 0, 1.6),
        (0, 0, 0.7, 0.1),
        (0.7, 0.1, 0.8, 0.6),
        (0.8, 0.6, 0, 0.8),
        (0.2, 0.8, 0.9, 1.6),
    ],
}


# --- Smooth fields --------------------------------------------------------------------------


def _spline_rows(lattice: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Cubic B-spline rows at `position`, in lattice steps; rows -1..n+1 must exist as 0..n+2.

    Plain sums, not a matrix product: a threaded BLAS may round differently from run to run.
    """
    first = np.floor(position).astype(np.int64)
    t = (position - first).astype(np.float32)[:, None]
    weights = ((1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * (t + t**2 - t**3), t**3)
    return sum(w * lattice[first + k] for k, w in enumerate(weights)) / np.float32(6)


def _spline_surface(lattice: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The square lattice interpolated at `position` along both axes."""
    return np.ascontiguousarray(_spline_rows(_spline_rows(lattice, position).T, position).T)


def _blur(image: np.ndarray, sd: float) -> np.ndarray:
    """Gaussian-like blur with standard deviation `sd` pixels, by repeated 3-tap passes."""
    passes = int(np.ceil(2 * sd**2))
    for _ in range(passes):
        side = np.float32(sd**2 / passes / 2)
        for _ in range(2):
            padded = np.pad(image, ((1, 1), (0, 0)), mode="edge")
            image = ((1 - 2 * side) * image + side * (padded[:-2] + padded[2:])).T
    return image


def _broad_blur(image: np.ndarray, sd: float) -> np.ndarray:
    """Gaussian-like blur with `sd` a large fraction of the side, on a coarse lattice."""
    n, cells = len(image), 32
    edges = np.arange(cells) * n // cells
    coarse = np.add.reduceat(np.add.reduceat(image, edges, axis=0), edges, axis=1)
    counts = np.diff(np.append(edges, n)).astype(np.float32)
    coarse = _blur(coarse / (counts[:, None] * counts), sd * cells)
    position = (np.arange(n) + 0.5) * (cells / n) + 0.5
    return _spline_surface(np.pad(coarse, 2, mode="edge"), position)


def _texture(seed: int, index: int, fov: float, size: int, pixel: float) -> np.ndarray:
    """Unit-variance (about) cloud of several scales, the same at every `size` but for fine detail.

    Scales finer than the final `pixel` (cm) would average out, and are left out.
    """
    total = np.zeros((size, size), np.float32)
    power = 0.0
    for octave, spacing in enumerate(_TEXTURE_SPACINGS):
        power += spacing**0.6
        if spacing < 1.2 * pixel and octave > 1:
            continue
        position = (np.arange(size) + 0.5) * (fov / size / spacing)
        rng = np.random.default_rng([seed, index, _TEXTURE, octave])
        nodes = int(fov / spacing) + 5
        lattice = rng.standard_normal((nodes, nodes), dtype=np.float32)
        # 2.1: the B-spline keeps about 0.23 of white noise's variance.
        total += np.float32(2.1 * spacing**0.3) * _spline_surface(lattice, position)
    return total / np.float32(np.sqrt(power))


# --- Opacities ------------------------------------------------------------------------------


def _consolidation(label: str, anatomy: Anatomy, x, y, texture, rng) -> np.ndarray:
    """Share [0, 1) of the lung on each ray that holds fluid instead of air."""
    air = np.ones_like(x)

    def add_patch(side, across, down, wide, tall, share):
        """Across: 0 at the mediastinum, 1 at the chest wall; down: 0 at the apex, 1 at the dome."""
        cy = down * anatomy.dome_right
        wall = float(cage_half_width(anatomy, np.float64(cy)))
        cx = side * (anatomy.medial_border + across * (wall - anatomy.medial_border))
        dx, dy = x - np.float32(cx), y - np.float32(cy)
        radius2 = (dx / np.float32(wide)) ** 2 + (dy / np.float32(tall)) ** 2
        # The texture frays the patch: a cloud with no outline, as fluid spreads between alveoli.
        cloud = np.exp(-1.1 * radius2) * np.clip(0.8 + 0.35 * texture, 0.1, 1.4) * (x * side > 0)
        np.multiply(air, np.maximum(1 - share * cloud, 0.03), out=air)

    if label == "pneumonia":
        side = rng.choice([-1, 1])
        across, down, size = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.92), rng.uniform(3.0, 5.5)
        flatness = rng.uniform(0.65, 1.0)
        add_patch(side, across, down, 1.1 * size, flatness * size, rng.uniform(0.45, 0.75))
        for _ in range(rng.integers(2, 5)):
            nearby = across + rng.normal(0, 0.2), down + rng.normal(0, 0.1)
            add_patch(side, *nearby, *rng.uniform(1.5, 3.0, 2), rng.uniform(0.2, 0.45))
    elif label == "covid":
        for side in (-1, 1):
            for _ in range(rng.integers(4, 8)):
                peripheral, low = rng.beta(4, 1.6), rng.beta(3.2, 1.7)
                shape = rng.uniform(1.6, 3.2), rng.uniform(2.0, 4.2)
                add_patch(side, peripheral, low, *shape, rng.uniform(0.2, 0.5))
    return 1 - air


# --- Imaging chain --------------------------------------------------------------------------


@dataclass(frozen=True)
class Exposure:
    """How one film is taken; lengths in cm."""

    field_of_view: float
    shift: tuple[float, float]  # patient position at the film's centre
    turn: float  # of the patient in the film plane, radians
    scatter: float
    photons: float  # per cm2 in the open beam
    lung_grey: float
    dense_grey: float
    marker: tuple[str, float, float] | None  # letter, and its place from the film's upper left
    shutters: tuple[tuple[float, float, float], ...]  # half-planes: angle, distance, grey


def sample_exposure(rng: np.random.Generator) -> Exposure:
    """Draw positioning, beam and display of one film from `rng`."""
    fov = rng.uniform(34.0, 43.0)
    letter, corner = ("L", fov - rng.uniform(2.5, 4.5)) if rng.random() < 0.7 else ("R", 2.5)
    marker = (letter, corner, rng.uniform(1.5, 7.0)) if rng.random() < 0.6 else None
    shut = rng.random(4) < 0.1
    margin, tilt = np.abs(rng.normal(0, 1.6, 4)), rng.normal(0, 0.035, 4)
    grey = 0.0 if rng.random() < 0.85 else 245.0
    return Exposure(
        field_of_view=fov,
        shift=(rng.normal(0, 0.8), 0.44 * fov - rng.uniform(3.5, 7.5)),
        turn=rng.normal(0, 0.03),
        scatter=rng.uniform(0.05, 0.13),
        photons=10 ** rng.uniform(6.9, 7.6),
        lung_grey=np.clip(rng.normal(127, 21), 75, 175),
        dense_grey=np.clip(rng.normal(215, 11), 185, 238),
        marker=marker,
        shutters=tuple(
            (side * np.pi / 2 + tilt[side], fov / 2 - margin[side], grey)
            for side in np.flatnonzero(shut)
        ),
    )


def _detected(path: np.ndarray, factor: int, exposure: Exposure) -> np.ndarray:
    """Beer-Lambert transmission averaged over each pixel's `factor`^2 rays, plus scatter.

    Scatter arises in the body in proportion to exp(-path) * path (single scattering) and arrives
    blurred by centimetres.
    """
    primary = _pixels(np.exp(-path), factor)
    source = primary * _pixels(path, factor)
    haze = _broad_blur(source, 3.0 / exposure.field_of_view)
    return primary + np.float32(exposure.scatter) * haze


def _pixels(rays: np.ndarray, factor: int) -> np.ndarray:
    """Means over factor x factor blocks."""
    if factor == 1:
        return rays
    n = len(rays) // factor
    return rays.reshape(n, factor, n, factor).mean(axis=(1, 3))


def phantom(index: int, image_size: int = 64, label: str = "normal", seed: int = 0) -> np.ndarray:
    """Film number `index`: uint8 (image_size, image_size), the patient's left on the right.

    The same (seed, index) is the same patient and exposure at every size (32 to 2048) and for
    every label: "normal", "pneumonia" (one focal opacity) or "covid" (patches in both lungs).
    Equal arguments give equal images bit for bit.  Raises ValueError for any other size or label.

    >>> phantom(7, image_size=128, label="pneumonia").shape
    (128, 128)
    """
    n, index, seed = as_integer(image_size), as_integer(index), as_integer(seed)
    if not SMALLEST <= n <= LARGEST:
        raise ValueError(
            f"phantom image_size is {n}; it must be {SMALLEST} to {LARGEST} pixels (--image-size)"
        )
    if label not in LABELS:
        raise ValueError(f"phantom label is {label!r}; it must be one of {', '.join(LABELS)}")
    if index < 0 or seed < 0:
        raise ValueError(f"phantom index is {index} and seed {seed}; both must be 0 or more")

    rng = np.random.default_rng([seed, index, _PATIENT])
    anatomy, exposure = sample_anatomy(rng), sample_exposure(rng)
    fov = exposure.field_of_view
    factor = -(-192 // n)  # several rays per pixel on small films, where ribs would alias
    rays, pitch = n * factor, fov / (n * factor)

    cos, sin = np.float32(np.cos(exposure.turn)), np.float32(np.sin(exposure.turn))
    shift_x, shift_y = np.float32(exposure.shift[0]), np.float32(exposure.shift[1])
    off = ((np.arange(rays) + 0.5) * pitch - fov / 2).astype(np.float32)
    x = cos * off + (sin * off + shift_x)[:, None]
    y = (cos * off + shift_y)[:, None] - sin * off

    def tubes(segments):
        ends = segments[:, :4].reshape(-1, 2, 2) - exposure.shift
        turned = np.stack(
            [cos * ends[..., 0] - sin * ends[..., 1], sin * ends[..., 0] + cos * ends[..., 1]], -1
        )
        placed = np.concatenate([turned.reshape(-1, 4) + fov / 2, segments[:, 4:]], axis=1)
        return tube_chords(placed, rays, pitch)

    texture = _texture(seed, index, fov, rays, fov / n)
    path, lung = tissue_path(anatomy, x, y)
    path += np.float32(_TEXTURE_PER_CM) * lung * texture
    # Where the heart or a dome leaves little lung, little of the tree remains to be seen.
    vessels = tubes(anatomy.vessels) * np.minimum(lung / 12, 1)
    path += np.float32(_VESSEL_GAIN * (SOFT - LUNG)) * np.minimum(vessels, lung)
    marrow = anatomy.bones - [0, 0, 0, 0, 0.12, 0.12]
    compact = tubes(anatomy.bones) - np.float32(0.8) * tubes(marrow)
    path += np.float32(BONE * anatomy.bone) * compact
    path -= np.float32(_AIRWAY_GAIN * SOFT) * tubes(anatomy.airways)
    path = np.maximum(path, 0)
    if exposure.marker:
        letter, left, top = exposure.marker
        strokes = np.array([(*stroke, 0.13, 0.13) for stroke in _MARKERS[letter]])
        strokes[:, :4] += (left, top, left, top)
        path += np.float32(12) * tube_chords(strokes, rays, pitch)

    intensity = _detected(path, factor, exposure)
    density = -np.log(intensity)
    # The healthy film sets the display window, so that a label changes nothing but its opacities.
    weight = _pixels(lung, factor)
    low, high = float((density * weight).sum() / weight.sum()), float(np.percentile(density, 90))
    if label != "normal":
        opacities = np.random.default_rng([seed, index, _OPACITIES])
        fluid = _consolidation(label, anatomy, x, y, texture, opacities)
        intensity = _detected(path + np.float32(SOFT - LUNG) * fluid * lung, factor, exposure)

    noise = np.random.default_rng([seed, index, _NOISE]).standard_normal((n, n), dtype=np.float32)
    quanta = np.float32(exposure.photons * (fov / n) ** 2)  # per pixel, in the open beam
    counted = _blur(intensity + np.sqrt(intensity / quanta) * noise, 0.02 * n / fov)
    density = -np.log(np.maximum(counted, np.float32(1e-6)))

    # The characteristic curve of film: a logistic in density, through lung and dense tissue.
    white = 250.0
    lung_logit = np.log(exposure.lung_grey / (white - exposure.lung_grey))
    dense_logit = np.log(exposure.dense_grey / (white - exposure.dense_grey))
    slope = np.float32((dense_logit - lung_logit) / (high - low))
    logit = np.float32(lung_logit) + slope * (density - np.float32(low))
    grey = np.float32(white) / (1 + np.exp(-logit))
    for angle, distance, shutter_grey in exposure.shutters:
        edge = off.reshape(n, factor).mean(axis=1)
        beyond = np.float32(np.cos(angle)) * edge + np.float32(np.sin(angle)) * edge[:, None]
        closed = np.clip((beyond - np.float32(distance)) * np.float32(n / fov) + 0.5, 0, 1)
        grey += closed * (np.float32(shutter_grey) - grey)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def phantoms(
    count: int,
    image_size: int = 64,
    labels: Sequence[str] = LABELS[:1],
    seed: int = 0,
    start: int = 0,
) -> tuple[np.ndarray, list[str]]:
    """Films `start` to `start + count`: uint8 (count, S, S), and the label of each.

    Labels are dealt in turn by film number; each image equals `phantom` of the same number.

    >>> images, names = phantoms(4, image_size=32, labels=("normal", "covid"))
    >>> images.shape, names
    ((4, 32, 32), ['normal', 'covid', 'normal', 'covid'])
    """
    if isinstance(labels, str) or not labels:
        raise ValueError(f"phantom labels are {labels!r}; give a list of {', '.join(LABELS)}")
    if count < 1:
        raise ValueError(f"phantom count is {count}; it must be 1 or more")
    numbers = range(start, start + count)
    names = [labels[number % len(labels)] for number in numbers]
    films = [phantom(number, image_size, name, seed) for number, name in zip(numbers, names)]
    return np.stack(films), names
