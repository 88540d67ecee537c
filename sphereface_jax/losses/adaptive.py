"""Margins that adapt: to the stage of training, and to the quality of an image.

CurricularFace and AdaFace carry state through training, which follows each batch before it is used.
The batch is what the function is given: on a mesh all of it, inside a `jax.shard_map` of one's own
the device's part.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from sphereface_jax import _checks, margins
from sphereface_jax.geometry import safe_norm
from sphereface_jax.heads.blockwise import AnyMesh
from sphereface_jax.heads.scoring import Scalar
from sphereface_jax.losses.margin_loss import margin_logits, margin_loss, target_cosine
from sphereface_jax.losses.table import Loss
from sphereface_jax.margins import NormStatistics

Array = jax.Array


def curricularface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    state: Array,
    margin: Scalar = 0.5,
    rate: Scalar = 0.01,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> tuple[Array, Array]:
    """CurricularFace: hard classes count for more as training goes on.

    f_y = s cos(θ_y + m), or s (c_y − m sin m) past θ_y = π − m;
    f_j = s c_j (t + c_j) where c_j > cos(θ_y + m), else s c_j.
    The state t is the running mean of c_y, updated before it is used.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      state: t, a scalar; it starts at 0.
      margin: m in radians, a scalar or [B].
      rate: weight of this batch in the running mean.
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
      Losses [B]; take the mean. And the next state.

    Raises:
      ValueError: if an argument is not as above; the message names it.

    References:
      Huang et al., CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition,
        CVPR 2020, https://arxiv.org/abs/2004.00288.
    """
    _checks.require_like("state", state, jax.ShapeDtypeStruct((), jnp.float32))
    _checks.require_angles(margin=margin)
    _checks.require_numbers(rate=rate)
    cosine_y = target_cosine(embeddings, prototypes, labels, num_classes=num_classes, mesh=mesh)
    state = _follow_cosines(state, cosine_y, rate)
    losses = margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.curricularface,
        negatives=margins.curricularface_negatives,
        hyperparameters={"margin": margin, "hardness": state},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )
    return losses, state


def curricularface_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    state: Array,
    margin: Scalar = 0.5,
    rate: Scalar = 0.01,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> tuple[Array, Array]:
    """Logits of `curricularface_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      state: t, a scalar; it starts at 0.
      margin: m in radians, a scalar or [B].
      rate: weight of this batch in the running mean.
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger get −∞ (interclass filtering), a scalar
        or [B]; None: none does.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only.
      num_classes: rows of prototypes from here on are not classes and get −∞; None: all are.

    Returns:
      Logits [B, C], and the next state.

    Raises:
      ValueError: if an argument is not as above; the message names it.
    """
    _checks.require_like("state", state, jax.ShapeDtypeStruct((), jnp.float32))
    _checks.require_angles(margin=margin)
    _checks.require_numbers(rate=rate)
    cosine_y = target_cosine(embeddings, prototypes, labels, num_classes=num_classes)
    state = _follow_cosines(state, cosine_y, rate)
    logits = margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.curricularface,
        negatives=margins.curricularface_negatives,
        hyperparameters={"margin": margin, "hardness": state},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
    )
    return logits, state


def _follow_cosines(state: Array, cosine_y: Array, rate: Scalar) -> Array:
    """The running mean of the target cosine: t ← (1 − rate) t + rate · mean(c_y)."""
    state = jax.lax.stop_gradient(jnp.asarray(state))
    if cosine_y.size == 0:
        return state
    mean = jnp.mean(jax.lax.stop_gradient(cosine_y)).astype(state.dtype)
    return (1 - rate) * state + rate * mean


def magface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    lower_norm: Scalar = 10.0,
    upper_norm: Scalar = 110.0,
    lower_margin: Scalar = 0.45,
    upper_margin: Scalar = 0.8,
    norm_weight: Scalar = 35.0,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """MagFace: the margin grows with the embedding's length, which is rewarded.

    f_y = s cos(θ_y + m(a)) where c_y > 0, else s c_y, and f_j = s c_j, with
    a = ‖x‖ clipped to [l, u] and m(a) rising linearly from m_l to m_u;
    λ_g (a/u² + 1/a) is added to the cross entropy.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      lower_norm: l; shorter embeddings count as this long.
      upper_norm: u; longer embeddings count as this long.
      lower_margin: m_l in radians.
      upper_margin: m_u in radians.
      norm_weight: λ_g, weight of the regularizer. Each of these five a scalar or [B].
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
      Meng et al., MagFace: A Universal Representation for Face Recognition and Quality Assessment,
        CVPR 2021, https://arxiv.org/abs/2103.06627.
    """
    _checks.require_numbers(lower_norm=lower_norm, upper_norm=upper_norm)
    _checks.require_angles(lower_margin=lower_margin, upper_margin=upper_margin)
    losses = margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.magface,
        hyperparameters={
            "lower_norm": lower_norm,
            "upper_norm": upper_norm,
            "lower_margin": lower_margin,
            "upper_margin": upper_margin,
        },
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )
    _checks.require_numbers(norm_weight=norm_weight)
    length = jnp.clip(
        safe_norm(jnp.asarray(embeddings).astype(losses.dtype)), lower_norm, upper_norm
    )
    return losses + norm_weight * (length / jnp.square(upper_norm) + 1 / length)


def magface_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    lower_norm: Scalar = 10.0,
    upper_norm: Scalar = 110.0,
    lower_margin: Scalar = 0.45,
    upper_margin: Scalar = 0.8,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> Array:
    """Logits of `magface_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      lower_norm: l; shorter embeddings count as this long.
      upper_norm: u; longer embeddings count as this long.
      lower_margin: m_l in radians.
      upper_margin: m_u in radians. Each of these four a scalar or [B].
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger get −∞ (interclass filtering), a scalar
        or [B]; None: none does.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only.
      num_classes: rows of prototypes from here on are not classes and get −∞; None: all are.

    Returns:
      Logits [B, C].

    Raises:
      ValueError: if an argument is not as above; the message names it.
    """
    _checks.require_numbers(lower_norm=lower_norm, upper_norm=upper_norm)
    _checks.require_angles(lower_margin=lower_margin, upper_margin=upper_margin)
    return margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.magface,
        hyperparameters={
            "lower_norm": lower_norm,
            "upper_norm": upper_norm,
            "lower_margin": lower_margin,
            "upper_margin": upper_margin,
        },
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
    )


def adaface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    state: NormStatistics,
    margin: Scalar = 0.4,
    concentration: Scalar = 0.333,
    rate: Scalar = 0.01,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> tuple[Array, NormStatistics]:
    """AdaFace: the margin adapts to image quality, read from the embedding's length.

    f_y = s (cos(θ_y − mz) − m − mz) and f_j = s c_j, with
    z = h (‖x‖ − μ)/(σ + ε) clipped to [−1, 1] and detached, c kept ε from ±1 and θ_y − mz
    in [ε, π − ε], ε = 1e-3. The state is the running mean μ and deviation σ of ‖x‖,
    clipped to [1e-3, 100], updated before it is used; a batch of one leaves σ as it is.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      state: μ and σ, scalars; they start at 20 and 100.
      margin: m in radians, a scalar or [B].
      concentration: h, how far a norm one deviation from the mean moves the margin, a scalar or
        [B].
      rate: weight of this batch in the running statistics.
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
      Losses [B]; take the mean. And the next state.

    Raises:
      ValueError: if an argument is not as above; the message names it.

    Example:
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import LOSSES, adaface_loss
      >>> embeddings, prototypes = jnp.array([[3.0, 4.0]]), jnp.eye(2)
      >>> state = LOSSES["adaface"].init_state(num_classes=2)
      >>> loss, state = adaface_loss(embeddings, prototypes, jnp.array([1]), state=state)
      >>> print(loss.round(2), state.mean.round(2))
      [12.3] 19.85

    References:
      Kim et al., AdaFace: Quality Adaptive Margin for Face Recognition, CVPR 2022,
        https://arxiv.org/abs/2204.00964.
    """
    _checks.require_like("state", state, jax.eval_shape(NormStatistics))
    _checks.require_angles(margin=margin)
    _checks.require_numbers(concentration=concentration, rate=rate)
    state = _follow_norms(state, embeddings, rate)
    losses = margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.adaface,
        negatives=margins.adaface_negatives,
        hyperparameters={
            "margin": margin,
            "concentration": concentration,
            "mean": state.mean,
            "std": state.std,
        },
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )
    return losses, state


def adaface_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    state: NormStatistics,
    margin: Scalar = 0.4,
    concentration: Scalar = 0.333,
    rate: Scalar = 0.01,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> tuple[Array, NormStatistics]:
    """Logits of `adaface_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      state: μ and σ, scalars; they start at 20 and 100.
      margin: m in radians, a scalar or [B].
      concentration: h, how far a norm one deviation from the mean moves the margin, a scalar or
        [B].
      rate: weight of this batch in the running statistics.
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger get −∞ (interclass filtering), a scalar
        or [B]; None: none does.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only.
      num_classes: rows of prototypes from here on are not classes and get −∞; None: all are.

    Returns:
      Logits [B, C], and the next state.

    Raises:
      ValueError: if an argument is not as above; the message names it.
    """
    _checks.require_like("state", state, jax.eval_shape(NormStatistics))
    _checks.require_angles(margin=margin)
    _checks.require_numbers(concentration=concentration, rate=rate)
    state = _follow_norms(state, embeddings, rate)
    logits = margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.adaface,
        negatives=margins.adaface_negatives,
        hyperparameters={
            "margin": margin,
            "concentration": concentration,
            "mean": state.mean,
            "std": state.std,
        },
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
    )
    return logits, state


def _follow_norms(state: NormStatistics, embeddings: Array, rate: Scalar) -> NormStatistics:
    """The running statistics of the embeddings' norms."""
    state = jax.lax.stop_gradient(jax.tree.map(jnp.asarray, state))
    dtype = jnp.result_type(state.mean)
    embeddings = jax.lax.stop_gradient(jnp.asarray(embeddings)).astype(dtype)
    return margins.adaface_update(safe_norm(embeddings), state, rate)


LOSSES = {
    "curricularface": Loss(
        curricularface_loss,
        curricularface_logits,
        title="CurricularFace",
        start=lambda num_classes: jnp.zeros((), jnp.float32),
        whole_batch=True,
    ),
    "magface": Loss(magface_loss, magface_logits, title="MagFace"),
    "adaface": Loss(
        adaface_loss,
        adaface_logits,
        title="AdaFace",
        start=lambda num_classes: NormStatistics(jnp.float32(20.0), jnp.float32(100.0)),
        whole_batch=True,
    ),
}
