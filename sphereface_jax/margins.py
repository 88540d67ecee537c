"""Margins: one small pure function each, from the target's cosine to what stands in its place.

A margin is `target(cosine_y, norms, state)`: the cosines [B] between the embeddings and the
prototypes of their own classes, the embeddings' lengths [B], and whatever changes in training.
"""

import jax

from sphereface_jax.geometry import monotone_psi

Array = jax.Array


def sphereface(
    cosine_y: Array,
    norms: Array,
    state: None,
    *,
    margin: int,
    annealing_lambda: jax.typing.ArrayLike,
) -> Array:
    """C + (ψ(c) − c) / (1 + λ): the plain cosine and the monotone ψ, mixed by λ."""
    del norms, state
    return cosine_y + (monotone_psi(cosine_y, margin) - cosine_y) / (1 + annealing_lambda)
