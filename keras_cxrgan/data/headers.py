"""What a PNG or JPEG file says of itself, without decoding it: format, size, bits."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# SOF markers: all frames but DHT (C4), JPG (C8) and DAC (CC), which share the range.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Header:
    """Format (PNG or JPEG), height and width in pixels, bits of one grey or colour value."""

    codec: str
    height: int
    width: int
    bits: int


def read_header(data: bytes) -> Header | None:
    """Return the header of an encoded image, None for other formats and damaged beginnings.

    >>> read_header(b"not an image") is None
    True
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height, bits = struct.unpack(">IIB", data[16:25])
            return Header("PNG", height, width, bits)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
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
            bits, height, width = struct.unpack(">BHH", data[position + 4 : position + 9])
            return Header("JPEG", height, width, bits)
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return None
