"""Bridges: a linear map from one network's vectors to another's, so that old ones stay of use.

A new network makes every stored vector worthless unless old vectors can be compared with new ones.
The map is learnt from pictures that both networks embed; nobody has to say whom they show. People
that the map was not learnt on decide which kind of map is taken, and others how good it is.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax._checks import require
from sphereface_jax.evaluation.pairs import check_embeddings, unit_rows
from sphereface_jax.evaluation.rates import RateEstimate, pair_rate
from sphereface_jax.evaluation.results import Result

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


@dataclasses.dataclass(frozen=True, eq=False)
class BridgeMap:
    """An affine map of unit vectors.

    Attributes:
      weights: [D_old, D_new].
      offset: [D_new].
      kind: "procrustes", or "ridge" and its penalty.
    """

    weights: NDArray[np.float64]
    offset: NDArray[np.float64]
    kind: str

    def __call__(self, old: ArrayLike) -> NDArray[np.float64]:
        """Maps old vectors [N, D_old] of any length to unit vectors [N, D_new].

        Raises:
          ValueError: for another width, or rows that are NaN, infinite or zero.
        """
        rows = check_embeddings("old", old)
        width = len(self.weights)
        require(rows.shape[1] == width, "old", f"width {width}", rows.shape[1])
        return unit_rows(unit_rows(rows) @ self.weights + self.offset)


def fit_procrustes(old: ArrayLike, new: ArrayLike) -> BridgeMap:
    """The map with orthonormal rows or columns that brings old unit vectors nearest to new ones.

    W = U Vᵀ of the singular value decomposition U S Vᵀ = oldᵀ new. Where the widths are equal it
    is a rotation (with a reflection, perhaps), and old-old cosines stay as they are.

    Args:
      old: [N, D_old] vectors of any length.
      new: [N, D_new] vectors of the same pictures.

    Returns:
      The map from vectors [..., D_old] to [..., D_new].

    Raises:
      ValueError: for another number of rows, or rows that are NaN, infinite or zero.

    Example:
      >>> old = np.array([[1.0, 0.0], [0.0, 1.0]])
      >>> fit_procrustes(old, old[:, ::-1])(old).round(6).tolist()
      [[0.0, 1.0], [1.0, 0.0]]
    """
    x, y = _paired(old, new)
    left, _, right = np.linalg.svd(x.T @ y, full_matrices=False)
    return BridgeMap(left @ right, np.zeros(y.shape[1]), "procrustes")


def fit_ridge(old: ArrayLike, new: ArrayLike, *, penalty: float) -> BridgeMap:
    """The affine map of least squared error with a penalty on its weights.

    W = (XᵀX / N + penalty I)⁻¹ XᵀY / N with centred X and Y.

    Args:
      old: [N, D_old] vectors of any length.
      new: [N, D_new] vectors of the same pictures.
      penalty: above 0.

    Returns:
      The map from vectors [..., D_old] to [..., D_new].

    Raises:
      ValueError: as `fit_procrustes`, and for a penalty that is not above 0.
    """
    x, y = _paired(old, new)
    require(penalty > 0, "penalty", "a number above 0", penalty)
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x / len(x) + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ y / len(x))
    return BridgeMap(weights, y_mean - x_mean @ weights, f"ridge {penalty:g}")


def candidate_maps(old: ArrayLike, new: ArrayLike) -> list[BridgeMap]:
    """Procrustes and ridge at every penalty of `RIDGES`, fitted to the same pictures.

    Args:
      old: [N, D_old] vectors of any length.
      new: [N, D_new] vectors of the same pictures.

    Returns:
      One map of `fit_procrustes`, then those of `fit_ridge`.

    Raises:
      ValueError: as `fit_procrustes`.
    """
    return [fit_procrustes(old, new), *(fit_ridge(old, new, penalty=p) for p in RIDGES)]


@dataclasses.dataclass(frozen=True)
class CrossResult(Result):
    """How well vectors of two kinds verify people.

    Attributes:
      tar: over the same pairs, with its interval over people, at the threshold.
      far: the false accept rate asked for.
      threshold: a cosine that this fraction of the different pairs exceeds at most.
      num_different: different pairs.
    """

    tar: RateEstimate
    far: float
    threshold: float
    num_different: int


def cross_tar(
    left: ArrayLike, right: ArrayLike, identities: ArrayLike, *, far: float = 1e-2
) -> CrossResult:
    """TAR at a FAR over all pairs of two different pictures, one from either table.

    Args:
      left: [N, D] vectors, mapped old ones say.
      right: [N, D] vectors of the same pictures, new ones say; may be `left` itself.
      identities: [N] integers or strings, whom each picture shows.
      far: in (0, 1).

    Returns:
      A `CrossResult`.

    Raises:
      ValueError: for shapes that do not fit, no same or too few different pairs.

    Example:
      >>> x = np.eye(4)[[0, 0, 1, 2]]
      >>> cross_tar(x, x, [0, 0, 1, 2], far=0.2).tar.rate
      1.0
    """
    x, y = (unit_rows(check_embeddings(name, v)) for name, v in (("left", left), ("right", right)))
    people = np.asarray(identities)
    if x.shape != y.shape or people.shape != (len(x),):
        raise ValueError(
            f"identities, left, right: expected [N], [N, D] and [N, D], got {list(people.shape)}, "
            f"{list(x.shape)} and {list(y.shape)}"
        )
    require(0 < far < 1, "far", "a rate in (0, 1)", far)
    cosines = x @ y.T
    equal = people[:, None] == people[None, :]
    i, j = np.nonzero(equal & ~np.eye(len(x), dtype=bool))
    different = cosines[~equal]
    accepts = int(far * len(different) * (1 + 1e-12))
    if not len(i) or not accepts:
        raise ValueError(
            f"identities: expected same pairs and at least {1 / far:.0f} different ones, found "
            f"{len(i):,} and {len(different):,}"
        )
    threshold = float(np.partition(different, -accepts - 1)[-accepts - 1])
    tar = pair_rate(cosines[i, j] > threshold, people[i], people[j])
    return CrossResult(tar, far, threshold, len(different))


def _paired(old: ArrayLike, new: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (unit_rows(check_embeddings(name, v)) for name, v in (("old", old), ("new", new)))
    require(len(x) == len(y), "new", f"{len(x)} rows, as in old", len(y))
    return x, y
