"""From a pairs file and vectors to a verification result: names matched, gaps reported."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sphereface_jax.data.pairs import NamedPairs
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.evaluation.calibration import OperatingPoint, best_accuracy_point
from sphereface_jax.evaluation.pairs import Pairs, paired_cosines
from sphereface_jax.evaluation.verification import PROTOCOLS, VerificationResult


def match_pairs(named: NamedPairs, vectors: FaceVectors) -> tuple[Pairs, list[str]]:
    """Finds the rows of the vectors that the pairs name.

    Returns:
      The pairs whose two images are there, and the names of the images that are not.

    Raises:
      ValueError: no pair has both of its images.
    """
    rows = vectors.rows()
    missing = [name for name in named.names if name not in rows]
    gone = set(missing)
    keep = np.array(
        [
            left not in gone and right not in gone
            for left, right in zip(named.left, named.right, strict=True)
        ]
    )
    if not keep.any():
        raise ValueError(
            f"pairs: none of the {len(named)} pairs has both of its images; the first one missing "
            f"is {missing[0]}"
        )
    kept = named.select(keep)
    pairs = Pairs(
        [rows[name] for name in kept.left],
        [rows[name] for name in kept.right],
        is_same=kept.is_same,
        folds=kept.folds,
    )
    return pairs, missing


def score(
    vectors: FaceVectors, pairs: Pairs, protocols: Sequence[str] = ()
) -> dict[str, VerificationResult]:
    """Returns the result of each protocol, by name; of every one where none is named.

    Raises:
      ValueError: there is no protocol of that name.
    """
    for name in protocols:
        if name not in PROTOCOLS:
            raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {name!r}")
    return {
        name: PROTOCOLS[name](vectors.embeddings, pairs, mirrored=vectors.mirrored)
        for name in protocols or PROTOCOLS
    }


def calibrate(vectors: FaceVectors, pairs: Pairs) -> OperatingPoint:
    """Returns the cosine threshold with the best accuracy on all pairs, and its error rates."""
    return best_accuracy_point(paired_cosines(vectors.features(), pairs), pairs.is_same)


def to_json(results: dict[str, VerificationResult], **others: Any) -> dict[str, Any]:
    """Returns the JSON of an evaluation: {"protocols": {name: numbers}}, rates as fractions."""
    return {"protocols": {name: result.to_json() for name, result in results.items()}} | others
