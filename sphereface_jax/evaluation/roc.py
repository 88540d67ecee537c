"""The receiver operating characteristic: what every threshold would accept.

A pair is accepted when its score is at or above the threshold. TAR is the fraction of same pairs
accepted, FAR the fraction of different pairs accepted, FRR = 1 - TAR. Pairs of equal score are
accepted together, so a curve has one point for each distinct score and a tie is never split.

N different pairs show no FAR below 1 / N: that none of them is accepted says "fewer than 1 in N".
Rates below that are left open (None), not measured as 0.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax._checks import require
from sphereface_jax.evaluation.pairs import check_is_same

# Keeps a FAR that is a ratio of counts, such as 3 / 3000, from missing itself.
_GUARD = 1 + 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class RocCurve:
    """Every operating point of a set of scores, the strictest first.

    Attributes:
      far: [K] false accept rates, rising from 0 to 1.
      tar: [K] true accept rates, rising from 0 to 1.
      thresholds: [K] the scores at or above which a pair is accepted, falling from inf.
      num_different: the different pairs that the FAR is measured on.
    """

    far: NDArray[np.float64]
    tar: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    num_different: int


def check_scores(scores: ArrayLike, is_same: ArrayLike) -> tuple[NDArray, NDArray[np.bool_]]:
    """Scores and booleans with at least one of each kind.

    Args:
      scores: [P] numbers.
      is_same: [P] booleans, whether each pair is of one person.

    Returns:
      Both as NumPy arrays [P].

    Raises:
      ValueError: for shapes that differ, scores that are not finite, or no same or no
        different pairs.
    """
    scores, is_same = np.asarray(scores), check_is_same(is_same)
    require(scores.shape == is_same.shape, "scores", f"shape [{len(is_same)}]", list(scores.shape))
    if not np.isfinite(scores).all():
        raise ValueError(f"scores: expected finite values, {int((~np.isfinite(scores)).sum())} not")
    for kind, count in (("same", is_same.sum()), ("different", (~is_same).sum())):
        if count == 0:
            raise ValueError(f"is_same: expected same and different pairs, found no {kind} pairs")
    return scores, is_same


def roc_curve(
    scores: ArrayLike, is_same: ArrayLike, *, weights: ArrayLike | None = None
) -> RocCurve:
    """The ROC of scores, exact: one point per distinct score.

    Args:
      scores: [P], larger for pairs more likely to be the same.
      is_same: [P] booleans.
      weights: [P], how much each pair counts; one each by default.

    Returns:
      A `RocCurve` of K points, K one more than the number of distinct scores.

    Raises:
      ValueError: as `check_scores`, and for weights that are negative or of another shape, or
        that leave no same or no different pairs.

    Example:
      >>> curve = roc_curve([0.9, 0.8, 0.1], [True, False, False])
      >>> curve.far.tolist(), curve.tar.tolist()
      ([0.0, 0.0, 0.5, 1.0], [0.0, 1.0, 1.0, 1.0])
    """
    scores, is_same = check_scores(scores, is_same)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != scores.shape or not (weights >= 0).all():
        raise ValueError(f"weights: expected {len(scores)} numbers from 0 up, got other values")
    order = np.argsort(scores)[::-1]
    descending = scores[order]
    last_of_its_score = np.append(descending[:-1] != descending[1:], True)
    # Zero where a pair does not belong, so that the sum is exact and ends on the whole.
    same, different = (
        np.cumsum(np.where(kind, weights, 0.0)[order])[last_of_its_score]
        for kind in (is_same, ~is_same)
    )
    if not same[-1] or not different[-1]:
        raise ValueError("weights: expected some on same and some on different pairs, found none")
    return RocCurve(
        far=np.append(0.0, different / different[-1]),
        tar=np.append(0.0, same / same[-1]),
        thresholds=np.append(np.inf, descending[last_of_its_score]),
        num_different=int((~is_same & (weights > 0)).sum()),
    )


def area_under_curve(curve: RocCurve) -> float:
    """The area under a ROC: P(same score > different score), a tie counting one half."""
    return float(np.trapezoid(curve.tar, curve.far))


def equal_error_rate(curve: RocCurve) -> float:
    """Where FAR = FRR, on the straight line between the two neighbouring points of the curve.

    Example:
      >>> equal_error_rate(roc_curve([0.9, 0.2, 0.8, 0.1], [True, True, False, False]))
      0.5
    """
    excess = curve.far + curve.tar - 1.0  # FAR - FRR: rises from -1 to 1
    after = int(np.argmax(excess >= 0))
    share = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(curve.far[after - 1] + share * (curve.far[after] - curve.far[after - 1]))


def tar_at_far(curve: RocCurve, fars: Iterable[float]) -> dict[str, float | None]:
    """The best TAR among thresholds whose measured FAR is at most each of `fars`.

    Nothing is interpolated, and ties are accepted together.

    Args:
      curve: a ROC.
      fars: false accept rates in [0, 1].

    Returns:
      The TAR by the name of its FAR, `far_name`; None where the pairs are too few to show that FAR
      (`can_show`).

    Example:
      >>> tar_at_far(roc_curve([0.9, 0.8, 0.7, 0.1], [True, False, True, False]), [0.1, 0.5])
      {'1e-1': None, '5e-1': 1.0}
    """
    places = {far: np.searchsorted(curve.far, far * _GUARD, side="right") - 1 for far in fars}
    return {
        far_name(far): float(curve.tar[place]) if can_show(far, curve.num_different) else None
        for far, place in places.items()
    }


def can_show(far: float, count: int) -> bool:
    """Whether impostor scores are enough to show a FAR: whether it allows one of them.

    Args:
      far: in [0, 1].
      count: how many impostor scores there are.

    Returns:
      True from 1 / far scores on.

    Example:
      >>> can_show(1e-3, 3000), can_show(1e-4, 3000)
      (True, False)
    """
    return allowed_accepts(far, count) >= 1


def allowed_accepts(far: float, count: int) -> int:
    """How many impostor scores may be accepted at a FAR.

    Args:
      far: in [0, 1].
      count: how many impostor scores there are.

    Returns:
      far · count, rounded down.
    """
    return int(far * count * _GUARD)


def far_name(far: float) -> str:
    """A FAR as it is written in tables and JSON: 1e-3, 5e-1, 1e0."""
    mantissa, exponent = f"{far:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
