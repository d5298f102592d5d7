"""PNG and JPEG files to grey pixels: what they must hold is checked before OpenCV sees them."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

MAX_PIXELS = 100_000_000
"""Largest width x height that is decoded; radiographs have up to about 30 million."""

MAX_INFLATED_BYTES = 256 * 2**20
"""Most bytes that a PNG's pixels inflate to: those of 33 million in RGB + alpha of 16 bits."""

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = (  # left, top, step right, step down of each pass
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def decode_png(data: bytes) -> tuple[np.ndarray, int]:
    """Grey pixels (uint8 or uint16) and the EXIF orientation."""
    clean, chunks = clean_png(data)
    image = _imdecode(clean, cv2.IMREAD_UNCHANGED)
    grey = image
    if image.ndim == 3:
        grey = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2GRAY)
        if image.shape[2] == 4:
            opacity = image[..., 3] / np.float32(np.iinfo(image.dtype).max)
            grey = np.rint(grey * opacity).astype(image.dtype)
    elif len(chunks.get(b"tRNS", b"")) == 2:
        # OpenCV ignores the one transparent level that a grey PNG may declare.
        depth = chunks[b"IHDR"][8]
        level = int.from_bytes(chunks[b"tRNS"], "big") * (255 // (2**depth - 1) if depth < 8 else 1)
        grey[grey == level] = 0
    return grey, _exif_orientation(chunks.get(b"eXIf", b""))


def clean_png(data: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The file with only what defines its pixels, all of it checked; and its other chunks.

    libpng prints its complaints on stderr, where they tear progress bars; about this file it
    has none. That costs no time, since libpng need not inflate it again.
    """
    chunks: dict[bytes, bytes] = {}
    compressed = []
    for kind, body in png_chunks(data):
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
    if size > MAX_INFLATED_BYTES:
        mebibytes, limit = size / 2**20, MAX_INFLATED_BYTES // 2**20
        raise ValueError(f"{mebibytes:.0f} MiB when inflated: the limit is {limit} MiB")
    pixels = _inflate(b"".join(compressed), size)
    kept = [(kind, chunks[kind]) for kind in (b"IHDR", b"PLTE", b"tRNS") if kind in chunks]
    clean = [*kept, (b"IDAT", zlib.compress(pixels, 0)), (b"IEND", b"")]
    return PNG + b"".join(png_chunk(*part) for part in clean), chunks


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) up to IEND; raises ValueError on a cut file or a wrong checksum."""
    position, kind = len(PNG), b""
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


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk as it stands in a file: length, type, body, checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def decode_jpeg(data: bytes) -> tuple[np.ndarray, int]:
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


def describe(data: bytes) -> str:
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
