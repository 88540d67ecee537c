"""Tells a collapsed network: one that maps every face to zero, or all of them to one direction.

Its loss is finite and so are its gradients; nothing else says that it has stopped telling people
apart.
"""

import jax
import jax.numpy as jnp

from sphereface_jax.geometry import normalize

LENGTH, COSINE = 1e-6, 0.999
"""Collapsed are embeddings that are all shorter, or whose cosines between people are all larger."""

_MOST_ROWS = 512  # of the matrix of cosines

_MESSAGES = {
    "all_zero": f"all embeddings are shorter than {LENGTH:g}",
    "all_alike": f"the embeddings of different people all have cosines above {COSINE:g}",
}


def collapse_metrics(embeddings: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """Whether a batch's embeddings are all zero, and whether they are all alike.

    Of more than 512 examples, the first 512 are compared with all. Where a batch is accumulated in
    parts, it counts as collapsed only if every part does.

    Args:
      embeddings: [B, D].
      labels: [B], the person of each.

    Returns:
      "all_zero" and "all_alike", float32 [], 0 or 1.
    """
    lengths = jnp.linalg.norm(embeddings, axis=1)
    unit = normalize(embeddings)
    cosines = jnp.matmul(unit[:_MOST_ROWS], unit.T, precision=jax.lax.Precision.HIGHEST)
    differ = labels[:_MOST_ROWS, None] != labels[None, :]
    alike = jnp.any(differ) & jnp.all(jnp.where(differ, cosines > COSINE, True))
    flags = {"all_zero": jnp.all(lengths < LENGTH), "all_alike": alike}
    return {name: flag.astype(jnp.float32) for name, flag in flags.items()}


def pop_collapse(metrics: dict[str, float]) -> str | None:
    """Takes `collapse_metrics` out of a step's metrics, and returns what they say, or None."""
    flags = {name: metrics.pop(name) for name in _MESSAGES}
    return next((_MESSAGES[name] for name, flag in flags.items() if flag == 1), None)
