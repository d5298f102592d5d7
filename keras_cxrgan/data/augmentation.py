"""Classic augmentation: a film turned, shifted, scaled, in other exposure, within stated ranges.

Everything is uint8 grey (H, W) in and out. Where pixels come from outside of the film they are
black, as what a collimator shuts out is; reflecting would invent anatomy there, a second spine
or heart. The black wedges tell an augmented film from an original one all the same: a generator
that is trained on such films learns to draw them.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass

import cv2
import numpy as np

from keras_cxrgan.fields import parse


@dataclass(frozen=True)
class ClassicAugmentation:
    """How far a film may be changed; each kind of change happens with `probability`.

    The defaults are those of the code from which Davoodi & Lo Giudice's networks come
    (github.com/rossettisimone/AUGMENTATION_GAN, 2020; the paper states none), each drawn once
    and without its horizontal flip, which would put the heart on the other side.

    >>> ClassicAugmentation(rotation=10.0, probability=1.0).check().scale
    (0.9, 1.1)
    """

    rotation: float = 5.0  # degrees to either side, 0 to 180
    scale: tuple[float, ...] = (0.9, 1.1)  # factor, from and to; 0.1 to 10
    translation: float = 0.1  # of the width and of the height, to either side; 0 to 1
    crop: float = 1.0  # least share of each side that is kept, enlarged again; 1 = no crop
    brightness: float = 0.5  # factor of 1 minus this to 1 plus this; 0 to 1
    contrast: float = 0.5  # likewise, about the film's mean
    flip: bool = False  # left to right
    probability: float = 0.5  # of each change on its own; 0 to 1

    def check(self) -> ClassicAugmentation:
        """Return the settings themselves, or raise ValueError with one line for what is wrong."""
        if len(self.scale) != 2:
            raise ValueError(
                f"classic augmentation: scale needs from,to such as 0.9,1.1: {self.scale}"
            )
        low, high = self.scale
        bounds = {
            "rotation": (self.rotation, 0, 180),
            "scale (from)": (low, 0.1, 10),
            "scale (to)": (high, low, 10),
            "translation": (self.translation, 0, 1),
            "crop": (self.crop, 0.05, 1),
            "brightness": (self.brightness, 0, 1),
            "contrast": (self.contrast, 0, 1),
            "probability": (self.probability, 0, 1),
        }
        wrong = [
            f"{name} must be from {lowest:g} to {highest:g}, got {value!r}"
            for name, (value, lowest, highest) in bounds.items()
            if not lowest <= value <= highest
        ]
        if wrong:
            raise ValueError(f"classic augmentation: {'; '.join(wrong)}")
        return self

    def override(self, **fields) -> ClassicAugmentation:
        """Return a checked copy with some ranges changed; text is parsed to the field's type.

        >>> ClassicAugmentation().override(rotation="30", scale="1,1").rotation
        30.0
        """
        kinds = {field.name: field.type for field in dataclasses.fields(self)}
        for name in fields:
            if name not in kinds:
                near = difflib.get_close_matches(name, kinds, n=1, cutoff=0.4)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise ValueError(
                    f"classic augmentation has no {name!r}{hint}: it has {', '.join(kinds)} (--set)"
                )
        parsed = {name: parse(name, value, kinds[name]) for name, value in fields.items()}
        return dataclasses.replace(self, **parsed).check()


def augment(
    image: np.ndarray, settings: ClassicAugmentation, rng: np.random.Generator
) -> np.ndarray:
    """Return a changed copy of a film: exposure, flip, crop, then one turn, scale and shift.

    Every call draws equally many numbers, so that `flip=True` changes the flip alone. Factors
    and angles are uniform in their ranges, shifts are whole pixels.

    >>> film = np.arange(64, dtype=np.uint8).reshape(8, 8)
    >>> augment(film, ClassicAugmentation(), np.random.default_rng(0)).shape
    (8, 8)
    """
    _check(image)
    settings.check()
    happens = rng.random(7) < settings.probability
    exposed, contrasted, flipped, cropped, turned, scaled, shifted = happens
    brightness = rng.uniform(1 - settings.brightness, 1 + settings.brightness)
    contrast = rng.uniform(1 - settings.contrast, 1 + settings.contrast)
    share, x, y = rng.uniform(settings.crop, 1), *rng.random(2)
    degrees = rng.uniform(-settings.rotation, settings.rotation)
    factor = rng.uniform(*settings.scale)
    down, right = np.rint(rng.uniform(-1, 1, 2) * settings.translation * image.shape)
    image = expose(
        image, brightness=brightness if exposed else 1, contrast=contrast if contrasted else 1
    )
    if flipped and settings.flip:
        image = np.ascontiguousarray(image[:, ::-1])
    if cropped:
        image = crop(image, share, x, y)
    return move(
        image,
        degrees=degrees if turned else 0,
        factor=factor if scaled else 1,
        right=int(right) if shifted else 0,
        down=int(down) if shifted else 0,
    )


def move(
    image: np.ndarray, *, degrees: float = 0, factor: float = 1, right: int = 0, down: int = 0
) -> np.ndarray:
    """Turn a film counterclockwise and scale it, both about its centre, then shift it (pixels).

    One interpolation for all three, cubic, which blurs least; black comes in from outside.

    >>> move(np.array([[1, 2], [3, 4]], np.uint8), right=1).tolist()
    [[0, 1], [0, 3]]
    """
    _check(image)
    if not (degrees or factor != 1 or right or down):
        return image.copy()
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, factor)
    matrix[:, 2] += right, down
    return cv2.warpAffine(
        image,
        matrix,
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )


def crop(image: np.ndarray, share: float, x: float = 0.5, y: float = 0.5) -> np.ndarray:
    """Cut `share` of each side out of a film, enlarged to its size again.

    `x` and `y` place the cut: 0 at the left or the top, 1 at the right or the bottom.
    """
    _check(image)
    height, width = image.shape
    rows, columns = (max(1, round(share * side)) for side in image.shape)
    if (rows, columns) == image.shape:
        return image.copy()
    top, left = round(y * (height - rows)), round(x * (width - columns))
    cut = np.ascontiguousarray(image[top : top + rows, left : left + columns])
    return cv2.resize(cut, (width, height), interpolation=cv2.INTER_CUBIC)


def expose(image: np.ndarray, *, brightness: float = 1, contrast: float = 1) -> np.ndarray:
    """Multiply a film's distances from its mean by `contrast`, then its levels by `brightness`.

    Levels beyond black and white are clipped.

    >>> expose(np.array([[50, 150]], np.uint8), contrast=0.5).tolist()
    [[75, 125]]
    """
    _check(image)
    mean = image.mean()
    levels = (mean + contrast * (np.arange(256.0) - mean)) * brightness
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)[image]


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 2 or not image.size:
        raise ValueError(
            f"augmentation needs a grey film, uint8 (H, W), got {image.dtype} {image.shape}"
        )
