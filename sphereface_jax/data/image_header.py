"""The size that an encoded image claims, read before anything is decoded.

A few kilobytes may claim a gigapixel, by damage or by design, and a decoder that believes them
takes gigabytes and half a minute. The headers of the formats that this package reads are simple
enough to look first; for a JPEG it takes a microsecond.
"""

import re
import struct

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xDA)})
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Height and width by the header of a JPEG, PNG, PGM/PPM, BMP or WebP.

    Returns:
      None for any other format, or a file that its header shows to be damaged.
    """
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg_size(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png_size(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size(data)
        if data[:2] == b"BM":
            return _bmp_size(data)
    except (struct.error, IndexError):
        return None
    match = _PNM.match(data[:1024])
    return (int(match[2]), int(match[1])) if match else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walks the segments to the frame header."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0:
        marker = data[place + 1]
        if marker in _JPEG_FRAMES:
            return struct.unpack_from(">HH", data, place + 5)
        if marker == 0xFF:
            place += 1
        elif marker in _JPEG_BARE_MARKERS or not marker:
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    """The first chunk's, once all chunks fit: OpenCV allocates the length that a chunk claims."""
    width, height = struct.unpack_from(">II", data, 16)
    place = 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        if data[place + 4 : place + 8] == b"IEND":
            return height, width
        place += 12 + length
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return height, width
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(height), abs(width)
