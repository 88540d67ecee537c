"""From a cosine to evidence: what `evaluate` measures for it, and what `compare` says of it.

RUN/likelihood.npz (`LikelihoodEvidence`) lies beside the run's threshold and is made of the same
pairs; it is replaced when the threshold is.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sphereface_jax._console import say
from sphereface_jax.commands.keep import read_arrays
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.evaluation.groups import GroupReport, group_errors
from sphereface_jax.evaluation.likelihood import (
    LikelihoodCurve,
    Method,
    cllr,
    fit_likelihood,
    held_out_log_lr,
    likelihood_curve,
    min_cllr,
)
from sphereface_jax.evaluation.pairs import paired_cosines
from sphereface_jax.evaluation.quality import RejectCurve, error_versus_reject
from sphereface_jax.evaluation.rates import (
    RateEstimate,
    Strangers,
    compare_strangers,
    tail_rate,
    trials_needed,
)
from sphereface_jax.reports.stored import LikelihoodEvidence
from sphereface_jax.tasks.task import TestedPairs

FILE = "likelihood.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What pairs of single images of known people say beyond their protocols.

    Attributes:
      evidence: to be stored with a run.
      rejects: errors after refusing short embeddings; None where all have the same length.
      groups: errors by group; None where no groups are known.
    """

    evidence: LikelihoodEvidence
    rejects: RejectCurve | None
    groups: GroupReport | None

    def to_json(self) -> dict[str, Any]:
        """The numbers, as an entry of an evaluation's JSON."""
        return {
            "method": str(self.evidence.method),
            "cllr": float(self.evidence.cllr),
            "min_cllr": float(self.evidence.min_cllr),
            "error_versus_reject": None if self.rejects is None else self.rejects.to_json(),
            "groups": None if self.groups is None else self.groups.to_json(),
        }


def measure(
    tested: TestedPairs,
    vectors: FaceVectors,
    *,
    title: str,
    step: int,
    threshold: float,
    method: Method = "logistic",
    groups: Mapping[str, str] | None = None,
) -> Measured | None:
    """Measures the evidence of a list of pairs; None where it does not name its people.

    Args:
      tested: pairs of rows of `vectors`, and whom they show.
      vectors: of the images.
      title: of the list.
      step: of the weights.
      threshold: the cosine that decides, for the rates that need one.
      method: of the calibration.
      groups: of people; the list's own column of groups is used where this is None.

    Returns:
      What was measured, or None.

    Raises:
      ValueError: `groups` knows fewer than two groups of these people.
    """
    if tested.people is None:
        return None
    pairs, people = tested.pairs, np.asarray(tested.people)
    features = vectors.features()
    cosines, same = paired_cosines(features, pairs), pairs.is_same
    left, right = people[pairs.left], people[pairs.right]
    curve = likelihood_curve(cosines, same, left, right, method=method)
    held_out = _held_out(cosines, same, pairs.folds, method)
    used = np.unique(np.concatenate([pairs.left, pairs.right]))
    strangers = compare_strangers(features[used], people[used])
    lengths = np.linalg.norm(features, axis=1)
    rejects = None
    if np.ptp(lengths[used]) > 1e-3 * lengths[used].mean():
        rejects = error_versus_reject(cosines, pairs, lengths, threshold=threshold)
    numbers = np.unique(np.concatenate([left, right]), return_inverse=True)[1].astype(np.int32)
    evidence = LikelihoodEvidence(
        title=np.array(title),
        step=np.array(step),
        method=np.array(method),
        cllr=np.array(cllr(held_out, same)),
        min_cllr=np.array(min_cllr(cosines, same)),
        is_same=same,
        cosine=cosines.astype(np.float32),
        held_out=held_out.astype(np.float32),
        left=numbers[: len(left)],
        right=numbers[len(left) :],
        knots=curve.cosines,
        log_lr=curve.log_lr,
        low=curve.low,
        high=curve.high,
        highest=strangers.highest,
        rejected=_column(rejects, "rejected"),
        min_length=_column(rejects, "min_quality"),
        rejected_frr=_column(rejects, "false_reject_rate"),
        rejected_far=_column(rejects, "false_accept_rate"),
    )
    report = None
    if groups is not None or tested.groups is not None:
        if groups is None:
            assert tested.groups is not None
            left_groups = right_groups = np.asarray(tested.groups)
        else:
            left_groups, right_groups = (
                np.array([groups.get(name, "") for name in side.tolist()]) for side in (left, right)
            )
        report = group_errors(
            cosines, same, left, right, left_groups, right_groups,
            threshold=threshold, calibration=fit_likelihood(cosines, same, method=method),
        )  # fmt: skip
    return Measured(evidence, rejects, report)


def read_likelihood(run: Path) -> LikelihoodEvidence | None:
    """Reads the evidence that is stored with a run, or None.

    Raises:
      ValueError: the file is damaged.
    """
    path = run / FILE
    return read_arrays(path, LikelihoodEvidence) if path.is_file() else None


def describe_evidence(
    evidence: LikelihoodEvidence, cosine: float, *, gallery_size: int | None = None
) -> list[str]:
    """Says what a cosine is worth, in lines; never more than the pairs support.

    Args:
      evidence: of the run.
      cosine: of two pictures.
      gallery_size: people in a gallery that a stranger would be searched in; None to say nothing
        of it.

    Returns:
      What its likelihood ratio is, how often different people score as high, and, of a gallery, how
      often a stranger's search returns anybody.

    Raises:
      ValueError: a gallery of fewer than one.
    """
    lines = [_ratio_line(evidence, cosine)]
    different = ~evidence.is_same
    tail = tail_rate(
        evidence.cosine[different], evidence.left[different], evidence.right[different],
        at_least=cosine,
    )  # fmt: skip
    lines.append(_tail_line(tail, str(evidence.title)))
    if gallery_size is not None:
        found = Strangers(evidence.highest).false_hits(cosine, gallery_size)
        lines.append(_gallery_line(found, gallery_size))
    return lines


def _ratio_line(evidence: LikelihoodEvidence, cosine: float) -> str:
    curve = LikelihoodCurve(evidence.knots, evidence.log_lr, evidence.low, evidence.high)
    ratio, low, high = curve.at(cosine)
    num_different, num_same = int((~evidence.is_same).sum()), int(evidence.is_same.sum())
    interval = f"95 % over people: {_ratio(low)} to {_ratio(high)}"
    if ratio >= 0.999 * (num_different + 1):
        return (
            f"likelihood ratio at least {_ratio(ratio)} ({interval}), the most that "
            f"{num_different:,} pairs of strangers support"
        )
    if ratio <= 1.001 / (num_same + 1):
        return (
            f"likelihood ratio at most {_ratio(ratio)} ({interval}), the least that "
            f"{num_same:,} pairs of one person support"
        )
    return (
        f"likelihood ratio {_ratio(ratio)} ({interval}): how much more often two pictures of one "
        "person score this than pictures of two people"
    )


def _tail_line(tail: RateEstimate, title: str) -> str:
    pairs = f"{tail.trials:,} pairs of strangers of {title}"
    if tail.events == 0:
        below = _one_in(tail.high)
        tenth = tail.high / 10
        return (
            f"none of {pairs} scores as high: fewer than one stranger in {below} (95 %); to show "
            f"one in {_one_in(tenth)} takes {trials_needed(tenth):,} pairs that share no person"
        )
    return (
        f"about one stranger in {_one_in(tail.rate)} scores as high (95 %: one in "
        f"{_one_in(tail.high)} to one in {_one_in(tail.low)}), {tail.events:,.0f} of {pairs}"
    )


def _gallery_line(found: RateEstimate, gallery_size: int) -> str:
    size = f"a gallery of {gallery_size:,} {'person' if gallery_size == 1 else 'people'}"
    people = f"{found.trials:,} people searched among each other"
    if found.events == 0:
        needed = trials_needed(found.high / 10)
        return (
            f"{size}: at most {found.high:.2g} of strangers' searches return somebody who scores "
            f"as high (95 %); none of {people} did; a tenth of that takes {needed:,} people"
        )
    return (
        f"{size}: a stranger's search returns somebody who scores as high with probability "
        f"{found.rate:.2g} (95 %: {found.low:.2g} to {found.high:.2g}), by {people}"
    )


def group_lines(report: GroupReport) -> list[str]:
    """A group report as lines of text."""
    lines = [f"groups at threshold {report.threshold:.4f}:"]
    for name, errors in report.groups.items():
        rates = [
            f"{kind} {_rate(rate)}"
            for kind, rate in (
                ("false accepts", errors.false_accepts),
                ("false rejects", errors.false_rejects),
            )
            if rate is not None
        ]
        if errors.cllr is not None and errors.min_cllr is not None:
            rates.append(f"Cllr {errors.cllr:.3f} (at best {errors.min_cllr:.3f})")
        small = f"; {errors.too_small}" if errors.too_small else ""
        lines.append(f"  {name}: {', '.join(rates)}{small}")
    for kind, name in report.worst.items():
        p_value = report.p_values[kind][name]
        lines.append(
            f"  {name} has more {kind.replace('_', ' ')} than the other groups (p = {p_value:.1g}, "
            f"{len(report.p_values[kind])} groups compared)"
        )
    if not report.worst:
        lines.append("  no group is worse than the others beyond chance")
    if report.threshold_for_worst is not None:
        lines.append(
            f"  threshold {report.threshold_for_worst:.4f} gives {report.worst['false_accepts']} "
            "no more false accepts than all pairs together have now"
        )
    elif "false_accepts" in report.worst:
        lines.append("  its pairs are too few to choose a threshold for it")
    return lines


def reject_lines(curve: RejectCurve) -> list[str]:
    """An error-versus-reject curve as lines of text."""
    lines = [
        f"refusing short embeddings, at threshold {curve.threshold:.4f}:",
        "  refused  below length  false rejects  false accepts  pairs left",
    ]
    for place, rejected in enumerate(curve.rejected):
        frr, far = curve.false_reject_rate[place], curve.false_accept_rate[place]
        shown = ["–" if rate is None else f"{rate:.2%}" for rate in (frr, far)]
        lines.append(
            f"  {rejected:7.0%}{curve.min_quality[place]:14.3f}{shown[0]:>15}{shown[1]:>15}"
            f"{curve.pairs_kept[place]:12,}"
        )
    return lines


def say_measured(measured: Measured, console: Console) -> None:
    """Prints Cllr, and the groups and the reject curve where there are any.

    Args:
      measured: of a list of pairs.
      console: where to print.
    """
    evidence = measured.evidence
    lines = [
        f"likelihood ratios ({evidence.method}): Cllr {float(evidence.cllr):.4f} on held-out "
        f"folds, {float(evidence.min_cllr):.4f} at best"
    ]
    if measured.rejects is not None:
        lines += reject_lines(measured.rejects)
    if measured.groups is not None:
        lines += group_lines(measured.groups)
    for line in lines:
        say(console, line)


def _held_out(
    cosines: np.ndarray, same: np.ndarray, folds: np.ndarray, method: Method
) -> np.ndarray:
    """Log LRs of each fold by the others; by all pairs where the folds do not allow it."""
    for fold in np.unique(folds):
        others = same[folds != fold]
        if others.all() or not others.any():
            return fit_likelihood(cosines, same, method=method)(cosines)
    return held_out_log_lr(cosines, same, folds, method=method)


def _column(curve: RejectCurve | None, name: str) -> np.ndarray:
    return np.array([] if curve is None else getattr(curve, name), np.float64)


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _one_in(rate: float) -> str:
    if rate <= 0:
        return "infinity"
    count = 1 / rate
    return f"{count:,.0f}" if count >= 10 else f"{count:.1f}"


def _rate(rate: RateEstimate) -> str:
    return f"{rate.rate:.2%} ({rate.low:.2%} to {rate.high:.2%}, {rate.trials:,} pairs)"
