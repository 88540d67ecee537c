"""The geometry of the hypersphere: norms, cosines, angles and the monotone ψ of SphereFace.

Everything here has finite values and gradients at the edges where the textbook formulas do not:
a vector of length zero has no direction, and arccos has infinite slope at ±1. Functions keep
their argument's dtype.
"""

import math

import jax
import jax.numpy as jnp

Array = jax.Array


def safe_norm(vectors: Array) -> Array:
    """Euclidean length along the last axis, with gradient zero where the length is zero.

    Args:
      vectors: [..., D].

    Returns:
      Lengths [...].
    """
    squares = jnp.sum(jnp.square(vectors), axis=-1)
    # Both branches of a `where` are differentiated: the square root must never see the zero.
    is_zero = squares == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squares)))


def normalize(vectors: Array) -> Array:
    """Scales vectors to unit length; a zero vector stays zero and gets gradient zero.

    Args:
      vectors: [..., D].

    Returns:
      Unit vectors [..., D].
    """
    norms = safe_norm(vectors)[..., None]
    return vectors / jnp.where(norms == 0, 1, norms)


def cosine(vectors: Array, prototypes: Array) -> Array:
    """Cosines between every vector and every prototype.

    Args:
      vectors: [B, D].
      prototypes: [..., D].

    Returns:
      Cosines [B, ...], up to rounding in [-1, 1]; zero where either vector is zero.
    """
    # Scaling the products' columns spares a normalised copy of the prototypes.
    lengths = safe_norm(prototypes)
    products = jnp.tensordot(
        normalize(vectors), prototypes, axes=(-1, -1), precision=jax.lax.Precision.HIGHEST
    )
    return products / jnp.where(lengths == 0, 1, lengths)


def safe_arccos(cosine: Array) -> Array:
    """The angle of a cosine in radians, with gradient zero at and beyond ±1.

    Args:
      cosine: any shape; values beyond ±1, as rounding gives, count as ±1.

    Returns:
      Angles in [0, π], of the same shape.
    """
    inside = jnp.abs(cosine) < 1
    angle = jnp.arccos(jnp.where(inside, cosine, 0))
    return jnp.where(inside, angle, jnp.where(cosine > 0, 0, math.pi))


def cos_multiple(cosine: Array, multiple: int) -> Array:
    """cos(mθ) from cos θ: the Chebyshev polynomial T_m, without an arccos.

    T_2n = 2 T_n² − 1 and T_2n+1 = 2 T_n T_n+1 − T_1, which for m = 2 and 4 are monotone between
    their extrema even after rounding.

    Args:
      cosine: any shape.
      multiple: m, an integer of at least 0.

    Returns:
      cos(mθ), of the same shape.
    """
    if multiple == 0:
        return jnp.ones_like(cosine)
    if multiple == 1:
        return cosine
    half = cos_multiple(cosine, multiple // 2)
    if multiple % 2 == 0:
        return 2 * jnp.square(half) - 1
    return 2 * half * cos_multiple(cosine, multiple // 2 + 1) - cosine


def monotone_psi(cosine: Array, margin: int) -> Array:
    """The monotone ψ(θ) of SphereFace for an integer margin.

    ψ(θ) = (−1)^k cos(mθ) − 2k on θ ∈ [kπ/m, (k+1)π/m]: it falls from 1 at θ = 0 to 1 − 2m at π
    (m even or odd) and is once continuously differentiable in θ. k is found by comparing the
    cosine with the borders cos(kπ/m); floor(mθ/π) is wrong next to them.

    Args:
      cosine: cos θ, any shape.
      margin: m, an integer of at least 1.

    Returns:
      ψ, of the same shape.

    References:
      Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017.
    """
    # cos(π/2) is exactly zero on paper only.
    borders = [0.0 if 2 * k == margin else math.cos(k * math.pi / margin) for k in range(1, margin)]
    sign = jnp.ones_like(cosine)
    offset = jnp.zeros_like(cosine)
    for border in borders:
        passed = cosine < border
        sign = jnp.where(passed, -sign, sign)
        offset = jnp.where(passed, offset + 2, offset)
    return sign * cos_multiple(cosine, margin) - offset
