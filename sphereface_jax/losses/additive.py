"""One margin added to the cosine or to the angle: CosFace, ArcFace and what follows from them.

UniFace puts one learnt threshold between all positive and all negative cosines.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from sphereface_jax import _checks, margins
from sphereface_jax.heads.blockwise import AnyMesh
from sphereface_jax.heads.reductions import BinaryCrossEntropy
from sphereface_jax.heads.scoring import Scalar
from sphereface_jax.losses.margin_loss import margin_logits, margin_loss
from sphereface_jax.losses.table import Loss

Array = jax.Array

Beyond = Literal["keep", "linear", "clamp"]


def cosface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 0.35,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """CosFace, or AM-Softmax: an additive margin on the cosine.

    f_y = s (c_y − m) and f_j = s c_j.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m, a scalar or [B].
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
      Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018,
        https://arxiv.org/abs/1801.09414.
    """
    _checks.require_numbers(margin=margin)
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


def cosface_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 0.35,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> Array:
    """Logits of `cosface_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m, a scalar or [B].
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
    _checks.require_numbers(margin=margin)
    return margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.cosface,
        hyperparameters={"margin": margin},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
    )


def arcface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 0.5,
    beyond: Beyond = "keep",
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """ArcFace: an additive margin on the angle.

    f_y = s cos(θ_y + m) and f_j = s c_j. Past θ_y = π − m, f_y / s is
    cos(θ_y + m), which rises again (keep), c_y − m sin m (linear), or −1 (clamp).

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m in radians, a scalar or [B].
      beyond: what follows past θ = π − m: 'keep', 'linear' or 'clamp'.
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

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import arcface_loss
      >>> embeddings, prototypes, labels = jnp.eye(2), jnp.eye(2), jnp.array([0, 1])
      >>> elastic = 0.5 + 0.05 * jax.random.normal(jax.random.key(0), [2])  # a margin per example
      >>> arcface_loss(embeddings, prototypes, labels, margin=elastic).shape
      (2,)

    References:
      Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019,
        https://arxiv.org/abs/1801.07698.
    """
    _checks.require_angles(margin=margin)
    _checks.require_choice("beyond", beyond, ("keep", "linear", "clamp"))
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.arcface,
        hyperparameters={"margin": margin, "beyond": beyond},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def arcface_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 0.5,
    beyond: Beyond = "keep",
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> Array:
    """Logits of `arcface_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m in radians, a scalar or [B].
      beyond: what follows past θ = π − m: 'keep', 'linear' or 'clamp'.
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
    _checks.require_angles(margin=margin)
    _checks.require_choice("beyond", beyond, ("keep", "linear", "clamp"))
    return margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.arcface,
        hyperparameters={"margin": margin, "beyond": beyond},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
    )


def combined_margin_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    m1: Scalar = 1.0,
    m2: Scalar = 0.5,
    m3: Scalar = 0.0,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """The combined margin of SphereFace, ArcFace and CosFace.

    f_y = s (cos(m₁θ_y + m₂) − m₃), which is not made monotone, and f_j = s c_j.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      m1: m₁, factor of the angle, a scalar or [B].
      m2: m₂, added to the angle, in radians, a scalar or [B].
      m3: m₃, subtracted from the cosine, a scalar or [B].
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
      Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019,
        https://arxiv.org/abs/1801.07698.
    """
    _checks.require_numbers(m1=m1, m3=m3)
    _checks.require_angles(m2=m2)
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.combined,
        hyperparameters={"m1": m1, "m2": m2, "m3": m3},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def combined_margin_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    m1: Scalar = 1.0,
    m2: Scalar = 0.5,
    m3: Scalar = 0.0,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> Array:
    """Logits of `combined_margin_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      m1: m₁, factor of the angle, a scalar or [B].
      m2: m₂, added to the angle, in radians, a scalar or [B].
      m3: m₃, subtracted from the cosine, a scalar or [B].
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
    _checks.require_numbers(m1=m1, m3=m3)
    _checks.require_angles(m2=m2)
    return margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.combined,
        hyperparameters={"m1": m1, "m2": m2, "m3": m3},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
    )


def subcenter_arcface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 0.5,
    beyond: Beyond = "keep",
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """Sub-centre ArcFace: K prototypes per class, of which the nearest counts.

    f_y = s cos(θ_y + m) and f_j = s c_j with c_j = max_k cos(x, w_jk);
    past θ_y = π − m as for ArcFace. Sub-centres that are equally near share the gradient.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, K, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m in radians, a scalar or [B].
      beyond: what follows past θ = π − m: 'keep', 'linear' or 'clamp'.
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
      Deng et al., Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces,
        ECCV 2020.
    """
    _checks.require_floating("prototypes", prototypes, "C, K, D")
    return arcface_loss(
        embeddings,
        prototypes,
        labels,
        margin=margin,
        beyond=beyond,
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def subcenter_arcface_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 0.5,
    beyond: Beyond = "keep",
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> Array:
    """Logits of `subcenter_arcface_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, K, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m in radians, a scalar or [B].
      beyond: what follows past θ = π − m: 'keep', 'linear' or 'clamp'.
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
    _checks.require_floating("prototypes", prototypes, "C, K, D")
    return arcface_logits(
        embeddings,
        prototypes,
        labels,
        margin=margin,
        beyond=beyond,
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
    )


def uniface_bias_init(num_classes: int) -> Array:
    """The bias with which UniFace starts: log(10 C).

    Args:
      num_classes: C, at least 1.

    Returns:
      b, a scalar: the state that `uniface_loss` starts with.

    Raises:
      ValueError: if there is no class.

    References:
      Zhou et al., UniFace: Unified Cross-Entropy Loss for Deep Face Recognition, ICCV 2023, and the
      authors' code.
    """
    _checks.require(num_classes >= 1, "num_classes", "an integer of at least 1", num_classes)
    return jnp.log(jnp.float32(10 * num_classes))


def uniface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    state: Array,
    margin: Scalar = 0.4,
    negative_weight: Scalar = 1.0,
    scale: Scalar | None = 64.0,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> tuple[Array, Array]:
    """UniFace: one threshold between all positive and all negative cosines.

    f_y = s (c_y − m) − b and f_j = s c_j − b, with the bias b as state.
    The loss is softplus(−f_y) + l Σ_j softplus(f_j).

    The authors' code clips f to [−s, s] against overflow, so that it gives no gradient there;
    softplus does not overflow, and nothing is clipped here.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      state: b, a scalar, learnt; `uniface_bias_init` is its start.
      margin: m, a scalar or [B].
      negative_weight: l, a scalar or [B].
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
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
      Zhou et al., UniFace: Unified Cross-Entropy Loss for Deep Face Recognition, ICCV 2023.
    """
    _checks.require_like("state", state, jax.ShapeDtypeStruct((), jnp.float32))
    _checks.require_numbers(margin=margin)
    losses = margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.cosface,
        hyperparameters={"margin": margin},
        reduction=BinaryCrossEntropy(negative_weight=negative_weight),
        bias=-state,
        scale=scale,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )
    _checks.require_numbers(negative_weight=negative_weight)
    return losses, state


LOSSES = {
    "cosface": Loss(cosface_loss, cosface_logits, title="CosFace"),
    "arcface": Loss(arcface_loss, arcface_logits, title="ArcFace"),
    "combined_margin": Loss(combined_margin_loss, combined_margin_logits, title="combined margin"),
    "subcenter_arcface": Loss(
        subcenter_arcface_loss,
        subcenter_arcface_logits,
        title="sub-centre ArcFace",
        num_subcenters=3,
    ),
    "uniface": Loss(uniface_loss, title="UniFace", start=uniface_bias_init, learns_state=True),
}
