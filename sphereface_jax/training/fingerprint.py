"""Fingerprints of arrays: integers that any change of a bit changes, whatever the devices.

A checkpoint's arrays carry no checksum on disk: garbage in the middle of a file can restore without
an error, as other weights. So the sums are taken on the devices before saving, and again after
restoring. Integers add up to the same in any order, so a fingerprint knows nothing of the mesh.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def fingerprint(tree: Any) -> int:
    """Returns a 32-bit number made of every bit of the arrays in a tree, and their order.

    A change in a single element always changes it; others do but for one in 2^32.
    """
    total = 0
    with jax.enable_x64(True):  # or wide values would lose half their bits before they are summed
        parts = jax.device_get([_weighted_sum(leaf) for leaf in jax.tree.leaves(tree)])
    for part in parts:
        total = (total * 31 + int(part)) % 2**32
    return total


def is_finite(tree: Any) -> bool:
    """Returns whether no float of a tree is infinite or not a number."""
    with jax.enable_x64(True):
        return all(jax.device_get([_all_finite(leaf) for leaf in jax.tree.leaves(tree)]))


@jax.jit
def _weighted_sum(leaf: jax.Array) -> jax.Array:
    """The sum of the elements' bits, each times an odd number that depends on its place."""
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    width = min(leaf.dtype.itemsize, 4)  # a wider element is two numbers, on a last axis of its own
    bits = lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * width}")).astype(jnp.uint32)
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis, length in enumerate(bits.shape):
        position = position * length + lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return jnp.sum(bits * (position * jnp.uint32(0x9E3779B1) | 1), dtype=jnp.uint32)


@jax.jit
def _all_finite(leaf: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(leaf))
