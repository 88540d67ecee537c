"""Softmax cross entropy without a margin: over inner products, and over scaled cosines."""

from typing import Literal

import jax

from sphereface_jax import margins
from sphereface_jax.heads.blockwise import AnyMesh
from sphereface_jax.heads.scoring import Scalar
from sphereface_jax.losses.margin_loss import margin_logits, margin_loss
from sphereface_jax.losses.table import Loss

Array = jax.Array


def softmax_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    bias: Array | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """Softmax cross entropy over inner products; nothing is normalised.

    f_j = x·w_j + b_j.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point.
      labels: [B], integers from 0 to num_classes − 1.
      bias: b, [C]; None: none.
      gradient: of no effect, since there is no margin.
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
      Bridle, Probabilistic Interpretation of Feedforward Classification, 1990.
    """
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.identity,
        scale=1.0,
        bias=bias,
        normalized=False,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def softmax_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    bias: Array | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> Array:
    """Logits of `softmax_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point.
      labels: [B], integers from 0 to num_classes − 1.
      bias: b, [C]; None: none.
      gradient: of no effect, since there is no margin.
      num_classes: rows of prototypes from here on are not classes and get −∞; None: all are.

    Returns:
      Logits [B, C].

    Raises:
      ValueError: if an argument is not as above; the message names it.
    """
    return margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.identity,
        scale=1.0,
        bias=bias,
        normalized=False,
        gradient=gradient,
        num_classes=num_classes,
    )


def normalized_softmax_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """Softmax cross entropy over scaled cosines, without a margin.

    f_j = s c_j.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger are left out (interclass filtering), a
        scalar or [B]; None: none is.
      gradient: of no effect, since there is no margin.
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
      Wang et al., NormFace: L2 Hypersphere Embedding for Face Verification, ACM MM 2017,
        https://arxiv.org/abs/1704.06369.
    """
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.identity,
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def normalized_softmax_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> Array:
    """Logits of `normalized_softmax_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger get −∞ (interclass filtering), a scalar
        or [B]; None: none does.
      gradient: of no effect, since there is no margin.
      num_classes: rows of prototypes from here on are not classes and get −∞; None: all are.

    Returns:
      Logits [B, C].

    Raises:
      ValueError: if an argument is not as above; the message names it.
    """
    return margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.identity,
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
    )


LOSSES = {
    "softmax": Loss(softmax_loss, softmax_logits, title="softmax"),
    "normalized_softmax": Loss(
        normalized_softmax_loss, normalized_softmax_logits, title="normalised softmax"
    ),
}
