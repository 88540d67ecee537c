"""Alignment: bring five points of a face to where the network expects them.

A face is turned, scaled and moved (a similarity: no shear, no reflection) so that its eyes, nose
and mouth corners come as near as they can, in least squares, to the reference points of the
SphereFace authors; what 112×96 cuts off at the sides 112×112 keeps, eight columns on each.

The points come from a landmark file (`landmarks.py`) or from a detector: anything with a `detect`
method that fits `FaceDetector`.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from sphereface_jax._checks import require
from sphereface_jax.data.images import UnreadableImage

# Left eye, right eye, nose, left and right corner of the mouth, as the viewer sees them; x then y
# in a 112x96 image (wy1iu/sphereface, preprocess/code/face_align_demo.m).
REFERENCE_POINTS = np.array(
    [
        [30.2946, 51.6963],
        [65.5318, 51.5014],
        [48.0252, 71.7366],
        [33.5493, 92.3655],
        [62.7299, 92.2041],
    ]
)

IMAGE_SIZES = ((112, 112), (112, 96))


class Detection(NamedTuple):
    """A face that a detector found.

    Attributes:
      box: float [4]: left, top, right, bottom, in pixels.
      score: confidence in [0, 1].
      landmarks: float [5, 2]: x and y of the points of `REFERENCE_POINTS`.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray


class FaceDetector(Protocol):
    """Anything that finds faces and their five points; safe to call from many threads."""

    def detect(self, image: np.ndarray) -> Sequence[Detection]:
        """The faces in a uint8 [H, W, 3] RGB image, in any order; empty if there is no face."""
        ...


class NoFace(UnreadableImage):
    """An image in which the detector sees no face."""


def reference_points(image_size: tuple[int, int] = (112, 96)) -> np.ndarray:
    """Where the five points belong in an image of 112×96 or 112×112.

    Returns:
      float64 [5, 2], x then y.

    Raises:
      ValueError: another size.
    """
    require(image_size in IMAGE_SIZES, "image_size", "(112, 96) or (112, 112)", tuple(image_size))
    return REFERENCE_POINTS + np.array([(image_size[1] - 96) / 2, 0])


def similarity_transform(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The similarity that takes points nearest to targets in least squares.

    With complex coordinates z and w about their means, w = a z has the least-squares solution
    a = <z, w> / <z, z>: scale |a|, angle arg a; a reflection would need the conjugate and cannot
    arise.

    Args:
      points: float [N, 2].
      targets: float [N, 2].

    Returns:
      float64 [2, 3], as OpenCV's affine maps.

    Raises:
      ValueError: the points are all one, or not finite.
    """
    points, targets = np.asarray(points, np.float64), np.asarray(targets, np.float64)
    centre, target_centre = points.mean(axis=0), targets.mean(axis=0)
    z = (points - centre) @ [1, 1j]
    w = (targets - target_centre) @ [1, 1j]
    spread = np.vdot(z, z).real
    if not (np.isfinite(spread) and spread > 1e-9):
        raise ValueError("landmarks: expected five distinct points, got one point or none")
    a = np.vdot(z, w) / spread
    matrix = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return np.column_stack([matrix, target_centre - matrix @ centre])


_WORST_FIT = 0.45  # of the spread; a full profile, all points in one line, leaves 0.4


def check_face(points: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuses five points that cannot be a face's in an image, as a wrong landmark file gives them.

    Swapped sides, x and y in another order, and points of the image in another size are what such
    files get wrong; a crop by them shows no face, or one upside down.

    Args:
      points: float [5, 2], x then y.
      shape: height and width of the image.

    Raises:
      NoFace: the points' centre is outside of the image, or no similarity brings them near the
        reference points.
    """
    centre = points.mean(axis=0)
    if not (0 <= centre[0] < shape[1] and 0 <= centre[1] < shape[0]):
        raise NoFace(
            f"the landmarks' centre ({centre[0]:.0f}, {centre[1]:.0f}) is outside of the "
            f"{shape[0]}x{shape[1]} image; are they of the image in another size?"
        )
    z, w = ((each - each.mean(axis=0)) @ [1, 1j] for each in (np.asarray(points), REFERENCE_POINTS))
    spread = np.vdot(z, z).real * np.vdot(w, w).real
    if spread <= 0 or 1 - abs(np.vdot(z, w)) ** 2 / spread > _WORST_FIT:
        raise NoFace(
            "the landmarks do not lie as a face's; expected left eye, right eye, nose, left and "
            "right corner of the mouth as the viewer sees them, x before y"
        )


def align_face(
    image: np.ndarray, landmarks: np.ndarray, image_size: tuple[int, int] = (112, 112)
) -> np.ndarray:
    """Warps a face so that its landmarks come to the reference points; black outside the image.

    Args:
      image: uint8 [H, W, 3].
      landmarks: float [5, 2], x then y, in the image's pixels.
      image_size: (112, 112) or (112, 96).

    Returns:
      uint8 [*image_size, 3], channels as in `image`.

    Raises:
      ValueError: another size, or degenerate landmarks.
    """
    transform = similarity_transform(landmarks, reference_points(image_size))
    return cv2.warpAffine(image, transform, (image_size[1], image_size[0]), flags=cv2.INTER_LINEAR)


def choose_face(faces: Sequence[Detection], shape: tuple[int, int]) -> Detection:
    """Of several faces the one whose box lies nearest to the image's centre, as the authors do.

    Args:
      faces: that a detector found.
      shape: height and width of the image.

    Returns:
      The face; of equally near ones the first.

    Raises:
      NoFace: no face was found.
    """
    if not faces:
        raise NoFace("no face found")
    centre = np.array([shape[1], shape[0]]) / 2

    def distance(face: Detection) -> float:
        return float(np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - centre))

    return min(faces, key=distance)
