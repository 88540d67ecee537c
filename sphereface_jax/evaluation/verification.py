"""Verification on folds: thresholds are chosen on nine folds and tried on the tenth.

The `lfw_authors` protocol is that of the SphereFace authors' `test/code/evaluation.m`: features
are centred by the mean of the nine training folds, compared by cosine, and the threshold is the
mean of all those of a fine grid that tie for the best training accuracy. Peers run other
protocols on the same list and get other numbers, so a result carries its protocol's name.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax.evaluation.pairs import Pairs, check_embeddings, paired_dot
from sphereface_jax.evaluation.roc import (
    area_under_curve,
    equal_error_rate,
    roc_curve,
    tar_at_far,
)

TAR_AT_FARS = (1e-1, 1e-2, 1e-3)
# evaluation.m scans (-10000:10000) / 10000.
_TEN_THOUSANDTHS = np.arange(-10000, 10001)


@dataclasses.dataclass(frozen=True, eq=False)
class VerificationResult:
    """What a verification protocol measured; rates are fractions.

    Attributes:
      accuracy_10_fold: the mean of the accuracies of the held-out folds.
      accuracy_std: their standard deviation (of the population: divided by their number).
      auc: area under the ROC of the held-out scores.
      equal_error_rate: where its FAR and FRR are equal.
      tar_at_far: its TAR at each FAR, by the FAR's name ("1e-3").
      threshold: the mean of the folds' thresholds.
      num_pairs: P.
      num_same: how many of them are of one person.
      num_folds: how many folds were held out.
      fold_accuracies: the accuracy of each held-out fold, in the order of the folds' names.
      scores: [P], each pair's score as its own fold, held out, saw it; not in the JSON.
    """

    accuracy_10_fold: float
    accuracy_std: float
    auc: float
    equal_error_rate: float
    tar_at_far: dict[str, float]
    threshold: float
    num_pairs: int
    num_same: int
    num_folds: int
    fold_accuracies: tuple[float, ...]
    scores: NDArray[np.float64] = dataclasses.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The result as plain numbers, lists and dicts, one entry of `{"protocols": {...}}`."""
        entry = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "scores"
        }
        return entry | {"fold_accuracies": list(self.fold_accuracies)}


def lfw_authors(embeddings: ArrayLike, pairs: Pairs) -> VerificationResult:
    """Ten-fold verification as the SphereFace authors measure it on LFW.

    For each fold: μ, the mean of the left and right features of the pairs of the other folds, is
    subtracted from all; a pair's score is the cosine of what is left; of the thresholds
    -1, -0.9999, ..., 1 all those with the best accuracy on the other folds are averaged; the
    fold's accuracy counts same pairs strictly above that threshold and different pairs strictly
    below it. Works for any number of folds from two up.

    Args:
      embeddings: [N, D], taken as they are. The authors' features are an image's embedding and
        its mirror image's, concatenated: give [N, 2D] for that.
      pairs: P pairs of rows of `embeddings`, with their folds.

    Returns:
      A `VerificationResult`.

    Raises:
      ValueError: for embeddings that are not finite, are zero, or do not differ from their
        mean; for fewer than two folds; for no same or no different pairs.

    Example:
      >>> embeddings = [[1.0, 0.1], [1.0, 0.2], [-1.0, 0.1], [-1.0, 0.2]]
      >>> pairs = Pairs(
      ...     [0, 0, 2, 1], [1, 2, 3, 3], is_same=[True, False, True, False], folds=[0, 0, 1, 1]
      ... )
      >>> lfw_authors(embeddings, pairs).accuracy_10_fold
      1.0

    References:
      `test/code/evaluation.m` of https://github.com/wy1iu/sphereface, 2017.
    """
    features = check_embeddings("embeddings", embeddings, num_rows=pairs.num_images)
    fold_of_pair, num_folds = _fold_index(pairs)
    cosines = _fold_centred_cosines(features, pairs, fold_of_pair, num_folds)
    accuracies, thresholds = [], []
    for fold in range(num_folds):
        held_out = fold_of_pair == fold
        threshold = best_threshold(cosines[fold, ~held_out], pairs.is_same[~held_out])
        thresholds.append(threshold)
        accuracies.append(accuracy_at(threshold, cosines[fold, held_out], pairs.is_same[held_out]))
    scores = cosines[fold_of_pair, np.arange(len(pairs))]
    curve = roc_curve(scores, pairs.is_same)
    return VerificationResult(
        accuracy_10_fold=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        auc=area_under_curve(curve),
        equal_error_rate=equal_error_rate(curve),
        tar_at_far=tar_at_far(curve, TAR_AT_FARS),
        threshold=float(np.mean(thresholds)),
        num_pairs=len(pairs),
        num_same=int(pairs.is_same.sum()),
        num_folds=num_folds,
        fold_accuracies=tuple(accuracies),
        scores=scores,
    )


def best_threshold(cosines: NDArray, is_same: NDArray[np.bool_]) -> float:
    """The mean of all the thresholds -1:1e-4:1 that tie for the best accuracy.

    Args:
      cosines: [P].
      is_same: [P] booleans.

    Returns:
      A threshold; a pair is taken for the same person strictly above it.

    Example:
      >>> best_threshold(np.array([0.5, 0.3]), np.array([True, False]))
      0.4
    """
    same, different = np.sort(cosines[is_same]), np.sort(cosines[~is_same])
    thresholds = _TEN_THOUSANDTHS / 10000
    correct = len(same) - np.searchsorted(same, thresholds, side="right")
    correct += np.searchsorted(different, thresholds, side="left")
    return float(_TEN_THOUSANDTHS[correct == correct.max()].mean() / 10000)


def accuracy_at(threshold: float, cosines: NDArray, is_same: NDArray[np.bool_]) -> float:
    """The share of pairs strictly on their side of the threshold; one that equals it is wrong."""
    correct = np.where(is_same, cosines > threshold, cosines < threshold)
    return float(np.mean(correct))


def _fold_index(pairs: Pairs) -> tuple[NDArray[np.int64], int]:
    """Folds renumbered 0, 1, ... in the order of their names, and their number."""
    names, index = np.unique(pairs.folds, return_inverse=True)
    if len(names) < 2:
        raise ValueError("folds: expected at least two, found one; none is left to choose on")
    if pairs.is_same.all() or not pairs.is_same.any():
        kind = "different" if pairs.is_same.all() else "same"
        raise ValueError(f"is_same: expected same and different pairs, found no {kind} pairs")
    return index.astype(np.int64), len(names)


def _fold_centred_cosines(
    features: NDArray, pairs: Pairs, fold_of_pair: NDArray[np.int64], num_folds: int
) -> NDArray[np.float64]:
    """Cosines [F, P] of all pairs after subtracting each fold's centre.

    (l - μ)·(r - μ) = l·r - l·μ - r·μ + μ·μ, so every fold shares one product of the pairs. The
    mean over all images goes first, so that little cancels.
    """
    x = features.astype(np.float64)
    x -= x.mean(axis=0)
    sides = np.concatenate([pairs.left, pairs.right])
    fold_of_side = np.tile(fold_of_pair, 2)
    uses = np.bincount(fold_of_side * len(x) + sides, minlength=num_folds * len(x))
    uses = uses.reshape(num_folds, len(x))
    other_uses = uses.sum(axis=0) - uses
    centres = (other_uses @ x) / other_uses.sum(axis=1, keepdims=True)

    along = centres @ x.T
    centre_squared = np.einsum("fd,fd->f", centres, centres)[:, None]
    squared = np.einsum("nd,nd->n", x, x)
    from_centre = squared - 2 * along + centre_squared
    _check_spread(from_centre[:, np.unique(sides)], features)
    length = np.sqrt(from_centre)
    products = paired_dot(x, pairs.left, pairs.right)
    products = products - along[:, pairs.left] - along[:, pairs.right] + centre_squared
    cosines = products / (length[:, pairs.left] * length[:, pairs.right])
    return np.clip(cosines, -1.0, 1.0)


def _check_spread(from_centre: NDArray, features: NDArray) -> None:
    """Refuses features that are, to rounding, their folds' mean: they have no direction there."""
    rounding = np.finfo(np.float32).eps * 1e-3
    typical = float(np.mean(np.square(features[:1024], dtype=np.float64).sum(axis=1)))
    if from_centre.min() <= rounding**2 * typical:
        raise ValueError(
            "embeddings: expected vectors that differ, found one equal to the mean of the others "
            "(has the network collapsed?)"
        )
