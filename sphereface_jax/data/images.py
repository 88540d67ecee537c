"""Encoded bytes in, RGB pixels out; and one error that names the image when that cannot be done.

Everything that decodes a picture in this package comes through `decode_image`, so that every source
agrees on what a pixel is: uint8, [H, W, 3], red first, grey repeated over the three channels.
"""

import importlib.util
import io
import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from sphereface_jax.data.image_header import START, has_whole_chunks, image_format

_BY_OPENCV = ("JPEG", "PNG", "PNM", "BMP", "WebP", "GIF", "TIFF", "AVIF")
# A file of such a name is taken for an image unread; the others are looked into (data/finder.py).
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".pgm", ".bmp", ".webp")


class UnreadableImage(ValueError):  # noqa: N818
    """An image that is missing, empty, truncated or in no format that OpenCV reads."""


def decode_image(encoded: bytes, name: str) -> np.ndarray:
    """Decodes JPEG, PNG, PNM, BMP, WebP, GIF, TIFF or AVIF bytes, and HEIC with pillow-heif.

    Args:
      encoded: the bytes of the file.
      name: what to call the image in an error.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      UnreadableImage: nothing there, another format, more pixels than OpenCV may decode, or OpenCV
        refuses it (most JPEGs cut short included).
    """
    if not encoded:
        raise UnreadableImage(f"{name}: the image is empty (0 bytes); replace or delete it")
    kind = image_format(encoded[:START])
    if kind is not None and (why := why_undecodable(kind)):
        raise UnreadableImage(f"{name}: {why}")
    if kind is None or (kind == "PNG" and not has_whole_chunks(encoded)):
        formats = ", ".join(_BY_OPENCV)
        raise UnreadableImage(
            f"{name}: not a whole image in one of {formats} ({len(encoded)} bytes); "
            "replace or delete it"
        )
    if kind == "HEIC":
        return _decode_heic(encoded, name)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        reason = " ".join(str(error).split())
        if "CV_IO_MAX_IMAGE" in reason:
            reason = "it claims more pixels than OPENCV_IO_MAX_IMAGE_PIXELS; it is damaged"
        raise UnreadableImage(f"{name}: {reason}") from None
    if image is None:
        raise UnreadableImage(
            f"{name}: not an image that OpenCV can decode, or truncated ({len(encoded)} bytes); "
            "replace or delete it"
        )
    return image


def why_undecodable(kind: str) -> str | None:
    """Why images of a format, as `image_format` names it, cannot be decoded here; None if they can.

    Example:
      >>> why_undecodable("PNG"), why_undecodable("JPEG 2000")
      (None, 'JPEG 2000, which is not read; convert it')
    """
    if kind in _BY_OPENCV:
        return None
    if kind != "HEIC":
        return f"{kind}, which is not read; convert it"
    if importlib.util.find_spec("pillow_heif") is None:
        return "HEIC, which needs pillow-heif (pip install pillow-heif); or convert it"
    return None


def _decode_heic(encoded: bytes, name: str) -> np.ndarray:
    """By pillow-heif, which turns the picture as its orientation says."""
    import pillow_heif  # type: ignore[import-not-found]

    try:
        picture = pillow_heif.open_heif(io.BytesIO(encoded)).to_pillow()
    except (ValueError, RuntimeError, SyntaxError, EOFError) as error:
        raise UnreadableImage(f"{name}: {' '.join(str(error).split())}") from None
    return np.array(picture.convert("RGB"))


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads and decodes one file.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      UnreadableImage: the file is missing, cannot be opened, or does not decode.
    """
    return decode_image(read_bytes(path), os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file; quicker than `Path.read_bytes` on small files.

    Raises:
      UnreadableImage: the file is missing or cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableImage(f"{os.fspath(path)}: cannot be read ({reason})") from None


def encode_png(image: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, 3] RGB without loss."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Encodes an image as JPEG.

    Args:
      image: uint8 [H, W, 3], RGB.
      quality: from 0 to 100.

    Returns:
      The file's bytes.
    """
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


class ImagePaths:
    """Unlabelled images by path, for embedding: an `ImageSequence`."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]):
        self.paths = [os.fspath(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": read_image(self.paths[index])}

    def describe(self, index: int) -> str:
        """The path."""
        return self.paths[index]
