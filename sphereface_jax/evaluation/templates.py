"""Templates, as in IJB-B and IJB-C: a person is a set of stills and video frames.

A template has many images, some of them frames of one video, nearly alike. Pooling averages the
frames of a medium (a still is a medium of one) and adds up the media, so that a long video does
not drown the stills; lengths are kept, since a network gives clear faces longer embeddings. The
pooled vectors are then verified (1:1) or searched for (1:N) like any others.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax._checks import require
from sphereface_jax.evaluation.identification import (
    DIR_AT_FARS,
    RANKS,
    find_mates,
    identification,
    ranks_of_mates,
)
from sphereface_jax.evaluation.impostors import highest_impostors
from sphereface_jax.evaluation.pairs import (
    check_embeddings,
    check_is_same,
    check_mirrored,
    paired_dot,
    sorted_places,
    unit_rows,
)
from sphereface_jax.evaluation.pooling import group_means
from sphereface_jax.evaluation.results import Result
from sphereface_jax.evaluation.roc import (
    area_under_curve,
    can_show,
    equal_error_rate,
    far_name,
    roc_curve,
    tar_at_far,
)

TEMPLATE_TAR_AT_FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclasses.dataclass(frozen=True, eq=False)
class Templates:
    """Pooled templates.

    Attributes:
      ids: [T] integers, rising.
      features: [T, D] float32 of unit length.
    """

    ids: NDArray[np.int64]
    features: NDArray[np.float32]

    def rows(self, name: str, ids: ArrayLike) -> NDArray[np.int64]:
        """Finds templates by their ids.

        Args:
          name: what to call the ids in an error.
          ids: [M] integers, in any order.

        Returns:
          Rows of `features`, int64 [M].

        Raises:
          ValueError: for an id that no template has.
        """
        place = sorted_places(self.ids, ids)
        if (place < 0).any():
            missing = np.asarray(ids)[place < 0][0]
            raise ValueError(f"{name}: expected ids of templates with images, found {missing}")
        return place


@dataclasses.dataclass(frozen=True)
class TemplateVerificationResult(Result):
    """What 1:1 verification of templates measured; rates are fractions.

    Attributes:
      tar_at_far: the TAR at each FAR, by the FAR's name; None where the pairs are too few.
      auc: area under the ROC.
      equal_error_rate: where FAR and FRR are equal.
      num_pairs: template pairs.
      num_same: those of one person.
      num_templates: templates.
    """

    tar_at_far: dict[str, float | None]
    auc: float
    equal_error_rate: float
    num_pairs: int
    num_same: int
    num_templates: int


@dataclasses.dataclass(frozen=True)
class TemplateIdentificationResult(Result):
    """What 1:N search among templates measured; rates are fractions.

    Attributes:
      rank_k: the fraction of searches whose mate is among the first k, by str(k).
      dir_at_far: the fraction of mated probes found at each rate of false alarms, by its name; None
        where the probes are too few to show that rate.
      num_probes: probe templates.
      num_searches: searches that have a mate, over all galleries.
      num_galleries: galleries that the rates are the mean of.
    """

    rank_k: dict[str, float]
    dir_at_far: dict[str, float | None]
    num_probes: int
    num_searches: int
    num_galleries: int


def pool_templates(
    embeddings: ArrayLike,
    template_ids: ArrayLike,
    media_ids: ArrayLike,
    *,
    mirrored: ArrayLike | None = None,
    quality: ArrayLike | None = None,
) -> Templates:
    """Averages the images of each medium, adds up the media of each template, normalises.

    Args:
      embeddings: [N, D], one row for each line of the list of templates, lengths kept.
      template_ids: [N] integers.
      media_ids: [N] integers, told apart within a template only.
      mirrored: [N, D], the embeddings of the mirror images, which are added.
      quality: [N] numbers from 0 up that images are multiplied by, the face detector's scores.

    Returns:
      `Templates`.

    Raises:
      ValueError: for arrays of different lengths, embeddings that are not finite or are zero, or
        a template whose pooled vector is zero.

    References:
      `recognition/_evaluation_/ijb` of https://github.com/deepinsight/insightface.
    """
    rows, mirror_rows = check_mirrored(embeddings, mirrored)
    if mirror_rows is not None:
        rows = rows + mirror_rows
    if quality is not None:
        scale = _of_shape("quality", np.asarray(quality, np.float64), (len(rows),))
        if not (np.isfinite(scale) & (scale >= 0)).all():
            raise ValueError("quality: expected finite numbers from 0 up, got others")
        rows = rows * scale[:, None]
    template = _of_shape("template_ids", np.asarray(template_ids), (len(rows),))
    media = _of_shape("media_ids", np.asarray(media_ids), (len(rows),))
    keys, medium_of_row = np.unique(
        np.stack([template, media], axis=1), axis=0, return_inverse=True
    )
    media_features = group_means(rows, medium_of_row.ravel())
    ids, template_of_medium = np.unique(keys[:, 0], return_inverse=True)
    # The mean of the media is their sum up to length.
    pooled = check_embeddings("templates", group_means(media_features, template_of_medium))
    return Templates(ids.astype(np.int64), unit_rows(pooled).astype(np.float32))


def ijb_11(
    templates: Templates,
    left_ids: ArrayLike,
    right_ids: ArrayLike,
    is_same: ArrayLike,
    *,
    fars: Iterable[float] = TEMPLATE_TAR_AT_FARS,
) -> TemplateVerificationResult:
    """1:1 verification of template pairs by cosine.

    The TAR at a FAR is the best among thresholds whose FAR is at most that. Peers take the point of
    the curve whose FAR is nearest (InsightFace) or interpolate (opensphere).

    Args:
      templates: pooled templates.
      left_ids: [P] ids.
      right_ids: [P] ids.
      is_same: [P] booleans.
      fars: false accept rates.

    Returns:
      A `TemplateVerificationResult`.

    Raises:
      ValueError: for an id without a template, lists of different lengths, or no same or no
        different pairs.
    """
    same = check_is_same(is_same)
    left = _of_shape("left_ids", templates.rows("left_ids", left_ids), same.shape)
    right = _of_shape("right_ids", templates.rows("right_ids", right_ids), same.shape)
    curve = roc_curve(paired_dot(templates.features, left, right), same)
    return TemplateVerificationResult(
        tar_at_far=tar_at_far(curve, fars),
        auc=area_under_curve(curve),
        equal_error_rate=equal_error_rate(curve),
        num_pairs=len(same),
        num_same=int(same.sum()),
        num_templates=len(templates.ids),
    )


def ijb_1n(
    templates: Templates,
    probes: tuple[ArrayLike, ArrayLike],
    galleries: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    fars: Iterable[float] = DIR_AT_FARS,
) -> TemplateIdentificationResult:
    """1:N search as NIST sets it: every probe in each gallery by itself, rates averaged.

    The galleries share no person, so a probe has a mate in one and is unmated in the other: ranks
    are those of the mated, and the unmated set the threshold of the DIR.

    Args:
      templates: pooled templates.
      probes: (ids [P], subjects [P]) of the probe templates.
      galleries: (ids, subjects) of each gallery's templates.
      fars: rates of false alarms.

    Returns:
      A `TemplateIdentificationResult`.

    Raises:
      ValueError: for an id without a template, lists of different lengths, or a gallery that has
        no mate for any probe.

    References:
      [IARPA Janus Benchmark-C](https://doi.org/10.1109/ICB2018.2018.00033), Maze et al., ICB 2018.
    """
    probe_features, probe_subjects = _select(templates, "probes", probes)
    found = [
        identification(
            probe_features, probe_subjects, *_select(templates, f"galleries[{number}]", gallery),
            fars=(), dir_fars=tuple(fars),
        )
        for number, gallery in enumerate(galleries)
    ]  # fmt: skip
    if not found:
        raise ValueError("galleries: expected at least one, got none")
    return TemplateIdentificationResult(
        rank_k={str(k): float(np.mean([result.rank_k[str(k)] for result in found])) for k in RANKS},
        dir_at_far=_mean_by_key([result.dir_at_far for result in found]),
        num_probes=len(probe_features),
        num_searches=sum(result.num_searches for result in found),
        num_galleries=len(found),
    )


def ijb_1n_insightface(
    templates: Templates,
    probes: tuple[ArrayLike, ArrayLike],
    galleries: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    fars: Iterable[float] = DIR_AT_FARS,
) -> TemplateIdentificationResult:
    """1:N search as InsightFace measures it: the galleries joined, so every probe has its mate.

    There are no unmated probes; the threshold for a rate f is the ⌈f P⌉-th highest of all impostor
    scores, and a probe is found where its mate is strictly above that, whatever its rank.

    Args:
      templates: pooled templates.
      probes: (ids [P], subjects [P]) of the probe templates.
      galleries: (ids, subjects) of each gallery's templates.
      fars: rates of false alarms, in (0, 1].

    Returns:
      A `TemplateIdentificationResult`.

    Raises:
      ValueError: for an id without a template, lists of different lengths, a gallery of fewer
        than two templates, a probe that has not exactly one mate, or rates out of range.

    References:
      `recognition/_evaluation_/ijb/ijb_1n.py` of https://github.com/deepinsight/insightface.
    """
    rates = tuple(fars)
    require(all(0 < far <= 1 for far in rates), "fars", "rates in (0, 1]", rates)
    probe_features, probe_subjects = _select(templates, "probes", probes)
    parts = [
        _select(templates, f"galleries[{number}]", gallery)
        for number, gallery in enumerate(galleries)
    ]
    if (count := sum(len(subjects) for _, subjects in parts)) < 2:
        raise ValueError(f"galleries: expected two templates or more in all, got {count}")
    gallery_features, gallery_subjects = (np.concatenate(part) for part in zip(*parts, strict=True))
    probe, mate = find_mates(probe_subjects, gallery_subjects)
    if not np.array_equal(probe, np.arange(len(probe_subjects))):
        raise ValueError(
            "galleries: expected exactly one mate for each probe, found none or several"
        )
    impostors = highest_impostors(
        probe_features, gallery_features,
        probe_identities=probe_subjects, other_identities=gallery_subjects,
        by_probe=max(RANKS), overall=math.ceil(max(rates, default=0) * len(probe_features)),
    )  # fmt: skip
    genuine = np.einsum(
        "pd,pd->p", probe_features, gallery_features[mate], dtype=np.float64, casting="same_kind"
    )
    ranks = ranks_of_mates(impostors.by_probe, genuine)
    count = len(probe_features)
    thresholds = {far: impostors.overall[math.ceil(far * count) - 1] for far in rates}
    return TemplateIdentificationResult(
        rank_k={str(k): float(np.mean(ranks <= k)) for k in RANKS},
        dir_at_far={
            far_name(far): float(np.mean(genuine > threshold)) if can_show(far, count) else None
            for far, threshold in thresholds.items()
        },
        num_probes=len(probe_features),
        num_searches=len(probe_features),
        num_galleries=1,
    )


def _select(
    templates: Templates, name: str, listed: tuple[ArrayLike, ArrayLike]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    ids, subjects = np.asarray(listed[0]), np.asarray(listed[1])
    _of_shape(f"{name} subjects", subjects, ids.shape)
    return templates.features[templates.rows(f"{name} ids", ids)], subjects


def _of_shape(name: str, array: NDArray, shape: tuple[int, ...]) -> NDArray:
    require(array.shape == shape, name, f"shape {list(shape)}", list(array.shape))
    return array


def _mean_by_key(rates: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """The mean of each rate, None where any gallery leaves it open."""
    by_key = {key: [each[key] for each in rates] for key in rates[0]}
    return {
        key: None if None in values else float(np.mean(np.array(values, float)))
        for key, values in by_key.items()
    }
