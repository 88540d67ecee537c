"""Likelihood calibration: from a cosine to a likelihood ratio, and how good such ratios are.

The likelihood ratio (LR) of a cosine is how much more often two pictures of one person score it
than pictures of two people do. It does not depend on how many pairs of either kind a list holds,
so each kind is given half of the total weight. Bayes' rule turns prior odds into posterior odds:
multiply them by the LR. (int8 calibration is another matter and has another name.)

N pairs support no stronger evidence than about N to 1: LRs are clipped to
[1 / (num_same + 1), num_different + 1].
"""

import dataclasses
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from sphereface_jax._checks import require, require_choice
from sphereface_jax.evaluation.roc import check_scores
from sphereface_jax.evaluation.statistics import drawn_weights

Method = Literal["logistic", "isotonic"]
"""A line in the cosine, or the best non-decreasing function (PAV)."""

_GRID = np.linspace(-1.0, 1.0, 401)
_MOST_STEPS = 50
_LONGEST_STEP = 2.0
_PENALTY = 1e-8


@dataclasses.dataclass(frozen=True, eq=False)
class LikelihoodCalibration:
    """A non-decreasing, piecewise linear map from cosines to log likelihood ratios.

    Attributes:
      cosines: [K] knots, increasing.
      log_lr: [K] the natural log of the LR at each knot; constant beyond the first and the last.
    """

    cosines: NDArray[np.float64]
    log_lr: NDArray[np.float64]

    def __call__(self, cosines: ArrayLike) -> NDArray[np.float64]:
        """Natural log of the LR of each cosine, in the shape of `cosines`."""
        return np.interp(np.asarray(cosines, np.float64), self.cosines, self.log_lr)


@dataclasses.dataclass(frozen=True, eq=False)
class LikelihoodCurve:
    """A calibration on a grid of cosines, with an interval taken over people.

    Attributes:
      cosines: [K] the grid, from -1 to 1.
      log_lr: [K] natural log of the LR.
      low: [K] lower end of its interval.
      high: [K] upper end.
    """

    cosines: NDArray[np.float64]
    log_lr: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def at(self, cosine: float) -> tuple[float, float, float]:
        """(LR, low, high) of one cosine, as plain ratios."""
        curves = self.log_lr, self.low, self.high
        ratio, low, high = (float(np.exp(np.interp(cosine, self.cosines, c))) for c in curves)
        return ratio, low, high


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Claimed probabilities of "same person" against observed frequencies, at prior odds of 1.

    Attributes:
      claimed: [B] mean claimed probability of each bin that holds a pair.
      observed: [B] weighted fraction of same pairs in it.
      num_same: [B] same pairs in it.
      num_different: [B] different pairs in it.
    """

    claimed: NDArray[np.float64]
    observed: NDArray[np.float64]
    num_same: NDArray[np.int64]
    num_different: NDArray[np.int64]


def fit_likelihood(
    cosines: ArrayLike, is_same: ArrayLike, *, method: Method = "logistic"
) -> LikelihoodCalibration:
    """Fits the map from cosines to likelihood ratios.

    "logistic" fits log LR = a + b cosine, b >= 0, by weighted maximum likelihood, with a penalty
    on b just large enough that separable pairs have a finite fit. "isotonic" is the non-decreasing
    function of highest likelihood (pool adjacent violators), with one pair of each kind added at
    both ends for the same reason.

    Args:
      cosines: [P] cosines of pairs.
      is_same: [P] booleans.
      method: "logistic" or "isotonic".

    Returns:
      A `LikelihoodCalibration`.

    Raises:
      ValueError: for shapes that differ, cosines that are NaN or infinite, no same or no
        different pairs, or another method.

    Example:
      >>> calibration = fit_likelihood([0.8, 0.7, 0.1, 0.2], [True, True, False, False])
      >>> bool(calibration(0.75) > 0 > calibration(0.15))
      True

    References:
      Brümmer and du Preez, [Application-independent evaluation of speaker detection]
      (https://doi.org/10.1016/j.csl.2005.08.001), Computer Speech and Language 2006.
    """
    require_choice("method", method, get_args(Method))
    scores, same = check_scores(cosines, is_same)
    if method == "isotonic":
        return _isotonic(scores, same, np.ones(len(scores)))
    (line,) = _lines(scores, same, np.ones((1, len(scores))))
    return _clipped_line(line, same)


def likelihood_curve(
    cosines: ArrayLike,
    is_same: ArrayLike,
    left_identities: ArrayLike,
    right_identities: ArrayLike,
    *,
    method: Method = "logistic",
    confidence: float = 0.95,
    num_draws: int = 500,
    seed: int = 0,
) -> LikelihoodCurve:
    """Fits a calibration, and again on bootstrap draws of people for its interval.

    Args:
      cosines: [P] cosines of pairs.
      is_same: [P] booleans.
      left_identities: [P] integers or strings, the person on the left of each pair.
      right_identities: [P], the person on the right.
      method: as in `fit_likelihood`.
      confidence: fraction of the draws inside the interval, in (0, 1).
      num_draws: bootstrap draws of people.
      seed: of the draws.

    Returns:
      A `LikelihoodCurve`.

    Raises:
      ValueError: as `fit_likelihood`, and for fewer than two people or a confidence outside
        (0, 1).
    """
    scores, same = check_scores(cosines, is_same)
    require(0 < confidence < 1, "confidence", "a number in (0, 1)", confidence)
    left, right = np.asarray(left_identities), np.asarray(right_identities)
    whole = fit_likelihood(scores, same, method=method)
    drawn = []
    for block in drawn_weights(left, right, num_draws=num_draws, seed=seed):
        usable = block[block[:, same].any(axis=1) & block[:, ~same].any(axis=1)]
        if method == "logistic":
            fits = [_clipped_line(line, same) for line in _lines(scores, same, usable)]
        else:
            fits = [_isotonic(scores, same, weights) for weights in usable]
        drawn += [fit(_GRID) for fit in fits]
    if not drawn:
        raise ValueError("is_same: expected draws of people with same and different pairs")
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.array(drawn), [tail, 1 - tail], axis=0)
    log_lr = whole(_GRID)
    return LikelihoodCurve(_GRID, log_lr, np.minimum(low, log_lr), np.maximum(high, log_lr))


def cllr(log_lr: ArrayLike, is_same: ArrayLike) -> float:
    """Cost of log likelihood ratios in bits: 0 is perfect, 1 is what LR = 1 for every pair costs.

    Cllr = ½ mean_same log2(1 + 1/LR) + ½ mean_different log2(1 + LR).

    Args:
      log_lr: [P] natural logs of LRs.
      is_same: [P] booleans.

    Returns:
      Bits, at least 0.

    Raises:
      ValueError: for shapes that differ, values that are NaN or infinite, or no same or no
        different pairs.

    Example:
      >>> cllr([0.0, 0.0], [True, False])
      1.0
    """
    values, same = check_scores(log_lr, is_same)
    return _cllr(values, same)


def min_cllr(scores: ArrayLike, is_same: ArrayLike) -> float:
    """The lowest Cllr of any non-decreasing map of the scores: what discrimination alone costs.

    The map is fitted to these very pairs (PAV), so Cllr - min Cllr is the cost of calibration.

    Args:
      scores: [P], cosines or log LRs.
      is_same: [P] booleans.

    Returns:
      Bits, from 0 to 1.

    Raises:
      ValueError: as `cllr`.

    Example:
      >>> min_cllr([0.9, 0.8, 0.1], [True, True, False])
      0.0
    """
    values, same = check_scores(scores, is_same)
    _, group = np.unique(values, return_inverse=True)
    posterior = _pool(group, same, np.ones(len(values)))[group]
    with np.errstate(divide="ignore"):
        return _cllr(np.log(posterior) - np.log1p(-posterior), same)


def held_out_log_lr(
    cosines: ArrayLike, is_same: ArrayLike, folds: ArrayLike, *, method: Method = "logistic"
) -> NDArray[np.float64]:
    """Log LRs of each fold by the calibration of all the others.

    Args:
      cosines: [P] cosines of pairs.
      is_same: [P] booleans.
      folds: [P] integers; people should not appear in two folds, as in LFW's list.
      method: as in `fit_likelihood`.

    Returns:
      [P] natural logs of LRs.

    Raises:
      ValueError: as `fit_likelihood`, for each fold's others.
    """
    scores, same = check_scores(cosines, is_same)
    fold = np.asarray(folds)
    held_out = np.empty(len(scores))
    for each in np.unique(fold):
        inside = fold == each
        held_out[inside] = fit_likelihood(scores[~inside], same[~inside], method=method)(
            scores[inside]
        )
    return held_out


def reliability(log_lr: ArrayLike, is_same: ArrayLike, *, num_bins: int = 10) -> Reliability:
    """Compares the claimed probability, LR / (1 + LR), with what is observed in bins of it.

    Args:
      log_lr: [P] natural logs of LRs.
      is_same: [P] booleans.
      num_bins: bins of equal width over [0, 1].

    Returns:
      A `Reliability`; a good calibration has observed near claimed.

    Raises:
      ValueError: as `cllr`, and for fewer than one bin.
    """
    values, same = check_scores(log_lr, is_same)
    require(num_bins >= 1, "num_bins", "at least 1", num_bins)
    claimed = 1 / (1 + np.exp(-values))
    place = np.minimum((claimed * num_bins).astype(np.int64), num_bins - 1)
    weights = _balanced(same, np.ones(len(same)))
    total = np.bincount(place, weights, minlength=num_bins)
    used = total > 0
    counts = [np.bincount(place[kind], minlength=num_bins)[used] for kind in (same, ~same)]
    return Reliability(
        np.bincount(place, weights * claimed, minlength=num_bins)[used] / total[used],
        np.bincount(place, weights * same, minlength=num_bins)[used] / total[used],
        *counts,
    )


def _cllr(log_lr: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    costs = np.logaddexp(0, np.where(same, -log_lr, log_lr)) / np.log(2)
    return float((costs[same].mean() + costs[~same].mean()) / 2)


def _balanced(same: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights [..., P] scaled so that either kind has half of the total."""
    totals = [np.sum(weights * kind, axis=-1, keepdims=True) for kind in (same, ~same)]
    return weights / (2 * np.where(same, *totals))


def _bounds(same: NDArray[np.bool_]) -> tuple[float, float]:
    return -float(np.log(same.sum() + 1)), float(np.log((~same).sum() + 1))


def _lines(
    cosines: NDArray, same: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logistic fits (offset, slope) [d, 2] under weights [d, P], by Newton's method."""
    mean, spread = cosines.mean(), max(float(cosines.std()), 1e-12)
    x = (cosines - mean) / spread
    weights = _balanced(same, weights)
    fit = np.zeros((len(weights), 2))
    for _ in range(_MOST_STEPS):
        posterior = 1 / (1 + np.exp(-(fit[:, :1] + fit[:, 1:] * x)))
        error = weights * (posterior - same)
        curvature = weights * posterior * (1 - posterior)
        gradient = np.stack([error.sum(axis=1), error @ x + _PENALTY * fit[:, 1]], axis=1)
        a, b, c = curvature.sum(axis=1), curvature @ x, curvature @ (x * x) + _PENALTY
        hessian = np.stack([np.stack([a, b], axis=1), np.stack([b, c], axis=1)], axis=1)
        hessian += 1e-14 * np.eye(2)
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        step *= np.minimum(1, _LONGEST_STEP / np.maximum(np.abs(step).max(axis=1), 1e-300))[:, None]
        fit -= step
        if not len(step) or np.abs(step).max() < 1e-8:
            break
    slope = fit[:, 1] / spread
    return np.stack([fit[:, 0] - slope * mean, slope], axis=1)


def _clipped_line(line: NDArray[np.float64], same: NDArray[np.bool_]) -> LikelihoodCalibration:
    offset, slope = line
    if slope <= 1e-9:  # The cosine says nothing, or points the wrong way.
        return LikelihoodCalibration(np.zeros(1), np.zeros(1))
    bounds = np.array(_bounds(same))
    return LikelihoodCalibration((bounds - offset) / slope, bounds)


def _isotonic(
    cosines: NDArray, same: NDArray[np.bool_], weights: NDArray[np.float64]
) -> LikelihoodCalibration:
    ends = [cosines.min(), cosines.min(), cosines.max(), cosines.max()]
    scores, group = np.unique(np.append(cosines, ends), return_inverse=True)
    kinds = np.append(same, [True, False, True, False])
    posterior = _pool(group, kinds, np.append(weights, np.ones(4)))
    log_lr = np.clip(np.log(posterior) - np.log1p(-posterior), *_bounds(same))
    edge = np.append(True, np.diff(log_lr) > 0)
    edge |= np.append(edge[1:], True)  # the first and the last score of each pooled block
    return LikelihoodCalibration(scores[edge], log_lr[edge])


def _pool(
    group: NDArray[np.int64], same: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The non-decreasing posterior of each group of equal scores, groups numbered in order."""
    weights = _balanced(same, weights)
    total = np.bincount(group, weights)
    held = np.maximum(total, 1e-300)  # a group that a draw left out follows its neighbours
    fit = isotonic_regression(np.bincount(group, weights * same) / held, weights=held).x
    return np.clip(fit, 0, 1)
