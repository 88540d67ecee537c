"""Labels that lie: which images of a set are not of the person whose name they bear.

A set says itself what its errors would look like. Each image is tried under a name drawn at random,
and the cosines that this gives are compared with those that the set shows under its own names: the
fraction of wrong labels is read off where only wrong ones lie (Storey, 2002), and the probability
that a label is wrong is that fraction times the ratio of the two densities, which is fitted as a
monotone function (the local false discovery rate of Efron et al., 2001). A network that has learnt
wrong labels by heart draws their images near, so the cosines of names drawn at random are first
moved to where the set has its lower mode, if it has one (an empirical null: Efron, 2004). So
nothing is tuned by hand, and a clean set is left alone.

An identity is judged by its core, not by the mean of all its images or by a prototype, which wrong
labels pull towards them: average linkage clusters its images, cut half way between the cosines of
strangers and those of one person, and the largest cluster is the core. Two means are compared by
their *likeness*, the mean cosine between their images over that within: 0 for strangers, 1 for one
person, however many images there are.

Everything is a pure function of vectors; which of an identity's images lie where is not asked.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import isotonic_regression
from scipy.spatial.distance import pdist

from sphereface_jax._checks import require
from sphereface_jax.evaluation.pairs import check_embeddings, paired_dot, unit_rows

Action = Literal["drop", "move", "merge", "split"]
Nearest = Callable[[Any, Any, Any], Any]
"""(embeddings [B, D], centres [C, D], labels [B]) -> other_class [B] and other_cosine [B], as
`sphereface_jax.nearest` finds them."""

SURE = 0.5
"""Of a label that is called wrong: more likely wrong than right."""

_PAIRS, _BLOCK, _MULTIPLE = 200_000, 4096, 256
_SMALLEST_PART, _QUARTER, _COPY, _CELLS, _HOME = 0.1, 0.25, 1 - 1e-5, 4096, 0.9
_ROUNDS, _TAIL = 200, 0.49


class Finding(NamedTuple):
    """Something to put right.

    Attributes:
      action: "drop" images, "move" them to another identity, "merge" the identity into another, or
        "split" images off as an identity of their own.
      identity: the label as it is.
      target: the identity to move to or to merge with; −1 for the other two.
      images: the rows that the action is about; for a merge none, for it is about all.
      confidence: the probability that the label is wrong, or of a merge that the two are one, of a
        split that its parts are two.
      own_cosine: with the core of its identity, without the image itself; of a merge the mean
        cosine within the core, of a split within the larger part.
      other_cosine: with the core of the nearest other identity; of a merge and a split the mean
        cosine between the images of both sides.
      copy_of: an image of the target that is the same one, which is why it is not moved there; −1.
    """

    action: Action
    identity: int
    target: int
    images: tuple[int, ...]
    confidence: float
    own_cosine: float
    other_cosine: float
    copy_of: int = -1


@dataclasses.dataclass(frozen=True, eq=False)
class LabelNoise:
    """What is wrong with the labels of N images.

    Attributes:
      findings: merges, moves, splits and drops, the surest first within each.
      labels: int64 [N], after the merges.
      own_cosine: float64 [N], with the core of its identity; NaN where an image is alone.
      other_class: int64 [N], the nearest other identity.
      other_cosine: float64 [N], with its core.
      same: mean cosine between two images of one person.
      different: between those of two.
      wrong: estimated fraction of labels that are wrong.
      gap: an image whose own cosine minus other cosine is below this is moved or dropped.
      lowest: one that stays is dropped if its own cosine is below this.
    """

    findings: list[Finding]
    labels: NDArray[np.int64]
    own_cosine: NDArray[np.float64]
    other_class: NDArray[np.int64]
    other_cosine: NDArray[np.float64]
    same: float
    different: float
    wrong: float
    gap: float
    lowest: float


@dataclasses.dataclass(frozen=True, eq=False)
class Cores:
    """The images of each identity that belong together.

    Attributes:
      cluster: int64 [N], 0 for an image of its identity's core, then 1, 2, ... by size.
      means: float64 [C, D], of the cores' unit vectors; zeros for an identity without images.
      counts: int64 [C], images of each core.
      sizes: int64 [C], images of each identity.
      coherence: float64 [C], the mean cosine between a core's images.
      own_cosine: float64 [N], with the core's mean, from which the image itself is taken out; NaN
        where nothing is left. A second cluster of a quarter of the images judges its own: it may
        be another person.
    """

    cluster: NDArray[np.int64]
    means: NDArray[np.float64]
    counts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    coherence: NDArray[np.float64]
    own_cosine: NDArray[np.float64]

    def likeness(self, rows: Any) -> NDArray[np.float64]:
        """Of the identities `rows` with all [R, C]: 0 for strangers, 1 for one person."""
        return self.scaled_means[rows] @ self.scaled_means.T

    @functools.cached_property
    def scaled_means(self) -> NDArray[np.float64]:
        """The means [C, D], scaled so that the product of two is their likeness."""
        return self.means / np.sqrt(self.coherence)[:, None]


def find_noise(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    nearest: Nearest,
    confidence: float = SURE,
    seed: int = 0,
) -> LabelNoise:
    """Finds labels that are wrong, identities that are one person, and identities that are two.

    Args:
      embeddings: [N, D], of any length, by a network that has not learnt the labels by heart.
      labels: [N] integers from 0.
      nearest: finds the nearest other class, as `sphereface_jax.nearest` does.
      confidence: what a finding must reach, in (0, 1].
      seed: of the labels drawn at random.

    Returns:
      `LabelNoise`.

    Raises:
      ValueError: fewer than two identities, none with two images, images of one person that are no
        more alike than those of two, or all identities alike.

    Example:
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import nearest
      >>> rng = np.random.default_rng(0)
      >>> people = np.repeat(np.arange(20), 10)
      >>> faces = rng.normal(size=(20, 16))[people] + 0.3 * rng.normal(size=(200, 16))
      >>> labels = people.copy()
      >>> labels[3] = 7
      >>> [(each.action, each.images, each.target)
      ...  for each in find_noise(faces, labels, nearest=nearest).findings]
      [('move', (3,), 0)]

    References:
      Storey, A direct approach to false discovery rates, 2002. Efron et al., Empirical Bayes
      analysis of a microarray experiment, 2001.
    """
    require(0 < confidence <= 1, "confidence", "a number in (0, 1]", confidence)
    unit = unit_rows(check_embeddings("embeddings", embeddings, num_rows=2))
    labels = np.asarray(labels, np.int64)
    rng = np.random.default_rng(seed)
    different, same = cosine_levels(unit, labels, rng)
    cut = (different + same) / 2
    cores = find_cores(unit, labels, cut, same=same)
    merges = find_merges(unit, labels, cores, confidence, rng)
    joined = merged_labels(merges, len(cores.counts))[labels]
    if (joined == joined[0]).all():
        raise ValueError(
            "embeddings: expected two people or more, all identities look like one to this "
            "network; it cannot judge these labels"
        )
    if merges:
        cores = find_cores(unit, joined, cut, same=same)
    other_class, other_cosine = _nearest_others(unit, cores, joined, nearest)
    own = cores.own_cosine
    is_wrong, belief, gap, wrong = _wrong_by_gap(
        unit, joined, cores, other_class, other_cosine, confidence, rng
    )
    splits = find_splits(unit, joined, is_wrong, confidence, rng)
    is_split = np.zeros(len(unit), bool)
    is_split[[row for split in splits for row in split.images]] = True
    rest = ~np.isnan(own) & ~is_wrong & ~is_split
    is_far, far_belief, lowest, far = _wrong_by_own(unit, joined, cores, rest, confidence, rng)
    good = rest & ~is_far
    is_home = np.zeros(len(unit), bool)
    if good.any() and is_wrong.any():
        near = is_wrong & (other_cosine >= np.quantile(own[good], 0.05))
        is_home[near] = _at_home(
            own[good], other_cosine[good], unit[near], other_class[near], cores, nearest
        )
    findings = []
    for row in np.flatnonzero(is_wrong | is_far).tolist():
        sure = float(belief[row] if is_wrong[row] else far_belief[row])
        cosines = float(own[row]), float(other_cosine[row])
        found = Finding("drop", int(labels[row]), -1, (row,), sure, *cosines)
        if is_home[row]:
            target = int(other_class[row])
            members = np.flatnonzero(joined == target)
            copies = members[unit[members] @ unit[row] > _COPY]
            if len(copies):
                found = found._replace(target=target, copy_of=int(copies[0]))
            else:
                found = found._replace(action="move", target=target)
        findings.append(found)
    findings.sort(key=lambda found: (found.action != "move", -found.confidence, found.own_cosine))
    moves = [found for found in findings if found.action == "move"]
    drops = [found for found in findings if found.action == "drop"]
    return LabelNoise(
        findings=[*merges, *moves, *splits, *drops],
        labels=joined,
        own_cosine=own,
        other_class=other_class,
        other_cosine=other_cosine,
        same=same,
        different=different,
        wrong=wrong + (1 - wrong) * far,
        gap=gap,
        lowest=lowest,
    )


def cosine_levels(
    unit: NDArray[np.floating], labels: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """The mean cosines between images of two people and between images of one.

    The pairs within an identity are a mixture of both where labels are wrong; its part that is
    between people is taken out.

    Args:
      unit: [N, D] unit rows.
      labels: [N].
      rng: draws pairs.

    Returns:
      (different, same).

    Raises:
      ValueError: fewer than two identities, none with two images, or a `same` that is not higher.
    """
    counts = np.bincount(labels)
    if (counts > 0).sum() < 2 or counts.max() < 2:
        raise ValueError(
            f"labels: expected two identities or more, one of them with two images, got "
            f"{(counts > 0).sum()} with at most {counts.max()}"
        )
    a, b = rng.integers(len(unit), size=(2, _PAIRS))
    apart = labels[a] != labels[b]
    between = paired_dot(unit, a[apart], b[apart])
    order, starts = np.argsort(labels, kind="stable"), np.cumsum(counts) - counts
    b = order[starts[labels[a]] + rng.integers(1 << 40, size=_PAIRS) % counts[labels[a]]]
    within = paired_dot(unit, a[a != b], b[a != b])
    different = float(between.mean())
    strangers = min(2 * float(np.mean(within <= np.median(between))), 1.0)
    same = (float(within.mean()) - strangers * different) / max(1 - strangers, 1e-3)
    if not same > different + 1e-3:
        raise ValueError(
            f"embeddings: expected images of one identity to be more alike than those of two, got "
            f"mean cosines {same:.3f} and {different:.3f}; this network cannot judge these labels"
        )
    return different, min(same, 1.0)


def find_cores(
    unit: NDArray[np.floating], labels: NDArray[np.int64], cut: float, *, same: float = 1.0
) -> Cores:
    """Clusters the images of each identity by average linkage.

    Args:
      unit: [N, D] unit rows.
      labels: [N] integers from 0.
      cut: clusters whose mean cosine is lower stay apart.
      same: the coherence of a core of one image.

    Returns:
      `Cores`.
    """
    counts = np.bincount(labels)
    order, ends = np.argsort(labels, kind="stable"), np.cumsum(counts)
    cluster = np.zeros(len(unit), np.int64)
    for count, end in zip(counts.tolist(), ends.tolist(), strict=True):
        if count > 1:
            rows = order[end - count : end]
            tree = linkage(pdist(unit[rows], "sqeuclidean") / 2, "average")  # 1 − cosine
            number = fcluster(tree, 1 - cut, "distance") - 1
            by_size = np.argsort(-np.bincount(number), kind="stable")
            cluster[rows] = np.argsort(by_size)[number]
    is_core = cluster == 0
    sums, held = _sums(unit, labels, is_core, len(counts))
    several = held > 1
    coherence = np.full(len(counts), same)
    squares = np.einsum("cd,cd->c", sums, sums)
    coherence[several] = (squares[several] - held[several]) / (held * (held - 1))[several]
    own = _cosine_without(unit, labels, sums, is_core)
    is_second = cluster == 1
    seconds, held_second = _sums(unit, labels, is_second, len(counts))
    seconds[held_second < np.maximum(2, _QUARTER * counts)] = 0
    own = np.fmax(own, _cosine_without(unit, labels, seconds, is_second))
    means = sums / np.maximum(held, 1)[:, None]
    return Cores(cluster, means, held, counts, np.maximum(coherence, 1e-3), own)


def _sums(
    unit: NDArray[np.floating], labels: NDArray[np.int64], is_part: NDArray[np.bool_], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The sum [C, D] of each identity's rows that are part, and how many they are [C]."""
    sums = np.zeros((classes, unit.shape[1]))
    np.add.at(sums, labels[is_part], unit[is_part])
    return sums, np.bincount(labels[is_part], minlength=classes)


def _cosine_without(
    unit: NDArray[np.floating],
    labels: NDArray[np.int64],
    sums: NDArray[np.float64],
    is_part: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Each image's cosine with the sum of its identity, itself taken out; NaN with nothing."""
    without = sums[labels] - unit * is_part[:, None]
    length = np.linalg.norm(without, axis=1)
    cosine = np.full(len(unit), np.nan)
    left = length > 1e-9
    cosine[left] = np.einsum("nd,nd->n", unit[left], without[left]) / length[left]
    return cosine


def find_merges(
    unit: NDArray[np.floating],
    labels: NDArray[np.int64],
    cores: Cores,
    confidence: float,
    rng: np.random.Generator,
) -> list[Finding]:
    """Pairs of identities whose images coincide as two halves of one identity do.

    The likeness of each identity's nearest other is compared with that of its own halves. An
    identity whose core is not half of it is judged by nobody: the core may be another's. Three
    names are one person only if each is as like each other.

    Args:
      unit: [N, D], of unit length.
      labels: [N], the identity of each.
      cores: of those labels.
      confidence: the least probability that a finding may have, in [0, 1].
      rng: draws the halves.

    Returns:
      A merge for each pair, the most alike first; the identity with the smaller core goes into the
      other.
    """
    halves = _halves(unit, labels, cores, rng)
    present = np.flatnonzero(cores.counts)
    is_judged = 2 * cores.counts >= cores.sizes
    pairs: list[tuple[float, int, int]] = []
    nearest = np.full(len(cores.counts), -np.inf)
    for start in range(0, len(present), _BLOCK):
        rows = present[start : start + _BLOCK]
        likeness = cores.likeness(rows)
        likeness[:, ~is_judged | (cores.counts == 0)] = -np.inf
        likeness[~is_judged[rows]] = -np.inf
        likeness[np.arange(len(rows)), rows] = -np.inf
        nearest[rows] = likeness.max(axis=1)
        high = np.nonzero(likeness >= SURE)
        pairs += [
            (float(likeness[a, b]), int(rows[a]), int(b))
            for a, b in zip(high[0].tolist(), high[1].tolist(), strict=True)
            if rows[a] > b
        ]
    observed = np.sort(nearest[np.isfinite(nearest)])
    if not len(halves) or not len(observed):
        return []
    belief, _ = wrong_posterior(-observed, learnt_by_heart(-observed, -halves))
    found: list[Finding] = []
    beliefs = {
        frozenset((one, other)): float(np.interp(alike, observed, belief))
        for alike, one, other in pairs
    }
    together: dict[int, set[int]] = {}
    for _, one, other in sorted(pairs, reverse=True):
        sure = beliefs[frozenset((one, other))]
        ones, others = together.get(one, {one}), together.get(other, {other})
        crossing = [frozenset((a, b)) for a in ones for b in others if a != b]
        if all(beliefs.get(pair, 0.0) >= confidence for pair in crossing):
            together |= dict.fromkeys(ones | others, ones | others)
            small, large = one, other  # the later of two of a size
            if cores.counts[small] > cores.counts[large]:
                small, large = large, small
            between = float(cores.means[one] @ cores.means[other])
            within = float(min(cores.coherence[one], cores.coherence[other]))
            found.append(Finding("merge", small, large, (), sure, within, between))
    return found


def _halves(
    unit: NDArray[np.floating],
    labels: NDArray[np.int64],
    cores: Cores,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """The likeness of two halves, drawn at random, of each core of four images or more."""
    is_core = np.flatnonzero((cores.cluster == 0) & (cores.counts[labels] >= 4))
    order = is_core[np.lexsort((rng.random(len(is_core)), labels[is_core]))]
    starts = np.searchsorted(labels[order], labels[order])
    sign = (np.arange(len(order)) - starts) % 2
    sums = np.zeros((2, len(cores.counts), unit.shape[1]))
    np.add.at(sums, (sign, labels[order]), unit[order])
    counts = cores.counts[chosen := np.unique(labels[order])]
    products = np.einsum("cd,cd->c", sums[0, chosen], sums[1, chosen])
    return products / ((counts + 1) // 2 * (counts // 2)) / cores.coherence[chosen]


def merged_labels(merges: Sequence[Finding], num_classes: int) -> NDArray[np.int64]:
    """The label that stands for each one after the merges, whatever their order.

    Args:
      merges: findings whose action is "merge".
      num_classes: C.

    Returns:
      Labels int64 [C].
    """
    stands_for = np.arange(num_classes)
    for merge in merges:
        old, new = stands_for[merge.identity], stands_for[merge.target]
        stands_for[stands_for == old] = new
    return stands_for


def find_splits(
    unit: NDArray[np.floating],
    labels: NDArray[np.int64],
    is_wrong: NDArray[np.bool_],
    confidence: float,
    rng: np.random.Generator,
) -> list[Finding]:
    """Identities that fall into two parts as two people do.

    The images of each identity are cut in two (two means on the sphere), and so are those of pairs
    of identities drawn at random; the likeness of the parts of one is compared with that of the
    other. A part of fewer than two images, or than a tenth, is none.

    Args:
      unit: [N, D], of unit length.
      labels: [N], the identity of each.
      is_wrong: [N], the images that are wrong by themselves, which are left aside.
      confidence: the least that a finding may have, in [0, 1].
      rng: draws the pairs.

    Returns:
      A split for each such identity, the surest first, with the images of the smaller part.
    """
    rows = np.flatnonzero(~is_wrong)
    rows = rows[np.argsort(labels[rows], kind="stable")]
    present, starts = np.unique(labels[rows], return_index=True)
    members = np.split(rows, starts[1:])
    cuts = [(place, cut) for place, each in enumerate(members) if (cut := _cut(unit[each]))]
    if len(cuts) < 2:
        return []
    ahead = rng.integers(1, len(cuts), len(cuts)).tolist()
    pooled = [
        _cut(unit[np.concatenate([members[place], members[cuts[(at + by) % len(cuts)][0]]])])
        for at, ((place, _), by) in enumerate(zip(cuts, ahead, strict=True))
    ]
    planted = np.array([cut.likeness for cut in pooled if cut])
    if not len(planted):
        return []
    observed = np.array([cut.likeness for _, cut in cuts])
    belief, _ = wrong_posterior(observed, learnt_by_heart(observed, planted))
    found = []
    for (place, cut), sure in zip(cuts, belief.tolist(), strict=True):
        if sure >= confidence:
            images = tuple(members[place][cut.is_second].tolist())
            found.append(
                Finding("split", int(present[place]), -1, images, sure, cut.within, cut.between)
            )
    return sorted(found, key=lambda each: (-each.confidence, each.other_cosine))


class _Cut(NamedTuple):
    """Images in two parts: which are of the smaller one, and mean cosines."""

    is_second: NDArray[np.bool_]
    within: float
    between: float
    likeness: float


def _cut(unit: NDArray[np.floating]) -> _Cut | None:
    """The best two parts of images [n, D], or nothing where one of them is too small."""
    if len(unit) < 4:
        return None
    centred = unit - unit.mean(axis=0)
    side = centred @ np.linalg.svd(centred, full_matrices=False)[2][0] > 0
    for _ in range(_ROUNDS):
        counts = np.array([(~side).sum(), side.sum()])
        if counts.min() < max(2, _SMALLEST_PART * len(unit)):
            return None
        sums = np.stack([unit[~side].sum(axis=0), unit[side].sum(axis=0)])
        lengths = np.maximum(np.linalg.norm(sums, axis=1), 1e-9)
        first, second = sums @ unit.T / lengths[:, None]
        before, side = side, second > first
        if (side == before).all():
            break
    within = np.maximum((lengths**2 - counts) / (counts * (counts - 1)), 1e-3)
    between = float(sums[0] @ sums[1] / counts.prod())
    is_second = side if counts[1] <= counts[0] else ~side
    largest = float(within[counts.argmax()])
    return _Cut(is_second, largest, between, between / float(np.sqrt(within.prod())))


def wrong_posterior(
    observed: NDArray[np.floating], planted: NDArray[np.floating]
) -> tuple[NDArray[np.float64], float]:
    """The probability that each observed value is of the planted kind, which tend to be low.

    With f the density of the observed values, f₀ of the planted ones and ε the fraction of the
    observed that are of their kind, it is ε f₀ / f. Both densities are smoothed by a Gaussian of
    Silverman's width, and the ratio is made non-increasing. Half of the planted values lie below
    their median, so ε is twice the observed share there; one more than were seen is counted, for
    of few errors none may lie there.

    Args:
      observed: [N].
      planted: [M].

    Returns:
      Probabilities [N], and ε.

    Example:
      >>> observed, planted = np.array([0.1, 0.8, 0.9, 0.7]), np.array([0.0, 0.1, 0.2, 0.1])
      >>> wrong_posterior(observed, planted)[0].round(2).tolist()
      [1.0, 0.0, 0.0, 0.0]
    """
    median, deviation = float(np.median(planted)), float(np.std(planted))
    share = min(2 * (int(np.sum(observed <= median)) + 1) / len(observed), 1.0)
    width = max(1.06 * deviation * len(planted) ** -0.2, 1e-6)  # Silverman's
    low = min(observed.min(), planted.min())
    cell = np.ptp(np.concatenate([observed, planted])) / _CELLS + 1e-12
    place = ((observed - low) / cell).astype(np.int64)
    counts = np.bincount(place, minlength=_CELLS + 1) / len(observed)
    counts_planted = np.histogram(planted, _CELLS + 1, (low, low + (_CELLS + 1) * cell))[0]
    f, f0 = (
        gaussian_filter1d(values, width / cell, mode="constant")
        for values in (counts, counts_planted / len(planted))
    )
    both = np.maximum(f + f0, 1e-12)
    fit = isotonic_regression(f0 / both, weights=both, increasing=False).x
    return np.minimum(share * fit / np.maximum(1 - fit, 1e-12), 1.0)[place], share


def learnt_by_heart(
    observed: NDArray[np.floating], planted: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Planted values, moved to where those of their kind lie that a network has learnt by heart.

    Training on a wrong label draws the image to it, so what is planted afterwards looks more wrong
    than what the network has seen: an empirical null in place of the theoretical one (Efron, 2004).
    The observed values are fitted by two normal densities, the upper with a width of its own on
    either side, by expectation and maximisation from the planted values on, which count as one
    observation. The planted ones take mean and deviation of the lower, at most twice or half as
    wide. A lower one that comes half way to the upper's mode is but the tail of that, as in a clean
    set; then they stay.

    Args:
      observed: [N].
      planted: [M], which tend to be low.

    Returns:
      Planted values [M].

    Example:
      >>> rng = np.random.default_rng(0)
      >>> observed = np.concatenate([rng.normal(1, 1, 400), rng.normal(9, 1, 600)])
      >>> moved = learnt_by_heart(observed, rng.normal(0, 1, 1000))
      >>> bool(abs(moved.mean() - 1) < 0.2)
      True

    References:
      Efron, Large-scale simultaneous hypothesis testing: the choice of a null hypothesis, 2004.
    """
    mean, deviation = float(np.mean(planted)), float(np.std(planted))
    upper = observed[observed > (mean + np.median(observed)) / 2]
    if not len(upper) or deviation < 1e-9 or not np.median(observed) > mean:
        return np.asarray(planted, np.float64)
    values = np.sort(observed)
    mode = float(np.median(upper))
    left = right = float(np.sqrt(np.mean((values[values >= mode] - mode) ** 2))) + 1e-9
    low, width = mean, deviation
    share = min(2 * float(np.mean(values <= mean)) + 1 / len(values), 1.0)
    for _ in range(_ROUNDS):
        side = np.where(values < mode, left, right)
        high = 2 / (left + right) * np.exp(-0.5 * ((values - mode) / side) ** 2)
        lower = np.exp(-0.5 * ((values - low) / width) ** 2) / width
        is_low = share * lower / np.maximum(share * lower + (1 - share) * high, 1e-300)
        before, weight = low, 1 + is_low.sum()
        share = (weight - 1) / len(values)
        low = float(np.clip((mean + is_low @ values) / weight, mean, (mean + mode) / 2))
        spread = (deviation**2 + is_low @ (values - low) ** 2) / weight
        width = float(np.clip(np.sqrt(spread), deviation / 2, 2 * deviation))
        is_high = 1 - is_low
        total = np.cumsum(is_high)
        off, is_left = is_high * (values - mode) ** 2, values < mode
        left = float(np.sqrt(off[is_left].sum() / max(is_high[is_left].sum(), 1e-9))) + 1e-9
        right = float(np.sqrt(off[~is_left].sum() / max(is_high[~is_left].sum(), 1e-9))) + 1e-9
        mode = float(values[np.searchsorted(total, total[-1] * left / (left + right))])
        if abs(low - before) < 1e-7:
            break
    if low > mean + _TAIL * (mode - mean):
        return np.asarray(planted, np.float64)
    return np.asarray((planted - mean) * (width / deviation) + low, np.float64)


def agreed(first: Sequence[Finding], second: Sequence[Finding]) -> list[Finding]:
    """The findings of one network that another's bear out, with the lower confidence of the two.

    Images that both would take out of their identity, but not to the same one, are dropped. A split
    must have half of its images in common.

    Args:
      first: of `find_noise`.
      second: of `find_noise` by another network on the same images and labels.

    Returns:
      The findings that are left, in the order of `first`.
    """
    kept = []
    wrong = {found.images[0]: found for found in second if found.action in ("drop", "move")}
    merges = {frozenset((m.identity, m.target)): m for m in second if m.action == "merge"}
    splits = [found for found in second if found.action == "split"]
    split_rows = {row: found for found in splits for row in found.images}
    for found in first:
        other: Finding | None
        if found.action == "merge":
            other = merges.get(frozenset((found.identity, found.target)))
        elif found.action == "split":
            rows = set(found.images)
            common = [s for s in splits if 2 * len(rows & {*s.images}) >= len(rows | {*s.images})]
            other = next(iter(common), None)
        else:
            other = wrong.get(found.images[0]) or split_rows.get(found.images[0])
            if other is not None and found.action == "move" and other.target != found.target:
                found = found._replace(action="drop", target=-1)
        if other is not None:
            kept.append(found._replace(confidence=min(found.confidence, other.confidence)))
    return kept


def _nearest_others(
    unit: NDArray[np.floating], cores: Cores, labels: NDArray[np.int64], nearest: Nearest
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest other identity and its cosine, a block of images at a time."""
    present = np.flatnonzero(cores.counts)
    centres = cores.means[present].astype(np.float32)
    place = np.searchsorted(present, labels)
    classes, cosines = [np.empty(0, np.int64)], [np.empty(0)]
    for start in range(0, len(unit), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(unit)))
        # A mesh shares the batch out evenly; few shapes are few compilations.
        padded = np.resize(rows, -(-len(rows) // _MULTIPLE) * _MULTIPLE)
        found = nearest(unit[padded].astype(np.float32), centres, place[padded].astype(np.int32))
        classes.append(present[np.asarray(found.other_class)[: len(rows)]])
        cosines.append(np.asarray(found.other_cosine, np.float64)[: len(rows)])
    return np.concatenate(classes), np.concatenate(cosines)


def _at_home(
    own: NDArray[np.float64],
    other: NDArray[np.float64],
    unit: NDArray[np.floating],
    target: NDArray[np.int64],
    cores: Cores,
    nearest: Nearest,
) -> NDArray[np.bool_]:
    """Which images the nearest other identity is that of, given how far the next one is.

    Learnt from images [M] that nothing is said about: how often the nearer of `own` and `other` is
    their own, by the distance between the two. Labels that are wrong unseen count against it, so
    the bar is not at one.
    """
    next_cosine = _nearest_others(unit, cores, target, nearest)[1]
    means = cores.means[target]
    cosine = np.einsum("nd,nd->n", unit, means) / np.linalg.norm(means, axis=1)
    apart = np.abs(own - other)
    order = np.argsort(apart)
    fit = isotonic_regression((own > other)[order].astype(np.float64)).x
    return np.interp(cosine - next_cosine, apart[order], fit) >= _HOME


def _drawn_cosines(
    unit: NDArray[np.floating],
    cores: Cores,
    labels: NDArray[np.int64],
    other_class: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Each image's cosine with an identity drawn among all but its own and the nearest other."""
    present = np.flatnonzero(cores.counts)
    taken = np.searchsorted(present, np.stack([labels, other_class]))
    if len(present) < 3:
        drawn = taken[1]
    else:
        low, high = np.sort(taken, axis=0)
        drawn = rng.integers(len(present) - 2, size=len(unit))
        drawn += drawn >= low
        drawn += drawn >= high
    means = cores.means[present]
    means = means / np.linalg.norm(means, axis=1, keepdims=True)
    return np.einsum("nd,nd->n", unit, means[drawn])


def _wrong_by_gap(
    unit: NDArray[np.floating],
    labels: NDArray[np.int64],
    cores: Cores,
    other_class: NDArray[np.int64],
    other_cosine: NDArray[np.float64],
    confidence: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.bool_], NDArray[np.float64], float, float]:
    """Images nearer to another identity than to their own, as one under a drawn name would be."""
    own = cores.own_cosine
    known = ~np.isnan(own)
    gap = own - other_cosine
    # Under another name, what was the own identity is one of the others.
    drawn = _drawn_cosines(unit, cores, labels, other_class, rng)
    planted = drawn - np.fmax(other_cosine, own)
    return _decide(gap, learnt_by_heart(gap[known], planted[known]), known, confidence)


def _wrong_by_own(
    unit: NDArray[np.floating],
    labels: NDArray[np.int64],
    cores: Cores,
    rest: NDArray[np.bool_],
    confidence: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.bool_], NDArray[np.float64], float, float]:
    """Images as far from their own identity as from any; two others at least must agree on it."""
    judged = rest & (cores.counts[labels] - (cores.cluster == 0) >= 2)
    drawn = _drawn_cosines(unit, cores, labels, labels, rng)
    return _decide(cores.own_cosine, drawn[judged], judged, confidence)


def _decide(
    values: NDArray[np.float64],
    planted: NDArray[np.float64],
    judged: NDArray[np.bool_],
    confidence: float,
) -> tuple[NDArray[np.bool_], NDArray[np.float64], float, float]:
    """(which are wrong, how probable that is, the bar that they are below, their fraction)."""
    belief = np.zeros(len(values))
    if not judged.any():
        return np.zeros(len(values), bool), belief, -np.inf, 0.0
    belief[judged], share = wrong_posterior(values[judged], planted)
    is_wrong = judged & (belief >= confidence)
    if not is_wrong.any():
        return is_wrong, belief, -np.inf, share
    kept = values[judged & ~is_wrong]
    highest = float(values[is_wrong].max())
    return is_wrong, belief, (highest + float(kept.min())) / 2 if len(kept) else np.inf, share
