"""The size that a header claims, for every format that is read."""

import struct
import zlib

import cv2
import pytest
from faces_on_disk import make_face

from sphereface_jax.data.image_header import claimed_size
from sphereface_jax.data.images import UnreadableImage, decode_image, encode_jpeg, encode_png

FACE = make_face(0, 40, 56)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", []),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        (".png", []),
        (".bmp", []),
        (".ppm", []),
        (".pgm", []),
        (".ppm", [cv2.IMWRITE_PXM_BINARY, 0]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
        (".gif", []),
        (".tiff", []),
        (".avif", []),
    ],
)
def test_every_format_says_its_size(suffix: str, options: list[int]) -> None:
    image = FACE[..., 0] if suffix == ".pgm" else FACE
    encoded = cv2.imencode(suffix, image, options)[1].tobytes()
    assert claimed_size(encoded) == (40, 56)
    assert decode_image(encoded, "x").shape == (40, 56, 3)


def test_a_thumbnail_within_a_jpeg_is_passed_over() -> None:
    thumbnail = encode_jpeg(make_face(1, 8, 8))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    encoded = encode_jpeg(FACE)
    assert claimed_size(encoded[:2] + segment + encoded[2:]) == (40, 56)


def test_extended_webp_and_old_bmp() -> None:
    webp = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + bytes([55, 0, 0, 39, 0, 0])
    assert claimed_size(webp) == (40, 56)
    bmp = b"BM" + bytes(12) + struct.pack("<IHH", 12, 56, 40)
    assert claimed_size(bmp) == (40, 56)


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"P5 40", b"BMW is a car, a fast one", b"II*\0" + bytes(9)]
)
def test_other_formats_and_short_headers_claim_nothing(data: bytes) -> None:
    assert claimed_size(data) is None


@pytest.mark.parametrize("encode", [encode_jpeg, encode_png])
def test_every_beginning_of_a_file_is_safe(encode) -> None:
    encoded = encode(FACE)
    for end in range(0, 200):
        assert claimed_size(encoded[:end]) in (None, (40, 56))


def test_a_claim_of_gigapixels_is_refused_at_once() -> None:
    jpeg = bytearray(encode_jpeg(FACE))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 30000, 30000)
    png = bytearray(encode_png(FACE))
    struct.pack_into(">II", png, 16, 30000, 30000)
    struct.pack_into(">I", png, 29, zlib.crc32(bytes(png[12:29])))
    for encoded in (jpeg, png):
        with pytest.raises(UnreadableImage, match=r"x: .* one that claims 30000x30000"):
            decode_image(bytes(encoded), "x")
    struct.pack_into(">I", png, 33, 2**32 - 1)  # the next chunk's length
    with pytest.raises(UnreadableImage, match="not a whole image"):
        decode_image(bytes(png), "x")
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 0, 40)
    with pytest.raises(UnreadableImage, match="claims 0x40"):
        decode_image(bytes(jpeg), "x")


def test_what_is_not_read_is_refused_by_its_format() -> None:
    with pytest.raises(UnreadableImage, match="x: JPEG 2000, which is not read"):
        decode_image(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "x")
    with pytest.raises(UnreadableImage, match=r"not a whole image in one of JPEG, PNG, .*AVIF"):
        decode_image(b"text", "x")
