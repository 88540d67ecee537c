"""Errors within groups of people: who is a network worse for, and can these pairs say so?

A pair belongs to a group if both of its people do; pairs of two groups are counted as "across".
The group with the highest rate is always there, by chance alone. It is named only where the
difference from all other groups together is beyond chance at a chosen error rate, divided over
all comparisons made (Bonferroni), with pairs that share a person counted as what they are worth.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

from sphereface_jax._checks import require
from sphereface_jax.evaluation.calibration import TooFewPairsError, far_point
from sphereface_jax.evaluation.likelihood import LikelihoodCalibration, cllr, min_cllr
from sphereface_jax.evaluation.rates import FEW, RateEstimate, design_effect, pair_rate
from sphereface_jax.evaluation.results import Result
from sphereface_jax.evaluation.roc import check_scores

ACROSS = "across groups"


@dataclasses.dataclass(frozen=True)
class GroupErrors:
    """The errors of one group's pairs at a threshold.

    Attributes:
      false_accepts: over its different pairs; None where it has none.
      false_rejects: over its same pairs; None where it has none.
      cllr: of the calibration for everybody on this group's pairs, None where it lacks a kind.
      min_cllr: what discrimination alone costs within the group, None likewise.
      too_small: why its rates say little, or "".
    """

    false_accepts: RateEstimate | None
    false_rejects: RateEstimate | None
    cllr: float | None
    min_cllr: float | None
    too_small: str


@dataclasses.dataclass(frozen=True)
class GroupReport(Result):
    """Errors within and across groups.

    Attributes:
      threshold: the cosine above which pairs are called the same.
      groups: errors by group, `ACROSS` last.
      worst: by "false_accepts" and "false_rejects", the group that is worse than the others
        beyond chance, the worst of them where several are; absent where there is no such group.
      p_values: by error, the p-value of each group against the others together.
      threshold_for_worst: the threshold at which the worst group by false accepts has no more of
        them than all pairs together have now; None where no group is named or its pairs are too
        few for that rate.
    """

    threshold: float
    groups: Mapping[str, GroupErrors]
    worst: Mapping[str, str]
    p_values: Mapping[str, Mapping[str, float]]
    threshold_for_worst: float | None


def group_errors(
    cosines: ArrayLike,
    is_same: ArrayLike,
    left_identities: ArrayLike,
    right_identities: ArrayLike,
    left_groups: ArrayLike,
    right_groups: ArrayLike,
    *,
    threshold: float,
    calibration: LikelihoodCalibration | None = None,
    error: float = 0.01,
) -> GroupReport:
    """Measures false accepts and rejects within each group and across groups.

    Args:
      cosines: [P] cosines of pairs.
      is_same: [P] booleans.
      left_identities: [P] integers or strings, the person on the left of each pair.
      right_identities: [P], the person on the right.
      left_groups: [P] strings, that person's group; "" where it is unknown.
      right_groups: [P], the group of the other.
      threshold: the cosine strictly above which two pictures are one person.
      calibration: to measure within each group too.
      error: the probability of naming any group where all are alike, in (0, 1).

    Returns:
      A `GroupReport`.

    Raises:
      ValueError: for shapes that differ, cosines that are NaN or infinite, fewer than two groups,
        or an error outside (0, 1).
    """
    scores, same = check_scores(cosines, is_same)
    require(0 < error < 1, "error", "a number in (0, 1)", error)
    group = pair_groups(left_groups, right_groups)
    require(group.shape == scores.shape, "left_groups", f"shape [{len(scores)}]", list(group.shape))
    names = [name for name in np.unique(group).tolist() if name not in ("", ACROSS)]
    if len(names) < 2:
        raise ValueError(f"groups: expected pairs within two groups or more, found {len(names)}")
    left, right = np.asarray(left_identities), np.asarray(right_identities)
    wrong = np.where(same, scores <= threshold, scores > threshold)
    target = float(wrong[~same].mean())
    p_values: dict[str, dict[str, float]] = {}
    worst: dict[str, str] = {}
    for kind, of_kind in (("false_accepts", ~same), ("false_rejects", same)):
        inside = of_kind & np.isin(group, names)
        p_values[kind] = _against_others(
            wrong[inside], left[inside], right[inside], group[inside], names
        )
        named = [name for name, p in p_values[kind].items() if p < error / (2 * len(names))]
        if named:
            rates = {name: wrong[inside & (group == name)].mean() for name in named}
            worst[kind] = max(named, key=rates.__getitem__)
    effects = [design_effect(wrong[rows], left[rows], right[rows]) for rows in (~same, same)]
    report = {}
    for name in [*names, *([ACROSS] if np.any(group == ACROSS) else [])]:
        chosen = group == name
        accepts, rejects = (
            _rate(wrong, left, right, chosen & of_kind, everybody)
            for of_kind, everybody in ((~same, effects[0]), (same, effects[1]))
        )
        measured = _calibration_costs(calibration, scores[chosen], same[chosen])
        report[name] = GroupErrors(accepts, rejects, *measured, _too_small(accepts, target))
    return GroupReport(
        threshold, report, worst, p_values,
        _threshold_for(worst.get("false_accepts"), scores, same, group, target),
    )  # fmt: skip


def pair_groups(left_groups: ArrayLike, right_groups: ArrayLike) -> NDArray:
    """The group of each pair: both people's, `ACROSS`, or "" where one is unknown.

    Args:
      left_groups: [P] strings, the group of the person on the left of each pair; "" where unknown.
      right_groups: [P], of the person on the right.

    Returns:
      Strings [P].

    Raises:
      ValueError: for shapes that differ or are not [P].

    Example:
      >>> pair_groups(["a", "a", ""], ["a", "b", "a"]).tolist()
      ['a', 'across groups', '']
    """
    left, right = np.asarray(left_groups, dtype=str), np.asarray(right_groups, dtype=str)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(
            f"right_groups: expected shape {list(left.shape)} as left, got {list(right.shape)}"
        )
    known = (left != "") & (right != "")
    return np.where(known, np.where(left == right, left, ACROSS), "")


def _rate(
    wrong: NDArray[np.bool_],
    left: NDArray,
    right: NDArray,
    rows: NDArray[np.bool_],
    everybody: float,
) -> RateEstimate | None:
    """The rate of some pairs; where they have few errors, with the design effect of all pairs."""
    if not rows.any():
        return None
    effect = everybody if wrong[rows].sum() < FEW else None
    return pair_rate(wrong[rows], left[rows], right[rows], effect=effect)


def _against_others(
    wrong: NDArray[np.bool_], left: NDArray, right: NDArray, group: NDArray, names: list[str]
) -> dict[str, float]:
    """One-sided p-values of "this group's rate is that of the others".

    Of all errors, each group's part is binomial with its part of the pairs (the exact conditional
    test of two Poisson rates), errors and pairs divided by the design effect.
    """
    if not len(wrong):
        return {}
    effect = max(design_effect(wrong, left, right), *(
        design_effect(wrong[group == name], left[group == name], right[group == name])
        for name in names if wrong[group == name].any()
    ), 1.0)  # fmt: skip
    p_values = {}
    for name in names:
        mine = group == name
        if not mine.any() or mine.all():
            continue
        here, others = wrong[mine].sum() / effect, wrong[~mine].sum() / effect
        p_values[name] = float(betainc(here, others + 1, mine.mean())) if here > 0 else 1.0
    return p_values


def _calibration_costs(
    calibration: LikelihoodCalibration | None, scores: NDArray, same: NDArray[np.bool_]
) -> tuple[float | None, float | None]:
    if calibration is None or same.all() or not same.any():
        return None, None
    return cllr(calibration(scores), same), min_cllr(scores, same)


def _too_small(false_accepts: RateEstimate | None, target: float) -> str:
    if false_accepts is None:
        return "no pairs of different people"
    if target > 0 and not false_accepts.supports(target):
        return (
            f"{false_accepts.trials:,} pairs of different people, worth "
            f"{false_accepts.effective_trials:,.0f} independent ones: too few to show {target:.2g}"
        )
    return ""


def _threshold_for(
    name: str | None, scores: NDArray, same: NDArray[np.bool_], group: NDArray, target: float
) -> float | None:
    if name is None or not 0 < target < 1:
        return None
    mine = group == name
    try:
        # Only the different pairs decide; one same pair makes the list a whole one.
        chosen = np.append(scores[mine & ~same], 1.0)
        kinds = np.append(np.zeros(len(chosen) - 1, bool), True)
        return far_point(chosen, kinds, max_far=target).threshold
    except TooFewPairsError:
        return None
