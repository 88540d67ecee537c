"""Margins: one small pure function each, from a cosine to what stands in its place.

A margin is `target(cosine_y, norms, **hyperparameters)`, where `cosine_y` [B] are the cosines
between the embeddings and their targets' prototypes and `norms` [B] the embeddings' lengths. A
few also change the other classes' cosines: `negatives(cosine, cosine_y, **hyperparameters)`,
elementwise in `cosine` [B, C], with `cosine_y` [B, 1] to broadcast. Hyper-parameters are
keyword-only scalars, or arrays that broadcast against the cosines: [B] for a target, [B, 1] for
negatives. Angles are in radians.

The losses of `sphereface_jax.losses` give them their names and defaults.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sphereface_jax.geometry import cos_sum, monotone_psi, safe_arccos

Array = jax.Array
Scalar = float | jax.Array


def identity(cosine_y: Array, norms: Array) -> Array:
    """No margin: c.

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B]; of no effect.

    Returns:
      The cosine, [B].
    """
    del norms
    return cosine_y


# SphereFace and its revisions


def sphereface(
    cosine_y: Array, norms: Array, *, margin: int, annealing_lambda: Scalar = 0.0
) -> Array:
    """The cosine and the monotone ψ, mixed by λ: c + (ψ(c) − c) / (1 + λ).

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B]; of no effect.
      margin: m, a whole number of at least 1, or an array that broadcasts against the cosine.
      annealing_lambda: λ, at least 0; 0: ψ alone.

    Returns:
      What stands in place of the cosine, [B].

    Raises:
      ValueError: if the margin is a number below 1, NaN or infinite.
    """
    del norms
    return cosine_y + (monotone_psi(cosine_y, margin) - cosine_y) / (1 + annealing_lambda)


def sphereface_caffe_gradient(
    cosine_y: Array, norms: Array, *, margin: int, annealing_lambda: Scalar = 0.0
) -> tuple[Array, Array]:
    """The authors' gradient of the target's logit by the embedding x, as a·w + b·x.

    The exact gradient of ‖x‖ψ is v = ψ′w + κx with κ = (ψ − cψ′)/‖x‖; the authors' layer divides
    it by √(ψ′² + κ²), then mixes in the plain logit's gradient w by λ: (v + λw)/(1 + λ).

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B].
      margin: m, a whole number of at least 1, or an array that broadcasts against the cosine.
      annealing_lambda: λ, at least 0; 0: ψ alone.

    Returns:
      a and b, each [B].

    Raises:
      ValueError: if the margin is a number below 1, NaN or infinite.
    """
    psi, slope = jax.jvp(
        lambda cosine: monotone_psi(cosine, margin), (cosine_y,), (jnp.ones_like(cosine_y),)
    )
    # Both coefficients and the root are multiplied by ‖x‖, which may be zero.
    along_prototype, along_embedding = slope * norms, psi - cosine_y * slope
    root = jnp.sqrt(jnp.square(along_prototype) + jnp.square(along_embedding))
    root = jnp.where(root == 0, 1, root)
    return (
        1 + (along_prototype / root - 1) / (1 + annealing_lambda),
        along_embedding / root / (1 + annealing_lambda),
    )


def _cos_product_to_pi(cosine: Array, factor: Scalar) -> Array:
    """cos(min(mθ, π))."""
    return jnp.cos(jnp.minimum(factor * safe_arccos(cosine), math.pi))


def _cos_sum_to_pi(cosine: Array, shift: Scalar) -> Array:
    """cos(min(θ + m, π)) for m in [0, π]."""
    return jnp.where(cosine <= -jnp.cos(shift), -1, cos_sum(cosine, shift))


def sphereface_r(cosine_y: Array, norms: Array, *, margin: Scalar, version: str) -> Array:
    """v0: ψ(c); v1: cos(min(mθ, π)); v2: c.

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B]; of no effect.
      margin: m, at least 1 for v0.
      version: "v0", "v1" or "v2".

    Returns:
      What stands in place of the cosine, [B].

    Raises:
      ValueError: if the margin of v0 is a number below 1, NaN or infinite.
    """
    del norms
    match version:
        case "v0":
            return monotone_psi(cosine_y, margin)
        case "v1":
            return _cos_product_to_pi(cosine_y, margin)
        case _:
            return cosine_y


def sphereface_r_negatives(
    cosine: Array, cosine_y: Array, *, margin: Scalar, version: str
) -> Array:
    """v0 and v1: c_j; v2: cos(θ_j / m).

    Args:
      cosine: c_j, the cosines with the other classes' prototypes, [B, C].
      cosine_y: the cosine with the target's prototype, [B, 1]; of no effect.
      margin: m; of effect in v2.
      version: "v0", "v1" or "v2".

    Returns:
      What stands in place of the cosines, [B, C].
    """
    del cosine_y
    return jnp.cos(safe_arccos(cosine) / margin) if version == "v2" else cosine


# SphereFace2: binary decisions, one per class


def _spread(cosine: Array, exponent: Scalar) -> Array:
    """g(c) = 2((c + 1)/2)^t − 1, which spreads the similarities of different classes."""
    half = (cosine + 1) / 2
    is_edge = half <= 0  # false for NaN, which stays NaN
    return jnp.where(is_edge, -1, 2 * jnp.where(is_edge, 1, half) ** exponent - 1)


def sphereface2(
    cosine_y: Array, norms: Array, *, variant: str, margin: Scalar, exponent: Scalar
) -> Array:
    """C: g(c) − m; A: g(cos(min(θ + m, π))); M: g(cos(min(mθ, π))).

    g(c) = 2((c + 1)/2)^t − 1 spreads the similarities of different classes.

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B]; of no effect.
      variant: "C", "A" or "M".
      margin: m: of the cosine in C, of the angle in radians and up to π in A, its factor in M.
      exponent: t.

    Returns:
      What stands in place of the cosine, [B].
    """
    del norms
    match variant:
        case "C":
            return _spread(cosine_y, exponent) - margin
        case "A":
            return _spread(_cos_sum_to_pi(cosine_y, margin), exponent)
        case _:
            return _spread(_cos_product_to_pi(cosine_y, margin), exponent)


def sphereface2_negatives(
    cosine: Array, cosine_y: Array, *, variant: str, margin: Scalar, exponent: Scalar
) -> Array:
    """C: g(c_j) + m; A and M: g(c_j).

    Args:
      cosine: c_j, the cosines with the other classes' prototypes, [B, C].
      cosine_y: the cosine with the target's prototype, [B, 1]; of no effect.
      variant: "C", "A" or "M".
      margin: m, of effect in C.
      exponent: t of g, as in `sphereface2`.

    Returns:
      What stands in place of the cosines, [B, C].
    """
    del cosine_y
    return _spread(cosine, exponent) + (margin if variant == "C" else 0)


# Margins added to the cosine or to the angle


def cosface(cosine_y: Array, norms: Array, *, margin: Scalar) -> Array:
    """The cosine less a margin: c − m.

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B]; of no effect.
      margin: m.

    Returns:
      What stands in place of the cosine, [B].
    """
    del norms
    return cosine_y - margin


def arcface(cosine_y: Array, norms: Array, *, margin: Scalar, beyond: str = "keep") -> Array:
    """cos(θ + m). Past θ = π − m: the same (keep), c − m sin m (linear), or −1 (clamp).

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B]; of no effect.
      margin: m in radians, from 0 to π.
      beyond: "keep", "linear" or "clamp".

    Returns:
      What stands in place of the cosine, [B].
    """
    del norms
    match beyond:
        case "linear":
            is_beyond = cosine_y <= -jnp.cos(margin)
            linear = cosine_y - margin * jnp.sin(margin)
            return jnp.where(is_beyond, linear, cos_sum(cosine_y, margin))
        case "clamp":
            return _cos_sum_to_pi(cosine_y, margin)
        case _:
            return cos_sum(cosine_y, margin)


def combined(cosine_y: Array, norms: Array, *, m1: Scalar, m2: Scalar, m3: Scalar) -> Array:
    """cos(m₁θ + m₂) − m₃, which is not made monotone.

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B]; of no effect.
      m1: m₁, factor of the angle.
      m2: m₂ in radians, added to the angle.
      m3: m₃, subtracted from the cosine.

    Returns:
      What stands in place of the cosine, [B].
    """
    del norms
    return jnp.cos(m1 * safe_arccos(cosine_y) + m2) - m3


# CurricularFace, MagFace and AdaFace: margins that follow the batch or the norms


def curricularface(cosine_y: Array, norms: Array, *, margin: Scalar, hardness: Scalar) -> Array:
    """cos(θ + m), and c − m sin m past θ = π − m.

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B]; of no effect.
      margin: m in radians, from 0 to π.
      hardness: t, of effect in the negatives alone.

    Returns:
      What stands in place of the cosine, [B].
    """
    del hardness
    return arcface(cosine_y, norms, margin=margin, beyond="linear")


def curricularface_negatives(
    cosine: Array, cosine_y: Array, *, margin: Scalar, hardness: Scalar
) -> Array:
    """Hard classes count for more: c_j (t + c_j) where c_j > cos(θ_y + m), else c_j.

    Args:
      cosine: c_j, the cosines with the other classes' prototypes, [B, C].
      cosine_y: the cosine with the target's prototype, [B, 1].
      margin: m in radians, from 0 to π.
      hardness: t, the running mean of the target's cosine.

    Returns:
      What stands in place of the cosines, [B, C].
    """
    is_hard = cosine > cos_sum(cosine_y, margin)
    return jnp.where(is_hard, cosine * (hardness + cosine), cosine)


def magface(
    cosine_y: Array,
    norms: Array,
    *,
    lower_norm: Scalar,
    upper_norm: Scalar,
    lower_margin: Scalar,
    upper_margin: Scalar,
) -> Array:
    """cos(θ + m(a)) where c > 0, else c; m(a) rises linearly with a = ‖x‖ between the bounds.

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B].
      lower_norm: shorter embeddings count as this long.
      upper_norm: longer embeddings count as this long.
      lower_margin: m at lower_norm, in radians.
      upper_margin: m at upper_norm, in radians.

    Returns:
      What stands in place of the cosine, [B].
    """
    length = jnp.clip(norms, lower_norm, upper_norm)
    slope = (upper_margin - lower_margin) / (upper_norm - lower_norm)
    margin = lower_margin + slope * (length - lower_norm)
    return jnp.where(cosine_y > 0, cos_sum(cosine_y, margin), cosine_y)


class NormStatistics(NamedTuple):
    """AdaFace's running statistics of the embeddings' norms.

    Attributes:
      mean: their mean.
      std: their standard deviation.
    """

    mean: Scalar = 20.0
    std: Scalar = 100.0


ADAFACE_EPSILON = 1e-3
_ADAFACE_NORMS = (1e-3, 100.0)


def adaface_update(norms: Array, state: NormStatistics, rate: Scalar) -> NormStatistics:
    """μ, σ ← (1 − rate)(μ, σ) + rate · (mean, unbiased deviation of the batch's ‖x‖).

    Args:
      norms: ‖x‖, the embeddings' lengths, any shape; clipped to [1e-3, 100].
      state: μ and σ so far.
      rate: weight of this batch, in [0, 1].

    Returns:
      The next μ and σ; an empty batch changes neither, a batch of one not σ.
    """
    norms = jnp.clip(norms, *_ADAFACE_NORMS)
    if norms.size == 0:
        return state
    mean = (1 - rate) * state.mean + rate * jnp.mean(norms)
    if norms.size < 2:  # one norm has no deviation
        return NormStatistics(mean, state.std)
    return NormStatistics(mean, (1 - rate) * state.std + rate * jnp.std(norms, ddof=1))


def adaface(
    cosine_y: Array,
    norms: Array,
    *,
    margin: Scalar,
    concentration: Scalar,
    mean: Scalar,
    std: Scalar,
) -> Array:
    """cos(clip(θ − m·z, ε, π − ε)) − (m + m·z), z = clip(h(‖x‖ − μ)/(σ + ε), −1, 1) detached.

    Args:
      cosine_y: c, the cosine with the target's prototype, [B].
      norms: ‖x‖, the embeddings' lengths, [B]; clipped to [1e-3, 100].
      margin: m in radians.
      concentration: h, how far a norm one deviation from the mean moves the margin.
      mean: μ, the running mean of ‖x‖.
      std: σ, its running deviation.

    Returns:
      What stands in place of the cosine, [B].
    """
    norms = jnp.clip(jax.lax.stop_gradient(norms), *_ADAFACE_NORMS)
    quality = jnp.clip(concentration * (norms - mean) / (std + ADAFACE_EPSILON), -1, 1)
    inside = jnp.clip(cosine_y, -1 + ADAFACE_EPSILON, 1 - ADAFACE_EPSILON)
    angle = safe_arccos(inside) - margin * quality
    angle = jnp.clip(angle, ADAFACE_EPSILON, math.pi - ADAFACE_EPSILON)
    return jnp.cos(angle) - (margin + margin * quality)


def adaface_negatives(cosine: Array, cosine_y: Array, **unused: Any) -> Array:
    """The cosine, kept ε away from ±1.

    Args:
      cosine: c_j, the cosines with the other classes' prototypes, [B, C].
      cosine_y: the cosine with the target's prototype, [B, 1]; of no effect.
      **unused: the target's hyper-parameters.

    Returns:
      What stands in place of the cosines, [B, C].
    """
    del cosine_y, unused
    return jnp.clip(cosine, -1 + ADAFACE_EPSILON, 1 - ADAFACE_EPSILON)
