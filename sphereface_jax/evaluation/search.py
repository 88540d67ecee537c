"""Exact search: the k nearest of very many stored vectors, in one pass of a matrix product.

The scores of a block of references stay in a CPU's cache while each run of `_GROUP` neighbours is
reduced to its maximum; the k best references lie in the k runs with the best maxima, whose scores
alone are computed again. Nothing is approximated, and [P, N] scores are never held.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereface_jax._checks import require
from sphereface_jax.evaluation.impostors import default_block_size
from sphereface_jax.evaluation.pairs import check_embeddings, unit_rows

_GROUP = 32
_ROWS = 1 << 16


class ReferenceIndex:
    """Stored vectors on JAX's device, ready to be searched.

    Args:
      references: [N, D] vectors of any length, nonzero.

    Raises:
      ValueError: for vectors that are NaN, infinite or zero.

    Example:
      >>> index = ReferenceIndex([[1.0, 0.0], [0.0, 2.0]])
      >>> rows, cosines = index.search([[0.1, 0.9]], k=1)
      >>> rows.tolist()
      [[1]]
    """

    def __init__(self, references: ArrayLike):
        rows = check_embeddings("references", references)
        self._count, width = rows.shape
        # Zero rows fill the last run; their cosine, 0, is masked below.
        unit = np.zeros((self._count + -self._count % _GROUP, width), np.float32)
        for start in range(0, self._count, _ROWS):
            stop = min(start + _ROWS, self._count)
            unit[start:stop] = unit_rows(rows[start:stop])
        self._references = jnp.asarray(unit)

    def __len__(self) -> int:
        """N."""
        return self._count

    def search(
        self, probes: ArrayLike, *, k: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds the k references of highest cosine to each probe.

        Args:
          probes: [P, D] vectors of any length, nonzero.
          k: how many to return; at most N are.

        Returns:
          Rows [P, k] and their cosines [P, k], falling; of equal cosines the lower row first.

        Raises:
          ValueError: for probes of another width, or that are NaN, infinite or zero, or k < 1.
        """
        unit = unit_rows(check_embeddings("probes", probes)).astype(np.float32)
        width = self._references.shape[1]
        require(unit.shape[1] == width, "probes", f"width {width}", unit.shape[1])
        require(k >= 1, "k", "at least 1", k)
        k = min(k, self._count)
        # A multiple of the run, so that a block is whole runs.
        size = max(default_block_size(len(unit)) // _GROUP, 1) * _GROUP
        size = min(size, len(self._references))
        cosines, rows = _search(self._references, unit, self._count, k=k, size=size)
        return np.asarray(rows, np.int64), np.clip(np.asarray(cosines), -1, 1)


@functools.partial(jax.jit, static_argnames=("k", "size"))
def _search(
    references: jax.Array, probes: jax.Array, count: jax.Array, *, k: int, size: int
) -> tuple[jax.Array, jax.Array]:
    num_blocks, num_probes = len(references) // size, len(probes)

    def scores(block: jax.Array) -> jax.Array:
        return jnp.matmul(probes, block.T, precision=jax.lax.Precision.HIGHEST)

    def maxima(first: jax.Array, rows: int) -> jax.Array:
        block = scores(jax.lax.dynamic_slice_in_dim(references, first, rows))
        block = jnp.where(first + jnp.arange(rows) < count, block, -jnp.inf)
        return block.reshape(num_probes, rows // _GROUP, _GROUP).max(axis=2)

    starts = jnp.arange(num_blocks) * size
    best = jax.lax.map(lambda first: maxima(first, size), starts)
    best = jnp.moveaxis(best, 0, 1).reshape(num_probes, -1)
    if rest := len(references) - num_blocks * size:
        best = jnp.concatenate([best, maxima(jnp.int32(num_blocks * size), rest)], axis=1)
    groups = jnp.sort(jax.lax.top_k(best, min(k, best.shape[1]))[1], axis=1)
    rows = (groups[:, :, None] * _GROUP + jnp.arange(_GROUP)).reshape(num_probes, -1)
    again = jnp.einsum("pd,pgd->pg", probes, references[rows], precision=jax.lax.Precision.HIGHEST)
    cosines, place = jax.lax.top_k(jnp.where(rows < count, again, -jnp.inf), k)
    return cosines, jnp.take_along_axis(rows, place, axis=1)
