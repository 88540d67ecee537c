"""Verification of InsightFace's packs: `lfw.bin`, `cfp_fp.bin`, `agedb_30.bin` and their like.

A pack holds its images and says nothing of who is on them, so its pairs cannot be drawn again by
people. A picture that is paired with itself is counted and said, and scored, for a pack's published
numbers are of all its pairs. Its images are called PACK/000000, PACK/000001, ..., pair p being the
two at 2p.
"""

from pathlib import Path

import numpy as np

from sphereface_jax.data.packs import read_pack
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.verification import allowed_protocols
from sphereface_jax.tasks.pair_list import match_pairs
from sphereface_jax.tasks.task import FaceImages, Matched


class PackTask:
    """A verification pack and the protocols of LFW, whose names begin with the pack's.

    Args:
      path: the pack.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is not a pack.

    Attributes:
      remarks: lines that warn of pairs of one picture.
    """

    def __init__(self, path: Path):
        self.title = path.stem
        self.prefix = f"{path.stem}/"
        self._pack = read_pack(path)
        first = np.arange(0, len(self._pack), 2)
        ones = sum(self._is_one(left) for left in first.tolist())
        said = f"{path}: {ones:,} of {len(first):,} pairs are one picture twice; they are scored"
        self.remarks = (said,) if ones else ()
        self._pairs = Pairs(first, first + 1, is_same=self._pack.is_same, folds=self._pack.folds)
        self._names = [f"{path.stem}/{number:06d}" for number in range(len(self._pack))]
        self.protocols = allowed_protocols(self._pairs)

    def _is_one(self, left: int) -> bool:
        return self._pack.read_encoded(left) == self._pack.read_encoded(left + 1)

    def find_images(self) -> FaceImages:
        """The pack's own images."""
        return FaceImages(self._names, self._pack)

    def match(self, vectors: FaceVectors) -> Matched:
        """Finds the vectors of the pack's images by their numbers."""
        return match_pairs(self._pairs, self._names, vectors, title=self.title)
