"""Verification of pairs on folds, by the four protocols that numbers on LFW come from.

All choose a threshold on some folds and try it on others, and yet differ by up to half a point on
the same vectors: in what they make of the mirror image, whether they centre, which thresholds
they try and which of those that tie they take.

| protocol          | mirror       | centred | threshold                                      |
|-------------------|--------------|---------|------------------------------------------------|
| `lfw_authors`     | concatenated | yes     | mean of the best of -1:1e-4:1                  |
| `lfw_insightface` | summed       | no      | first best squared distance of 0:0.01:4        |
| `lfw_facexzoo`    | unused       | no      | first of 1,000 with the largest TAR - FAR      |
| `lfw_opensphere`  | averaged     | no      | best on the very pairs it is scored on         |

So a number is quoted with its protocol's name. Each function takes the embeddings of the images
and, where there are any, those of the mirror images; without them no mirror is used.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax.evaluation.folds import (
    best_threshold,
    choose_thresholds,
    fold_centred_cosines,
    fold_index,
)
from sphereface_jax.evaluation.pairs import Pairs, check_mirrored, paired_cosines
from sphereface_jax.evaluation.results import Result
from sphereface_jax.evaluation.roc import (
    area_under_curve,
    equal_error_rate,
    roc_curve,
    tar_at_far,
)

TAR_AT_FARS = (1e-1, 1e-2, 1e-3)


@dataclasses.dataclass(frozen=True, eq=False)
class VerificationResult(Result):
    """What a verification protocol measured; rates are fractions.

    Accuracy and its deviation are the protocol's own. AUC, equal error rate and TAR are exact, on
    the scores that the protocol gives the pairs.

    Attributes:
      accuracy_10_fold: the mean of the accuracies of the held-out folds; with `optimistic`, the
        accuracy of the best threshold on the pairs themselves.
      accuracy_std: the spread that the protocol reports beside it: the standard deviation of the
        folds' accuracies (divided by their number, not one less), for `lfw_facexzoo` the standard
        error of their mean, for `lfw_opensphere` none.
      auc: area under the ROC.
      equal_error_rate: where FAR and FRR are equal.
      tar_at_far: the TAR at each FAR, by the FAR's name ("1e-3"); None where the different pairs
        are too few to show that FAR.
      threshold: the mean of the folds' thresholds, as a cosine.
      num_pairs: P.
      num_same: how many of them are of one person.
      num_folds: how many folds were held out; 0 for `lfw_opensphere`.
      flip: what was done with the mirror images: "concatenated", "summed", "averaged", "unused",
        or "none" where none were given.
      optimistic: whether the threshold was chosen on the pairs it was scored on.
      fold_accuracies: the accuracy of each held-out fold, in the order of the folds' names.
      scores: [P] cosines, each as its own fold, held out, saw it; not in the JSON.
      is_correct: [P] booleans, whether each pair was decided rightly; not in the JSON.
    """

    accuracy_10_fold: float
    accuracy_std: float | None
    auc: float
    equal_error_rate: float
    tar_at_far: dict[str, float | None]
    threshold: float
    num_pairs: int
    num_same: int
    num_folds: int
    flip: str
    optimistic: bool
    fold_accuracies: tuple[float, ...]
    scores: NDArray[np.float64] = dataclasses.field(repr=False)
    is_correct: NDArray[np.bool_] = dataclasses.field(repr=False)


def lfw_authors(
    embeddings: ArrayLike, pairs: Pairs, *, mirrored: ArrayLike | None = None
) -> VerificationResult:
    """Ten-fold verification as the SphereFace authors measure it on LFW.

    A feature is an image's embedding with its mirror image's after it. For each fold: μ, the mean
    of the left and right features of the pairs of the other folds, is subtracted from all; a
    pair's score is the cosine of what is left; of the thresholds -1, -0.9999, ..., 1 all those
    with the best accuracy on the other folds are averaged; the fold's accuracy counts same pairs
    strictly above that threshold and different pairs strictly below it. Works for any number of
    folds from two up.

    Args:
      embeddings: [N, D], of any length.
      pairs: P pairs of rows of `embeddings`, with their folds.
      mirrored: [N, D], the embeddings of the mirror images, or None.

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
    features, mirror_features = check_mirrored(embeddings, mirrored, num_rows=pairs.num_images)
    if mirror_features is not None:
        features = np.concatenate([features, mirror_features], axis=1)
    cosines = fold_centred_cosines(features, pairs, fold_index(pairs))
    flip = "none" if mirrored is None else "concatenated"
    return verify_scores(cosines, pairs, flip=flip)


def lfw_insightface(
    embeddings: ArrayLike, pairs: Pairs, *, mirrored: ArrayLike | None = None
) -> VerificationResult:
    """Ten-fold verification as InsightFace and its many descendants measure it.

    The embeddings of an image and of its mirror image are summed and scaled to unit length. Of
    the squared distances 0, 0.01, ..., 3.99 the first with the best accuracy on the other folds is
    the threshold; a pair is the same strictly below it.

    Args:
      embeddings: [N, D], of any length.
      pairs: P pairs of rows of `embeddings`, with their folds.
      mirrored: [N, D], the embeddings of the mirror images, or None.

    Returns:
      A `VerificationResult`; its threshold t is 1 - t / 2, a cosine.

    Raises:
      ValueError: as `lfw_authors`, and for embeddings that their mirror images' cancel.

    References:
      `recognition/arcface_torch/eval/verification.py` of
      https://github.com/deepinsight/insightface.
    """
    scores = paired_cosines(_add_mirrored(embeddings, mirrored, pairs), pairs)
    fold_of_pair = fold_index(pairs)
    distance = 2 - 2 * scores
    thresholds = choose_thresholds(_first_best_distance, distance, pairs.is_same, fold_of_pair)
    is_correct = (distance < thresholds[fold_of_pair]) == pairs.is_same
    flip = "none" if mirrored is None else "summed"
    return _held_out_result(scores, is_correct, 1 - thresholds / 2, pairs, flip)


def lfw_facexzoo(
    embeddings: ArrayLike, pairs: Pairs, *, mirrored: ArrayLike | None = None
) -> VerificationResult:
    """Ten-fold verification as FaceX-Zoo measures it: no mirror images, TAR - FAR at its largest.

    The thresholds tried are 1,000 equal steps from the lowest to the highest cosine of the other
    folds; the first with the largest TAR - FAR is taken, and counts strictly either way.
    `accuracy_std` is the standard error of the mean, with the sample deviation.

    Args:
      embeddings: [N, D], of any length.
      pairs: P pairs of rows of `embeddings`, with their folds.
      mirrored: [N, D], taken so that all protocols are called alike, and unused.

    Returns:
      A `VerificationResult`.

    Raises:
      ValueError: as `lfw_authors`; also where the other folds of one have no same or no
        different pairs.

    References:
      `test_protocol/lfw/lfw_evaluator.py` of https://github.com/JDAI-CV/FaceX-Zoo.
    """
    features, _ = check_mirrored(embeddings, mirrored, num_rows=pairs.num_images)
    scores = paired_cosines(features, pairs)
    flip = "none" if mirrored is None else "unused"
    result = verify_scores(scores, pairs, choose=_widest_gap, flip=flip)
    standard_error = float(np.std(result.fold_accuracies, ddof=1) / np.sqrt(result.num_folds))
    return dataclasses.replace(result, accuracy_std=standard_error)


def lfw_opensphere(
    embeddings: ArrayLike, pairs: Pairs, *, mirrored: ArrayLike | None = None
) -> VerificationResult:
    """Verification as opensphere measures it: the best threshold for the whole list, no folds.

    The embeddings of an image and of its mirror image are averaged. The threshold is chosen on the
    pairs that it is then scored on, which flatters: the result says `optimistic`.

    Args:
      embeddings: [N, D], of any length.
      pairs: P pairs of rows of `embeddings`; their folds are ignored.
      mirrored: [N, D], the embeddings of the mirror images, or None.

    Returns:
      A `VerificationResult` without folds and deviation.

    Raises:
      ValueError: for embeddings that are not finite, are zero or that their mirror images'
        cancel; for no same or no different pairs.

    References:
      `dataset/utils.py` of https://github.com/ydwen/opensphere.
    """
    scores = paired_cosines(_add_mirrored(embeddings, mirrored, pairs), pairs)
    curve = roc_curve(scores, pairs.is_same)
    num_same = int(pairs.is_same.sum())
    correct = curve.tar * num_same + (1 - curve.far) * (len(pairs) - num_same)
    threshold = float(curve.thresholds[np.argmax(correct)])
    is_correct = (scores >= threshold) == pairs.is_same
    return VerificationResult(
        accuracy_10_fold=float(np.mean(is_correct)),
        accuracy_std=None,
        num_folds=0,
        threshold=min(threshold, 1.0),
        flip="none" if mirrored is None else "averaged",
        optimistic=True,
        fold_accuracies=(),
        is_correct=is_correct,
        **_measures(scores, pairs),
    )


def verify_scores(
    cosines: NDArray,
    pairs: Pairs,
    *,
    choose: Callable[[NDArray, NDArray[np.bool_]], float] = best_threshold,
    flip: str = "none",
) -> VerificationResult:
    """Leave-one-fold-out verification of cosines, however they came about.

    Args:
      cosines: [P], or [F, P] where they depend on the fold that is held out.
      pairs: P pairs with their folds.
      choose: from cosines and `is_same` to a threshold; a pair is decided rightly strictly on its
        side of it.
      flip: what was done with mirror images, for the result to say.

    Returns:
      A `VerificationResult`.

    Raises:
      ValueError: for fewer than two folds, or no same or no different pairs.
    """
    fold_of_pair = fold_index(pairs)
    thresholds = choose_thresholds(choose, cosines, pairs.is_same, fold_of_pair)
    rows = np.broadcast_to(cosines, (len(thresholds), len(pairs)))
    scores, of_pair = rows[fold_of_pair, np.arange(len(pairs))], thresholds[fold_of_pair]
    is_correct = np.where(pairs.is_same, scores > of_pair, scores < of_pair)
    return _held_out_result(scores, is_correct, thresholds, pairs, flip)


PROTOCOLS: dict[str, Callable[..., VerificationResult]] = {
    "lfw_authors": lfw_authors,
    "lfw_insightface": lfw_insightface,
    "lfw_facexzoo": lfw_facexzoo,
    "lfw_opensphere": lfw_opensphere,
}


def allowed_protocols(pairs: Pairs) -> tuple[str, ...]:
    """The names of the protocols that a list allows: without folds, only the one that has none."""
    has_folds = len(np.unique(pairs.folds)) > 1
    return tuple(PROTOCOLS) if has_folds else ("lfw_opensphere",)


def _add_mirrored(embeddings: ArrayLike, mirrored: ArrayLike | None, pairs: Pairs) -> NDArray:
    """The sum with the mirror images' embeddings; its direction is their average's too."""
    features, mirror_features = check_mirrored(embeddings, mirrored, num_rows=pairs.num_images)
    if mirror_features is None:
        return features
    return features.astype(np.float64) + mirror_features


def _first_best_distance(distance: NDArray, is_same: NDArray[np.bool_]) -> float:
    """The first of 0, 0.01, ..., 3.99 with the best accuracy; below it is the same."""
    grid = np.arange(0, 4, 0.01)
    same, different = _counts_below(grid, distance, is_same)
    return float(grid[np.argmax(same - different)])


def _widest_gap(cosine: NDArray, is_same: NDArray[np.bool_]) -> float:
    """The first of 1,000 steps from the lowest to the highest cosine with the best TAR - FAR."""
    num_same = int(is_same.sum())
    num_different = len(is_same) - num_same
    if not num_same or not num_different:
        raise ValueError("folds: expected same and different pairs among the other folds of each")
    step = (cosine.max() - cosine.min()) / 1000
    grid = cosine.min() + step * np.arange(1, 1001)
    # Above a threshold is what lies below it with the signs turned.
    same, different = _counts_below(-grid, -cosine, is_same)
    return float(grid[np.argmax(same / num_same - different / num_different)])


def _counts_below(
    thresholds: NDArray, values: NDArray, is_same: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many same and how many different pairs have a value strictly below each threshold."""
    same, different = np.sort(values[is_same]), np.sort(values[~is_same])
    return np.searchsorted(same, thresholds), np.searchsorted(different, thresholds)


def _held_out_result(
    scores: NDArray,
    is_correct: NDArray[np.bool_],
    thresholds: NDArray,
    pairs: Pairs,
    flip: str,
) -> VerificationResult:
    fold_of_pair = fold_index(pairs)
    accuracies = np.bincount(fold_of_pair, weights=is_correct) / np.bincount(fold_of_pair)
    return VerificationResult(
        accuracy_10_fold=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        num_folds=len(accuracies),
        threshold=float(np.mean(thresholds)),
        flip=flip,
        optimistic=False,
        fold_accuracies=tuple(accuracies.tolist()),
        is_correct=is_correct,
        **_measures(scores, pairs),
    )


def _measures(scores: NDArray, pairs: Pairs) -> dict[str, Any]:
    """What does not depend on a threshold."""
    curve = roc_curve(scores, pairs.is_same)
    return {
        "scores": scores,
        "auc": area_under_curve(curve),
        "equal_error_rate": equal_error_rate(curve),
        "tar_at_far": tar_at_far(curve, TAR_AT_FARS),
        "num_pairs": len(pairs),
        "num_same": int(pairs.is_same.sum()),
    }
