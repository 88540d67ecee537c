"""The operating point: the threshold at which a run says "same person", and its measured errors.

A protocol's accuracy does not tell a user where to put the threshold, nor how often a decision at
it will be wrong. An operating point is chosen on all pairs of a list and carries both error rates.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from sphereface_jax._checks import require
from sphereface_jax.evaluation.folds import best_threshold
from sphereface_jax.evaluation.results import Result
from sphereface_jax.evaluation.roc import allowed_accepts, can_show, check_scores


@dataclasses.dataclass(frozen=True)
class OperatingPoint(Result):
    """A threshold and the errors measured at it; two images are the same strictly above it.

    Attributes:
      threshold: a cosine.
      false_accept_rate: fraction of the different pairs above the threshold.
      false_reject_rate: fraction of the same pairs at or below it.
      num_same: same pairs that it was measured on.
      num_different: different pairs that it was measured on.
    """

    threshold: float
    false_accept_rate: float
    false_reject_rate: float
    num_same: int
    num_different: int


class TooFewPairsError(ValueError):
    """The different pairs are too few to show the false accept rate that was asked for."""


def best_accuracy_point(cosines: ArrayLike, is_same: ArrayLike) -> OperatingPoint:
    """The operating point with the best accuracy, ties of a 1e-4 grid averaged.

    Args:
      cosines: [P] cosines of pairs, as `paired_cosines` gives them.
      is_same: [P] booleans.

    Returns:
      An `OperatingPoint`. Its errors are those of the pairs it was chosen on, so choose on
      pairs that a later report does not use.

    Raises:
      ValueError: for shapes that differ, values that are not finite, or no same or no
        different pairs.

    Example:
      >>> best_accuracy_point([0.5, 0.3], [True, False]).threshold
      0.4
    """
    cosines, is_same = check_scores(cosines, is_same)
    return _measure(best_threshold(cosines, is_same), cosines, is_same)


def far_point(cosines: ArrayLike, is_same: ArrayLike, *, max_far: float) -> OperatingPoint:
    """The operating point with the fewest false rejects whose measured FAR is at most `max_far`.

    Args:
      cosines: [P] cosines of pairs.
      is_same: [P] booleans.
      max_far: the highest false accept rate to allow, in (0, 1).

    Returns:
      An `OperatingPoint`; its threshold is a different pair's cosine, the highest one that has
      to be refused.

    Raises:
      ValueError: as `best_accuracy_point`, and for `max_far` outside (0, 1).
      TooFewPairsError: fewer than 1 / max_far different pairs; none of N accepted shows only that
        they are fewer than 1 in N.

    Example:
      >>> far_point([0.9, 0.2, 0.6, 0.1], [True, True, False, False], max_far=0.5).threshold
      0.1
    """
    cosines, is_same = check_scores(cosines, is_same)
    require(0 < max_far < 1, "max_far", "a rate in (0, 1)", max_far)
    different = np.sort(cosines[~is_same])[::-1]
    if not can_show(max_far, len(different)):
        raise TooFewPairsError(
            f"max_far: fewer than 1 in {len(different):,} false accepts cannot be shown with "
            f"{len(different):,} pairs of different people; {max_far:g} takes "
            f"{math.ceil(1 / max_far):,}"
        )
    allowed = allowed_accepts(max_far, len(different))
    return _measure(float(different[allowed]), cosines, is_same)


def _measure(threshold: float, cosines: np.ndarray, is_same: np.ndarray) -> OperatingPoint:
    return OperatingPoint(
        threshold=threshold,
        false_accept_rate=float(np.mean(cosines[~is_same] > threshold)),
        false_reject_rate=float(np.mean(cosines[is_same] <= threshold)),
        num_same=int(is_same.sum()),
        num_different=int((~is_same).sum()),
    )


def describe_rate(rate: float, count: int) -> str:
    """An error rate in words; one that no pair shows is "fewer than 1 in N".

    Args:
      rate: the fraction of the pairs that are errors.
      count: how many pairs it was measured on.

    Returns:
      A percentage, or below 0.05 % how many in how many.

    Example:
      >>> describe_rate(0.0123, 6000), describe_rate(0.0, 3000), describe_rate(1e-5, 200000)
      ('1.23%', 'fewer than 1 in 3,000', '2 in 200,000')
    """
    if rate == 0:
        return f"fewer than 1 in {count:,}"
    return f"{rate:.2%}" if rate >= 5e-4 else f"{round(rate * count):,} in {count:,}"
