"""Verification pairs drawn from labels, in the spirit of LFW's lists.

LFW (Huang et al., 2007) tests verification on folds that share no person, each half pairs of one
person and half pairs of two. The same can be drawn from any labelled images: people are dealt to
the folds, then each fold draws its pairs as evenly over its people as it can, never the same pair
twice.
"""

import numpy as np

from sphereface_jax._checks import require


def verification_pairs(
    labels: np.ndarray, *, pairs_per_fold: int = 300, num_folds: int = 10, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws balanced verification pairs whose folds share no identity.

    Where the identities are too few for `pairs_per_fold` distinct pairs in every fold, all folds
    get the largest even number that every one of them can give.

    Args:
      labels: [N] integers, the identity of each image; any values.
      pairs_per_fold: pairs of a fold, half of them of the same identity; even.
      num_folds: at least 2.
      seed: the draw; equal arguments give equal pairs.

    Returns:
      left: [P] int64, indices into `labels`.
      right: [P] int64, indices into `labels`.
      is_same: [P] bool; within a fold the same pairs come first, as in LFW's files.
      folds: [P] int32, ascending.

    Raises:
      ValueError: an argument out of range, or identities too few to give every fold one pair of
        the same and one of different identities.

    Example:
      >>> labels = np.repeat(np.arange(40), 5)
      >>> left, right, is_same, folds = verification_pairs(labels, pairs_per_fold=20)
      >>> bool((is_same == (labels[left] == labels[right])).all()), len(folds), is_same.mean()
      (True, 200, np.float64(0.5))

    References:
      Huang et al., [Labeled Faces in the Wild](http://vis-www.cs.umass.edu/lfw/), 2007.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels: expected integers of shape [N], got {labels.dtype} {labels.shape}"
        )
    if pairs_per_fold < 2 or pairs_per_fold % 2:
        raise ValueError(f"pairs_per_fold: expected an even number ≥ 2, got {pairs_per_fold}")
    require(num_folds >= 2, "num_folds", "at least 2", num_folds)

    rng = np.random.default_rng(seed)
    people = _images_by_identity(labels)
    dealt = _deal(people, num_folds, rng)
    half = min(pairs_per_fold // 2, *(_capacity(fold_people) for fold_people in dealt))
    if half < 1:
        several = sum(len(images) > 1 for images in people)
        possible = min(several, len(people) // 2)
        advice = f"lower num_folds to {possible}" if possible > 1 else "add identities or images"
        raise ValueError(
            f"labels: {num_folds} folds need {num_folds} identities with two images or more and "
            f"{2 * num_folds} identities in all, got {several} and {len(people)}; {advice}"
        )
    pairs = np.concatenate(
        [
            draw(fold_people, half, rng)
            for fold_people in dealt
            for draw in (_same_pairs, _different_pairs)
        ]
    )
    is_same = np.tile(np.repeat([True, False], half), num_folds)
    folds = np.repeat(np.arange(num_folds, dtype=np.int32), 2 * half)
    return pairs[:, 0], pairs[:, 1], is_same, folds


def _images_by_identity(labels: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, starts)


def _deal(
    people: list[np.ndarray], num_folds: int, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """Shuffles people and deals them out, those with most images first, so that folds are even."""
    shuffled = rng.permutation(len(people))
    counts = np.array([len(people[i]) for i in shuffled])
    order = shuffled[np.argsort(-counts, kind="stable")]
    return [[people[i] for i in order[fold::num_folds]] for fold in range(num_folds)]


def _capacity(people: list[np.ndarray]) -> int:
    """The lesser of the numbers of distinct same and different pairs among these people."""
    counts = np.array([len(images) for images in people], dtype=np.int64)
    total = int(counts.sum())
    same = int((counts * (counts - 1) // 2).sum())
    return min(same, total * (total - 1) // 2 - same)


def _same_pairs(people: list[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    several = [images for images in people if len(images) > 1]
    chosen = rng.choice(len(several), size=min(count, len(several)), replace=False)
    groups = [several[i] for i in chosen]
    quotas = _even_quotas([len(images) * (len(images) - 1) // 2 for images in groups], count)
    pairs = []
    for images, quota in zip(groups, quotas, strict=True):
        first, second = _unrank(_draw(len(images) * (len(images) - 1) // 2, quota, rng))
        pairs.append(np.stack([images[first], images[second]], axis=-1))
    return np.concatenate(pairs)


def _different_pairs(people: list[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    couples = len(people) * (len(people) - 1) // 2
    first, second = _unrank(_draw(couples, min(count, couples), rng))
    groups = [(people[a], people[b]) for a, b in zip(first, second, strict=True)]
    quotas = _even_quotas([len(a) * len(b) for a, b in groups], count)
    pairs = []
    for (a, b), quota in zip(groups, quotas, strict=True):
        code = _draw(len(a) * len(b), quota, rng)
        pairs.append(np.stack([a[code // len(b)], b[code % len(b)]], axis=-1))
    return np.concatenate(pairs)


def _draw(population: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct integers below `population`."""
    return rng.choice(population, size=count, replace=False)


def _even_quotas(capacities: list[int], total: int) -> np.ndarray:
    """Shares of `total` as even as the capacities allow; they must hold it between them."""
    capacity = np.array(capacities, dtype=np.int64)
    quota = np.zeros_like(capacity)
    while (left := total - int(quota.sum())) > 0:
        room = np.flatnonzero(quota < capacity)[:left]
        quota[room] = np.minimum(quota[room] + max(1, left // len(room)), capacity[room])
    return quota


def _unrank(code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs a < b at places `code` of the order (0,1), (0,2), (1,2), (0,3), ..."""
    second = ((1.0 + np.sqrt(1.0 + 8.0 * code)) / 2.0).astype(np.int64)
    second -= second * (second - 1) // 2 > code
    second += second * (second + 1) // 2 <= code
    return code - second * (second - 1) // 2, second
