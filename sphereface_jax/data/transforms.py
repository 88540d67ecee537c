"""From a decoded face to the array that a step takes: crop, augment, order the colours, normalise.

The host works on uint8 and yields uint8; `normalize_pixels` runs inside the jitted step, so only a
quarter of the bytes of float32 travel to the device.

Augmentation is a pure function of (seed, global example index). `example_draws` gives example i its
row of uniform numbers out of a counter-based generator, and a transform reads fixed columns of that
row: switching one augmentation on never changes what another does, and example i looks the same
whatever batch, process or resumed run it appears in.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from sphereface_jax._checks import require
from sphereface_jax.data import augment

PerChannel = float | tuple[float, float, float]
"""One number for all channels, or one for each, in the network's colour order."""

DRAWS = 32  # uniforms an example; a multiple of Philox's four numbers a count
# The columns of an example's draws: the first of each says whether, the others how.
_MIRROR, _SHIFT_X, _SHIFT_Y = 0, 1, 2
_CROP, _LOW_RESOLUTION, _BLUR, _PHOTOMETRIC, _CUTOUT = 3, 8, 12, 14, 18
_AUGMENTATION_STREAM = 2**64 - 1  # the pipeline's shuffles use streams 0, 1, ... (the epochs)


class WrongImageSize(ValueError):  # noqa: N818
    """A face whose size is not the one that the model takes."""


def example_draws(seed: int, first: int, count: int) -> np.ndarray:
    """The uniform numbers that decide the augmentation of `count` consecutive examples.

    Args:
      seed: the run's seed, a non-negative integer.
      first: global index of the first example.
      count: how many examples.

    Returns:
      float64 [count, DRAWS] in [0, 1); row k depends on `seed` and `first + k` alone.

    Example:
      >>> bool((example_draws(1, 5, 4)[2] == example_draws(1, 7, 1)[0]).all())
      True
    """
    bits = np.random.Philox(key=np.array([seed, _AUGMENTATION_STREAM], np.uint64))
    return np.random.Generator(bits.advance(first * (DRAWS // 4))).random((count, DRAWS))


@dataclasses.dataclass(frozen=True)
class FaceTransform:
    """Crops, augments and colour-orders one face; the defaults are the SphereFace authors'.

    Args:
      image_size: (height, width) that the model takes. Accepted are faces of that size, and square
        ones of that height, whose middle columns are kept (112×112 -> columns 8:104 for 112×96).
      color_order: the channel order of the result; the authors train on BGR.
      resize: scale any other size to cover `image_size` and keep the middle, instead of refusing
        it. Not a substitute for alignment.
      mirror: probability of a left-right flip.
      shift: largest move of the window, in pixels either way, both axes; the edge is repeated.
      crop: probability of `augment.crop_resize`; this and the next are applied in this order.
      low_resolution: probability of `augment.low_resolution`.
      blur: probability of `augment.blur`.
      photometric: probability of `augment.photometric`.
      cutout: probability of `augment.cutout`.

    Raises:
      ValueError: an option out of range.
    """

    image_size: tuple[int, int] = (112, 96)
    color_order: Literal["rgb", "bgr"] = "bgr"
    resize: bool = False
    mirror: float = 0.5
    shift: int = 0
    crop: float = 0.0
    low_resolution: float = 0.0
    blur: float = 0.0
    photometric: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        order = self.color_order
        require(order in ("rgb", "bgr"), "color_order", "'rgb' or 'bgr'", repr(order))
        for name in ("mirror", "crop", "low_resolution", "blur", "photometric", "cutout"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, "a probability in [0, 1]", value)
        most = (min(self.image_size) - 1) // 2
        require(0 <= self.shift <= most, "shift", f"0 to {most} pixels", self.shift)

    def __call__(
        self,
        image: np.ndarray,
        draws: Sequence[float] | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Transforms one face.

        Args:
          image: uint8 [H, W, 3], RGB.
          draws: the example's row of `example_draws`; None switches augmentation off.
          out: uint8 [*image_size, 3], contiguous, to write into: a row of a batch.

        Returns:
          uint8 [*image_size, 3], in `color_order`: `out` if given, else possibly a view of `image`.

        Raises:
          WrongImageSize: another size, and `resize` is off.
        """
        height, width = self.image_size
        if image.shape[0] != height or image.shape[1] not in (width, height):
            image = self._resized(image)
        top, left = 0, (image.shape[1] - width) // 2
        if draws is None:
            image = image[top : top + height, left : left + width]
        else:
            if self.shift:
                top += _integer(draws[_SHIFT_Y], self.shift)
                left += _integer(draws[_SHIFT_X], self.shift)
            image = _window(image, top, left, height, width)
            if draws[_MIRROR] < self.mirror:
                image = cv2.flip(image, 1)
            if self._degrades:
                image = self._degraded(image, draws)
        if self.color_order == "bgr":
            return cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=out)
        if out is None:
            return image
        out[...] = image
        return out

    @functools.cached_property
    def _degrades(self) -> bool:
        return any((self.crop, self.low_resolution, self.blur, self.photometric, self.cutout))

    def _degraded(self, image: np.ndarray, draws: Sequence[float]) -> np.ndarray:
        if draws[_CROP] < self.crop:
            image = augment.crop_resize(image, draws[_CROP + 1 :])
        if draws[_LOW_RESOLUTION] < self.low_resolution:
            image = augment.low_resolution(image, draws[_LOW_RESOLUTION + 1 :])
        if draws[_BLUR] < self.blur:
            image = augment.blur(image, draws[_BLUR + 1 :])
        if draws[_PHOTOMETRIC] < self.photometric:
            image = augment.photometric(image, draws[_PHOTOMETRIC + 1 :])
        if draws[_CUTOUT] < self.cutout:
            image = augment.cutout(image, draws[_CUTOUT + 1 :])
        return image

    def _resized(self, image: np.ndarray) -> np.ndarray:
        """Scaled to cover `image_size`, aspect ratio kept, and the middle cut out."""
        height, width = self.image_size
        if not self.resize:
            uncropped = "" if height == width else f" or {height}x{height}"
            raise WrongImageSize(
                f"expected a face of {height}x{width}{uncropped} pixels, found "
                f"{image.shape[0]}x{image.shape[1]}; align the faces first "
                "(`sphereface align`), or train with --data.resize"
            )
        factor = max(height / image.shape[0], width / image.shape[1])
        shape = (
            max(height, round(image.shape[0] * factor)),
            max(width, round(image.shape[1] * factor)),
        )
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, shape[::-1], interpolation=kind)
        return _window(image, (shape[0] - height) // 2, (shape[1] - width) // 2, height, width)


def normalize_pixels(
    images: jax.Array | np.ndarray,
    dtype: jnp.dtype | type = jnp.float32,
    *,
    mean: PerChannel = 127.5,
    divisor: PerChannel = 128.0,
) -> jax.Array:
    """Maps pixels to (x - mean) / divisor; runs on the device.

    Args:
      images: uint8 [..., H, W, 3].
      dtype: floating type of the result; the arithmetic is float32.
      mean: one number, or one a channel.
      divisor: 128 as the SphereFace authors have it, 127.5 in InsightFace and OpenSphere; one
        number, or one a channel.

    Returns:
      [..., H, W, 3].

    Raises:
      ValueError: `images` is not uint8.

    Example:
      >>> import numpy as np
      >>> normalize_pixels(np.zeros((1, 2, 2, 3), np.uint8))[0, 0, 0, 0].item()
      -0.99609375
    """
    require(images.dtype == jnp.uint8, "images", "uint8 pixels", images.dtype)
    centred = jnp.asarray(images).astype(jnp.float32) - jnp.asarray(mean, jnp.float32)
    return (centred / jnp.asarray(divisor, jnp.float32)).astype(dtype)


def _integer(draw: float, limit: int) -> int:
    """A uniform number in [0, 1) as an integer in [-limit, limit]."""
    return int(draw * (2 * limit + 1)) - limit


def _window(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Cuts a window out of the image, repeating the edge where the window leaves it."""
    bottom, right = top + height, left + width
    inside = image[max(top, 0) : bottom, max(left, 0) : right]
    if inside.shape[:2] == (height, width):
        return inside
    above, before = max(-top, 0), max(-left, 0)
    below, after = height - above - inside.shape[0], width - before - inside.shape[1]
    return cv2.copyMakeBorder(inside, above, below, before, after, cv2.BORDER_REPLICATE)
