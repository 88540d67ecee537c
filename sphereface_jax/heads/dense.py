"""The dense head: all cosines [B, C] at once, the readable reference of the engine."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sphereface_jax.geometry import safe_norm
from sphereface_jax.heads.engine import (
    Margin,
    head_dtype,
    regularization,
    score_others,
    score_targets,
    similarities,
    updated_state,
)

Array = jax.Array


class Scores(NamedTuple):
    """A batch scored against all classes.

    Attributes:
      target: the target's logits [B].
      others: logits [B, C], −∞ for the target and for rows that are no classes.
      is_label: which of them is the target [B, C].
      extra: what the regularizer adds to the loss [B], if there is one.
      state: the loss's state, updated.
    """

    target: Array
    others: Array
    is_label: Array
    extra: Array | None
    state: Any


def dense_logits(
    margin: Margin, embeddings: Array, prototypes: Array, labels: Array, **options: Any
) -> tuple[Array, Any]:
    """Logits [B, C], −∞ past num_classes, and the state; arguments are those of `dense_loss`."""
    scores = _score(margin, embeddings, prototypes, labels, **options)
    return jnp.where(scores.is_label, scores.target[:, None], scores.others), scores.state


def dense_loss(
    margin: Margin, embeddings: Array, prototypes: Array, labels: Array, **options: Any
) -> tuple[Array, Any]:
    """Loss of a margin.

    Args:
      margin: the margin.
      embeddings: [B, D].
      prototypes: [C, D], or [C, K, D] with sub-centres.
      labels: [B].
      **options: num_classes: rows of prototypes from here on are no classes and never take part;
        state: what the loss carries through training; bias: added to the logits, [C] or a scalar.

    Returns:
      Losses [B] and the state, updated.
    """
    scores = _score(margin, embeddings, prototypes, labels, **options)
    accumulated = margin.reduction.accumulate(scores.others)
    loss = margin.weight * margin.reduction.finish(accumulated, scores.target)
    return loss if scores.extra is None else loss + scores.extra, scores.state


def _score(
    margin: Margin,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    num_classes: int,
    state: Any = None,
    bias: Array | None = None,
) -> Scores:
    dtype = head_dtype(embeddings, prototypes)
    embeddings, prototypes = jnp.asarray(embeddings, dtype), jnp.asarray(prototypes, dtype)
    labels = jnp.asarray(labels, jnp.int32)
    similarity = similarities(margin, embeddings, prototypes)
    cosine_y = _take_label(similarity, labels)
    rows, norms = prototypes[labels], safe_norm(embeddings)
    state = updated_state(margin, cosine_y, norms, state)
    examples = score_targets(margin, embeddings, rows, cosine_y, state)
    target, others = examples.logit, score_others(margin, examples, similarity)
    if bias is not None:
        bias = jnp.broadcast_to(jnp.asarray(bias, dtype), others.shape[1:])
        target, others = target + bias[labels], others + bias
    is_label = _is_label(similarity, labels)
    is_class = jnp.arange(prototypes.shape[0]) < num_classes
    others = jnp.where(is_class & ~is_label, others, -jnp.inf)
    extra = None
    if margin.regularizer is not None:
        extra = regularization(margin, norms, rows, labels)
    return Scores(target, others, is_label, extra, state)


def _is_label(values: Array, labels: Array) -> Array:
    return jnp.arange(values.shape[1], dtype=labels.dtype) == labels[:, None]


@jax.custom_jvp
def _take_label(values: Array, labels: Array) -> Array:
    """values[b, labels[b]], whose gradient is a `where` that fuses instead of a scatter."""
    return jnp.take_along_axis(values, labels[:, None], axis=1)[:, 0]


@_take_label.defjvp
def _take_label_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    values, labels = primals
    tangent = jnp.sum(jnp.where(_is_label(values, labels), tangents[0], 0), axis=1)
    return _take_label(values, labels), tangent
