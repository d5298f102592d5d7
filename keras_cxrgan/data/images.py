"""One image at a time: decode to grey, CLAHE, fit to a square, grids, PNG out.

Everything here is uint8 grey (H, W) unless it says otherwise; `to_uint8` and `from_uint8` are
the only doors between that and the networks' float32 in [-1, 1].
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from .codecs import (
    JPEG,
    MAX_PIXELS,
    PNG,
    decode_jpeg,
    decode_png,
    describe,
    png_chunk,
    png_chunks,
)

FITS = ("crop", "pad", "stretch")

_GAP = 64


def decode(data: bytes, window: Sequence[float] | None = None) -> np.ndarray:
    """Decodes a PNG, JPEG or DICOM file to uint8 grey (H, W), as it is meant to be seen.

    Colour becomes luma (ITU-R BT.601), alpha is composited over black, EXIF orientation is
    applied. 16-bit PNGs are windowed between their 0.1 and 99.9 percentiles, because 12-bit
    detectors store into 16-bit files and the top byte alone would be almost black; or from
    `window`, (low, high) in stored values: low and below is black, high and above white. Others
    say themselves how they are shown, DICOM too (`dicom.decode_dicom`), and ignore `window`.
    Raises ValueError with the reason for a wrong window, other formats, damaged or truncated
    files, and images of more than `codecs.MAX_PIXELS` pixels.

    >>> levels = np.array([[100, 1124], [2148, 4000]], np.uint16)
    >>> decode(cv2.imencode(".png", levels)[1].tobytes(), window=(100, 2148)).tolist()
    [[0, 128], [255, 255]]
    """
    window = None if window is None else check_window(window)
    if data.startswith(PNG):
        grey, orientation = decode_png(data)
    elif data.startswith(JPEG):
        grey, orientation = decode_jpeg(data)
    elif data[128:132] == b"DICM":
        from .dicom import decode_dicom

        return decode_dicom(data, MAX_PIXELS)
    else:
        raise ValueError(describe(data))
    if grey.dtype == np.uint16:
        grey = _between_percentiles(grey) if window is None else _windowed(grey, *window)
    return np.ascontiguousarray(_orient(grey, orientation))


def check_window(window: Sequence[float]) -> tuple[float, float]:
    """(low, high) as floats; ValueError unless 0 <= low < high <= 65535.

    >>> check_window((0, 4095))
    (0.0, 4095.0)
    """
    try:
        low, high = (float(value) for value in window)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not 0 <= low < high <= 65535:
        raise ValueError(
            f"the window is {window!r}: it needs two stored values, 0 <= low < high <= 65535, "
            "such as 0 and 4095 (--window)"
        )
    return low, high


def apply_clahe(image: np.ndarray, clip_limit: float = 2.0, tiles: int = 8) -> np.ndarray:
    """Contrast limited adaptive histogram equalization (Zuiderveld 1994), as OpenCV does it."""
    return cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(tiles, tiles)).apply(image)


def fit_square(image: np.ndarray, image_size: int, fit: str = "crop") -> np.ndarray:
    """Makes a uint8 (S, S) image of any rectangle: centre crop, black padding, or stretching."""
    height, width = image.shape
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _resize(image[top : top + side, left : left + side], image_size, image_size)
    if fit == "stretch":
        return _resize(image, image_size, image_size)
    if fit == "pad":
        # Padding last keeps the bars exactly black and a 1 x 100,000 strip from needing 10 GB.
        image = _resize_longer_side(image, image_size)
        height, width = image.shape
        square = np.zeros((image_size, image_size), np.uint8)
        top, left = (image_size - height) // 2, (image_size - width) // 2
        square[top : top + height, left : left + width] = image
        return square
    raise ValueError(f"fit is {fit!r}: choose one of {', '.join(FITS)} (--fit)")


def prepare_image(
    image: np.ndarray,
    image_size: int,
    fit: str = "crop",
    clahe_clip_limit: float = 0.0,
    clahe_tiles: int = 8,
    clahe_size: int = 0,
) -> np.ndarray:
    """Optional CLAHE, then `fit_square`: uint8 grey (H, W) to uint8 (S, S).

    A clip limit of 0 leaves CLAHE out. It works at the native size, or after a first
    antialiased resize that makes the longer side `clahe_size` pixels when that is above 0.
    """
    if image_size < 1 or clahe_clip_limit < 0 or clahe_tiles < 1 or clahe_size < 0:
        raise ValueError(
            "image_size and clahe_tiles must be at least 1, clahe_clip_limit and clahe_size at "
            f"least 0: got {image_size}, {clahe_tiles}, {clahe_clip_limit}, {clahe_size}"
        )
    if clahe_clip_limit > 0:
        if clahe_size > 0:
            image = _resize_longer_side(image, clahe_size)
        image = apply_clahe(image, clahe_clip_limit, clahe_tiles)
    return fit_square(image, image_size, fit)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float images in [-1, 1] of any shape to uint8: clip, then the nearest grey level.

    >>> to_uint8(np.array([-2.0, -1.0, 0.0, 1.0]))
    array([  0,   0, 128, 255], dtype=uint8)
    """
    images = np.asarray(images)
    if images.dtype.kind in "iub":
        raise ValueError(f"to_uint8 needs float images in [-1, 1], got {images.dtype}")
    levels = (images.astype(np.float32) + 1.0) * np.float32(127.5)
    if np.isnan(levels).any():
        raise ValueError("to_uint8 got NaN: the network that made these images has diverged")
    return np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8)


def from_uint8(images: np.ndarray) -> np.ndarray:
    """uint8 images of any shape to float32 in [-1, 1]; `to_uint8` undoes it exactly."""
    return np.asarray(images, np.float32) / np.float32(127.5) - np.float32(1.0)


def image_grid(images: np.ndarray, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """One contact sheet of uint8 (N, H, W) or (N, H, W, C): (H', W'), or (H', W', 3) for C = 3.

    Rows are filled from the left; `columns` defaults to a nearly square sheet.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images):
        raise ValueError(
            "image_grid needs uint8 images of shape (N, H, W) or (N, H, W, C) with N > 0, "
            f"got {images.dtype} {images.shape}"
        )
    if images.ndim == 3:
        images = images[..., None]
    count, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"image_grid needs 1 or 3 channels, got {channels}")
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    sheet = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, channels), _GAP, np.uint8
    )
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet if channels == 3 else sheet[..., 0]


def encode_png(image: np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """A PNG file of uint8 (H, W), (H, W, 1) or RGB (H, W, 3), with `text` as its metadata.

    Keywords are 1 to 79 Latin-1 characters; values are any text without NUL characters.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim < 2 or image.shape[2:] not in ((), (1,), (3,)):
        raise ValueError(
            "encode_png needs uint8 of shape (H, W), (H, W, 1) or (H, W, 3), "
            f"got {image.dtype} {image.shape}"
        )
    if image.shape[2:] == (3,):
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".png", image)[1].tobytes()
    header = len(PNG) + 25
    chunks = [_text_chunk(keyword, value) for keyword, value in (text or {}).items()]
    return b"".join([data[:header], *chunks, data[header:]])


def read_png_text(data: bytes) -> dict[str, str]:
    """The uncompressed text metadata of a PNG file, as `encode_png` writes it."""
    if not data.startswith(PNG):
        raise ValueError(describe(data))
    text = {}
    for kind, body in png_chunks(data):
        keyword, _, value = body.partition(b"\0")
        if kind == b"tEXt":
            text[keyword.decode("latin-1")] = value.decode("latin-1")
        elif kind == b"iTXt" and value[:1] == b"\0":
            # Compression method, language and translated keyword come before the text.
            text[keyword.decode("latin-1")] = value[2:].split(b"\0", 2)[2].decode("utf-8")
    return text


def write_png(
    path: str | os.PathLike, image: np.ndarray, text: Mapping[str, str] | None = None
) -> None:
    """Writes `encode_png` to `path`; a reader sees the whole file or none."""
    path = Path(path)
    data = encode_png(image, text)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _text_chunk(keyword: str, value: str) -> bytes:
    if not 1 <= len(keyword) <= 79 or not keyword.isprintable() or "\0" in value:
        raise ValueError(f"PNG text needs a keyword of 1 to 79 characters and no NUL: {keyword!r}")
    try:
        name = keyword.encode("latin-1") + b"\0"
    except UnicodeEncodeError:
        raise ValueError(f"PNG text needs a keyword in Latin-1 characters: {keyword!r}") from None
    try:
        return png_chunk(b"tEXt", name + value.encode("latin-1"))
    except UnicodeEncodeError:
        return png_chunk(b"iTXt", name + b"\0\0\0\0" + value.encode("utf-8"))


def _resize_longer_side(image: np.ndarray, size: int) -> np.ndarray:
    height, width = image.shape
    scale = size / max(height, width)
    return _resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    # INTER_AREA averages only when it shrinks both axes, and cubic aliases when it shrinks one.
    smaller = min(height, image.shape[0]), min(width, image.shape[1])
    if smaller != image.shape:
        image = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(image)


def _orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored rows and columns into those to be shown (EXIF 2.3, tag 0x0112)."""
    if orientation >= 5:
        image = image.T
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _windowed(image: np.ndarray, low: float, high: float) -> np.ndarray:
    # Once per value; in double precision halves are exact, and rounded as everywhere.
    grey = (np.arange(65536.0) - low) * 255 / (high - low)
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)[image]


def _between_percentiles(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (0.1, 99.9))
    if low == high:
        low, high = image.min(), image.max()
    scaled = (image - np.float32(low)) * np.float32(255 / max(float(high) - float(low), 1.0))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
