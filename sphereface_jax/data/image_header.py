"""The format of an encoded image, told from its first bytes before anything is decoded."""

import re

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+\d{1,9}(?:\s|#[^\n]*\n)+\d{1,9}\s")
START = 1024  # bytes that are enough to tell a format
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def image_format(start: bytes) -> str | None:
    """The format that a file's first `START` bytes show, or None if it is not an image.

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


def has_whole_chunks(data: bytes) -> bool:
    """Whether the chunks of a PNG fit into it: OpenCV allocates the length that a chunk claims."""
    place = 8
    while place + 8 <= len(data):
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return False
