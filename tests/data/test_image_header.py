"""The format of an encoded image, and claims of too much, for every format that is read."""

import struct
import zlib

import cv2
import pytest
from faces_on_disk import make_face

from sphereface_jax.data.image_header import has_whole_chunks, image_format
from sphereface_jax.data.images import UnreadableImage, decode_image, encode_png

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
def test_every_format_is_known_and_decoded(suffix: str, options: list[int]) -> None:
    image = FACE[..., 0] if suffix == ".pgm" else FACE
    encoded = cv2.imencode(suffix, image, options)[1].tobytes()
    assert image_format(encoded) is not None
    assert decode_image(encoded, "x").shape == (40, 56, 3)


@pytest.mark.parametrize(
    "data", [b"", b"GIF, a history", b"P5 40", b"BMW is a car, a fast one", b"RIFF12345678WEBM"]
)
def test_other_files_are_no_images(data: bytes) -> None:
    assert image_format(data) is None


def test_every_beginning_of_a_png_is_safe() -> None:
    encoded = encode_png(FACE)
    for end in range(8, len(encoded) - 4):
        assert not has_whole_chunks(encoded[:end])
    assert has_whole_chunks(encoded)


def claiming(height: int, width: int) -> dict[str, bytes]:
    """Small files of each format whose headers claim another size."""
    files = {
        suffix: bytearray(cv2.imencode(suffix, FACE)[1].tobytes())
        for suffix in (".jpg", ".png", ".bmp", ".ppm", ".gif", ".tiff")
    }
    jpeg, png, tiff = files[".jpg"], files[".png"], files[".tiff"]
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, height, width)
    struct.pack_into(">II", png, 16, width, height)
    struct.pack_into(">I", png, 29, zlib.crc32(bytes(png[12:29])))
    struct.pack_into("<ii", files[".bmp"], 18, width, height)
    struct.pack_into("<HH", files[".gif"], 6, width, height)
    files[".ppm"][:9] = b"P6 %d %d\n" % (width, height)
    (place,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, place)
    for at in range(place + 2, place + 2 + 12 * count, 12):
        size = {256: width, 257: height}.get(struct.unpack_from("<H", tiff, at)[0])
        if size is not None:
            struct.pack_into("<HII", tiff, at + 2, 4, 1, size)
    return {suffix: bytes(file) for suffix, file in files.items()}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".ppm", ".gif", ".tiff"])
def test_a_claim_of_gigapixels_is_refused_at_once(suffix: str) -> None:
    with pytest.raises(UnreadableImage, match=r"x: it claims more pixels than OPENCV_IO_MAX"):
        decode_image(claiming(40_000, 40_000)[suffix], "x")


def test_a_claim_of_nothing_or_of_a_long_chunk_is_refused() -> None:
    with pytest.raises(UnreadableImage, match="not an image that OpenCV can decode"):
        decode_image(claiming(0, 40)[".jpg"], "x")
    png = bytearray(encode_png(FACE))
    struct.pack_into(">I", png, 33, 2**32 - 1)  # the second chunk's length
    with pytest.raises(UnreadableImage, match="not a whole image"):
        decode_image(bytes(png), "x")


def test_what_is_not_read_is_refused_by_its_format() -> None:
    with pytest.raises(UnreadableImage, match="x: JPEG 2000, which is not read"):
        decode_image(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "x")
    with pytest.raises(UnreadableImage, match=r"not a whole image in one of JPEG, PNG, .*AVIF"):
        decode_image(b"text", "x")
