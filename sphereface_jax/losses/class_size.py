"""Margins by class size: the fewer images a class has, the larger its margin."""

from typing import Literal

import jax
import jax.numpy as jnp

from sphereface_jax import _checks, margins
from sphereface_jax.heads.blockwise import AnyMesh
from sphereface_jax.heads.scoring import Scalar
from sphereface_jax.losses.margin_loss import margin_loss
from sphereface_jax.losses.table import Loss

Array = jax.Array


def ldam_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    class_margins: Array,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """LDAM: an additive margin on the cosine that is larger for classes with fewer images.

    f_y = s (c_y − m_y) and f_j = s c_j, m_y being the margin of the class y.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      class_margins: m_c of every class [C]; see `class_size_margins`.
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger are left out (interclass filtering), a
        scalar or [B]; None: none is.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only.
      num_classes: rows of prototypes from here on are not classes: they never take part and get
        gradient zero; None: all are classes.
      class_block: classes per block, so that [B, C] never exists; None: all at once.
      mesh: devices over which prototypes are sharded along "model" and examples along "data"; None:
        that of `jax.set_mesh`, if it has an axis "model".

    Returns:
      Losses [B]; take the mean.

    Raises:
      ValueError: if an argument is not as above; the message names it.

    References:
      Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS
        2019, https://arxiv.org/abs/1906.07413.
    """
    margin = _of_class(class_margins, prototypes, labels)
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.cosface,
        hyperparameters={"margin": margin},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def dynamic_arcface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    class_margins: Array,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """ArcFace with a margin that is larger for classes with fewer images.

    f_y = s cos(θ_y + m_y) and f_j = s c_j, m_y being the margin of the class y.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      class_margins: m_c of every class [C]; see `class_size_margins`.
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger are left out (interclass filtering), a
        scalar or [B]; None: none is.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only.
      num_classes: rows of prototypes from here on are not classes: they never take part and get
        gradient zero; None: all are classes.
      class_block: classes per block, so that [B, C] never exists; None: all at once.
      mesh: devices over which prototypes are sharded along "model" and examples along "data"; None:
        that of `jax.set_mesh`, if it has an axis "model".

    Returns:
      Losses [B]; take the mean.

    Raises:
      ValueError: if an argument is not as above; the message names it.

    References:
      Ha et al., Google Landmark Recognition 2020 Competition Third Place Solution, 2020,
        https://arxiv.org/abs/2010.05350; margins by class size: `class_size_margins`.
    """
    margin = _of_class(class_margins, prototypes, labels)
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.arcface,
        hyperparameters={"margin": margin},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def class_size_margins(
    counts: Array, *, factor: float = 1.0, lower: float = 0.0, upper: float = 0.5
) -> Array:
    """Margins that are larger for classes with fewer images.

    m_c = K n_c^(−1/4), clipped to [lower, upper].

    Args:
      counts: n, images per class [C]; a class without images has the margin `upper`.
      factor: K.
      lower: the least margin.
      upper: the largest margin.

    Returns:
      Margins [C], float32.

    Raises:
      ValueError: if counts are not whole numbers [C] of at least 0, or lower is above upper.

    Example:
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import class_size_margins
      >>> print(class_size_margins(jnp.array([1, 16, 256])).round(2))
      [0.5  0.5  0.25]

    References:
      The exponent is LDAM's: Cao et al., NeurIPS 2019, https://arxiv.org/abs/1906.07413. The
      clipping is this package's.
    """
    is_counts = hasattr(counts, "dtype") and jnp.issubdtype(counts.dtype, jnp.integer)
    _checks.require(
        is_counts and counts.ndim == 1, "counts", "whole numbers [C]", jnp.shape(counts)
    )
    _checks.require_numbers(counts=counts, factor=factor, lower=lower)
    _checks.require(lower <= upper, "upper", f"at least lower, {lower}", upper)
    counts = jnp.asarray(counts, jnp.float32)
    return jnp.clip(factor * jnp.maximum(counts, 1e-6) ** -0.25, lower, upper)


def _of_class(class_margins: Array, prototypes: Array, labels: Array) -> Array:
    """The margin of every example's class [B]."""
    (rows,) = _checks.require_floating("class_margins", class_margins, "C")
    num_rows = jnp.shape(prototypes)[0]
    expected = f"shape [{num_rows}] (one per prototype)"
    _checks.require(rows == num_rows, "class_margins", expected, f"shape [{rows}]")
    _checks.require_numbers(class_margins=class_margins)
    return jnp.asarray(class_margins)[jnp.clip(jnp.asarray(labels), 0, rows - 1)]


LOSSES = {
    "ldam": Loss(ldam_loss, title="LDAM"),
    "dynamic_arcface": Loss(dynamic_arcface_loss, title="dynamic ArcFace"),
}
