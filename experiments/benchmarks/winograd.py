"""Winograd's F(4×4, 3×3) in plain jax, measured by `layers.py` and not used by the library.

A tile of 4×4 outputs comes from 6×6 inputs by 36 products in place of 144; the additions around
them lose one to two digits. Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
CVPR 2016. https://arxiv.org/abs/1509.09308
"""

import jax
import jax.numpy as jnp
import numpy as np

INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)


def combine(matrix: np.ndarray, parts: list[jax.Array]) -> list[jax.Array]:
    """The matrix times a vector of arrays, as sums that XLA can fuse."""
    return [
        sum(float(factor) * part for factor, part in zip(row, parts, strict=True) if factor)  # type: ignore[misc]
        for row in matrix
    ]


def winograd_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The 3×3 convolution of x [B, H, W, C], padded by one pixel, with kernel [3, 3, C, K]."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // 4), -(-width // 4)
    padding = ((0, 0), (1, 4 * rows + 1 - height), (1, 4 * columns + 1 - width), (0, 0))
    padded = jnp.pad(x, padding)
    lines = combine(INPUT, [padded[:, i : i + 4 * rows - 3 : 4] for i in range(6)])
    tiles = [
        tile
        for line in lines
        for tile in combine(INPUT, [line[:, :, j : j + 4 * columns - 3 : 4] for j in range(6)])
    ]
    inputs = jnp.stack(tiles).reshape(36, -1, channels)
    basis = jnp.asarray(KERNEL, x.dtype)
    kernels = jnp.einsum("ai,ijck,bj->abck", basis, kernel, basis).reshape(36, channels, -1)
    products = jnp.einsum("ntc,nck->ntk", inputs, kernels)
    products = products.reshape(6, 6, batch, rows, columns, -1)
    outer = combine(OUTPUT, list(products))
    inner = [jnp.stack(combine(OUTPUT, list(line)), axis=3) for line in outer]
    image = jnp.stack(inner, axis=2).reshape(batch, 4 * rows, 4 * columns, -1)
    return image[:, :height, :width]
