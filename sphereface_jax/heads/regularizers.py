"""What a few losses add to the reduction over the classes.

A regularizer is `(norms [B], target_prototypes [B, D], labels [B])` -> [B], or a scalar that is
added to every example, so that the mean over the batch counts it once.
"""

import jax
import jax.numpy as jnp

from sphereface_jax.geometry import normalize, safe_arccos

Array = jax.Array
Scalar = float | jax.Array

_LARGEST_COSINE = 1 - 1e-5  # two coinciding prototypes have energy 5e4, and no slope


def hyperspherical_energy(target_prototypes: Array, labels: Array) -> Array:
    """Mean of θ⁻² over the pairs of different classes in a batch.

    Args:
      target_prototypes: the prototype of every example's class [B, D].
      labels: the classes [B].

    Returns:
      A scalar; zero where the batch holds one class only.
    """
    directions = normalize(target_prototypes)
    cosine = jnp.matmul(directions, directions.T, precision=jax.lax.Precision.HIGHEST)
    angle = safe_arccos(jnp.clip(cosine, -_LARGEST_COSINE, _LARGEST_COSINE))
    is_same = labels[:, None] == labels
    is_first = jnp.argmax(is_same, axis=1) == jnp.arange(labels.size)
    is_pair = is_first[:, None] & is_first & ~is_same
    count = jnp.sum(is_pair)
    return jnp.sum(jnp.where(is_pair, angle**-2, 0)) / jnp.maximum(count, 1)


def mhe(
    norms: Array, target_prototypes: Array, labels: Array, *, mhe_weight: Scalar = 0.1
) -> Array:
    """λ_MHE times the hyperspherical energy of the batch's classes."""
    del norms
    return mhe_weight * hyperspherical_energy(target_prototypes, labels)


def magface_norms(
    norms: Array,
    target_prototypes: Array,
    labels: Array,
    *,
    lower_norm: Scalar = 10.0,
    upper_norm: Scalar = 110.0,
    norm_weight: Scalar = 35.0,
) -> Array:
    """λ_g (a/u² + 1/a), a = ‖x‖ clipped to [l, u]: longer embeddings cost less up to u."""
    del target_prototypes, labels
    length = jnp.clip(norms, lower_norm, upper_norm)
    return norm_weight * (length / jnp.square(upper_norm) + 1 / length)
