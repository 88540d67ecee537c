"""What dense and blockwise heads share: from similarities to logits.

A head takes similarities between embeddings and prototypes, replaces the target's (and, for a few
losses, the others'), multiplies by the scale and reduces over the classes. This module holds the
steps before the reduction, for a whole [B, C] or for a block of it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphereface_jax._checks import require
from sphereface_jax.geometry import cosine, inner_products, normalize, safe_norm
from sphereface_jax.heads.reductions import Reduction

Array = jax.Array
Scalar = float | jax.Array
Target = Callable[..., Array]
"""(cosine_y [B], norms [B], **hyperparameters) -> what stands in place of cosine_y [B]."""
Negatives = Callable[..., Array]
"""(cosine [B, c], cosine_y [B, 1], **hyperparameters) -> what stands in place of cosine [B, c]."""
PrescribedGradient = Callable[..., tuple[Array, Array]]
"""(cosine_y [B], norms [B], **hyperparameters) -> (a, b), each [B]: the gradient of the target's
logit by the embedding x is a·w + b·x, w being the target's unit prototype."""


@dataclasses.dataclass(frozen=True)
class Margin:
    """The functions that make up a loss; hashable, so that a head is compiled once for it.

    Attributes:
      target: what becomes of the target's similarity.
      negatives: what becomes of the other classes' similarities; None: nothing.
      gradient: "exact"; "detached": the gradient of the plain similarity, the margin moves the
        value only; or the prescribed gradient of the target's logit.
      normalized: whether similarities are cosines; else inner products.
    """

    target: Target
    negatives: Negatives | None = None
    gradient: str | PrescribedGradient = "exact"
    normalized: bool = True


class Settings(NamedTuple):
    """The numbers of a loss: each leaf a Python value, or an array [] or [B].

    Attributes:
      hyperparameters: keyword arguments of the margin's functions.
      scale: what similarities are multiplied by; None: each embedding's own length.
      bias: a scalar that is added to every logit, or None.
      filter_threshold: other classes with a larger similarity are left out; None: none is.
      reduction: how an example's logits become its loss.
    """

    hyperparameters: Mapping[str, Any]
    scale: Scalar | None
    bias: Scalar | None
    filter_threshold: Scalar | None
    reduction: Reduction


def head_dtype(*arrays: Any) -> jnp.dtype:
    """float32, or float64 where an input is: what the head computes in."""
    return jnp.promote_types(jnp.float32, jnp.result_type(*(jnp.asarray(a).dtype for a in arrays)))


def is_array(leaf: Any) -> bool:
    """Whether JAX traces a setting; Python numbers stay as they are."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def as_dtype(settings: Settings, dtype: Any) -> Settings:
    """The settings with their floating-point arrays in the dtype that the head computes in.

    Args:
      settings: a loss's numbers.
      dtype: float32 or float64, as `head_dtype` returns.

    Returns:
      The settings; Python numbers and integer arrays stay as they are.
    """

    def cast(leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, settings)


def per_row(tree: Any) -> Any:
    """[B] as [B, 1], to broadcast against [B, c]; the rest as it is."""
    return jax.tree.map(lambda leaf: leaf[:, None] if jnp.ndim(leaf) == 1 else leaf, tree)


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
        similarity = inner_products(embeddings, prototypes)
    elif callable(margin.gradient):
        similarity = inner_products(normalize(embeddings), _projected(prototypes))
    else:
        similarity = cosine(embeddings, prototypes)
    return similarity if prototypes.ndim == 2 else jnp.max(similarity, axis=-1)


@jax.custom_jvp
def _projected(prototypes: Array) -> Array:
    """Rows of unit length with the gradient that they would have if they were so already."""
    return normalize(prototypes)


@_projected.defjvp
def _projected_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _projected(*primals), *tangents


def own_similarities(margin: Margin, embeddings: Array, rows: Array) -> Array:
    """Similarity of every embedding with the prototype, or prototypes, in its row.

    Args:
      margin: the margin.
      embeddings: [B, D].
      rows: each embedding's prototype [B, D], or its sub-centres [B, K, D].

    Returns:
      Similarities [B]; of sub-centres the best.
    """

    def own(embedding: Array, row: Array) -> Array:
        return similarities(margin, embedding[None], row[None])[0, 0]

    return jax.vmap(own)(embeddings, rows)


def target_logit(
    margin: Margin,
    settings: Settings,
    embeddings: Array,
    cosine_y: Array,
    cosine_by_x: Array | None,
) -> Array:
    """The target's logit.

    Args:
      margin: the margin.
      settings: its numbers.
      embeddings: [B, D].
      cosine_y: similarity with the target's prototype [B].
      cosine_by_x: the same, with a gradient by the embeddings alone [B], where the margin
        prescribes the gradient; else None.

    Returns:
      Logits [B].

    Raises:
      ValueError: if the margin's function returns another shape.
    """
    norms = safe_norm(embeddings)
    target = margin.target(cosine_y, norms, **settings.hyperparameters)
    _require_shape("target", target, cosine_y)
    scale = norms if settings.scale is None else settings.scale
    if margin.gradient == "exact":
        logit = scale * target
    elif margin.gradient == "detached":
        logit = scale * _with_gradient_of(cosine_y, target)
    else:
        assert callable(margin.gradient)
        assert cosine_by_x is not None
        by_w, by_x = jax.lax.stop_gradient(
            margin.gradient(cosine_y, norms, **settings.hyperparameters)
        )
        # The plain logit ‖x‖c has gradient w by x, and x by w; (a − 1)·w + b·x is added by x.
        plain = scale * cosine_y + (by_w - 1) * scale * cosine_by_x
        plain += by_x * jnp.square(norms) / 2
        logit = _with_gradient_of(plain, scale * target)
    return logit if settings.bias is None else logit + settings.bias


def other_logits(
    margin: Margin,
    settings: Settings,
    norms: Array | None,
    cosine_y: Array | None,
    similarity: Array,
) -> Array:
    """Logits of classes other than the target.

    Args:
      margin: the margin.
      settings: its numbers.
      norms: lengths of the embeddings [B], where they are the scale.
      cosine_y: similarity with the target's prototype [B], where `negatives` asks for it.
      similarity: similarities with a block of classes [B, c].

    Returns:
      Logits [B, c], −∞ for a class that the filter leaves out.

    Raises:
      ValueError: if the margin's function returns another shape.
    """
    changed = similarity
    if margin.negatives is not None:
        assert cosine_y is not None
        changed = margin.negatives(
            similarity, cosine_y[:, None], **per_row(settings.hyperparameters)
        )
        _require_shape("negatives", changed, similarity)
        if margin.gradient == "detached":
            changed = _with_gradient_of(similarity, changed)
    scale = norms if settings.scale is None else settings.scale
    logits = per_row(scale) * changed
    if settings.bias is not None:
        logits = logits + per_row(settings.bias)
    if settings.filter_threshold is not None:
        # What is not a number is kept: the loss is to show it.
        is_left_out = similarity > per_row(settings.filter_threshold)
        logits = jnp.where(is_left_out, -jnp.inf, logits)
    return logits


def _require_shape(function: str, result: Any, like: Array) -> None:
    shape = list(jnp.shape(result))
    require(shape == list(like.shape), function, f"a result of shape {list(like.shape)}", shape)


def _with_gradient_of(plain: Array, value: Array) -> Array:
    """The value, to the last bit, with the gradient of the plain one."""
    return jax.lax.stop_gradient(value) + (plain - jax.lax.stop_gradient(plain))
