"""Augmentations of one face on the host, each a pure function of its image and uniform numbers.

Ranges are AdaFace's where it has the augmentation (Kim et al., CVPR 2022, its dataset augmenter):
crop, low resolution and photometric change are each applied there with probability 0.2. Blur and
cutout (DeVries and Taylor, 2017) have ranges of our own.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

_INTERPOLATIONS = (
    cv2.INTER_NEAREST,
    cv2.INTER_LINEAR,
    cv2.INTER_AREA,
    cv2.INTER_CUBIC,
    cv2.INTER_LANCZOS4,
)
_GREY = 128  # what cutout paints: zero after normalisation, nearly


def crop_resize(image: np.ndarray, draws: Sequence[float]) -> np.ndarray:
    """Cuts out 20 % to 100 % of the area, with an aspect of 3/4 to 4/3, and scales it back up.

    Args:
      image: uint8 [H, W, 3].
      draws: four uniform numbers: area, aspect, top, left.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    top, left, bottom, right = _rectangle(height, width, (0.2, 1.0), (3 / 4, 4 / 3), draws)
    inside = np.ascontiguousarray(image[top:bottom, left:right])
    return cv2.resize(inside, (width, height), interpolation=cv2.INTER_LINEAR)


def low_resolution(image: np.ndarray, draws: Sequence[float]) -> np.ndarray:
    """Shrinks to 20 % to 100 % of the sides and back, each way with an interpolation of its own.

    Args:
      image: uint8 [H, W, 3].
      draws: three uniform numbers: factor, interpolation down, interpolation up.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    factor = _between(0.2, 1.0, draws[0])
    small = (max(1, round(factor * width)), max(1, round(factor * height)))
    down, up = (_INTERPOLATIONS[int(draw * len(_INTERPOLATIONS))] for draw in draws[1:3])
    shrunk = cv2.resize(np.ascontiguousarray(image), small, interpolation=down)
    return cv2.resize(shrunk, (width, height), interpolation=up)


def photometric(image: np.ndarray, draws: Sequence[float]) -> np.ndarray:
    """Scales brightness, contrast about the mean grey and saturation by 0.5 to 1.5, in this order.

    Args:
      image: uint8 [H, W, 3], RGB.
      draws: three uniform numbers: brightness, contrast, saturation.

    Returns:
      uint8 [H, W, 3].
    """
    brightness, contrast, saturation = (_between(0.5, 1.5, draw) for draw in draws[:3])
    image = np.ascontiguousarray(image)
    mean = min(255.0, brightness * float(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]))
    levels = np.clip(np.arange(256) * brightness, 0, 255)
    table = np.clip(np.rint((levels - mean) * contrast + mean), 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)


def blur(image: np.ndarray, draws: Sequence[float]) -> np.ndarray:
    """Blurs with a Gaussian of 0.3 to 2 pixels.

    Args:
      image: uint8 [H, W, 3].
      draws: one uniform number: the width.

    Returns:
      uint8 [H, W, 3].
    """
    return cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), _between(0.3, 2.0, draws[0]))


def cutout(image: np.ndarray, draws: Sequence[float]) -> np.ndarray:
    """Paints a rectangle of 2 % to 25 % of the area grey.

    Args:
      image: uint8 [H, W, 3].
      draws: four uniform numbers: area, aspect, top, left.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    top, left, bottom, right = _rectangle(height, width, (0.02, 0.25), (1 / 3, 3), draws)
    image = image.copy()
    image[top:bottom, left:right] = _GREY
    return image


def _rectangle(
    height: int,
    width: int,
    areas: tuple[float, float],
    aspects: tuple[float, float],
    draws: Sequence[float],
) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of a rectangle; the aspect is even on the logarithmic scale."""
    area = _between(*areas, draws[0]) * height * width
    aspect = math.exp(_between(math.log(aspects[0]), math.log(aspects[1]), draws[1]))
    tall = min(height, max(1, round(math.sqrt(area / aspect))))
    wide = min(width, max(1, round(math.sqrt(area * aspect))))
    top, left = int(draws[2] * (height - tall + 1)), int(draws[3] * (width - wide + 1))
    return top, left, top + tall, left + wide


def _between(low: float, high: float, draw: float) -> float:
    return low + (high - low) * draw
