"""One face as a data set stores it: JPEG bytes of the right size, never encoded twice in vain."""

from typing import NamedTuple

from sphereface_jax.data.aligner import FaceAligner
from sphereface_jax.data.alignment import IMAGE_SIZES
from sphereface_jax.data.images import decode_image, encode_jpeg
from sphereface_jax.data.sources import FaceSource, encoded_image
from sphereface_jax.data.transforms import WrongImageSize


class EncodedFace(NamedTuple):
    """JPEG bytes and their (height, width)."""

    encoded: bytes
    size: tuple[int, int]


def encoded_face(source: FaceSource, index: int, aligner: FaceAligner | None = None) -> EncodedFace:
    """An image of a source as JPEG, aligned if asked for; it is decoded to see that it can be.

    A JPEG of the right size is returned as it is.

    Args:
      source: the faces.
      index: of the image.
      aligner: finds the face and crops it; None: the images are crops.

    Returns:
      The JPEG, and its height and width.

    Raises:
      UnreadableImage: the image cannot be read, or no face is found in it.
      WrongImageSize: neither 112×112 nor 112×96, and no aligner.
    """
    name = source.describe(index)
    encoded = encoded_image(source, index)
    image = decode_image(encoded, name)
    if aligner is not None:
        image = aligner(image, name)
        return EncodedFace(encode_jpeg(image), aligner.image_size)
    size = (image.shape[0], image.shape[1])
    if size not in IMAGE_SIZES:
        raise WrongImageSize(
            f"{name}: expected a face of 112x112 or 112x96 pixels, found {size[0]}x{size[1]}; "
            "align the faces"
        )
    is_jpeg = encoded.startswith(b"\xff\xd8")
    return EncodedFace(encoded if is_jpeg else encode_jpeg(image), size)
