"""Verification of a list of pairs in LFW's format."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sphereface_jax.data.finder import walk_images
from sphereface_jax.data.images import ImagePaths
from sphereface_jax.data.lfw_list import NamedPairs, find_images, read_pairs
from sphereface_jax.data.vectors import FaceVectors, identity_of, path_ending
from sphereface_jax.evaluation.calibration import OperatingPoint, best_accuracy_point, far_point
from sphereface_jax.evaluation.pairs import Pairs, paired_cosines
from sphereface_jax.evaluation.verification import PROTOCOLS, allowed_protocols
from sphereface_jax.tasks.task import (
    FaceImages,
    Matched,
    Missing,
    TestedPairs,
    missing_names,
    name_hint,
    require_folder,
)


class PairsTask:
    """A pairs file and the protocols of LFW.

    Args:
      path: the pairs file.
      images: folder of its images, <Name>/<Name>_0001.jpg.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is not a pairs file.
    """

    prefix = ""

    def __init__(self, path: Path, images: Path | None = None):
        self.title = path.name
        named = read_pairs(path)
        self._names, self._images = named.names, images
        self._groups = named.groups or None
        self._pairs = number_pairs(named)
        self.protocols = allowed_protocols(self._pairs)

    def find_images(self) -> FaceImages:
        """Finds the image of each name, with any suffix."""
        folder = require_folder(self._images, self.title)
        found, missing = find_images(self._names, folder)
        paths = list(found.values())
        hint = ""
        if missing:
            there = (Path(name).with_suffix("").as_posix() for name in walk_images(folder).names)
            hint = name_hint(missing, there)
        return FaceImages(
            [path.relative_to(folder).as_posix() for path in paths],
            ImagePaths(paths),
            Missing(missing, len(self._names), folder=folder, hint=hint),
        )

    def match(self, vectors: FaceVectors) -> Matched:
        """Finds the vectors of the pairs' images by identity and image."""
        people = [identity_of(path) for path in vectors.paths]
        return match_pairs(
            self._pairs,
            self._names,
            vectors,
            title=self.title,
            people=people,
            groups=self._groups,
        )


def number_pairs(named: NamedPairs) -> Pairs:
    """Pairs of names as pairs of their places in `named.names`."""
    place = {name: number for number, name in enumerate(named.names)}
    left, right = ([place[name] for name in side] for side in (named.left, named.right))
    return Pairs(left, right, is_same=named.is_same, folds=named.folds)


def match_pairs(
    listed: Pairs,
    names: Sequence[str],
    vectors: FaceVectors,
    *,
    title: str,
    people: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> Matched:
    """The protocols of LFW, and the operating point, on pairs of images.

    Args:
      listed: pairs of places in `names`.
      names: of the images.
      vectors: of them, by name.
      title: what to call the list in an error.
      people: [N] the person of each vector, where known.
      groups: the group of each listed pair, where the list says.

    Returns:
      The task, ready to be scored on the pairs that have both images.

    Raises:
      ValueError: no pair has both of its images, or a name stands for several vectors.
    """
    rows = vectors.find_rows(names)
    missing = missing_names(names, rows)
    depth = max(name.count("/") for name in names) + 1
    hint = name_hint(missing.names, (path_ending(path, depth) for path in vectors.paths))
    pairs, kept = keep_whole_pairs(listed, rows, title, hint)
    return Matched(
        scorers={
            name: functools.partial(
                PROTOCOLS[name], vectors.embeddings, pairs, mirrored=vectors.mirrored
            )
            for name in allowed_protocols(listed)
        },
        used={"pairs": (len(pairs), len(listed))},
        missing=dataclasses.replace(missing, hint=hint),
        tested=TestedPairs(
            pairs, kept, people, None if groups is None else list(np.array(groups)[kept])
        ),
        operating_point=functools.partial(operating_point, vectors, pairs),
    )


def keep_whole_pairs(
    listed: Pairs, rows: np.ndarray, title: str, hint: str = ""
) -> tuple[Pairs, np.ndarray]:
    """Turns pairs of places into pairs of rows, without those that miss a side.

    Args:
      listed: P pairs of places.
      rows: the row of each place, -1 for those that are missing.
      title: what to call the list in an error.
      hint: what else to say in it.

    Returns:
      The pairs of rows, and which of the listed ones they are: bool [P].

    Raises:
      ValueError: no pair has both of its sides.
    """
    left, right = rows[listed.left], rows[listed.right]
    kept = (left >= 0) & (right >= 0)
    if not kept.any():
        raise ValueError(f"{title}: none of the {len(listed)} pairs has both of its sides{hint}")
    pairs = Pairs(left[kept], right[kept], is_same=listed.is_same[kept], folds=listed.folds[kept])
    return pairs, kept


def operating_point(
    vectors: FaceVectors, pairs: Pairs, max_far: float | None = None
) -> OperatingPoint:
    """Chooses a cosine threshold on pairs of images and measures its errors on them.

    Args:
      vectors: of the images.
      pairs: pairs of their rows.
      max_far: the highest false accept rate to allow; None for the best accuracy.

    Returns:
      The threshold and its error rates.
    """
    cosines = paired_cosines(vectors.features(), pairs)
    if max_far is None:
        return best_accuracy_point(cosines, pairs.is_same)
    return far_point(cosines, pairs.is_same, max_far=max_far)
