"""The dense head: all cosines [B, C] at once, the readable reference of the engine."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sphereface_jax.geometry import cosine as cosine_of
from sphereface_jax.geometry import safe_norm

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Margin:
    """What one loss is to the engine.

    Attributes:
      target: (cosine_y [B], norms [B], state) -> what stands in place of cosine_y.
      scale: what all cosines are multiplied by; None means each embedding's own length.
    """

    target: Callable[[Array, Array, Any], Array]
    scale: float | None = None


@jax.custom_jvp
def _take_label(values: Array, labels: Array) -> Array:
    """values[b, labels[b]], whose gradient is a `where` that fuses instead of a scatter."""
    return jnp.take_along_axis(values, labels[:, None], axis=1)[:, 0]


@_take_label.defjvp
def _take_label_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    values, labels = primals
    tangent = jnp.where(_is_label(values, labels), tangents[0], 0).sum(axis=1)
    return _take_label(values, labels), tangent


def _is_label(values: Array, labels: Array) -> Array:
    return jnp.arange(values.shape[1], dtype=jnp.int32) == labels[:, None]


def _target_and_logits(
    margin: Margin,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    num_classes: int,
    state: Any,
) -> tuple[Array, Array]:
    """The target's logit [B] and all logits [B, C], it among them."""
    dtype = jnp.promote_types(jnp.promote_types(embeddings.dtype, prototypes.dtype), jnp.float32)
    embeddings, prototypes = jnp.asarray(embeddings, dtype), jnp.asarray(prototypes, dtype)
    labels = jnp.asarray(labels, jnp.int32)
    norms = safe_norm(embeddings)
    cosine = cosine_of(embeddings, prototypes)
    scale = norms if margin.scale is None else jnp.full_like(norms, margin.scale)
    target = scale * margin.target(_take_label(cosine, labels), norms, state)
    logits = jnp.where(_is_label(cosine, labels), target[:, None], scale[:, None] * cosine)
    if num_classes < prototypes.shape[0]:
        logits = jnp.where(jnp.arange(prototypes.shape[0]) < num_classes, logits, -jnp.inf)
    return target, logits


def dense_logits(
    margin: Margin,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    num_classes: int,
    state: Any = None,
) -> Array:
    """The logits of a margin.

    Args:
      margin: the margin.
      embeddings: [B, D].
      prototypes: [C, D].
      labels: [B].
      num_classes: rows of prototypes from here on are no classes; their logits are −∞.
      state: what the margin carries through training.

    Returns:
      Logits [B, C].
    """
    return _target_and_logits(margin, embeddings, prototypes, labels, num_classes, state)[1]


def dense_loss(
    margin: Margin,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    num_classes: int,
    state: Any = None,
) -> Array:
    """The softmax cross entropy of a margin's logits.

    Args:
      margin: the margin.
      embeddings: [B, D].
      prototypes: [C, D].
      labels: [B].
      num_classes: rows of prototypes from here on are no classes; they never take part.
      state: what the margin carries through training.

    Returns:
      Losses [B].
    """
    target, logits = _target_and_logits(margin, embeddings, prototypes, labels, num_classes, state)
    return jax.nn.logsumexp(logits, axis=1) - target
