"""The format of an encoded image, and the size that it claims, read before anything is decoded.

A few kilobytes may claim a gigapixel, by damage or by design, and a decoder that believes them
takes gigabytes and half a minute. The headers of the formats that this package reads are simple
enough to look first; for a JPEG it takes a microsecond.
"""

import re
import struct
from collections.abc import Callable

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xDA)})
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")


START = 1024  # bytes that are enough to tell a format
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def image_format(start: bytes) -> str | None:
    """The format that a file's first `START` bytes show, or None if it is no image.

    Example:
      >>> image_format(b"GIF89a"), image_format(b"GIF, a history")
      ('GIF', None)
    """
    match start:
        case _ if start[:3] == b"\xff\xd8\xff":
            return "JPEG"
        case _ if start[:8] == b"\x89PNG\r\n\x1a\n":
            return "PNG"
        case _ if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            return "WebP"
        case _ if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
            return "BMP"
        case _ if start[:6] in (b"GIF87a", b"GIF89a"):
            return "GIF"
        case _ if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return "TIFF"
        case _ if start[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or start[:4] == b"\xff\x4f\xff\x51":
            return "JPEG 2000"
    if start[4:8] == b"ftyp":
        brands = {start[8:12], *(start[at : at + 4] for at in range(16, start[3], 4))}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        return "HEIC" if brands & _HEIC_BRANDS else None
    return "PNM" if _PNM.match(start[:START]) else None


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Height and width by the header of a JPEG, PNG, PGM/PPM, BMP, WebP, GIF, TIFF, AVIF or HEIC.

    Returns:
      None for any other format, or a file that its header shows to be damaged.
    """
    read = _SIZES.get(image_format(data[:START]) or "")
    try:
        return None if read is None else read(data)
    except (struct.error, IndexError):
        return None


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


def _pnm_size(data: bytes) -> tuple[int, int] | None:
    match = _PNM.match(data[:START])
    return (int(match[2]), int(match[1])) if match else None


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return height, width


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """The first picture's; a classic TIFF, whose offsets have 32 bits."""
    order = "<" if data[:2] == b"II" else ">"
    version, place = struct.unpack_from(f"{order}HI", data, 2)
    if version != 42:
        return None
    (count,) = struct.unpack_from(f"{order}H", data, place)
    found = {}
    for at in range(place + 2, place + 2 + 12 * min(count, 512), 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag in (256, 257):  # width and height, as 16 or 32 bits
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)
    return (found[257], found[256]) if len(found) == 2 else None


def _heif_size(data: bytes) -> tuple[int, int] | None:
    """The largest of the pictures, tiles and thumbnails whose sizes its boxes give."""
    sizes = [
        struct.unpack_from(">II", data, match.end() + 4)
        for match in re.finditer(b"ispe", data[: 1 << 18])
    ]
    if not sizes:
        return None
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return height, width


_SIZES: dict[str, Callable[[bytes], tuple[int, int] | None]] = {
    "JPEG": _jpeg_size,
    "PNG": _png_size,
    "WebP": _webp_size,
    "BMP": _bmp_size,
    "PNM": _pnm_size,
    "GIF": _gif_size,
    "TIFF": _tiff_size,
    "AVIF": _heif_size,
    "HEIC": _heif_size,
}
