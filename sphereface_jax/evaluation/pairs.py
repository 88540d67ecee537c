"""Pairs of images, and the cosines of their embeddings.

A verification set asks one question many times: do these two images show the same person? Pairs
name rows of one table of embeddings, so an image used by many pairs is embedded and stored once.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax._checks import require

# Numbers gathered at a time, so that both sides of a block of pairs stay in a CPU's cache.
_NUMBERS_PER_BLOCK = 1 << 17


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """A list of P pairs of rows of an embeddings table.

    Attributes:
      left: [P] integers, the row of each pair's first image.
      right: [P] integers, the row of its second image.
      is_same: [P] booleans, whether both show one person.
      folds: [P] integers, the fold of each pair; any values, compared for equality only.

    Raises:
      ValueError: if lengths differ, the list is empty, a row is negative or paired with itself,
        or an entry is not an integer (left, right, folds) or a boolean (is_same; 0 and 1 are taken
        too).

    Example:
      >>> pairs = Pairs([0, 0], [1, 2], is_same=[True, False], folds=[0, 1])
      >>> len(pairs)
      2
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    is_same: NDArray[np.bool_]
    folds: NDArray[np.int64]

    def __init__(
        self, left: ArrayLike, right: ArrayLike, *, is_same: ArrayLike, folds: ArrayLike
    ) -> None:
        """Takes anything NumPy makes one-dimensional arrays of, and checks it."""
        object.__setattr__(self, "left", _integers("left", left))
        object.__setattr__(self, "right", _integers("right", right))
        object.__setattr__(self, "folds", _integers("folds", folds))
        object.__setattr__(self, "is_same", check_is_same(is_same))
        for name in ("right", "is_same", "folds"):
            length = len(getattr(self, name))
            if length != len(self.left):
                raise ValueError(f"{name}: expected {len(self.left)} entries as left, got {length}")
        one = self.left == self.right
        if one.any():
            pair = int(one.argmax())
            raise ValueError(
                f"right: expected another row than left, got {self.left[pair]} twice in pair {pair}"
            )
        for name in ("left", "right"):
            if getattr(self, name).min() < 0:
                raise ValueError(f"{name}: expected rows of the embeddings, got a negative one")

    def __len__(self) -> int:
        """P."""
        return len(self.left)

    @property
    def num_images(self) -> int:
        """The least number of rows that an embeddings table for this list can have."""
        return int(max(self.left.max(), self.right.max())) + 1


def check_is_same(is_same: ArrayLike) -> NDArray[np.bool_]:
    """`is_same` as [P] booleans; ValueError for another rank, no entries or other values."""
    array = np.asarray(is_same)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"is_same: expected shape [P] with P >= 1, got {list(array.shape)}")
    if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
        raise ValueError("is_same: expected booleans, got other values; 1 is same, 0 is different")
    return array.astype(np.bool_)


def check_embeddings(
    name: str, embeddings: ArrayLike, *, num_rows: int = 1
) -> NDArray[np.floating]:
    """`embeddings` as a NumPy array [N, D] of finite, nonzero rows.

    Args:
      name: what to call them in an error.
      embeddings: [N, D] floats.
      num_rows: the least N that will do.

    Returns:
      The same values, [N, D]; not copied where they are a floating NumPy array already.

    Raises:
      ValueError: for another rank, too few rows, a NaN or infinity, or a row of zeros; the
        message names the first such row.
    """
    array = np.asarray(embeddings)
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    if array.ndim != 2 or array.shape[1] == 0 or len(array) < num_rows:
        found = list(array.shape)
        raise ValueError(f"{name}: expected shape [N, D] with N >= {num_rows}, got {found}")
    # NaN or infinite where an entry is, 0 where all are.
    largest = _largest(array)
    bad = ~np.isfinite(largest)
    if bad.any():
        raise ValueError(f"{name}: expected finite values, row {int(bad.argmax())} has NaN or inf")
    zero = largest == 0
    if zero.any():
        raise ValueError(
            f"{name}: expected nonzero rows, row {int(zero.argmax())} is all zeros "
            "and so has no direction"
        )
    return array


def check_mirrored(
    embeddings: ArrayLike, mirrored: ArrayLike | None, *, num_rows: int = 1
) -> tuple[NDArray[np.floating], NDArray[np.floating] | None]:
    """Embeddings and, where there are any, those of the mirror images, both checked.

    Args:
      embeddings: [N, D] floats.
      mirrored: [N, D], of the mirror images in the same order, or None.
      num_rows: the least N that will do.

    Returns:
      Both as NumPy arrays; None stays None.

    Raises:
      ValueError: as `check_embeddings`, or where the shapes differ.
    """
    features = check_embeddings("embeddings", embeddings, num_rows=num_rows)
    if mirrored is None:
        return features, None
    mirror_features = check_embeddings("mirrored", mirrored)
    if mirror_features.shape != features.shape:
        expected, found = list(features.shape), list(mirror_features.shape)
        raise ValueError(f"mirrored: expected shape {expected} as embeddings, got {found}")
    return features, mirror_features


def paired_dot(
    x: NDArray[np.floating], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float64]:
    """x[left] · x[right], gathered in blocks so that memory does not grow with P.

    Args:
      x: [N, D].
      left: [P] rows of x.
      right: [P] rows of x.

    Returns:
      Products [P].
    """
    products = np.empty(len(left))
    size = max(_NUMBERS_PER_BLOCK // x.shape[1], 1)
    for start in range(0, len(left), size):
        block = slice(start, start + size)
        products[block] = np.einsum("pd,pd->p", x[left[block]], x[right[block]])
    return products


def paired_cosines(embeddings: ArrayLike, pairs: Pairs) -> NDArray[np.float64]:
    """The cosine of each pair's two embeddings, nothing subtracted.

    Args:
      embeddings: [N, D], of any length.
      pairs: P pairs of its rows.

    Returns:
      [P] cosines in [-1, 1].

    Raises:
      ValueError: for embeddings that are not finite or are zero, or too few rows for the pairs.

    Example:
      >>> pairs = Pairs([0], [1], is_same=[False], folds=[0])
      >>> paired_cosines([[2.0, 0.0], [0.0, 3.0]], pairs)
      array([0.])
    """
    unit = unit_rows(check_embeddings("embeddings", embeddings, num_rows=pairs.num_images))
    return np.clip(paired_dot(unit, pairs.left, pairs.right), -1.0, 1.0)


def sorted_places(values: NDArray, wanted: ArrayLike) -> NDArray[np.int64]:
    """Where each of the wanted is among sorted values.

    Args:
      values: [N], rising, each once.
      wanted: [M], of the same kind.

    Returns:
      Places [M], -1 for those that are not there.

    Example:
      >>> sorted_places(np.array([2, 5]), [5, 3]).tolist()
      [1, -1]
    """
    place = np.searchsorted(values, wanted).clip(max=len(values) - 1)
    return np.where(values[place] == wanted, place, -1)


def to_degrees(cosines: ArrayLike) -> NDArray[np.float64]:
    """The angles of cosines in degrees, of the same shape; beyond ±1 counts as ±1."""
    return np.degrees(np.arccos(np.clip(np.asarray(cosines, np.float64), -1.0, 1.0)))


def unit_rows(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows of x scaled to unit length in float64; the rows must be nonzero."""
    # Dividing by the largest magnitude first keeps tiny and huge rows from losing their square.
    wide = np.divide(x, _largest(x)[:, None], dtype=np.float64)
    wide /= np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    return wide


def _largest(x: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.maximum(x.max(axis=1), -x.min(axis=1))


def _integers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name}: expected shape [P] with P >= 1, got {list(array.shape)}")
    require(np.issubdtype(array.dtype, np.integer), name, "integers", array.dtype)
    return array.astype(np.int64)
