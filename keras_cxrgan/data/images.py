"""One image at a time: decode to grey, CLAHE, fit to a square, grids, PNG out.

Everything here is uint8 grey (H, W) unless it says otherwise; `to_uint8` and `from_uint8` are
the only doors between that and the networks' float32 in [-1, 1].
"""

from __future__ import annotations

import math
import os
import re
import struct
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

MAX_PIXELS = 100_000_000
"""Largest width x height that is decoded; radiographs have up to about 30 million."""

FITS = ("crop", "pad", "stretch")

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_GAP = 64
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = (  # left, top, step right, step down of each pass
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def decode(data: bytes) -> np.ndarray:
    """Decodes a PNG, JPEG or DICOM file to uint8 grey (H, W), as it is meant to be seen.

    Colour becomes luma (ITU-R BT.601), alpha is composited over black, EXIF orientation is
    applied. 16-bit images are windowed between their 0.1 and 99.9 percentiles, because 12-bit
    detectors store into 16-bit files and the top byte alone would be almost black; DICOM says
    itself how it is shown (`dicom.decode_dicom`). Raises ValueError with the reason for other
    formats, damaged or truncated files, and images of more than `MAX_PIXELS` pixels.
    """
    if data.startswith(_PNG):
        grey, orientation = _decode_png(data)
    elif data.startswith(_JPEG):
        grey, orientation = _decode_jpeg(data)
    elif data[128:132] == b"DICM":
        from .dicom import decode_dicom

        return decode_dicom(data, MAX_PIXELS)
    else:
        raise ValueError(_describe(data))
    if grey.dtype == np.uint16:
        grey = _window(grey)
    return np.ascontiguousarray(_orient(grey, orientation))


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
    header = len(_PNG) + 25
    chunks = [_text_chunk(keyword, value) for keyword, value in (text or {}).items()]
    return b"".join([data[:header], *chunks, data[header:]])


def read_png_text(data: bytes) -> dict[str, str]:
    """The uncompressed text metadata of a PNG file, as `encode_png` writes it."""
    if not data.startswith(_PNG):
        raise ValueError(_describe(data))
    text = {}
    for kind, body in _png_chunks(data):
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


def _decode_png(data: bytes) -> tuple[np.ndarray, int]:
    """Grey pixels (uint8 or uint16) and the EXIF orientation."""
    chunks: dict[bytes, bytes] = {}
    compressed = []
    for kind, body in _png_chunks(data):
        if kind == b"IDAT":
            compressed.append(body)
        else:
            chunks.setdefault(kind, body)
    if len(chunks.get(b"IHDR", b"")) != 13:
        raise ValueError("damaged PNG: no valid header")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    _check_size(width, height)
    if depth not in _PNG_DEPTHS.get(colour, ()) or interlace > 1:
        raise ValueError("damaged PNG: no valid header")
    if colour == 3 and len(chunks.get(b"PLTE", b"")) not in range(3, 3 * 256 + 1, 3):
        raise ValueError("damaged PNG: no valid palette")
    size = _png_bytes(width, height, depth * _PNG_CHANNELS[colour], interlace)
    pixels = _inflate(b"".join(compressed), size)
    # libpng prints its complaints on stderr, where they tear progress bars; it is given only
    # what defines the pixels, already checked. That costs no time: it need not inflate again.
    kept = [(kind, chunks[kind]) for kind in (b"IHDR", b"PLTE", b"tRNS") if kind in chunks]
    clean = [*kept, (b"IDAT", zlib.compress(pixels, 0)), (b"IEND", b"")]
    image = _imdecode(_PNG + b"".join(_chunk(*chunk) for chunk in clean), cv2.IMREAD_UNCHANGED)
    grey = image
    if image.ndim == 3:
        grey = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2GRAY)
        if image.shape[2] == 4:
            opacity = image[..., 3] / np.float32(np.iinfo(image.dtype).max)
            grey = np.rint(grey * opacity).astype(image.dtype)
    elif len(chunks.get(b"tRNS", b"")) == 2:
        # OpenCV ignores the one transparent level that a grey PNG may declare.
        level = int.from_bytes(chunks[b"tRNS"], "big") * (255 // (2**depth - 1) if depth < 8 else 1)
        grey[grey == level] = 0
    return grey, _exif_orientation(chunks.get(b"eXIf", b""))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) up to IEND; raises ValueError on a cut file or a wrong checksum."""
    position, kind = len(_PNG), b""
    while kind != b"IEND":
        header = data[position : position + 8]
        length = int.from_bytes(header[:4], "big")
        body = data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if len(header) < 8 or len(checksum) < 4:
            raise ValueError("truncated PNG: the end of the file is missing")
        kind = header[4:]
        if zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(checksum, "big"):
            yield kind, body
        elif kind[0] & 0x20 == 0:  # a lower-case letter marks a chunk that may be ignored
            raise ValueError("damaged PNG: a checksum is wrong")
        position += 12 + length


def _png_bytes(width: int, height: int, bits: int, interlace: int) -> int:
    """Length of the filtered pixel data: each row of each pass has one filter byte."""
    total = 0
    for left, top, right, down in _ADAM7 if interlace else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _inflate(compressed: bytes, size: int) -> bytes:
    try:
        pixels = zlib.decompressobj().decompress(compressed, size)
    except zlib.error:
        raise ValueError("damaged PNG: the compressed data is invalid") from None
    if len(pixels) < size:
        raise ValueError("truncated PNG: rows are missing")
    return pixels


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _text_chunk(keyword: str, value: str) -> bytes:
    if not 1 <= len(keyword) <= 79 or not keyword.isprintable() or "\0" in value:
        raise ValueError(f"PNG text needs a keyword of 1 to 79 characters and no NUL: {keyword!r}")
    try:
        name = keyword.encode("latin-1") + b"\0"
    except UnicodeEncodeError:
        raise ValueError(f"PNG text needs a keyword in Latin-1 characters: {keyword!r}") from None
    try:
        return _chunk(b"tEXt", name + value.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", name + b"\0\0\0\0" + value.encode("utf-8"))


def _decode_jpeg(data: bytes) -> tuple[np.ndarray, int]:
    """Grey pixels (uint8) and the EXIF orientation."""
    orientation, size = 1, None
    for marker, body in _jpeg_segments(data):
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(body[6:])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            precision, height, width = struct.unpack(">BHH", body[:5])
            if precision != 8:
                raise ValueError(f"{precision}-bit JPEG: save it as a 16-bit PNG")
            _check_size(width, height)
            size = width, height
    if size is None:
        raise ValueError("damaged JPEG: no valid header")
    return _imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION), orientation


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) up to the end-of-image marker; raises ValueError when there is none.

    Searching the whole file for that marker would find the one of an embedded thumbnail.
    """
    position, scanning = 2, False
    while True:
        # In the coded data a 0xFF byte is followed by 0 or by a restart marker's number.
        pattern = rb"\xff[^\x00\xd0-\xd7\xff]" if scanning else rb"\xff+[^\xff]"
        found = re.compile(pattern).search(data, position)
        if found is None:
            raise ValueError("truncated JPEG: the end of the file is missing")
        marker, start = data[found.end() - 1], found.end()
        if marker == 0xD9:
            return
        if marker < 0xC0 or 0xD0 <= marker <= 0xD8 or 0xF0 <= marker <= 0xFD:
            raise ValueError("damaged JPEG: an invalid marker")
        length = int.from_bytes(data[start : start + 2], "big")
        position, scanning = start + max(length, 2), scanning or marker == 0xDA
        yield marker, data[start + 2 : position]


def _exif_orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory; 1 (upright) when it is missing or unreadable."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, offset)
        for index in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, offset + 2 + 12 * index)
            if (tag, kind) == (0x0112, 3) and 1 <= value <= 8:
                return value
    except struct.error:
        pass
    return 1


def _orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored rows and columns into those to be shown (EXIF 2.3, tag 0x0112)."""
    if orientation >= 5:
        image = image.T
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _window(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (0.1, 99.9))
    if low == high:
        low, high = image.min(), image.max()
    scaled = (image - np.float32(low)) * np.float32(255 / max(float(high) - float(low), 1.0))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def _imdecode(data: bytes, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError("damaged image: OpenCV cannot decode it")
    return image


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise ValueError(f"{width} x {height} pixels: the limit is 1 to {limit} million of them")


def _describe(data: bytes) -> str:
    """Why data that is neither PNG nor JPEG is refused."""
    if not data:
        return "an empty file (0 bytes)"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "an HTML page, not an image: the download failed"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = "WebP"
    elif data[128:132] == b"DICM":
        found = "DICOM"
    elif data.startswith((b"GIF87a", b"GIF89a")):
        found = "GIF"
    elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        found = "TIFF"
    elif data.startswith(b"BM") and data[6:10] == bytes(4):
        found = "BMP"
    elif data.startswith(b"%PDF"):
        found = "PDF"
    elif not data[:512].translate(None, bytes(range(32, 256)) + b"\t\r\n\f"):
        return "text, not an image"
    else:
        return "an unknown format: needs PNG, JPEG or DICOM"
    return f"a {found} file: convert it to PNG or JPEG"
