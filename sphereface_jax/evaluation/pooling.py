"""Many embeddings of one person into one: the means of groups, and of a video's frames."""

import numpy as np
from numpy.typing import NDArray


def group_means(rows: NDArray[np.floating], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of the rows of each group.

    Args:
      rows: [N, D].
      group: [N] integers from 0 to G - 1, each of them at least once.

    Returns:
      [G, D] means.

    Example:
      >>> group_means(np.array([[1.0], [5.0], [3.0]]), np.array([0, 1, 0])).tolist()
      [[2.0], [5.0]]
    """
    counts = np.bincount(group)
    order = np.argsort(group, kind="stable")
    starts = np.cumsum(counts) - counts
    return np.add.reduceat(rows[order], starts, axis=0, dtype=np.float64) / counts[:, None]
