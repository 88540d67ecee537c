"""Encoded bytes in, RGB pixels out; and one error that names the image when that cannot be done.

Everything that decodes a picture in this package comes through `decode_image`, so that every source
agrees on what a pixel is: uint8, [H, W, 3], red first, grey repeated over the three channels.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sphereface_jax.data.image_header import claimed_size
from sphereface_jax.data.text import existing_folder

_MOST_PIXELS = 1 << 27
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".pgm", ".bmp", ".webp")


class UnreadableImage(ValueError):  # noqa: N818
    """An image that is missing, empty, truncated or in no format that OpenCV reads."""


def decode_image(encoded: bytes, name: str) -> np.ndarray:
    """Decodes JPEG, PNG, PGM, BMP or WebP bytes.

    Args:
      encoded: the bytes of the file.
      name: what to call the image in an error.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      UnreadableImage: nothing there, another format, more than 134 million pixels, or OpenCV
        refuses it (most JPEGs cut short included).
    """
    if not encoded:
        raise UnreadableImage(f"{name}: the image is empty (0 bytes); replace or delete it")
    size = claimed_size(encoded)
    if size is None:
        raise UnreadableImage(
            f"{name}: not a whole image in JPEG, PNG, PGM, BMP or WebP ({len(encoded)} bytes); "
            "replace or delete it"
        )
    if not 0 < size[0] * size[1] <= _MOST_PIXELS:
        raise UnreadableImage(
            f"{name}: expected an image of 1 to {_MOST_PIXELS} pixels, found one that claims "
            f"{size[0]}x{size[1]}; it is damaged"
        )
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise UnreadableImage(f"{name}: {' '.join(str(error).split())}") from None
    if image is None:
        raise UnreadableImage(
            f"{name}: not an image that OpenCV can decode, or truncated ({len(encoded)} bytes); "
            "replace or delete it"
        )
    return image


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads and decodes one file.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      UnreadableImage: the file is missing, cannot be opened, or does not decode.
    """
    return decode_image(read_bytes(path), os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file; half the time of `Path.read_bytes` on files of a few kilobytes.

    Raises:
      UnreadableImage: the file is missing or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            size = os.fstat(descriptor).st_size
            encoded = os.read(descriptor, size)
            while len(encoded) < size and (more := os.read(descriptor, size - len(encoded))):
                encoded += more
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableImage(f"{os.fspath(path)}: cannot be read ({reason})") from None
    return encoded


def encode_png(image: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, 3] RGB without loss."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Encodes uint8 [H, W, 3] RGB as JPEG."""
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def find_image_paths(directory: str | os.PathLike[str]) -> list[Path]:
    """The images at any depth under a folder, sorted; links to folders are not followed.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: there is no image in it.
    """
    directory = existing_folder(directory, "a folder of images")
    found = [
        Path(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
        if is_image_path(name)
    ]
    if not found:
        raise ValueError(
            f"{directory}: expected images ending in {', '.join(IMAGE_SUFFIXES)}, found none"
        )
    return sorted(found)


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


def is_image_path(path: str | os.PathLike[str]) -> bool:
    """Whether the name ends as an image's does and is not hidden."""
    name = os.path.basename(os.fspath(path))
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
