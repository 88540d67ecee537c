"""Margins: one small pure function each, from a cosine to what stands in its place.

A margin is `target(cosine_y, norms, state)`, where `cosine_y` [B] are the cosines between the
embeddings and their own classes' prototypes, `norms` [B] the embeddings' lengths, and `state` what
the loss carries through training (None for most). A few also change the other classes' cosines:
`negatives(cosine, cosine_y, state)`, elementwise in `cosine` [B, C], with `cosine_y` [B, 1] to
broadcast. A loss with state has `update(cosine_y, norms, state)`, applied before the state is used.

Hyper-parameters are keyword-only and carry the loss's defaults; angles are in radians.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from sphereface_jax._checks import require_choice
from sphereface_jax.geometry import cos_sum, monotone_psi, safe_arccos

Array = jax.Array
Scalar = float | jax.Array
Choice = TypeVar("Choice")


def _choose(choices: Mapping[str, Choice], argument: str, name: str) -> Choice:
    require_choice(argument, name, list(choices))
    return choices[name]


def identity(cosine_y: Array, norms: Array, state: None) -> Array:
    """No margin: c."""
    del norms, state
    return cosine_y


# SphereFace and its revisions


def sphereface(
    cosine_y: Array,
    norms: Array,
    state: None,
    *,
    margin: int = 4,
    annealing_lambda: Scalar = 0.0,
) -> Array:
    """The cosine and the monotone ψ, mixed by λ: c + (ψ(c) − c) / (1 + λ)."""
    del norms, state
    psi = monotone_psi(cosine_y, margin)
    if not float(margin).is_integer():
        raise ValueError(f"margin: expected an integer, got {margin}; sphereface_r takes others")
    return cosine_y + (psi - cosine_y) / (1 + annealing_lambda)


def sphereface_caffe_gradient(
    cosine_y: Array, norms: Array, *, margin: int = 4, annealing_lambda: Scalar = 0.0
) -> tuple[Array, Array]:
    """The authors' gradient of the target's logit by the embedding x, as a·w + b·x: (a, b).

    The exact gradient of ‖x‖ψ is v = ψ′w + κx with κ = (ψ − cψ′)/‖x‖; the authors' layer divides
    it by √(ψ′² + κ²), then mixes in the plain logit's gradient w by λ: (v + λw)/(1 + λ).
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
    return jnp.where(cosine > -jnp.cos(shift), cos_sum(cosine, shift), -1)


class _Revision(NamedTuple):
    target: Callable[[Array, Any], Array]
    negatives: Callable[[Array, Any], Array] = lambda cosine, margin: cosine


_SPHEREFACE_R = {
    "v0": _Revision(target=monotone_psi),
    "v1": _Revision(target=_cos_product_to_pi),
    "v2": _Revision(
        target=lambda cosine, margin: cosine,
        negatives=lambda cosine, margin: jnp.cos(safe_arccos(cosine) / margin),
    ),
}


def sphereface_r(
    cosine_y: Array, norms: Array, state: None, *, margin: Scalar = 1.4, version: str = "v2"
) -> Array:
    """v0: ψ(c); v1: cos(min(mθ, π)); v2: c."""
    del norms, state
    return _choose(_SPHEREFACE_R, "version", version).target(cosine_y, margin)


def sphereface_r_negatives(
    cosine: Array, cosine_y: Array, state: None, *, margin: Scalar = 1.4, version: str = "v2"
) -> Array:
    """v0 and v1: c_j; v2: cos(θ_j / m)."""
    del cosine_y, state
    return _choose(_SPHEREFACE_R, "version", version).negatives(cosine, margin)


# SphereFace2: binary decisions, one a class


class _SphereFace2(NamedTuple):
    margin: float
    target: Callable[[Callable, Array, Any], Array]
    negatives: Callable[[Callable, Array, Any], Array] = lambda g, cosine, margin: g(cosine)


_SPHEREFACE2 = {
    "C": _SphereFace2(
        margin=0.4,
        target=lambda g, cosine, margin: g(cosine) - margin,
        negatives=lambda g, cosine, margin: g(cosine) + margin,
    ),
    "A": _SphereFace2(
        margin=0.5, target=lambda g, cosine, margin: g(_cos_sum_to_pi(cosine, margin))
    ),
    "M": _SphereFace2(
        margin=1.7, target=lambda g, cosine, margin: g(_cos_product_to_pi(cosine, margin))
    ),
}


def _spread(exponent: Scalar) -> Callable[[Array], Array]:
    """g(c) = 2((c + 1)/2)^t − 1, which spreads the similarities of different classes."""

    def spread(cosine: Array) -> Array:
        half = (cosine + 1) / 2
        positive = half > 0
        return jnp.where(positive, 2 * jnp.where(positive, half, 1) ** exponent - 1, -1)

    return spread


def sphereface2(
    cosine_y: Array,
    norms: Array,
    state: Array | None,
    *,
    variant: str = "C",
    margin: Scalar | None = None,
    exponent: Scalar = 3.0,
) -> Array:
    """C: g(c) − m; A: g(cos(min(θ + m, π))); M: g(cos(min(mθ, π))); m is 0.4, 0.5 or 1.7."""
    del norms, state
    row = _choose(_SPHEREFACE2, "variant", variant)
    return row.target(_spread(exponent), cosine_y, row.margin if margin is None else margin)


def sphereface2_negatives(
    cosine: Array,
    cosine_y: Array,
    state: Array | None,
    *,
    variant: str = "C",
    margin: Scalar | None = None,
    exponent: Scalar = 3.0,
) -> Array:
    """C: g(c_j) + m; A and M: g(c_j)."""
    del cosine_y, state
    row = _choose(_SPHEREFACE2, "variant", variant)
    return row.negatives(_spread(exponent), cosine, row.margin if margin is None else margin)


# CosFace, ArcFace and what combines them


def cosface(cosine_y: Array, norms: Array, state: None, *, margin: Scalar = 0.35) -> Array:
    """The cosine less a margin: c − m."""
    del norms, state
    return cosine_y - margin


_BEYOND = {
    "keep": cos_sum,
    "linear": lambda cosine, margin: jnp.where(
        cosine > -jnp.cos(margin), cos_sum(cosine, margin), cosine - margin * jnp.sin(margin)
    ),
    "clamp": _cos_sum_to_pi,
}


def arcface(
    cosine_y: Array, norms: Array, state: None, *, margin: Scalar = 0.5, beyond: str = "keep"
) -> Array:
    """cos(θ + m). Past θ = π − m: the same (keep), c − m sin m (linear), or −1 (clamp)."""
    del norms, state
    return _choose(_BEYOND, "beyond", beyond)(cosine_y, margin)


def combined(
    cosine_y: Array,
    norms: Array,
    state: None,
    *,
    m1: Scalar = 1.0,
    m2: Scalar = 0.5,
    m3: Scalar = 0.0,
) -> Array:
    """cos(m₁θ + m₂) − m₃, which is not made monotone."""
    del norms, state
    return jnp.cos(m1 * safe_arccos(cosine_y) + m2) - m3


# CurricularFace, MagFace and AdaFace: margins that look at the batch or at the norms


def curricularface_update(
    cosine_y: Array, norms: Array, state: Array, *, rate: Scalar = 0.01
) -> Array:
    """Running mean of the target cosine: t ← (1 − rate) t + rate · mean(c)."""
    del norms
    return (1 - rate) * state + rate * jnp.mean(cosine_y)


def curricularface(cosine_y: Array, norms: Array, state: Array, *, margin: Scalar = 0.5) -> Array:
    """cos(θ + m), and c − m sin m past θ = π − m."""
    del norms, state
    return _BEYOND["linear"](cosine_y, margin)


def curricularface_negatives(
    cosine: Array, cosine_y: Array, state: Array, *, margin: Scalar = 0.5
) -> Array:
    """Hard classes count for more: c_j (t + c_j) where c_j > cos(θ_y + m), else c_j."""
    is_hard = cosine > cos_sum(cosine_y, margin)
    return jnp.where(is_hard, cosine * (state + cosine), cosine)


def magface(
    cosine_y: Array,
    norms: Array,
    state: None,
    *,
    lower_norm: Scalar = 10.0,
    upper_norm: Scalar = 110.0,
    lower_margin: Scalar = 0.45,
    upper_margin: Scalar = 0.8,
) -> Array:
    """cos(θ + m(a)) where c > 0, else c; m(a) rises linearly with a = ‖x‖ between the bounds."""
    del state
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


_ADAFACE_NORMS = (1e-3, 100.0)
_ADAFACE_EPSILON = 1e-3


def adaface_update(
    cosine_y: Array, norms: Array, state: NormStatistics, *, rate: Scalar = 0.01
) -> NormStatistics:
    """μ, σ ← (1 − rate)(μ, σ) + rate · (mean, unbiased deviation of the batch's ‖x‖)."""
    del cosine_y
    norms = jnp.clip(norms, *_ADAFACE_NORMS)
    mean = (1 - rate) * state.mean + rate * jnp.mean(norms)
    if norms.size < 2:  # one norm has no deviation
        return NormStatistics(mean, state.std)
    return NormStatistics(mean, (1 - rate) * state.std + rate * jnp.std(norms, ddof=1))


def adaface(
    cosine_y: Array,
    norms: Array,
    state: NormStatistics,
    *,
    margin: Scalar = 0.4,
    concentration: Scalar = 0.333,
) -> Array:
    """cos(clip(θ − m·z, ε, π − ε)) − (m + m·z), z = clip(h(‖x‖ − μ)/(σ + ε), −1, 1) detached."""
    norms = jnp.clip(jax.lax.stop_gradient(norms), *_ADAFACE_NORMS)
    quality = concentration * (norms - state.mean) / (state.std + _ADAFACE_EPSILON)
    quality = jnp.clip(quality, -1, 1)
    angle = safe_arccos(adaface_negatives(cosine_y, cosine_y, state)) - margin * quality
    angle = jnp.clip(angle, _ADAFACE_EPSILON, math.pi - _ADAFACE_EPSILON)
    return jnp.cos(angle) - (margin + margin * quality)


def adaface_negatives(cosine: Array, cosine_y: Array, state: NormStatistics) -> Array:
    """The cosine, kept ε away from ±1."""
    del cosine_y, state
    return jnp.clip(cosine, -1 + _ADAFACE_EPSILON, 1 - _ADAFACE_EPSILON)
