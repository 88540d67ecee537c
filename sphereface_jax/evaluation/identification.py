"""Identification: who, of a gallery, is this?

A probe is compared with every image of the gallery and with distractors, images of people who are
nobody's mate. Its rank is one more than the number of impostors, images of other people, that
score as high as its own mate. In an open set some probes have no mate, and the system must refuse
them: its detection and identification rate (DIR) is the fraction of mated probes that come first
and pass a threshold, which few of the unmated ones may pass.

Ties count against the system: scores closer than `TIE`, which is what float32 rounds away, are
equal, and an impostor that equals the mate comes before it. A collapsed network so scores 0.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax._checks import require
from sphereface_jax.evaluation.impostors import (
    HighestImpostors,
    highest_impostors,
    merge_impostors,
)
from sphereface_jax.evaluation.pairs import check_embeddings, paired_dot, unit_rows
from sphereface_jax.evaluation.results import Result
from sphereface_jax.evaluation.roc import allowed_accepts, can_show, far_name

RANKS = (1, 5, 10, 20)
TAR_AT_FARS = (1e-3, 1e-4, 1e-5, 1e-6)
DIR_AT_FARS = (1e-1, 1e-2)
TIE = 1e-6
_DISTRACTOR = -1


@dataclasses.dataclass(frozen=True, eq=False)
class IdentificationResult(Result):
    """What an identification protocol measured; rates are fractions.

    Attributes:
      rank_k: the fraction of searches whose mate is among the first k, by str(k).
      cmc: [R] the same for every k from 1 to R, the cumulative match characteristic.
      tar_at_far: over all single comparisons, the TAR at each FAR, by the FAR's name; None where
        the comparisons are too few to show that FAR.
      dir_at_far: over whole searches, the DIR at each false alarm rate of the unmated probes, or
        None likewise; empty where every probe has a mate.
      num_searches: the searches that have a mate and so a rank.
      num_unmated: the probes without a mate.
      num_gallery: images in the gallery.
      num_distractors: distractors beside them.
      num_impostor_scores: comparisons that FAR is a fraction of.
      ranks: each search's rank, R + 1 where it is beyond R; not in the JSON.
    """

    rank_k: dict[str, float]
    cmc: tuple[float, ...]
    tar_at_far: dict[str, float | None]
    dir_at_far: dict[str, float | None]
    num_searches: int
    num_unmated: int
    num_gallery: int
    num_distractors: int
    num_impostor_scores: int
    ranks: NDArray[np.int64] = dataclasses.field(repr=False)


def identification(
    probes: ArrayLike,
    probe_identities: ArrayLike,
    gallery: ArrayLike,
    gallery_identities: ArrayLike,
    distractors: NDArray | None = None,
    *,
    fars: Iterable[float] = TAR_AT_FARS,
    dir_fars: Iterable[float] = DIR_AT_FARS,
    progress: Callable[[int, int], None] | None = None,
) -> IdentificationResult:
    """Searches a gallery and distractors for each probe.

    A probe's mate is the gallery image of the same identity that scores highest; a probe whose
    identity the gallery lacks is unmated. Memory stays bounded whatever the number of distractors.

    Args:
      probes: [P, D] embeddings of any length.
      probe_identities: [P] integers or strings.
      gallery: [G, D] embeddings.
      gallery_identities: [G], of the same kind.
      distractors: [N, D] embeddings of people who are not probes; a memory map will do.
      fars: false accept rates of single comparisons to give the TAR at.
      dir_fars: false alarm rates of unmated searches to give the DIR at.
      progress: called with the scores done and the scores there are, with distractors.

    Returns:
      An `IdentificationResult` with one search per probe.

    Raises:
      ValueError: for embeddings that are not finite, are zero or differ in width, identities of
        another number, or no probe that has a mate.

    Example:
      >>> found = identification([[1.0, 0.1], [0.1, 1.0]], [7, 8], [[1.0, 0.0], [0.0, 1.0]], [7, 8])
      >>> found.rank_k["1"]
      1.0
    """
    probe_rows = check_embeddings("probes", probes)
    gallery_rows = check_embeddings("gallery", gallery)
    probe_numbers, gallery_numbers = _number_identities(
        ("probe_identities", probe_identities, len(probe_rows)),
        ("gallery_identities", gallery_identities, len(gallery_rows)),
    )
    probe, mate = find_mates(probe_numbers, gallery_numbers)
    if not len(probe):
        raise ValueError("gallery_identities: expected some of the probes' identities, found none")
    genuine = _scores(probe_rows, gallery_rows, probe, mate)
    impostors = _impostors(
        probe_rows, probe_numbers, gallery_rows, gallery_numbers, distractors, tuple(fars), progress
    )
    mated, first = np.unique(probe, return_index=True)
    best = np.maximum.reduceat(genuine, first)
    ranks = ranks_of_mates(impostors.by_probe[mated], best)
    unmated = np.setdiff1d(np.arange(len(probe_rows)), mated)
    alarms = np.sort(impostors.by_probe[unmated, 0])[::-1]
    return _result(
        ranks,
        tar_at_far=_rates(genuine, impostors.overall, impostors.num_scores, fars),
        dir_at_far=_rates(np.where(ranks == 1, best, -np.inf), alarms, len(alarms), dir_fars),
        num_unmated=len(unmated),
        num_gallery=len(gallery_rows),
        num_distractors=0 if distractors is None else len(distractors),
        num_impostor_scores=impostors.num_scores,
    )


def megaface(
    probes: ArrayLike,
    probe_identities: ArrayLike,
    distractors: NDArray,
    *,
    fars: Iterable[float] = TAR_AT_FARS,
    progress: Callable[[int, int], None] | None = None,
) -> IdentificationResult:
    """MegaFace's first challenge: each mate alone among the distractors.

    For every ordered pair of different probe images of one person, the second joins the
    distractors and the first searches for it there. Impostors are the distractors alone, so other
    probe people do not stand in the way.

    Args:
      probes: [P, D] embeddings of the probe set, FaceScrub say.
      probe_identities: [P] integers or strings.
      distractors: [N, D] embeddings; a memory map will do.
      fars: false accept rates to give the TAR at.
      progress: called with the scores done and the scores there are.

    Returns:
      An `IdentificationResult` with one search per ordered pair.

    Raises:
      ValueError: for embeddings that are not finite, are zero or differ in width, or no
        identity with two probes.

    References:
      [The MegaFace Benchmark: 1 Million Faces for Recognition at Scale]
      (https://arxiv.org/abs/1512.00596), Kemelmacher-Shlizerman et al., CVPR 2016.
    """
    probe_rows = check_embeddings("probes", probes)
    (numbers,) = _number_identities(("probe_identities", probe_identities, len(probe_rows)))
    probe, mate = find_mates(numbers, numbers)
    probe, mate = probe[probe != mate], mate[probe != mate]
    if not len(probe):
        raise ValueError("probe_identities: expected an identity with two probes, found none")
    genuine = _scores(probe_rows, probe_rows, probe, mate)
    impostors = highest_impostors(
        probe_rows,
        distractors,
        probe_identities=numbers,
        other_identities=np.full(len(distractors), _DISTRACTOR),
        by_probe=max(RANKS),
        overall=_tail_size(len(probe_rows) * len(distractors), tuple(fars)),
        progress=progress,
    )
    return _result(
        ranks_of_mates(impostors.by_probe[probe], genuine),
        tar_at_far=_rates(genuine, impostors.overall, impostors.num_scores, fars),
        dir_at_far={},
        num_unmated=0,
        num_gallery=1,
        num_distractors=len(distractors),
        num_impostor_scores=impostors.num_scores,
    )


def lfw_identification(
    paths: Sequence[str], embeddings: ArrayLike, *, open_set: bool = False
) -> IdentificationResult:
    """Identification on LFW itself, or any other folder of people.

    Of each person with two or more images the first, by path, is in the gallery and the others
    are probes. The images of people who have but one are distractors; with `open_set` they are
    probes without a mate instead.

    Args:
      paths: [N], of which the last but one part names the person.
      embeddings: [N, D].
      open_set: what to do with people who have one image.

    Returns:
      An `IdentificationResult`.

    Raises:
      ValueError: for a path without a folder, another number of paths than embeddings, or no
        person with two images.
    """
    rows = check_embeddings("embeddings", embeddings)
    if len(paths) != len(rows):
        raise ValueError(f"paths: expected {len(rows)}, one an embedding, got {len(paths)}")
    parts = [str(path).replace("\\", "/").split("/") for path in paths]
    for path, split in zip(paths, parts, strict=True):
        require(len(split) >= 2, "paths", "PERSON/IMAGE", repr(path))
    folders, files = (np.array([split[place] for split in parts]) for place in (-2, -1))
    _, person, counts = np.unique(folders, return_inverse=True, return_counts=True)
    order = np.lexsort((files, person))
    is_first = np.append(True, person[order][1:] != person[order][:-1])
    several = counts[person[order]] > 1
    if not several.any():
        raise ValueError("paths: expected a person with two or more images, found none")
    gallery, probes, single = order[is_first & several], order[~is_first], order[~several]
    if open_set:
        probes, single = np.concatenate([probes, single]), single[:0]
    return identification(
        rows[probes], person[probes], rows[gallery], person[gallery],
        rows[single] if len(single) else None, fars=(1e-2, *TAR_AT_FARS[:2]),
    )  # fmt: skip


def _impostors(
    probes: NDArray,
    probe_numbers: NDArray[np.int64],
    gallery: NDArray,
    gallery_numbers: NDArray[np.int64],
    distractors: NDArray | None,
    fars: tuple[float, ...],
    progress: Callable[[int, int], None] | None,
) -> HighestImpostors:
    """The highest impostors of the gallery and the distractors together."""
    num_others = len(gallery) + (0 if distractors is None else len(distractors))
    overall = _tail_size(len(probes) * num_others, fars)
    found = highest_impostors(
        probes, gallery, probe_identities=probe_numbers, other_identities=gallery_numbers,
        by_probe=max(RANKS), overall=overall,
    )  # fmt: skip
    if distractors is None:
        return found
    nobody = np.full(len(distractors), _DISTRACTOR)
    return merge_impostors(
        found,
        highest_impostors(
            probes, distractors, probe_identities=probe_numbers, other_identities=nobody,
            by_probe=max(RANKS), overall=overall, progress=progress,
        ),
    )  # fmt: skip


def _number_identities(*named: tuple[str, ArrayLike, int]) -> list[NDArray[np.int64]]:
    """Identities of (name, values, expected number) as integers that agree between the lists."""
    arrays = []
    for name, values, expected in named:
        array = np.asarray(values)
        require(array.shape == (expected,), name, f"shape [{expected}]", list(array.shape))
        arrays.append(array)
    numbers = np.unique(np.concatenate(arrays), return_inverse=True)[1].astype(np.int64)
    return np.split(numbers, np.cumsum([len(array) for array in arrays])[:-1])


def find_mates(
    probes: NDArray[np.int64], gallery: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All (i, j) with probes[i] == gallery[j].

    Args:
      probes: [P] integers, the identity of each.
      gallery: [G] integers.

    Returns:
      The i, rising, and the j, each int64 [M].
    """
    order = np.argsort(gallery, kind="stable")
    start = np.searchsorted(gallery[order], probes, side="left")
    count = np.searchsorted(gallery[order], probes, side="right") - start
    probe = np.repeat(np.arange(len(probes)), count)
    within = np.arange(len(probe)) - np.repeat(np.cumsum(count) - count, count)
    return probe, order[np.repeat(start, count) + within]


def _scores(
    probes: NDArray, gallery: NDArray, probe: NDArray[np.int64], mate: NDArray[np.int64]
) -> NDArray[np.float64]:
    width = probes.shape[1]
    require(gallery.shape[1] == width, "gallery", f"width {width}", gallery.shape[1])
    stacked = np.concatenate([unit_rows(probes), unit_rows(gallery)])
    return paired_dot(stacked, probe, mate + len(probes))


def ranks_of_mates(impostors: NDArray[np.float32], mates: NDArray[np.float64]) -> NDArray[np.int64]:
    """At what rank each search returns the mate; an impostor of the same score comes before it.

    Args:
      impostors: [S, R], the highest scores of each search with other people.
      mates: [S], the score with the mate.

    Returns:
      Ranks int64 [S], from 1 to R + 1; R + 1 where all R come first.
    """
    ranks = np.ones(len(mates), np.int64)
    for column in impostors.T:
        ranks += column >= mates - TIE
    return ranks


def _tail_size(num_scores: int, fars: tuple[float, ...]) -> int:
    """How many of the highest impostor scores decide the TAR at these rates."""
    return allowed_accepts(max(fars, default=0.0), num_scores) + 1


def _rates(
    genuine: NDArray[np.float64], impostors: NDArray, num_impostors: int, fars: Iterable[float]
) -> dict[str, float | None]:
    """The fraction of `genuine` above the highest impostor that each FAR cannot let pass.

    Args:
      genuine: [S].
      impostors: the highest of them, falling; all that the FARs need.
      num_impostors: how many there are in all; with none there are no rates.
      fars: false accept rates.
    """
    rates: dict[str, float | None] = {}
    for far in fars if num_impostors else ():
        if not can_show(far, num_impostors):
            rates[far_name(far)] = None
            continue
        accepts = allowed_accepts(far, num_impostors)
        threshold = impostors[accepts] + TIE if accepts < num_impostors else -np.inf
        rates[far_name(far)] = float(np.mean(genuine > threshold))
    return rates


def _result(ranks: NDArray[np.int64], **measured: Any) -> IdentificationResult:
    cmc = tuple(float(np.mean(ranks <= k)) for k in range(1, max(RANKS) + 1))
    return IdentificationResult(
        rank_k={str(k): cmc[k - 1] for k in RANKS},
        cmc=cmc,
        num_searches=len(ranks),
        ranks=ranks,
        **measured,
    )
