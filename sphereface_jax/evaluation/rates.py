"""Error rates with intervals, and what a list of pairs can and cannot support.

Pairs that share a person are not independent, so N pairs are worth fewer. The variance of a rate
over pairs, with people as the units, is the sum of the products of residuals over all pairs of
pairs that share a person; this is what a bootstrap over people estimates, in closed form. The
design effect is its ratio to the variance of independent pairs, and N / design effect the
effective number of pairs. The interval is Clopper and Pearson's exact one at that number
(Korn and Graubard's), which stays honest where few errors, or none, were seen.

References:
  Fafchamps and Gubert, [The formation of risk sharing networks]
  (https://doi.org/10.1016/j.jdeveco.2006.05.005), 2007 (the variance over dyads).
  Korn and Graubard, Confidence intervals for proportions with small expected number of positive
  counts estimated from survey data, Survey Methodology 1998.
"""

import bisect
import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, gammaln

from sphereface_jax._checks import require
from sphereface_jax.evaluation.calibration import TooFewPairsError
from sphereface_jax.evaluation.impostors import highest_impostors
from sphereface_jax.evaluation.pairs import check_embeddings
from sphereface_jax.evaluation.results import Result

FEW = 10
_KEPT = 128


@dataclasses.dataclass(frozen=True)
class RateEstimate(Result):
    """A rate over pairs or searches, with its interval.

    Attributes:
      rate: fraction of the trials in which the event happened.
      low: lower end of the interval.
      high: upper end.
      events: how often it happened, or was to be expected.
      trials: pairs or searches looked at.
      effective_trials: how many independent ones they are worth.
    """

    rate: float
    low: float
    high: float
    events: float
    trials: int
    effective_trials: float

    def supports(self, rate: float) -> bool:
        """Whether these trials could show a rate this low: whether they are 3 / rate or more."""
        return self.effective_trials >= trials_needed(rate)


def trials_needed(rate: float, *, confidence: float = 0.95) -> int:
    """Independent trials without an event that show, at this confidence, a rate below `rate`.

    Args:
      rate: in (0, 1).
      confidence: in (0, 1).

    Returns:
      The least number of trials.

    Raises:
      ValueError: for a number outside (0, 1).

    Example:
      >>> trials_needed(1e-3), trials_needed(1e-6)
      (2995, 2995731)
    """
    for name, value in (("rate", rate), ("confidence", confidence)):
        require(0 < value < 1, name, "a number in (0, 1)", value)
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate))


def design_effect(
    happened: ArrayLike, left_identities: ArrayLike, right_identities: ArrayLike
) -> float:
    """How many pairs are worth one independent pair: 1 where no two of them share a person.

    Args:
      happened: [P] booleans.
      left_identities: [P] integers or strings, the person on the left of each pair.
      right_identities: [P], the person on the right.

    Returns:
      At least 1. Where the event always or never happened there is nothing to estimate it from,
      and it is P over the number of people who could form pairs without sharing one.
    """
    values, left, right = _checked(happened, left_identities, right_identities)
    residuals = values - values.mean()
    independent = float(residuals @ residuals)
    people = int(max(left.max(), right.max())) + 1
    if independent == 0:
        return max(1.0, len(values) / max(people // 2, 1))
    two = left != right
    sums = np.bincount(left, residuals, minlength=people)
    sums += np.bincount(right[two], residuals[two], minlength=people)
    clustered = float(sums @ sums) - float(residuals[two] @ residuals[two])
    return max(1.0, clustered / independent)


def pair_rate(
    happened: ArrayLike,
    left_identities: ArrayLike,
    right_identities: ArrayLike,
    *,
    effect: float | None = None,
    confidence: float = 0.95,
) -> RateEstimate:
    """The rate of an event over pairs, with an interval over people.

    Args:
      happened: [P] booleans.
      left_identities: [P] integers or strings, the person on the left of each pair.
      right_identities: [P], the person on the right.
      effect: the design effect; estimated from these pairs by default.
      confidence: of the interval, in (0, 1).

    Returns:
      The rate, its interval, and how many independent pairs it is worth.

    Raises:
      ValueError: for shapes that differ, no pairs, or a confidence outside (0, 1).

    Example:
      >>> estimate = pair_rate([False] * 300, range(300), range(300, 600))
      >>> print(estimate.rate, round(estimate.high, 4))
      0.0 0.0122
    """
    values, left, right = _checked(happened, left_identities, right_identities)
    if effect is None:
        effect = design_effect(values > 0, left, right)
    return _estimate(float(values.sum()), len(values), len(values) / effect, confidence)


def tail_rate(
    cosines: ArrayLike,
    left_identities: ArrayLike,
    right_identities: ArrayLike,
    *,
    at_least: float,
    confidence: float = 0.95,
) -> RateEstimate:
    """How often pairs score at least `at_least`, with an interval over people.

    Where fewer than ten do, the design effect is taken at the tenth highest score, for a few
    events do not tell it.

    Args:
      cosines: [P], of different pairs, say.
      left_identities: [P] integers or strings, the person on the left of each pair.
      right_identities: [P], the person on the right.
      at_least: the cosine.
      confidence: of the interval, in (0, 1).

    Returns:
      The rate and its interval.

    Raises:
      ValueError: as `pair_rate`.
    """
    scores = np.asarray(cosines, np.float64)
    happened = scores >= at_least
    effect = None
    if happened.sum() < FEW < len(scores):
        tenth = np.partition(scores, -FEW)[-FEW]
        effect = design_effect(scores >= tenth, left_identities, right_identities)
    return pair_rate(
        happened, left_identities, right_identities, effect=effect, confidence=confidence
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Strangers:
    """One picture of each of N people against all the others: what a stranger's search meets.

    Attributes:
      highest: [N, K] the K highest cosines of each person with others, falling.
    """

    highest: NDArray[np.float32]

    @property
    def most(self) -> int:
        """The largest gallery that these people can form for each other, N - 1."""
        return len(self.highest) - 1

    def false_hits(
        self, threshold: float, gallery_size: int, *, confidence: float = 0.95
    ) -> RateEstimate:
        """How often a stranger's search of a gallery returns anybody above a threshold.

        A person who scores above the threshold with a of the n = N - 1 others meets at least one
        of them in a random gallery of G people with probability 1 - C(n - a, G) / C(n, G); beyond
        G = n, 1 - (1 - p)^(G / n) with p that of n. Only the K highest scores are known, so where
        all K of a person pass, a is taken for K and the rate is at least this.

        Each pair counts for both of its people, so the variance over people is taken four times
        (that of a U-statistic of order 2).

        Args:
          threshold: a cosine; a hit scores strictly above it.
          gallery_size: G, people in the gallery, one vector each.
          confidence: of the interval, in (0, 1).

        Returns:
          The fraction of searches that return somebody, and its interval.

        Raises:
          ValueError: for a gallery of fewer than one, or a confidence outside (0, 1).
        """
        require(gallery_size >= 1, "gallery_size", "at least 1", gallery_size)
        n, size = self.most, min(gallery_size, self.most)
        above = (self.highest > threshold).sum(axis=1)
        free = n - above
        with np.errstate(invalid="ignore"):
            log_missed = (
                gammaln(free + 1)
                - gammaln(free - size + 1)
                - gammaln(n + 1)
                + gammaln(n - size + 1)
            )
        hits = np.where(free >= size, -np.expm1(np.where(free >= size, log_missed, 0)), 1.0)
        hits[above == 0] = 0.0
        rate, variance = float(hits.mean()), 4 * float(hits.var()) / len(hits)
        effective = len(hits) / 2 if not 0 < rate < 1 else rate * (1 - rate) / max(variance, 1e-300)
        effective = min(effective, len(hits) / 2)
        found = _estimate(rate * len(hits), len(hits), effective, confidence)
        if gallery_size == size:
            return found
        power = gallery_size / n
        grown = [-math.expm1(power * math.log1p(-min(x, 1 - 1e-15)))
                 for x in (found.rate, found.low, found.high)]  # fmt: skip
        return dataclasses.replace(
            found, rate=grown[0], low=grown[1], high=grown[2], events=grown[0] * len(hits)
        )

    def threshold(self, false_hit_rate: float, gallery_size: int) -> float:
        """The lowest threshold at which strangers' searches return anybody this rarely.

        Args:
          false_hit_rate: searches of strangers that may return somebody, in (0, 1).
          gallery_size: people in the gallery.

        Returns:
          A cosine, one of the highest scores seen.

        Raises:
          ValueError: for a rate outside (0, 1), or a gallery of fewer than one.
          TooFewPairsError: the people are fewer than 1 / false_hit_rate, or the gallery is so
            large that not even the highest score seen keeps the rate.
        """
        require(0 < false_hit_rate < 1, "false_hit_rate", "a rate in (0, 1)", false_hit_rate)
        people, needed = len(self.highest), math.ceil(1 / false_hit_rate)
        if people < needed:
            raise TooFewPairsError(
                f"false_hit_rate: expected at least {needed:,} people to show one false hit in "
                f"{needed:,} searches, got {people:,}; calibrate on more people, or allow more "
                "false hits"
            )
        candidates = np.unique(self.highest).tolist()

        def is_rare(threshold: float) -> bool:
            return self.false_hits(threshold, gallery_size).rate <= false_hit_rate

        # The rate falls as the threshold rises, to 0 at the highest score.
        return candidates[bisect.bisect_left(candidates, True, hi=len(candidates) - 1, key=is_rare)]


def compare_strangers(
    embeddings: ArrayLike, identities: ArrayLike, gallery: ArrayLike | None = None
) -> Strangers:
    """Compares the first picture of every person with that of every other.

    Args:
      embeddings: [N, D], of any length.
      identities: [N] integers or strings.
      gallery: [N, D] other vectors of the same pictures to search among, those of an older network
        say; by default the embeddings themselves.

    Returns:
      The highest scores of each person with others.

    Raises:
      ValueError: for embeddings that are NaN, infinite or zero, another number of identities, or
        fewer than two people.
    """
    rows, people = check_embeddings("embeddings", embeddings), np.asarray(identities)
    others = rows if gallery is None else check_embeddings("gallery", gallery)
    require(others.shape == rows.shape, "gallery", f"shape {list(rows.shape)}", list(others.shape))
    require(people.shape == (len(rows),), "identities", f"shape [{len(rows)}]", list(people.shape))
    _, first = np.unique(people, return_index=True)
    if len(first) < 2:
        raise ValueError("identities: expected two people or more, found one")
    numbers = np.arange(len(first))
    found = highest_impostors(
        rows[first], others[first], probe_identities=numbers, other_identities=numbers,
        by_probe=min(_KEPT, len(first) - 1), overall=0,
    )  # fmt: skip
    return Strangers(found.by_probe)


def _checked(
    happened: ArrayLike, left_identities: ArrayLike, right_identities: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    values = np.asarray(happened, np.float64)
    left, right = np.asarray(left_identities), np.asarray(right_identities)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"happened: expected shape [P] with P >= 1, got {list(values.shape)}")
    for name, array in (("left_identities", left), ("right_identities", right)):
        require(array.shape == values.shape, name, f"shape [{len(values)}]", list(array.shape))
    number = np.unique(np.concatenate([left, right]), return_inverse=True)[1]
    return values, number[: len(left)], number[len(left) :]


def exact_interval(rate: float, trials: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a rate seen in independent trials, of any real number.

    Args:
      rate: in [0, 1].
      trials: above 0.
      confidence: of the interval, in (0, 1).

    Returns:
      Its lower and upper end, in [0, 1].

    Raises:
      ValueError: a confidence outside (0, 1).

    Example:
      >>> low, high = exact_interval(1.0, 4)
      >>> print(round(low, 3), high)
      0.398 1.0
    """
    require(0 < confidence < 1, "confidence", "a number in (0, 1)", confidence)
    seen, missed, tail = rate * trials, (1 - rate) * trials, (1 - confidence) / 2
    low = 0.0 if seen <= 0 else float(betaincinv(seen, missed + 1, tail))
    high = 1.0 if missed <= 0 else float(betaincinv(seen + 1, missed, 1 - tail))
    return low, high


def _estimate(events: float, trials: int, effective: float, confidence: float) -> RateEstimate:
    rate = events / trials
    low, high = exact_interval(rate, effective, confidence=confidence)
    return RateEstimate(rate, low, high, events, trials, effective)
