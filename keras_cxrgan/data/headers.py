"""What a file says of itself, without decoding it: format, size, bits, what its values are."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# SOF markers: all frames but DHT (C4), JPG (C8) and DAC (CC), which share the range.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


_PNG_MODES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey + alpha", 6: "RGB + alpha"}
_JPEG_MODES = {1: "grey", 3: "RGB", 4: "CMYK"}


@dataclass(frozen=True)
class Header:
    """Format, height and width in pixels, bits of one value, and what the values of a pixel are.

    `codec` is PNG, JPEG or DICOM. `mode` is grey, RGB, palette, grey + alpha, RGB + alpha, CMYK
    or other; for DICOM the photometric interpretation, such as MONOCHROME1. The bits are those
    stored: 12 of the 16 allocated.
    """

    codec: str
    height: int
    width: int
    bits: int
    mode: str


def read_header(data: bytes) -> Header | None:
    """Return the header of an encoded image, None for other formats and damaged beginnings.

    DICOM has one only where pydicom is installed.

    >>> read_header(b"not an image") is None
    True
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
            return Header("PNG", height, width, bits, _PNG_MODES.get(colour, "other"))
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data[128:132] == b"DICM":
            return _dicom(data)
    except (struct.error, IndexError):
        pass
    return None


def _jpeg(data: bytes) -> Header | None:
    position = 2
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding before a marker
            position += 1
            continue
        if marker in _FRAMES:
            frame = data[position + 4 : position + 10]
            bits, height, width, components = struct.unpack(">BHHB", frame)
            return Header("JPEG", height, width, bits, _JPEG_MODES.get(components, "other"))
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return None


def _dicom(data: bytes) -> Header | None:
    from .dicom import read_tags

    try:
        tags = read_tags(data)
    except ValueError:
        return None
    height, width, bits = tags["rows"], tags["columns"], tags["bits_stored"]
    if not (height and width and bits):
        return None
    return Header("DICOM", height, width, bits, tags["photometric"] or "other")
