"""The geometry of a hypersphere of faces: how tight its people are, and how far apart.

A margin is meant to draw each person's embeddings together and to push people apart. These
measures say how far that went, on embeddings alone, before any threshold: angles between
embeddings and the mean of their class, angles between the means, the angular Fisher score, which is
the ratio of the two kinds of scatter, and the spread of a head's prototypes.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax._checks import require
from sphereface_jax.evaluation.impostors import nearest_other
from sphereface_jax.evaluation.pairs import check_embeddings, to_degrees, unit_rows
from sphereface_jax.evaluation.pooling import group_means
from sphereface_jax.evaluation.results import Result


@dataclasses.dataclass(frozen=True)
class AngleStatistics(Result):
    """Angles within and between the classes of a set of embeddings, in degrees.

    Attributes:
      intra_class_mean: mean angle of an embedding to the mean of its class.
      intra_class_std: the standard deviation of these angles.
      intra_class_max: the largest of them.
      inter_class_nearest_mean: mean angle of a class mean to the nearest other.
      inter_class_nearest_min: the smallest of these.
      inter_class_mean: mean angle between the means of two classes, over all pairs of classes, as
        the angle of their mean cosine.
      num_classes: C.
      num_embeddings: N.
    """

    intra_class_mean: float
    intra_class_std: float
    intra_class_max: float
    inter_class_nearest_mean: float
    inter_class_nearest_min: float
    inter_class_mean: float
    num_classes: int
    num_embeddings: int


@dataclasses.dataclass(frozen=True)
class PrototypeSpread(Result):
    """Angles between a head's prototypes, in degrees.

    Evenly spread prototypes are near 90° on the whole, and have no near neighbours: C points in D
    dimensions can be at most arccos(-1 / (C - 1)) apart.

    Attributes:
      nearest_mean: mean angle of a prototype to the nearest other.
      nearest_min: the smallest of these.
      mean: the angle of the mean cosine over all pairs.
      num_prototypes: C.
    """

    nearest_mean: float
    nearest_min: float
    mean: float
    num_prototypes: int


@dataclasses.dataclass(frozen=True)
class GeometryResult(Result):
    """The geometry of the embeddings of some people.

    Attributes:
      angular_fisher_score: within-class over between-class scatter.
      angles: within and between the people.
      prototypes: the spread of the prototypes that the network was trained with, where known.
    """

    angular_fisher_score: float
    angles: AngleStatistics
    prototypes: PrototypeSpread | None = None


def embedding_geometry(embeddings: ArrayLike, labels: ArrayLike) -> GeometryResult:
    """The angular Fisher score and the angle statistics of one set of embeddings.

    Args:
      embeddings: [N, D], of any length.
      labels: [N] integers or strings.

    Returns:
      A `GeometryResult` without prototypes.

    Raises:
      ValueError: as `angular_fisher_score`.
    """
    return GeometryResult(
        angular_fisher_score=angular_fisher_score(embeddings, labels),
        angles=angle_statistics(embeddings, labels),
    )


def angular_fisher_score(embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Within-class over between-class angular scatter; lower separates better.

    AFS = S_w / S_b, with S_w = Σ_i Σ_{x in class i} (1 - cos(x, m_i)) and
    S_b = Σ_i n_i (1 - cos(m_i, m)); m_i is the mean of the n_i embeddings of class i and m that of
    all, of the embeddings as they are.

    Args:
      embeddings: [N, D], of any length.
      labels: [N] integers or strings.

    Returns:
      AFS >= 0; inf where the classes have one mean direction.

    Raises:
      ValueError: for embeddings that are not finite or are zero, labels of another number, fewer
        than two classes, or a class or whole whose mean is zero.

    Example:
      >>> angular_fisher_score([[1.0, 0], [1, 0], [0, 1], [0, 1]], ["a", "a", "b", "b"])
      0.0

    References:
      [SphereFace: Deep Hypersphere Embedding for Face Recognition]
      (https://arxiv.org/abs/1704.08063), Liu et al., CVPR 2017, appendix E.
    """
    rows, number = _check_labelled(embeddings, labels)
    means = _class_means(rows, number)
    unit, unit_means = unit_rows(rows), unit_rows(means)
    whole = rows.mean(axis=0, dtype=np.float64)
    if not whole.any():
        raise ValueError("embeddings: expected a mean with a direction, got zero")
    within = np.sum(1 - np.einsum("nd,nd->n", unit, unit_means[number]))
    between = np.sum(np.bincount(number) * (1 - unit_means @ unit_rows(whole[None])[0]))
    return float(max(within, 0.0) / between) if between > 0 else float("inf")


def angle_statistics(embeddings: ArrayLike, labels: ArrayLike) -> AngleStatistics:
    """Angles of embeddings to their class's mean, and of the means to each other.

    The embeddings are scaled to unit length first, so every image of a class counts alike.

    Args:
      embeddings: [N, D], of any length.
      labels: [N] integers or strings.

    Returns:
      `AngleStatistics`.

    Raises:
      ValueError: as `angular_fisher_score`.

    Example:
      >>> embeddings = [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]
      >>> angle_statistics(embeddings, [0, 0, 1, 1]).inter_class_nearest_min
      90.0
    """
    rows, number = _check_labelled(embeddings, labels)
    unit = unit_rows(rows)
    unit_means = unit_rows(_class_means(unit, number))
    intra = to_degrees(np.einsum("nd,nd->n", unit, unit_means[number]))
    spread = prototype_spread(unit_means)
    return AngleStatistics(
        intra_class_mean=float(intra.mean()),
        intra_class_std=float(intra.std()),
        intra_class_max=float(intra.max()),
        inter_class_nearest_mean=spread.nearest_mean,
        inter_class_nearest_min=spread.nearest_min,
        inter_class_mean=spread.mean,
        num_classes=len(unit_means),
        num_embeddings=len(rows),
    )


def prototype_spread(prototypes: ArrayLike) -> PrototypeSpread:
    """Angles between prototypes, or any other directions, streamed so that C may be large.

    Args:
      prototypes: [C, D], of any length.

    Returns:
      A `PrototypeSpread`.

    Raises:
      ValueError: for prototypes that are not finite or are zero, or fewer than two.

    Example:
      >>> prototype_spread([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).nearest_mean
      90.0
    """
    rows = check_embeddings("prototypes", prototypes, num_rows=2)
    unit = unit_rows(rows)
    angles = to_degrees(nearest_other(unit, unit, np.arange(len(unit))))
    # Of all ordered pairs: |Σ u|² is the sum of all cosines, C of which are 1.
    count = len(unit)
    total = float(np.square(unit.sum(axis=0)).sum())
    mean_cosine = (total - count) / (count * (count - 1))
    return PrototypeSpread(
        nearest_mean=float(angles.mean()),
        nearest_min=float(angles.min()),
        mean=float(to_degrees(mean_cosine)),
        num_prototypes=count,
    )


def _check_labelled(
    embeddings: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Embeddings [N, D] and the number of each one's class [N], of two classes or more."""
    rows = check_embeddings("embeddings", embeddings)
    array = np.asarray(labels)
    require(array.shape == (len(rows),), "labels", f"shape [{len(rows)}]", list(array.shape))
    classes, number = np.unique(array, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("labels: expected two classes or more, found one")
    return rows, number


def _class_means(rows: NDArray, number: NDArray[np.int64]) -> NDArray[np.floating]:
    """The mean of each class [C, D], checked to have a direction."""
    return check_embeddings("class means", group_means(rows, number))
