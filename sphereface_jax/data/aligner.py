"""Aligning many faces: one aligner for images from anywhere; a folder or a source into crops."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sphereface_jax.data.alignment import (
    IMAGE_SIZES,
    FaceDetector,
    NoFace,
    align_face,
    check_face,
    choose_face,
)
from sphereface_jax.data.files import available_cores, claim_folder, write_atomically
from sphereface_jax.data.finder import (
    PassedOver,
    describe_passed_over,
    find_images_below,
    passed_over_table,
)
from sphereface_jax.data.images import (
    IMAGE_SUFFIXES,
    UnreadableImage,
    decode_image,
    encode_jpeg,
    read_image,
)
from sphereface_jax.data.landmarks import landmarks_of, read_landmarks
from sphereface_jax.data.source import FaceSource, encoded_image
from sphereface_jax.data.text import first_ten
from sphereface_jax.data.transforms import WrongImageSize


@dataclasses.dataclass(frozen=True)
class FaceAligner:
    """Aligns a face by known landmarks or by those that a detector finds.

    Args:
      image_size: (112, 112) or (112, 96).
      landmarks: points by image name, as `read_landmarks` returns them.
      detector: finds the points where there are no `landmarks`.
      points_from: what to call the origin of the points.

    Raises:
      ValueError: neither landmarks nor a detector, or both.
    """

    image_size: tuple[int, int] = (112, 112)
    landmarks: dict[str, np.ndarray] | None = None
    detector: FaceDetector | None = None
    points_from: str = "landmarks"

    def __post_init__(self) -> None:
        if (self.landmarks is None) == (self.detector is None):
            raise ValueError("FaceAligner: expected either landmarks or a detector")

    def __call__(self, image: np.ndarray, name: str) -> np.ndarray:
        """Aligns one image.

        Args:
          image: uint8 [H, W, 3], RGB.
          name: its path, by which its landmarks are found; also names it in errors.

        Returns:
          uint8 [*image_size, 3], RGB.

        Raises:
          NoFace: the detector sees none, or the landmark file does not have the image, or has
            points for it that cannot be a face's.
        """
        return align_face(image, self._points(image, name), self.image_size)

    def _points(self, image: np.ndarray, name: str) -> np.ndarray:
        try:
            if self.detector is not None:
                return choose_face(self.detector.detect(image), image.shape[:2]).landmarks
            points = landmarks_of(self.landmarks or {}, name)
            if points is None:
                raise NoFace("not in the landmark file")
            check_face(points, image.shape[:2])
        except NoFace as error:
            raise NoFace(f"{name}: {error}") from None
        return points


def face_aligner(
    image_size: tuple[int, int] = (112, 112), landmarks: Path | None = None
) -> FaceAligner:
    """Returns an aligner by a landmark file, or by MTCNN without one.

    Args:
      image_size: (112, 112) or (112, 96).
      landmarks: a file of five points an image.

    Returns:
      The aligner, a function from an image and its name to a crop.

    Raises:
      FileNotFoundError: no such file, or the detector's extra is not installed.
      ValueError: the file holds no landmarks.
    """
    if landmarks is not None:
        points = read_landmarks(landmarks)
        made_by = f"{landmarks.name} (CRC {zlib.crc32(landmarks.read_bytes()):08x})"
        return FaceAligner(image_size, landmarks=points, points_from=made_by)
    from sphereface_jax.data.mtcnn import MtcnnDetector

    return FaceAligner(image_size, detector=MtcnnDetector(), points_from="mtcnn")


@dataclasses.dataclass(frozen=True)
class AlignSummary:
    """What `align_folder` did.

    Attributes:
      aligned: crops written now.
      kept: crops that an earlier call had written.
      skipped: the path of each image without a crop, and why.
      passed_over: what else lies in the folder and is not an image, and why.
    """

    aligned: int
    kept: int
    skipped: list[tuple[str, str]]
    passed_over: list[PassedOver]

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        return [
            f"aligned {self.aligned:,} images, found {self.kept:,} aligned before",
            f"left out: {len(self.skipped):,}",
            *first_ten(f"  {why}" for _, why in self.skipped),
            *describe_passed_over(self.passed_over),
        ]


def align_folder(
    source: Path,
    out: Path,
    aligner: FaceAligner,
    *,
    num_threads: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> AlignSummary:
    """Aligns every image under a folder into another, under the same relative names, as JPEG.

    Called again it goes on where it stopped: a crop that is there is whole, and is made anew if its
    image is newer. Images that cannot be
    read or have no face have no crop; they are listed in `OUT/skipped.tsv`, and after them what
    lies in the folder and is not an image. A suffix that is not one of `IMAGE_SUFFIXES` stays part
    of the crop's name: `a.jfif` becomes `a.jfif.jpg`.

    Args:
      source: the folder of images, at any depth.
      out: where the crops go.
      aligner: how.
      num_threads: as many as there are cores by default.
      advance: called with the number of images done since the last call.

    Returns:
      How many crops were made and were there, and what was passed over and why.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no images, `out` within `source`, two images of one name, or crops of another
        setting in `out`.
    """
    found = find_images_below(source)
    paths = found.paths
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out}: expected a folder outside of {source}, which it would change")
    crops = _crop_names(found.names)
    setting = {"size": list(aligner.image_size), "points": aligner.points_from}
    claim_folder(out, "alignment.json", setting, "crops")

    def work(index: int) -> str | None:
        """Why the image was skipped; an empty text if its crop was there; None if it is now."""
        crop = out / crops[index]
        if crop.exists() and crop.stat().st_mtime >= paths[index].stat().st_mtime:
            return ""
        name = Path(found.names[index]).as_posix()
        try:
            image = aligner(read_image(paths[index]), name)
        except UnreadableImage as error:
            return str(error)
        write_atomically(crop, encode_jpeg(image), sync=False)
        return None

    outcomes = []
    with ThreadPoolExecutor(num_threads or available_cores()) as pool:
        for outcome in pool.map(work, range(len(paths))):
            outcomes.append(outcome)
            advance(1)
    if all(outcomes):
        raise ValueError(f"{source}: could align none of {len(paths)} images; {outcomes[0]}")
    skipped = [(Path(found.names[i]).as_posix(), why) for i, why in enumerate(outcomes) if why]
    write_atomically(out / "skipped.tsv", passed_over_table([*skipped, *found.passed_over]))
    return AlignSummary(outcomes.count(None), outcomes.count(""), skipped, found.passed_over)


def _crop_names(names: Sequence[str]) -> list[Path]:
    crops: dict[Path, str] = {}
    for name in names:
        path = Path(name)
        usual = path.suffix.lower() in IMAGE_SUFFIXES
        crop = path.with_suffix(".jpg") if usual else path.with_name(f"{path.name}.jpg")
        other = crops.setdefault(crop, name)
        if other != name:
            raise ValueError(f"{other} and {name}: expected one image for each crop {crop}")
    return list(crops)


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
