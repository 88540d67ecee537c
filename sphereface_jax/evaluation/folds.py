"""Leave one fold out: choose on the other folds, try on the one.

What every fold-wise protocol shares: the folds' pairs, the authors' way to centre features by
the mean of the other folds, and their way to choose a threshold.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sphereface_jax.evaluation.pairs import Pairs, paired_dot

# evaluation.m scans (-10000:10000) / 10000.
_TEN_THOUSANDTHS = np.arange(-10000, 10001)


def fold_index(pairs: Pairs) -> NDArray[np.int64]:
    """The fold of each pair [P], renumbered 0, 1, ... in the order of the folds' names.

    Raises:
      ValueError: for fewer than two folds.
    """
    names, index = np.unique(pairs.folds, return_inverse=True)
    if len(names) < 2:
        raise ValueError("folds: expected at least two, found one; none is left to choose on")
    return index.astype(np.int64)


def choose_thresholds(
    choose: Callable[[NDArray, NDArray[np.bool_]], float],
    values: NDArray,
    is_same: NDArray[np.bool_],
    fold_of_pair: NDArray[np.int64],
) -> NDArray[np.float64]:
    """A threshold for each fold, chosen on the pairs of the others.

    Args:
      choose: from the values and `is_same` of some pairs to a threshold.
      values: [P], or [F, P] where they depend on the fold that is held out.
      is_same: [P] booleans.
      fold_of_pair: [P], as `fold_index`.

    Returns:
      [F] thresholds.
    """
    num_folds = int(fold_of_pair.max()) + 1
    rows = np.broadcast_to(values, (num_folds, len(is_same)))
    others = [fold_of_pair != fold for fold in range(num_folds)]
    return np.array(
        [choose(row[train], is_same[train]) for row, train in zip(rows, others, strict=True)]
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


def fold_centred_cosines(
    features: NDArray, pairs: Pairs, fold_of_pair: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Cosines of all pairs after subtracting each fold's centre.

    The centre μ of a fold is the mean of the left and right features of the pairs of the others.
    (l - μ)·(r - μ) = l·r - l·μ - r·μ + μ·μ, so every fold shares one product of the pairs. The
    mean over all images goes first, so that little cancels.

    Args:
      features: [N, D].
      pairs: P of them, by their rows in the features.
      fold_of_pair: [P], from 0 to F − 1.

    Returns:
      Cosines [F, P], a row for each fold's centre, within [−1, 1].

    Raises:
      ValueError: for a feature that equals a centre and so has no direction from it.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    x = features - mean
    sides = np.concatenate([pairs.left, pairs.right])
    num_folds = int(fold_of_pair.max()) + 1
    uses = np.bincount(np.tile(fold_of_pair, 2) * len(x) + sides, minlength=num_folds * len(x))
    uses = uses.reshape(num_folds, len(x))
    other_uses = uses.sum(axis=0) - uses
    centres = (other_uses @ x) / other_uses.sum(axis=1, keepdims=True)

    along = centres @ x.T
    centre_squared = np.einsum("fd,fd->f", centres, centres)[:, None]
    squared = np.einsum("nd,nd->n", x, x)
    from_centre = squared - 2 * along + centre_squared
    # What rounding leaves of a vector at its centre: of the subtractions here, and of the mean's.
    left_over = 1e-10 * np.maximum(squared, centre_squared) + 1e-20 * (mean @ mean)
    if (from_centre <= left_over)[:, np.unique(sides)].any():
        raise ValueError(
            "embeddings: expected vectors that differ, found one equal to the mean of the others "
            "(has the network collapsed?)"
        )
    length = np.sqrt(np.maximum(from_centre, left_over))
    products = paired_dot(x, pairs.left, pairs.right)
    products = products - along[:, pairs.left] - along[:, pairs.right] + centre_squared
    return np.clip(products / (length[:, pairs.left] * length[:, pairs.right]), -1.0, 1.0)
