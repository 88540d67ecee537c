"""Does the length of an embedding tell good pictures from bad ones? Error-versus-reject curves.

Margin losses with a norm of their own (MagFace, AdaFace, and SphereFace's free length) tend to
give short embeddings to bad pictures. If so, refusing the shortest lowers the errors among the
rest at the same threshold; the curve says by how much for each fraction refused.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sphereface_jax._checks import require
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.results import Result

FRACTIONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


@dataclasses.dataclass(frozen=True)
class RejectCurve(Result):
    """Errors at one threshold after refusing the pictures of lowest quality.

    Attributes:
      threshold: the cosine strictly above which two pictures are one person.
      rejected: [F] fraction of the pictures refused.
      min_quality: [F] the lowest quality kept.
      pairs_kept: [F] pairs with both pictures kept.
      false_reject_rate: [F] over the same pairs kept; None where no pair is kept.
      false_accept_rate: [F] over the different pairs kept; None where no pair is kept.
    """

    threshold: float
    rejected: tuple[float, ...]
    min_quality: tuple[float, ...]
    pairs_kept: tuple[int, ...]
    false_reject_rate: tuple[float | None, ...]
    false_accept_rate: tuple[float | None, ...]


def error_versus_reject(
    cosines: ArrayLike,
    pairs: Pairs,
    quality: ArrayLike,
    *,
    threshold: float,
    fractions: Sequence[float] = FRACTIONS,
) -> RejectCurve:
    """Refuses the given fractions of the pairs' pictures, lowest quality first.

    Args:
      cosines: [P] cosines of the pairs.
      pairs: P pairs of rows.
      quality: [N] of each row, such as the length of its embedding; higher is better.
      threshold: the cosine strictly above which two pictures are one person.
      fractions: of the pictures that the pairs name, each in [0, 1).

    Returns:
      A `RejectCurve`.

    Raises:
      ValueError: for shapes that do not fit, a quality that is NaN or infinite, or a fraction
        outside [0, 1).

    Example:
      >>> pairs = Pairs([0, 2], [1, 3], is_same=[True, True], folds=[0, 0])
      >>> curve = error_versus_reject([0.9, 0.1], pairs, [5.0, 6.0, 1.0, 4.0], threshold=0.5,
      ...                             fractions=[0.0, 0.25])
      >>> curve.false_reject_rate, curve.min_quality
      ((0.5, 0.0), (1.0, 4.0))
    """
    values = np.asarray(quality, np.float64)
    if values.ndim != 1 or len(values) < pairs.num_images:
        raise ValueError(
            f"quality: expected shape [N] with N >= {pairs.num_images}, got {list(values.shape)}"
        )
    scores = np.asarray(cosines)
    if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
        raise ValueError(f"cosines: expected {len(pairs)} finite values, one per pair")
    used = np.unique(np.concatenate([pairs.left, pairs.right]))
    if not np.isfinite(values[used]).all():
        raise ValueError("quality: expected finite values, found NaN or infinity")
    ordered = np.sort(values[used])
    lowest = np.minimum(values[pairs.left], values[pairs.right])
    rows = []
    for fraction in fractions:
        require(0 <= fraction < 1, "fractions", "numbers in [0, 1)", fraction)
        floor = float(ordered[int(fraction * len(ordered))])
        kept = lowest >= floor
        same, different = kept & pairs.is_same, kept & ~pairs.is_same
        rows.append((
            float(np.mean(ordered < floor)), floor, int(kept.sum()),
            float(np.mean(scores[same] <= threshold)) if same.any() else None,
            float(np.mean(scores[different] > threshold)) if different.any() else None,
        ))  # fmt: skip
    return RejectCurve(threshold, *zip(*rows, strict=True))
