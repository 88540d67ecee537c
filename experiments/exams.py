"""Examinations: pairs of unseen people; are they one or two?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sphereface_jax.data.images import ImagePaths
from sphereface_jax.data.lfw_list import find_images, read_pairs
from sphereface_jax.data.source import FaceSource, ImageSequence
from sphereface_jax.data.synthetic import SyntheticFaces
from sphereface_jax.data.vectors import identity_of
from sphereface_jax.embedder import FaceEmbedder
from sphereface_jax.evaluation.draw_pairs import verification_pairs
from sphereface_jax.evaluation.geometry_measures import embedding_geometry
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.verification import lfw_authors
from sphereface_jax.tasks.pair_list import number_pairs

FIRST_STRANGER = 2_000_000


@dataclass(frozen=True, eq=False)
class Exam:
    """Images and pairs of them.

    Attributes:
      title: what to call it.
      images: N images.
      people: [N], who is on each.
      pairs: pairs of images, in folds.
    """

    title: str
    images: ImageSequence
    people: Sequence[Any]
    pairs: Pairs


def synthetic_exam(
    people: int, views: int, image_size: tuple[int, int], *, pairs_per_fold: int
) -> Exam:
    """Synthetic faces of people far from those that are trained on, in ten folds."""
    source = SyntheticFaces(people, views, image_size=image_size, first_identity=FIRST_STRANGER)
    return drawn_exam(source, f"{people} synthetic strangers", pairs_per_fold=pairs_per_fold)


def drawn_exam(
    source: FaceSource, people: str, *, pairs_per_fold: int, num_folds: int = 10
) -> Exam:
    """Pairs drawn from a source, in folds of people.

    Args:
      source: of faces.
      people: what to call them.
      pairs_per_fold: half of them of one person.
      num_folds: none has a person of another.
    """
    left, right, is_same, folds = verification_pairs(
        source.labels, pairs_per_fold=pairs_per_fold, num_folds=num_folds
    )
    pairs = Pairs(left, right, is_same=is_same, folds=folds)
    return Exam(f"{len(pairs):,} pairs of {people}", source, source.labels, pairs)


def listed_exam(path: Path, images: Path) -> Exam:
    """A list in LFW's format.

    Raises:
      FileNotFoundError: the list, the folder or an image is missing.
      ValueError: the file is not such a list.
    """
    named = read_pairs(path)
    found, missing = find_images(named.names, images)
    if missing:
        raise FileNotFoundError(
            f"{path}: {len(missing)} of its {len(named.names)} images are not in {images} "
            f"({missing[0]}, ...); add them"
        )
    pairs = number_pairs(named)
    people = [identity_of(file.relative_to(images).as_posix()) for file in found.values()]
    return Exam(
        f"{path.name}, {len(pairs):,} pairs", ImagePaths(list(found.values())), people, pairs
    )


def examine(embedder: FaceEmbedder, exam: Exam) -> dict[str, Any]:
    """Returns what a network makes of an exam."""
    return score(*embedder.embed_source(exam.images), exam)


def score(embeddings: np.ndarray, mirrored: np.ndarray, exam: Exam) -> dict[str, Any]:
    """Returns the authors' LFW protocol and the geometry, by embeddings of images and mirrors."""
    features = np.concatenate([embeddings, mirrored], axis=1)
    return {
        "verification": lfw_authors(embeddings, exam.pairs, mirrored=mirrored).to_json(),
        "geometry": embedding_geometry(features, exam.people).to_json(),
    }
