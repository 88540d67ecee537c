"""The geometry of the hypersphere: norms, cosines, angles and the monotone ψ of SphereFace.

Everything here has finite values and gradients at the edges where the textbook formulas do not:
a vector of length zero has no direction, and arccos and √(1 − c²) have infinite slope at c = ±1.
Both branches of a `where` are differentiated, so an edge is kept out of its formula's argument as
well as out of its result. Functions keep their argument's dtype.
"""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def safe_norm(vectors: Array) -> Array:
    """Euclidean length along the last axis, with gradient zero where the length is zero.

    Args:
      vectors: [..., D].

    Returns:
      Lengths [...], right for any length that the dtype can hold.
    """
    length, scale = _scaled_length(vectors)
    return length / scale


def normalize(vectors: Array) -> Array:
    """Scales vectors to unit length; a zero vector stays zero and gets gradient zero.

    Args:
      vectors: [..., D].

    Returns:
      Unit vectors [..., D].
    """
    length, scale = _scaled_length(vectors)
    return vectors * scale[..., None] / _divisor(length)[..., None]


def _length(vectors: Array) -> Array:
    """As `safe_norm`, of lengths whose squares the dtype can hold.

    It spares a pass over the vectors, which for 100,000 prototypes is a fifth of a loss's time.
    """
    squares = jnp.sum(jnp.square(vectors), axis=-1)
    is_zero = squares == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squares)))


@jax.custom_jvp
def _scaled_length(vectors: Array) -> tuple[Array, Array]:
    """The length of the scaled vectors [...], and the power of two that scales them [...].

    Scaled so that the largest entry is of the order of 1, no square overflows or vanishes.
    """
    largest = jnp.max(jnp.abs(vectors), axis=-1, initial=0)
    most = jnp.finfo(vectors.dtype).maxexp * 3 // 4  # the scale itself is not to overflow or vanish
    exponent = jnp.clip(jnp.frexp(largest)[1], -most, most)
    scale = jnp.ldexp(jnp.ones_like(largest), -exponent)
    return jnp.sqrt(jnp.sum(jnp.square(vectors * scale[..., None]), axis=-1)), scale


@_scaled_length.defjvp
def _scaled_length_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Any, Any]:
    (vectors,), (tangent,) = primals, tangents
    length, scale = _scaled_length(vectors)
    direction = vectors * scale[..., None] / _divisor(length)[..., None]
    change = jnp.sum(direction * tangent, axis=-1) * scale
    return (length, scale), (change, jnp.zeros_like(scale))


def _divisor(lengths: Array) -> Array:
    """Lengths to divide by: infinity for zero, which makes both the quotient and its slope zero."""
    return jnp.where(lengths == 0, jnp.inf, lengths)


def inner_products(vectors: Array, prototypes: Array) -> Array:
    """Inner products between every vector and every prototype, in full float32.

    Args:
      vectors: [B, D].
      prototypes: [..., D].

    Returns:
      Products [B, ...].
    """
    # An accelerator's default for float32 is a product of fewer bits, which the slope of ψ, up to
    # m², would multiply.
    return jnp.tensordot(vectors, prototypes, axes=(-1, -1), precision=jax.lax.Precision.HIGHEST)


def cosine(vectors: Array, prototypes: Array) -> Array:
    """Cosines between every vector and every prototype.

    Args:
      vectors: [B, D].
      prototypes: [..., D].

    Returns:
      Cosines [B, ...], up to rounding in [−1, 1]; zero, with gradient zero, where either vector is.
      Vectors may be of any length, prototypes, in float32, of 1e-18 to 1e18.
    """
    # Scaling the products' columns spares a normalised copy of the prototypes.
    products = inner_products(normalize(vectors), prototypes)
    return products / _divisor(_length(prototypes))[None]


def safe_arccos(cosine: Array) -> Array:
    """The angle of a cosine in radians, with gradient zero at and beyond ±1.

    Args:
      cosine: any shape; values beyond ±1, as rounding gives, count as ±1.

    Returns:
      Angles in [0, π], of the same shape.
    """
    is_edge = jnp.abs(cosine) >= 1  # false for NaN, which stays NaN
    angle = jnp.arccos(jnp.where(is_edge, 0, cosine))
    edge = jnp.where(cosine > 0, jnp.zeros_like(cosine), math.pi)
    return jnp.where(is_edge, edge, angle)


def safe_sin(cosine: Array) -> Array:
    """The sine of an angle in [0, π] from its cosine, with gradient zero at and beyond ±1.

    Args:
      cosine: any shape; values beyond ±1, as rounding gives, count as ±1.

    Returns:
      Sines in [0, 1], of the same shape.
    """
    is_edge = jnp.abs(cosine) >= 1  # false for NaN, which stays NaN
    squares = jnp.where(is_edge, 1, (1 - cosine) * (1 + cosine))
    return jnp.where(is_edge, 0, jnp.sqrt(squares))


def cos_sum(cosine: Array, shift: float | Array) -> Array:
    """cos(θ + m) from cos θ for θ in [0, π], without an arccos.

    Args:
      cosine: any shape.
      shift: m in radians, broadcast to the same shape.

    Returns:
      cos(θ + m), of the same shape.
    """
    return cosine * jnp.cos(shift) - safe_sin(cosine) * jnp.sin(shift)


def cos_multiple(cosine: Array, multiple: int) -> Array:
    """cos(mθ) from cos θ for integer m: the Chebyshev polynomial T_m, without an arccos.

    T_2n = 2 T_n² − 1 and T_2n+1 = 2 T_n T_n+1 − T_1, which for m = 2 and 4 are monotone between
    their extrema even after rounding.

    Args:
      cosine: any shape.
      multiple: m, an integer of at least 1.

    Returns:
      cos(mθ), of the same shape.
    """
    if multiple == 1:
        return cosine
    half = cos_multiple(cosine, multiple // 2)
    if multiple % 2 == 0:
        return 2 * jnp.square(half) - 1
    return 2 * half * cos_multiple(cosine, multiple // 2 + 1) - cosine


def monotone_psi(cosine: Array, margin: float | Array) -> Array:
    """The monotone ψ(θ) of SphereFace.

    ψ(θ) = (−1)^k cos(mθ) − 2k on θ ∈ [kπ/m, (k+1)π/m]. It falls from 1 at θ = 0, to 1 − 2m at
    θ = π for integer m, and is once continuously differentiable in θ. For a Python number m, k is
    found by comparing the cosine with the borders cos(kπ/m), and cos(mθ) is a polynomial in cos θ
    where m is an integer; for an array both are found from θ.

    Args:
      cosine: cos θ, any shape.
      margin: m, at least 1; an array broadcasts against the cosines.

    Returns:
      ψ, of the same shape.

    Raises:
      ValueError: if the margin is a number below 1, NaN or infinite.

    Example:
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import monotone_psi
      >>> print(monotone_psi(jnp.array([1.0, 0.0, -1.0]), 4))
      [ 1. -3. -7.]

    References:
      Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017.
    """
    if hasattr(margin, "shape") and not isinstance(margin, numbers.Real):
        theta = safe_arccos(cosine)
        k = jnp.clip(jnp.floor(margin * theta / math.pi), 0, jnp.ceil(margin) - 1)
        k = jax.lax.stop_gradient(k)
        return jnp.where(k % 2 == 0, 1, -1) * jnp.cos(margin * theta) - 2 * k
    if not (isinstance(margin, numbers.Real) and 1 <= margin < math.inf):
        raise ValueError(f"margin: expected a number of at least 1, got {margin!r}")
    if float(margin).is_integer():
        multiple = cos_multiple(cosine, int(margin))
    else:
        multiple = jnp.cos(margin * safe_arccos(cosine))
    sign, offset = jnp.ones_like(cosine), jnp.zeros_like(cosine)
    for k in range(1, math.ceil(margin)):
        # cos(π/2) is exactly zero on paper only.
        border = 0.0 if 2 * k == margin else math.cos(k * math.pi / margin)
        passed = cosine < border
        sign = jnp.where(passed, -sign, sign)
        offset = jnp.where(passed, offset + 2, offset)
    return sign * multiple - offset
