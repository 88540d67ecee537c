"""The geometry of the hypersphere: norms, cosines, angles and the monotone ψ of SphereFace.

Everything here has finite values and gradients at the edges where the textbook formulas do not:
a vector of length zero has no direction, and arccos and √(1 − c²) have infinite slope at c = ±1.
Both branches of a `where` are differentiated, so an edge is kept out of its formula's argument as
well as out of its result. Functions keep their argument's dtype.
"""

import math
import numbers

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
    is_zero = squares == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squares)))


def normalize(vectors: Array) -> Array:
    """Scales vectors to unit length; a zero vector stays zero and gets gradient zero.

    Args:
      vectors: [..., D].

    Returns:
      Unit vectors [..., D].
    """
    return vectors / _divisor(safe_norm(vectors))[..., None]


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
    """
    # Scaling the products' columns spares a normalised copy of the prototypes.
    products = inner_products(normalize(vectors), prototypes)
    return products / _divisor(safe_norm(prototypes))


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


def safe_sin(cosine: Array) -> Array:
    """The sine of an angle in [0, π] from its cosine, with gradient zero at and beyond ±1.

    Args:
      cosine: any shape; values beyond ±1, as rounding gives, count as ±1.

    Returns:
      Sines in [0, 1], of the same shape.
    """
    inside = jnp.abs(cosine) < 1
    squares = jnp.where(inside, (1 - cosine) * (1 + cosine), 1)
    return jnp.where(inside, jnp.sqrt(squares), 0)


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


def monotone_psi(cosine: Array, margin: float) -> Array:
    """The monotone ψ(θ) of SphereFace.

    ψ(θ) = (−1)^k cos(mθ) − 2k on θ ∈ [kπ/m, (k+1)π/m]. It falls from 1 at θ = 0, to 1 − 2m at
    θ = π for integer m, and is once continuously differentiable in θ. k is found by comparing the
    cosine with the borders cos(kπ/m), because floor(mθ/π) is wrong next to them.

    Args:
      cosine: cos θ, any shape.
      margin: m, at least 1. Where it is an integer, cos(mθ) is a polynomial in cos θ.

    Returns:
      ψ, of the same shape.

    Raises:
      ValueError: if the margin is below 1 or not a concrete number: the number of segments
        depends on it.

    Example:
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import monotone_psi
      >>> print(monotone_psi(jnp.array([1.0, 0.0, -1.0]), 4))
      [ 1. -3. -7.]

    References:
      Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017.
    """
    if not (isinstance(margin, numbers.Real) and 1 <= margin < math.inf):
        raise ValueError(f"margin: expected a concrete number of at least 1, got {margin!r}")
    if float(margin).is_integer():
        multiple = cos_multiple(cosine, int(margin))
    else:
        multiple = jnp.cos(margin * safe_arccos(cosine))
    sign, offset = 1, 0
    for k in range(1, math.ceil(margin)):
        # cos(π/2) is exactly zero on paper only.
        border = 0.0 if 2 * k == margin else math.cos(k * math.pi / margin)
        passed = cosine < border
        sign = jnp.where(passed, -sign, sign)
        offset = jnp.where(passed, offset + 2, offset)
    return sign * multiple - offset
