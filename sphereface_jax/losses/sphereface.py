"""SphereFace and its revisions: margins that multiply the angle.

SphereFace asks cos(mθ_y) > cos(θ_j) of the angle θ_y to the target class, through the monotone ψ.
SphereFace-R frees m from being an integer, SphereFace+ spreads the prototypes, and SphereFace2
takes one binary decision per class.
"""

import numbers
from typing import Any, Literal

import jax
import jax.numpy as jnp

from sphereface_jax import _checks, margins
from sphereface_jax.geometry import normalize, safe_arccos
from sphereface_jax.heads.blockwise import AnyMesh, context_mesh, replicate, target_prototypes
from sphereface_jax.heads.reductions import BinaryCrossEntropy
from sphereface_jax.heads.scoring import Scalar
from sphereface_jax.losses.margin_loss import margin_logits, margin_loss
from sphereface_jax.losses.table import Loss

Array = jax.Array

_LARGEST_COSINE = 1 - 1e-5  # two coinciding prototypes have energy 5e4, and no slope


def _whole(margin: Any) -> Any:
    """ψ's margin: a whole number as such, so that cos(mθ) is a polynomial; or an array."""
    _checks.require_numbers(margin=margin)
    if isinstance(margin, numbers.Real):
        if margin < 1:
            raise ValueError(f"margin: expected a whole number of at least 1, got {margin}")
        if not float(margin).is_integer():
            raise ValueError(
                f"margin: expected an integer, got {margin}; sphereface_r takes others"
            )
        return int(float(margin))
    return margin


def _caffe(gradient: str, scale: Scalar | None) -> Any:
    """What `margin_loss` takes as the gradient."""
    _checks.require_choice("gradient", gradient, ("exact", "detached", "caffe"))
    if gradient != "caffe":
        return gradient
    _checks.require(scale is None, "scale", "None with gradient='caffe'", scale)
    return margins.sphereface_caffe_gradient


def sphereface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 4,
    annealing_lambda: Scalar = 0.0,
    scale: Scalar | None = None,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached", "caffe"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """SphereFace's angular softmax loss (A-Softmax).

    f_y = ‖x‖ (c_y + (ψ(c_y) − c_y) / (1 + λ)) and f_j = ‖x‖ c_j,
    c being cosines and ψ the monotone extension of cos(mθ).

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m, a whole number of at least 1, or an array [] or [B].
      annealing_lambda: λ of at least 0, which mixes the plain cosine in, a scalar or [B]; see
        `annealed_lambda`.
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger are left out (interclass filtering), a
        scalar or [B]; None: none is.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only; "caffe": of the authors' layer, for prototypes that are projected to unit length after
        each update.
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
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import sphereface_loss
      >>> embeddings = jnp.array([[3.0, 0.0], [0.0, 2.0]])
      >>> prototypes = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> print(sphereface_loss(embeddings, prototypes, jnp.array([0, 1])).round(3))
      [0.049 0.127]

    References:
      Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017,
        https://arxiv.org/abs/1704.08063.
    """
    _checks.require_numbers(annealing_lambda=annealing_lambda)
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.sphereface,
        hyperparameters={"margin": _whole(margin), "annealing_lambda": annealing_lambda},
        gradient=_caffe(gradient, scale),
        scale=scale,
        filter_threshold=filter_threshold,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def sphereface_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 4,
    annealing_lambda: Scalar = 0.0,
    scale: Scalar | None = None,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached", "caffe"] = "exact",
    num_classes: int | None = None,
) -> Array:
    """Logits of `sphereface_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m, a whole number of at least 1, or an array [] or [B].
      annealing_lambda: λ of at least 0, which mixes the plain cosine in, a scalar or [B]; see
        `annealed_lambda`.
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger get −∞ (interclass filtering), a scalar
        or [B]; None: none does.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only; "caffe": of the authors' layer, for prototypes that are projected to unit length after
        each update.
      num_classes: rows of prototypes from here on are not classes and get −∞; None: all are.

    Returns:
      Logits [B, C].

    Raises:
      ValueError: if an argument is not as above; the message names it.
    """
    _checks.require_numbers(annealing_lambda=annealing_lambda)
    return margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.sphereface,
        hyperparameters={"margin": _whole(margin), "annealing_lambda": annealing_lambda},
        gradient=_caffe(gradient, scale),
        scale=scale,
        filter_threshold=filter_threshold,
        num_classes=num_classes,
    )


def sphereface_r_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 1.4,
    version: Literal["v0", "v1", "v2"] = "v2",
    loss_weight: Scalar = 50.0,
    scale: Scalar | None = 60.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """SphereFace-R: SphereFace revived, with real-valued margins.

    v0: f_y = s ψ(c_y); v1: f_y = s cos(min(mθ_y, π)); f_j = s c_j for both;
    v2: f_y = s c_y and f_j = s cos(θ_j / m).
    The loss is w/s times their cross entropy. scale=None keeps each embedding's length in
    place of s and leaves the cross entropy as it is (no feature normalisation).

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m, a scalar or [B]; at least 1 for v0.
      version: which formula.
      loss_weight: w, a scalar or [B]; of no effect without a scale.
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
      Liu et al., SphereFace Revived: Unifying Hyperspherical Face Recognition, TPAMI 2022,
        https://arxiv.org/abs/2109.05565.
    """
    _checks.require_choice("version", version, ("v0", "v1", "v2"))
    _checks.require_numbers(margin=margin, loss_weight=loss_weight)
    losses = margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.sphereface_r,
        negatives=margins.sphereface_r_negatives if version == "v2" else None,
        hyperparameters={"margin": margin, "version": version},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )
    return losses if scale is None else losses * (loss_weight / scale)


def sphereface_r_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 1.4,
    version: Literal["v0", "v1", "v2"] = "v2",
    scale: Scalar | None = 60.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> Array:
    """Logits of `sphereface_r_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m, a scalar or [B]; at least 1 for v0.
      version: which formula, as in `sphereface_r_loss`.
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
    _checks.require_choice("version", version, ("v0", "v1", "v2"))
    _checks.require_numbers(margin=margin)
    return margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.sphereface_r,
        negatives=margins.sphereface_r_negatives if version == "v2" else None,
        hyperparameters={"margin": margin, "version": version},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
    )


def sphereface_plus_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: Scalar = 4,
    annealing_lambda: Scalar = 0.0,
    mhe_weight: Scalar = 0.1,
    scale: Scalar | None = None,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached", "caffe"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """SphereFace+: SphereFace with minimum hyperspherical energy (MHE).

    f_y = ‖x‖ (c_y + (ψ(c_y) − c_y) / (1 + λ)) and f_j = ‖x‖ c_j;
    λ_MHE times `mhe_regularizer` is added to every example's cross entropy.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      margin: m, a whole number of at least 1, or an array [] or [B].
      annealing_lambda: λ of at least 0, which mixes the plain cosine in, a scalar or [B]; see
        `annealed_lambda`.
      mhe_weight: λ_MHE of at least 0, a scalar or [B].
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger are left out (interclass filtering), a
        scalar or [B]; None: none is.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only; "caffe": of the authors' layer, for prototypes that are projected to unit length after
        each update.
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
      Liu et al., Learning towards Minimum Hyperspherical Energy, NeurIPS 2018,
        https://arxiv.org/abs/1805.09298.
    """
    _checks.require_floating("prototypes", prototypes, "C, D")
    losses = sphereface_loss(
        embeddings,
        prototypes,
        labels,
        margin=margin,
        annealing_lambda=annealing_lambda,
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )
    _checks.require_numbers(mhe_weight=mhe_weight)
    return losses + mhe_weight * _energy_of_batch(prototypes, labels, mesh)


# The energy is added to the loss; the logits are those without it.
sphereface_plus_logits = sphereface_logits


def sphereface2_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    state: Array,
    variant: Literal["C", "A", "M"] = "C",
    margin: Scalar | None = None,
    exponent: Scalar = 3.0,
    alpha: Scalar = 0.7,
    loss_weight: Scalar = 10.0,
    scale: Scalar | None = 40.0,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> tuple[Array, Array]:
    """SphereFace2: one binary decision per class.

    C: f_y = r (g(c_y) − m) + b and f_j = r (g(c_j) + m) + b;
    A: f_y = r g(cos(min(θ_y + m, π))) + b and f_j = r g(c_j) + b;
    M: f_y = r g(cos(min(mθ_y, π))) + b and f_j = r g(c_j) + b;
    with g(c) = 2((c + 1)/2)^t − 1, m = 0.4, 0.5 or 1.7, and the bias b as state.
    The loss is w/r (α softplus(−f_y) + (1 − α) Σ_j softplus(f_j)); r is called scale.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      state: b, a scalar, learnt; `sphereface2_bias_init` is its start.
      variant: which formula.
      margin: m, a scalar or [B]; None: the variant's own.
      exponent: t, the curvature of g, a scalar or [B].
      alpha: α, weight of the positive decisions, a scalar or [B]; 1 − α is that of the negative
        ones.
      loss_weight: w, a scalar or [B]; of no effect without a scale.
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

    Example:
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import sphereface2_bias_init, sphereface2_loss
      >>> embeddings, prototypes = jnp.array([[3.0, 4.0]]), jnp.eye(2)
      >>> bias = sphereface2_bias_init(num_classes=2)
      >>> loss, bias = sphereface2_loss(embeddings, prototypes, jnp.array([1]), state=bias)
      >>> print(loss.round(2))
      [4.74]

    References:
      Wen et al., SphereFace2: Binary Classification is All You Need for Deep Face Recognition, ICLR
        2022, https://arxiv.org/abs/2108.01513.
    """
    _checks.require_like("state", state, jax.ShapeDtypeStruct((), jnp.float32))
    hyperparameters = _sphereface2(variant, margin, exponent)
    losses = margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.sphereface2,
        negatives=margins.sphereface2_negatives,
        hyperparameters=hyperparameters,
        reduction=BinaryCrossEntropy(positive_weight=alpha, negative_weight=1 - alpha),
        bias=state,
        scale=scale,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )
    _checks.require_numbers(alpha=alpha, loss_weight=loss_weight)
    return (losses if scale is None else losses * (loss_weight / scale)), state


def sphereface2_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    state: Array,
    variant: Literal["C", "A", "M"] = "C",
    margin: Scalar | None = None,
    exponent: Scalar = 3.0,
    scale: Scalar | None = 40.0,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
) -> tuple[Array, Array]:
    """Logits of `sphereface2_loss`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      state: b, a scalar, learnt; `sphereface2_bias_init` is its start.
      variant: which formula, as in `sphereface2_loss`.
      margin: m, a scalar or [B]; None: the variant's own.
      exponent: t, the curvature of g, a scalar or [B].
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only.
      num_classes: rows of prototypes from here on are not classes and get −∞; None: all are.

    Returns:
      Logits [B, C], and the next state.

    Raises:
      ValueError: if an argument is not as above; the message names it.
    """
    _checks.require_like("state", state, jax.ShapeDtypeStruct((), jnp.float32))
    hyperparameters = _sphereface2(variant, margin, exponent)
    logits = margin_logits(
        embeddings,
        prototypes,
        labels,
        target=margins.sphereface2,
        negatives=margins.sphereface2_negatives,
        hyperparameters=hyperparameters,
        bias=state,
        scale=scale,
        gradient=gradient,
        num_classes=num_classes,
    )
    return logits, state


def _sphereface2(variant: str, margin: Scalar | None, exponent: Scalar) -> dict[str, Any]:
    """The hyper-parameters of the margin, that of the variant in place."""
    own = {"C": 0.4, "A": 0.5, "M": 1.7}
    _checks.require_choice("variant", variant, list(own))
    if margin is None:
        margin = own[variant]
    if variant == "A":
        _checks.require_angles(margin=margin)
    _checks.require_numbers(margin=margin, exponent=exponent)
    return {"variant": variant, "margin": margin, "exponent": exponent}


def sphereface2_bias_init(
    num_classes: int,
    *,
    variant: str = "C",
    margin: Scalar | None = None,
    exponent: Scalar = 3.0,
    alpha: Scalar = 0.7,
    scale: Scalar = 40.0,
) -> Array:
    """The bias with which SphereFace2's loss is least while all angles are right ones.

    With z = α / ((1 − α)(C − 1)) and a_y, a_j the logits at θ = π/2 of the target and of the
    others, b = ln 2z − a_j − ln(1 − z + √((1 − z)² + 4z exp(a_y − a_j))).

    Args:
      num_classes: C, at least 2.
      variant: 'C', 'A' or 'M'.
      margin: m; None: the variant's own.
      exponent: t, the curvature of g.
      alpha: weight of the positive decisions.
      scale: r, what the similarities are multiplied by.

    Returns:
      b, a scalar: the state that `sphereface2_loss` starts with.

    Raises:
      ValueError: if there are fewer than two classes or the variant is another.

    References:
      Wen et al., SphereFace2: Binary Classification is All You Need for Deep Face Recognition,
      ICLR 2022, https://arxiv.org/abs/2108.01513.
    """
    is_enough = isinstance(num_classes, numbers.Integral) and num_classes >= 2
    _checks.require(is_enough, "num_classes", "an integer of at least 2", num_classes)
    options = _sphereface2(variant, margin, exponent)
    right_angle = jnp.zeros(())
    target = scale * margins.sphereface2(right_angle, right_angle, **options)
    other = scale * margins.sphereface2_negatives(right_angle, right_angle, **options)
    gap = target - other
    odds = alpha / ((1 - alpha) * (num_classes - 1))
    root = jnp.sqrt((1 - odds) ** 2 + 4 * odds * jnp.exp(gap))
    # With few classes z > 1 and 1 − z + √ cancels; (1 − z + √)(z − 1 + √) = 4z exp(a_y − a_j).
    log_sum = jnp.log(jnp.abs(1 - odds) + root)
    log_sum = jnp.where(odds > 1, jnp.log(4 * odds) + gap - log_sum, log_sum)
    return jnp.log(2 * odds) - other - log_sum


def mhe_regularizer(prototypes: Array, labels: Array, *, num_classes: int | None = None) -> Array:
    """Minimum hyperspherical energy: mean θ⁻² over the pairs of different classes in a batch.

    It pushes prototypes apart, and can be added to any loss.

    Args:
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1; a class counts once.
      num_classes: how many of the rows are classes; all by default.

    Returns:
      The energy, a scalar; zero where the batch holds one class only. Angles below 4.5e-3 rad
      count as that, so that two prototypes that coincide have a finite energy.

    Raises:
      ValueError: if an argument is not as above.

    References:
      Liu et al., Learning towards Minimum Hyperspherical Energy, NeurIPS 2018,
      https://arxiv.org/abs/1805.09298.
    """
    rows, _ = _checks.require_floating("prototypes", prototypes, "C, D")
    num_classes = rows if num_classes is None else num_classes
    _checks.require_labels("labels", labels, len(labels), num_classes)
    return _hyperspherical_energy(jnp.asarray(prototypes)[jnp.asarray(labels)], jnp.asarray(labels))


def _energy_of_batch(prototypes: Array, labels: Array, mesh: AnyMesh | None) -> Array:
    """`mhe_regularizer`, on a mesh without moving more than the batch's prototypes."""
    mesh = mesh or context_mesh()
    labels = jnp.asarray(labels)
    rows = target_prototypes(jnp.asarray(prototypes), labels, mesh)
    return _hyperspherical_energy(rows, replicate(labels, mesh))


def _hyperspherical_energy(rows: Array, labels: Array) -> Array:
    """Mean of θ⁻² over the pairs of different classes among rows [B, D] of classes [B]."""
    directions = normalize(rows)
    cosine = jnp.matmul(directions, directions.T, precision=jax.lax.Precision.HIGHEST)
    angle = safe_arccos(jnp.clip(cosine, -_LARGEST_COSINE, _LARGEST_COSINE))
    is_same = labels[:, None] == labels[None]
    is_first = ~jnp.tril(is_same, k=-1).any(axis=1)  # each class counts once
    is_pair = is_first[:, None] & is_first[None] & ~is_same
    count = jnp.maximum(jnp.sum(is_pair), 1).astype(rows.dtype)
    return jnp.sum(jnp.where(is_pair, angle**-2, 0)) / count


LOSSES = {
    "sphereface": Loss(sphereface_loss, sphereface_logits, title="A-Softmax"),
    "sphereface_r": Loss(sphereface_r_loss, sphereface_r_logits, title="SphereFace-R"),
    "sphereface_plus": Loss(
        sphereface_plus_loss, sphereface_plus_logits, title="SphereFace+", whole_batch=True
    ),
    "sphereface2": Loss(
        sphereface2_loss,
        sphereface2_logits,
        title="SphereFace2",
        start=sphereface2_bias_init,
        learns_state=True,
    ),
}
