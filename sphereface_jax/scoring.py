"""From a pairs file and vectors to a verification result: names matched, gaps reported."""

from typing import Any

import numpy as np

from sphereface_jax.data.pairs import NamedPairs
from sphereface_jax.data.vectors import FaceVectors
from sphereface_jax.evaluation.calibration import OperatingPoint, best_accuracy_point
from sphereface_jax.evaluation.pairs import Pairs, paired_cosines
from sphereface_jax.evaluation.verification import VerificationResult, lfw_authors

PROTOCOLS = {"lfw_authors": lfw_authors}


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


def score(vectors: FaceVectors, pairs: Pairs) -> dict[str, VerificationResult]:
    """Returns the result of every protocol, by name."""
    return {name: protocol(vectors.features(), pairs) for name, protocol in PROTOCOLS.items()}


def calibrate(vectors: FaceVectors, pairs: Pairs) -> OperatingPoint:
    """Returns the cosine threshold with the best accuracy on all pairs, and its error rates."""
    return best_accuracy_point(paired_cosines(vectors.features(), pairs), pairs.is_same)


def to_json(results: dict[str, VerificationResult], **others: Any) -> dict[str, Any]:
    """Returns the JSON of an evaluation: {"protocols": {name: numbers}}, rates as fractions."""
    return {"protocols": {name: result.to_json() for name, result in results.items()}} | others
