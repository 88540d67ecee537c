"""How sure a number is: bootstrap over people, and McNemar's test between two runs.

Pairs that share a person are not independent: one hard face spoils many of them. So what is drawn
again is people, not pairs: a draw gives each person a count, how often chance took them, and a
pair weighs the count of its person, or the product of its two people's counts. A pair of one
person is a question about that person alone and counts once; a pair of two is one about both.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

from sphereface_jax._checks import require
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.rates import FEW, exact_interval, pair_rate
from sphereface_jax.evaluation.results import Result
from sphereface_jax.evaluation.verification import VerificationResult

# Weights held at a time, so that they stay near a CPU's caches.
_NUMBERS_PER_BLOCK = 1 << 19


def bootstrap_interval(
    statistic: Callable[[NDArray[np.float64]], float],
    left_identities: ArrayLike,
    right_identities: ArrayLike,
    *,
    confidence: float = 0.95,
    num_draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """A percentile interval of a statistic of pairs, people drawn again with replacement.

    Args:
      statistic: from the weights of the pairs [P] to a number, or to NaN where it has no value
        (no same pair drawn, say); such draws are left out.
      left_identities: [P] integers or strings, the person on the left of each pair.
      right_identities: [P], the person on the right.
      confidence: the fraction of draws inside the interval, in (0, 1).
      num_draws: how many draws.
      seed: of the draws; equal seeds give equal intervals.

    Returns:
      The lower and the upper end.

    Raises:
      ValueError: for lists of different lengths, fewer than two people, a confidence or number of
        draws out of range, or a statistic that is NaN on every draw.

    Example:
      >>> is_correct = np.array([True, True, False, True])
      >>> people = ["a", "b", "c", "d"]
      >>> bootstrap_interval(lambda w: np.average(is_correct, weights=w), people, people)
      (0.25, 1.0)
    """
    left, right = np.asarray(left_identities), np.asarray(right_identities)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(
            f"right_identities: expected shape {list(left.shape)} as left, got {list(right.shape)}"
        )
    values = [
        statistic(weights)
        for block in drawn_weights(left, right, num_draws=num_draws, seed=seed)
        for weights in block
    ]
    return _interval(np.array(values), confidence)


def verification_intervals(
    results: Mapping[str, VerificationResult],
    pairs: Pairs,
    identities: ArrayLike,
    *,
    confidence: float = 0.95,
    num_draws: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Intervals of accuracy and AUC over people, for the results of one list of pairs.

    The decisions are held as the protocols made them; only who is tested is drawn again, the same
    people for every protocol. Draws of a list without errors have none either, so where fewer than
    ten pairs are decided wrongly the interval also holds the exact one of `pair_rate`. An AUC of 1
    has the exact one of as many independent comparisons, of a same pair with a different one, as
    there are people for.

    Args:
      results: of verification protocols, by name.
      pairs: the list they were measured on.
      identities: [N] the person on each row of the embeddings.
      confidence: the fraction of draws inside an interval.
      num_draws: how many draws.
      seed: of the draws.

    Returns:
      For each name the (low, high) of `accuracy_10_fold` and `auc`, by name.

    Raises:
      ValueError: as `bootstrap_interval`, and for too few identities.
    """
    people = np.asarray(identities)
    if people.ndim != 1 or len(people) < pairs.num_images:
        raise ValueError(
            f"identities: expected shape [N] with N >= {pairs.num_images}, got {list(people.shape)}"
        )
    statistics = {
        (name, measure): statistic
        for name, result in results.items()
        for measure, statistic in (
            # As floats, for NumPy multiplies booleans without BLAS.
            (
                "accuracy_10_fold",
                functools.partial(_weighted_means, result.is_correct.astype(float)),
            ),
            ("auc", _WeightedAuc(result.scores, pairs.is_same)),
        )
    }
    values: dict[tuple[str, str], list[NDArray[np.float64]]] = {key: [] for key in statistics}
    for block in drawn_weights(
        people[pairs.left], people[pairs.right], num_draws=num_draws, seed=seed
    ):
        for key, statistic in statistics.items():
            values[key].append(statistic(block))
    intervals: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in results}
    for (name, measure), parts in values.items():
        intervals[name][measure] = _interval(np.concatenate(parts), confidence)
    for name, result in results.items():
        sides = people[pairs.left], people[pairs.right]
        if (~result.is_correct).sum() < FEW:
            low, high = intervals[name]["accuracy_10_fold"]
            exact = pair_rate(result.is_correct, *sides, confidence=confidence)
            intervals[name]["accuracy_10_fold"] = min(low, exact.low), max(high, exact.high)
        if result.scores[pairs.is_same].min() > result.scores[~pairs.is_same].max():
            comparisons = min(
                pair_rate(kind[kind], *(side[kind] for side in sides)).effective_trials
                for kind in (pairs.is_same, ~pairs.is_same)
            )
            intervals[name]["auc"] = exact_interval(1.0, comparisons, confidence=confidence)
    return intervals


def drawn_weights(
    left: NDArray, right: NDArray, *, num_draws: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """The weights of the pairs on some draws of people at a time.

    Args:
      left: [P] the person on the left of each pair.
      right: [P] the person on its right.
      num_draws: how many draws in all.
      seed: of the draws.

    Yields:
      Weights [d, P], those of d draws; draws without a pair are left out.

    Raises:
      ValueError: for fewer than one draw or two people.
    """
    require(num_draws >= 1, "num_draws", "at least 1", num_draws)
    people, number = np.unique(np.concatenate([left, right]), return_inverse=True)
    if len(people) < 2:
        raise ValueError(f"left_identities: expected two people or more, found {len(people)}")
    left, right = number[: len(left)], number[len(left) :]
    two_people = np.flatnonzero(left != right)
    rng = np.random.default_rng(seed)
    size = max(_NUMBERS_PER_BLOCK // max(len(people), len(left)), 1)
    for start in range(0, num_draws, size):
        draws = np.arange(min(size, num_draws - start))
        drawn = rng.integers(len(people), size=(len(draws), len(people)))
        drawn += len(people) * draws[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        weights = counts[:, left]
        weights[:, two_people] *= counts[:, right[two_people]]
        yield weights[weights.any(axis=1)].astype(np.float64)


def _weighted_means(values: NDArray[np.float64], weights: NDArray) -> NDArray[np.float64]:
    return weights @ values / weights.sum(axis=1)


class _WeightedAuc:
    """The area under the ROC of weighted pairs, NaN where a kind has no weight.

    P(same > different) + P(same = different) / 2 is the mean, over the different pairs, of the
    fraction of the same pairs above them; the pairs are sorted once, whatever the weights.
    """

    def __init__(self, scores: NDArray, is_same: NDArray[np.bool_]) -> None:
        same = np.flatnonzero(is_same)
        self._same = same[np.argsort(scores[same])]
        self._different = np.flatnonzero(~is_same)
        ends = [
            np.searchsorted(scores[self._same], scores[self._different], side=side)
            for side in ("left", "right")
        ]
        self._below, self._at_or_below = ends

    def __call__(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """From the weights [d, P] of some draws to d areas."""
        lowest_first = np.cumsum(weights[:, self._same], axis=1)
        lowest_first = np.pad(lowest_first, [(0, 0), (1, 0)])
        different = weights[:, self._different]
        beaten = np.einsum("dp,dp->d", different, lowest_first[:, self._below])
        beaten += np.einsum("dp,dp->d", different, lowest_first[:, self._at_or_below])
        whole = 2 * lowest_first[:, -1] * different.sum(axis=1)
        return 1 - np.divide(beaten, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _interval(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    require(0 < confidence < 1, "confidence", "a number in (0, 1)", confidence)
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError("statistic: expected a number on some draws, got NaN on all")
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class McNemarResult(Result):
    """Whether two runs differ on one list of pairs.

    Attributes:
      only_first: pairs that the first run alone decides rightly.
      only_second: pairs that the second alone does.
      p_value: how likely a split at least as uneven is, were both equally good.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first_is_correct: ArrayLike, second_is_correct: ArrayLike) -> McNemarResult:
    """McNemar's exact test of two runs on one pair list.

    Pairs that both decide alike say nothing. Of the n others, were the runs equally good, each
    alone would be right on Binomial(n, 1/2); the p-value is two-sided and exact.

    Args:
      first_is_correct: [P] booleans, a `VerificationResult.is_correct`.
      second_is_correct: [P] booleans of the other run, on the same pairs in the same order.

    Returns:
      A `McNemarResult`.

    Raises:
      ValueError: for lists of different lengths, or that are not boolean.

    Example:
      >>> mcnemar([True, True, True, True, False], [False, False, False, True, False])
      McNemarResult(only_first=3, only_second=0, p_value=0.25)

    References:
      McNemar, [Note on the sampling error of the difference between correlated proportions or
      percentages](https://doi.org/10.1007/BF02295996), Psychometrika 1947.
    """
    first, second = np.asarray(first_is_correct), np.asarray(second_is_correct)
    for name, array in (("first_is_correct", first), ("second_is_correct", second)):
        if array.ndim != 1 or array.dtype != np.bool_:
            found = f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"{name}: expected booleans of shape [P], got {found}")
    if len(first) != len(second):
        raise ValueError(f"second_is_correct: expected {len(first)} as first, got {len(second)}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    num_unlike = only_first + only_second
    p_value = min(1.0, 2 * float(bdtr(min(only_first, only_second), num_unlike, 0.5)))
    return McNemarResult(only_first, only_second, p_value)
