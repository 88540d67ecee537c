"""The dense head: all similarities [B, C] at once, the readable reference of the engine."""

from typing import Any

import jax
import jax.numpy as jnp

from sphereface_jax.geometry import safe_norm
from sphereface_jax.heads.scoring import (
    Margin,
    Settings,
    as_dtype,
    head_dtype,
    other_logits,
    own_similarities,
    similarities,
    target_logit,
)

Array = jax.Array


def dense_logits(
    margin: Margin,
    settings: Settings,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    class_bias: Array | None,
    *,
    num_classes: int,
) -> Array:
    """Logits of a margin: what the reduction of `dense_loss` is given.

    Args:
      margin: the margin.
      settings: its numbers; the reduction is not used.
      embeddings: [B, D].
      prototypes: [C, D], or [C, K, D] with sub-centres.
      labels: [B], from 0 to C − 1.
      class_bias: added to the logits of each class [C], or None.
      num_classes: rows of prototypes from here on are not classes and get −∞.

    Returns:
      Logits [B, C].
    """
    target, others, is_label = _score(
        margin, settings, embeddings, prototypes, labels, class_bias, num_classes
    )
    return jnp.where(is_label, target[:, None], others)


def dense_loss(
    margin: Margin,
    settings: Settings,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    class_bias: Array | None,
    *,
    num_classes: int,
) -> Any:
    """Loss of a margin.

    Args:
      margin: the margin.
      settings: its numbers.
      embeddings: [B, D].
      prototypes: [C, D], or [C, K, D] with sub-centres.
      labels: [B], from 0 to C − 1.
      class_bias: added to the logits of each class [C], or None.
      num_classes: rows of prototypes from here on are not classes and never take part.

    Returns:
      What the reduction makes of the logits: losses [B].
    """
    target, others, _ = _score(
        margin, settings, embeddings, prototypes, labels, class_bias, num_classes
    )
    accumulated = settings.reduction.accumulate(others, jnp.arange(others.shape[1]))
    return settings.reduction.finish(accumulated, target)


def _score(
    margin: Margin,
    settings: Settings,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    class_bias: Array | None,
    num_classes: int,
) -> tuple[Array, Array, Array]:
    """The target's logits [B]; the others', −∞ where left out [B, C]; which is which [B, C]."""
    dtype = head_dtype(embeddings, prototypes)
    settings = as_dtype(settings, dtype)
    embeddings, prototypes = embeddings.astype(dtype), prototypes.astype(dtype)
    similarity = similarities(margin, embeddings, prototypes)
    cosine_y, cosine_by_x = _take_label(similarity, labels), None
    if callable(margin.gradient):
        rows = jax.lax.stop_gradient(prototypes[labels])
        cosine_by_x = own_similarities(margin, embeddings, rows)
    target = target_logit(margin, settings, embeddings, cosine_y, cosine_by_x)
    others = other_logits(margin, settings, safe_norm(embeddings), cosine_y, similarity)
    if class_bias is not None:
        class_bias = class_bias.astype(dtype)
        target, others = target + class_bias[labels], others + class_bias[None]
    is_label = _is_label(similarity, labels)
    is_class = jnp.arange(prototypes.shape[0]) < num_classes
    return target, jnp.where(is_class[None] & ~is_label, others, -jnp.inf), is_label


def _is_label(values: Array, labels: Array) -> Array:
    return jnp.arange(values.shape[1], dtype=labels.dtype)[None] == labels[:, None]


@jax.custom_jvp
def _take_label(values: Array, labels: Array) -> Array:
    """values[b, labels[b]], whose gradient is a `where` that fuses instead of a scatter."""
    return jnp.take_along_axis(values, labels[:, None], axis=1)[:, 0]


@_take_label.defjvp
def _take_label_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    values, labels = primals
    tangent = jnp.sum(jnp.where(_is_label(values, labels), tangents[0], 0), axis=1)
    return _take_label(values, labels), tangent
