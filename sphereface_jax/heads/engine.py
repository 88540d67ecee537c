"""What a loss is to the engine, and the steps that every way of reducing over classes shares.

A head takes the cosines [B, C], replaces the target's (and, for a few losses, the others'), scales
them to logits and reduces over the classes. The reduction runs over the *other* classes first, in
one block or many, and takes in the target's logit last; so dense, streaming and class-parallel
heads differ only in how they walk over the blocks. What a block contributes is `accumulate`d, what
blocks contributed is `merge`d, and `finish` makes the loss of it; `slope` is for heads that look at
the blocks a second time to find the gradient.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import chex  # type: ignore[import-untyped]
import jax
import jax.numpy as jnp

from sphereface_jax.geometry import cosine, inner_products, normalize, safe_norm

Array = jax.Array
Scalar = float | jax.Array
Combine = Callable[[Array], Array]


class Reduction(Protocol):
    """How the logits of one example become its loss."""

    def accumulate(self, others: Array) -> Any:
        """Reduces logits [B, c] of classes other than the target; −∞ marks a class left out."""

    def merge(self, parts: Any, maximum: Combine, total: Combine) -> Any:
        """Makes one of accumulated parts, over whatever the two functions combine them."""

    def finish(self, accumulated: Any, target: Array) -> Array:
        """Takes in the target's logit [B] and returns the loss [B]."""

    def slope(self, accumulated: Any, target: Array, others: Array) -> Array:
        """The loss's derivative by logits [B, c] that are among the accumulated."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftmaxCrossEntropy:
    """log(1 + Σ_j exp(f_j − f_y)), the sum being over the other classes."""

    def accumulate(self, others: Array) -> tuple[Array, Array]:
        """Returns the largest logit and the sum of exponentials relative to it."""
        lowest = jnp.finfo(others.dtype).min
        largest = jax.lax.stop_gradient(jnp.max(others, axis=1, initial=lowest))
        return largest, jnp.sum(jnp.exp(others - largest[:, None]), axis=1)

    def merge(
        self, parts: tuple[Array, Array], maximum: Combine, total: Combine
    ) -> tuple[Array, Array]:
        """Returns the largest of all and the sum of exponentials relative to it."""
        largest = maximum(parts[0])
        return largest, total(parts[1] * jnp.exp(parts[0] - largest))

    def finish(self, accumulated: tuple[Array, Array], target: Array) -> Array:
        """Returns the cross entropy, to full relative precision however small it is."""
        largest_other, total = accumulated
        largest = jnp.maximum(largest_other, target)
        others = total * jnp.exp(largest_other - largest)
        return jnp.log1p(jnp.expm1(target - largest) + others) + (largest - target)

    def slope(self, accumulated: tuple[Array, Array], target: Array, others: Array) -> Array:
        """Returns the classes' probabilities."""
        largest_other, total = accumulated
        largest = jnp.maximum(largest_other, target)
        normalizer = jnp.exp(target - largest) + total * jnp.exp(largest_other - largest)
        return jnp.exp(others - largest[:, None]) * (1 / normalizer)[:, None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """α softplus(−f_y) + (1 − α) Σ_j softplus(f_j), the sum being over the other classes."""

    alpha: Scalar = 0.7

    def accumulate(self, others: Array) -> Array:
        """Returns the sum of the other classes' losses."""
        return jnp.sum(jax.nn.softplus(others), axis=1)

    def merge(self, parts: Array, maximum: Combine, total: Combine) -> Array:
        """Returns the sum of the parts."""
        del maximum
        return total(parts)

    def finish(self, accumulated: Array, target: Array) -> Array:
        """Returns the weighted sum of binary cross entropies."""
        return self.alpha * jax.nn.softplus(-target) + (1 - self.alpha) * accumulated

    def slope(self, accumulated: Array, target: Array, others: Array) -> Array:
        """Returns the weighted probabilities of the classes."""
        del accumulated, target
        return (1 - self.alpha) * jax.nn.sigmoid(others)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Margin:
    """What one loss is to the engine, its hyper-parameters bound.

    Attributes:
      target: (cosine_y [B], norms [B], state) -> what stands in place of cosine_y.
      negatives: (cosine [B, C], cosine_y [B, 1], state) -> what stands in place of cosine.
      update: (cosine_y, norms, state) -> the state that this batch is scored with.
      scale: what the cosines are multiplied by; None means each embedding's own length.
      reduction: how an example's logits become its loss.
      weight: what the loss is multiplied by.
      regularizer: (norms [B], target_prototypes [B, D], labels [B]) -> what is added, [B] or [].
      normalized: whether cosines are taken, else inner products.
      detached: whether the gradient is that of the plain cosine; the value keeps the margin.
      target_gradient: (cosine_y, norms) -> coefficients (a, b) of the gradient a·w + b·x of the
        target's logit by the embedding x, in place of the true one. The gradient by the
        prototypes is then (∂loss/∂logits)ᵀx, rows taken to be of unit length.
    """

    target: Callable[[Array, Array, Any], Array]
    negatives: Callable[[Array, Array, Any], Array] | None = None
    update: Callable[[Array, Array, Any], Any] | None = None
    scale: Scalar | None = None
    reduction: Reduction = SoftmaxCrossEntropy()
    weight: Scalar = 1.0
    regularizer: Callable[[Array, Array, Array], Array] | None = None
    normalized: bool = True
    detached: bool = False
    target_gradient: Callable[[Array, Array], tuple[Array, Array]] | None = None


class Examples(NamedTuple):
    """What the engine knows of each example before it looks at the other classes.

    Attributes:
      cosine: cosine with the target's prototype [B].
      scale: what the cosines are multiplied by [B].
      logit: the target's logit [B], without bias.
      state: the loss's state, updated.
    """

    cosine: Array
    scale: Array
    logit: Array
    state: Any


def head_dtype(*arrays: Array) -> jnp.dtype:
    """float32, or float64 where an input is: what the head computes in."""
    return jnp.result_type(jnp.float32, *arrays)


def similarities(margin: Margin, embeddings: Array, prototypes: Array) -> Array:
    """Cosines or inner products with a block of classes; the best of a class's sub-centres.

    Args:
      margin: the margin.
      embeddings: [B, D].
      prototypes: [c, D] or [c, K, D].

    Returns:
      Similarities [B, c].
    """
    if not margin.normalized:
        return inner_products(embeddings, prototypes)
    if margin.target_gradient is not None:
        return inner_products(normalize(embeddings), _projected(prototypes))
    similarity = cosine(embeddings, prototypes)
    return similarity if prototypes.ndim == 2 else jnp.max(similarity, axis=-1)


@jax.custom_jvp
def _projected(prototypes: Array) -> Array:
    """Rows of unit length with the gradient that they would have if they were so already."""
    return normalize(prototypes)


@_projected.defjvp
def _projected_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _projected(*primals), *tangents


def own_similarities(margin: Margin, embeddings: Array, target_prototypes: Array) -> Array:
    """Similarity of every embedding with the prototype (or prototypes) of its own class [B]."""

    def own(embedding: Array, prototype: Array) -> Array:
        return similarities(margin, embedding[None], prototype[None])[0, 0]

    return jax.vmap(own)(embeddings, target_prototypes)


def updated_state(margin: Margin, cosine_y: Array, norms: Array, state: Any) -> Any:
    """The state that a batch is scored with, from that of the batch before.

    Args:
      margin: the margin.
      cosine_y: similarity of every example of the batch with its own class [B].
      norms: the embeddings' lengths [B].
      state: the loss's state.

    Returns:
      The state, updated.
    """
    if margin.update is None:
        return state
    return margin.update(*jax.lax.stop_gradient((cosine_y, norms, state)))


def regularization(margin: Margin, norms: Array, target_prototypes: Array, labels: Array) -> Array:
    """What the margin's regularizer adds to the loss of every example of the batch [B]."""
    assert margin.regularizer is not None
    return jnp.broadcast_to(margin.regularizer(norms, target_prototypes, labels), norms.shape)


def score_targets(
    margin: Margin, embeddings: Array, target_prototypes: Array, cosine_y: Array, state: Any
) -> Examples:
    """The target's logit and what the other classes need to know.

    Args:
      margin: the margin.
      embeddings: [B, D].
      target_prototypes: the prototype of every example's class [B, D]; the gradient depends on it.
      cosine_y: similarity with it [B].
      state: the loss's state, updated.

    Returns:
      The examples' quantities.
    """
    norms = safe_norm(embeddings)
    target = margin.target(cosine_y, norms, state)
    chex.assert_equal_shape((target, cosine_y))
    scale = norms if margin.scale is None else jnp.full_like(norms, margin.scale)
    if margin.target_gradient is None:
        logit = scale * _with_gradient_of(cosine_y, target, margin.detached)
    else:
        logit = _with_gradient_of(scale * cosine_y, scale * target, True)
        logit += _prescribed_gradient(margin, embeddings, target_prototypes, cosine_y, norms)
    return Examples(cosine_y, scale, logit, state)


def score_others(margin: Margin, examples: Examples, similarity: Array) -> Array:
    """Logits of the other classes.

    Args:
      margin: the margin.
      examples: the examples' quantities.
      similarity: similarities with a block of classes [B, c].

    Returns:
      Logits [B, c], without bias.
    """
    if margin.negatives is not None:
        changed = margin.negatives(similarity, examples.cosine[:, None], examples.state)
        chex.assert_equal_shape((changed, similarity))
        similarity = _with_gradient_of(similarity, changed, margin.detached)
    return examples.scale[:, None] * similarity


def _with_gradient_of(plain: Array, value: Array, detached: bool) -> Array:
    """The value; if detached, with the gradient of the plain one."""
    return plain + jax.lax.stop_gradient(value - plain) if detached else value


def _prescribed_gradient(
    margin: Margin, embeddings: Array, target_prototypes: Array, cosine_y: Array, norms: Array
) -> Array:
    """Zeros [B] whose gradient by the embedding is (a − 1)·w + b·x.

    Added to the plain logit of the target, whose gradient is w, this makes it a·w + b·x. Only an
    embedding of length zero gets none.
    """
    assert margin.target_gradient is not None
    along_prototype, along_embedding = margin.target_gradient(cosine_y, norms)
    directions = normalize(target_prototypes)
    gradient = (along_prototype - 1)[:, None] * directions + along_embedding[:, None] * embeddings
    gradient = jax.lax.stop_gradient(jnp.where(norms[:, None] == 0, 0, gradient))
    zeros = jnp.sum(gradient * embeddings, axis=1)
    return zeros - jax.lax.stop_gradient(zeros)
