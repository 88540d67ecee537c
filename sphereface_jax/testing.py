"""Checks for a loss or a margin of one's own, for tests written with pytest, chex or hypothesis.

Each raises AssertionError with what differs and where. A loss is called as
`loss(embeddings, prototypes, labels, **options)`; what else it needs is bound first
(`functools.partial`). This project's own tests use the same functions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

Array = jax.Array
Loss = Callable[..., Any]


def random_problem(
    *, batch: int = 8, num_classes: int = 6, width: int = 5, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Embeddings, prototypes and labels at angles all over (0, π), each class at least once.

    Args:
      batch: B.
      num_classes: C, at most B.
      width: D, at least 2.
      seed: decides everything.

    Returns:
      Embeddings [B, D] of lengths from 0.5 to 50, prototypes [C, D] and labels [B].
    """
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(num_classes, width))
    labels = np.arange(batch) % num_classes
    ahead = prototypes[labels] / np.linalg.norm(prototypes[labels], axis=1, keepdims=True)
    aside = rng.normal(size=ahead.shape)
    aside -= ahead * np.sum(ahead * aside, axis=1, keepdims=True)
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    angles = np.linspace(0.1, 3.0, batch)[:, None]
    lengths = np.geomspace(0.5, 50, batch)[:, None]
    embeddings = lengths * (np.cos(angles) * ahead + np.sin(angles) * aside)
    return (
        jnp.asarray(embeddings, jnp.float32),
        jnp.asarray(prototypes, jnp.float32),
        jnp.asarray(labels, jnp.int32),
    )


def assert_heads_agree(
    loss: Loss,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    class_blocks: Sequence[int] = (1, 4),
    meshes: Sequence[Mesh] = (),
    rtol: float = 1e-5,
    **options: Any,
) -> None:
    """Checks that blocks of classes and meshes give the dense head's values and both gradients.

    Args:
      loss: takes class_block and mesh, and returns [B], or [B] and a state.
      embeddings: [B, D].
      prototypes: [C, D] or [C, K, D].
      labels: [B].
      class_blocks: sizes to try, on no mesh and on every mesh.
      meshes: with axes "data" or "model".
      rtol: largest difference, relative to the largest entry.
      **options: passed on to the loss.

    Raises:
      AssertionError: they differ; it says which head and what.

    Example:
      >>> from sphereface_jax import arcface_loss, testing
      >>> testing.assert_heads_agree(arcface_loss, *testing.random_problem(), margin=0.3)
    """

    def found(**head: Any) -> tuple[Array, tuple[Array, Array]]:
        return _value_and_gradients(loss, embeddings, prototypes, labels, options | head)

    expected = found()
    heads: list[dict[str, Any]] = [{"class_block": block} for block in class_blocks]
    heads += [{"mesh": mesh} | head for mesh in meshes for head in [{}, *heads]]
    for head in heads:
        _assert_close(found(**head), expected, rtol, f"with {head}")


def assert_gradients_match(
    loss: Loss,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    step: float = 1e-6,
    rtol: float = 1e-6,
    **options: Any,
) -> None:
    """Checks both gradients against central differences in float64.

    Args:
      loss: returns [B], or [B] and a state.
      embeddings: [B, D], away from the points where the loss has a kink.
      prototypes: [C, D] or [C, K, D].
      labels: [B].
      step: of the differences.
      rtol: largest difference, relative to the largest entry.
      **options: passed on to the loss; arrays become float64.

    Raises:
      AssertionError: a gradient is not that of the values; it says which.

    Example:
      >>> from sphereface_jax import cosface_loss, testing
      >>> testing.assert_gradients_match(cosface_loss, *testing.random_problem(), margin=0.2)
    """
    with jax.enable_x64(True):
        x, w = (jnp.asarray(np.asarray(values), jnp.float64) for values in (embeddings, prototypes))
        options = jax.tree.map(_as_float64, options)
        _, gradients = _value_and_gradients(loss, x, w, labels, options)

        @jax.jit
        def total(x: Array, w: Array) -> Array:
            return _weighted(_losses(loss(x, w, labels, **options)))

        def differences(function: Callable[[Array], Array], values: Array) -> np.ndarray:
            result = np.empty(values.size)
            for i in range(values.size):
                change = jnp.zeros(values.size).at[i].set(step).reshape(values.shape)
                result[i] = (function(values + change) - function(values - change)) / (2 * step)
            return result.reshape(values.shape)

        expected = differences(lambda v: total(v, w), x), differences(lambda v: total(x, v), w)
    _assert_close(gradients, expected, rtol, "against differences", ("embeddings", "prototypes"))


def assert_margin_is_monotone(
    target: Callable[..., Array],
    *,
    hyperparameters: Mapping[str, Any] | None = None,
    norm: float = 30.0,
    points: int = 2000,
    tolerance: float = 1e-6,
) -> None:
    """Checks that a margin never favours its target and falls as the angle grows.

    Args:
      target: (cosine_y [B], norms [B], **hyperparameters) -> [B], as `margin_loss` takes it.
      hyperparameters: its keyword arguments.
      norm: length of the embeddings.
      points: angles tried, evenly over [0, π].
      tolerance: by how much rounding may break either.

    Raises:
      AssertionError: it rises, or is above the cosine; it says at which angle.

    Example:
      >>> from sphereface_jax import margins, testing
      >>> testing.assert_margin_is_monotone(margins.sphereface, hyperparameters={"margin": 4})
    """
    angles = np.linspace(0, np.pi, points)
    cosine = jnp.asarray(np.cos(angles), jnp.float32)
    values = np.asarray(target(cosine, jnp.full_like(cosine, norm), **(hyperparameters or {})))
    above = np.flatnonzero(values > np.asarray(cosine) + tolerance)
    if above.size:
        i = above[0]
        raise AssertionError(
            f"target: expected at most the cosine, got {values[i]:g} for {cosine[i]:g} at θ = "
            f"{angles[i]:.4f}"
        )
    rising = np.flatnonzero(np.diff(values) > tolerance)
    if rising.size:
        i = rising[0]
        raise AssertionError(
            f"target: expected to fall with the angle, got {values[i]:g} at θ = {angles[i]:.4f} "
            f"and {values[i + 1]:g} at {angles[i + 1]:.4f}"
        )


def assert_finite_at_edges(
    loss: Loss,
    *,
    num_classes: int = 6,
    width: int = 5,
    lengths: Sequence[float] = (0.0, 1e-30, 1.0, 1e4),
    **options: Any,
) -> None:
    """Checks that value and gradients are finite where textbook formulas are not.

    Embeddings point exactly along their prototype, exactly against it and at right angles, at all
    the lengths, zero among them.

    Args:
      loss: returns [B], or [B] and a state.
      num_classes: C, at least 2.
      width: D, at least 2.
      lengths: of the embeddings.
      **options: passed on to the loss.

    Raises:
      AssertionError: something is NaN or infinite; it says what and for which embedding.

    Example:
      >>> from sphereface_jax import arcface_loss, testing
      >>> testing.assert_finite_at_edges(arcface_loss)
    """
    directions = np.eye(width)[[0, 0, 1]] * np.array([[1.0], [-1.0], [1.0]])
    embeddings = np.concatenate([length * directions for length in lengths])
    prototypes = np.random.default_rng(0).normal(size=(num_classes, width))
    prototypes[0] = 2 * np.eye(width)[0]
    labels = jnp.zeros(len(embeddings), jnp.int32)
    x, w = jnp.asarray(embeddings, jnp.float32), jnp.asarray(prototypes, jnp.float32)
    losses, (by_x, by_w) = _value_and_gradients(loss, x, w, labels, options)
    for name, values in [("loss", losses), ("gradient by embeddings", by_x)]:
        wrong = ~np.isfinite(np.asarray(values)).reshape(len(embeddings), -1).all(axis=1)
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise AssertionError(f"{name}: not finite for the embedding {embeddings[i].tolist()}")
    if not np.isfinite(np.asarray(by_w)).all():
        raise AssertionError("gradient by prototypes: not finite")


def _losses(result: Any) -> Array:
    return result[0] if isinstance(result, tuple) else result


def _weighted(losses: Array) -> Array:
    """A sum in which no two examples can change places."""
    return jnp.vdot(losses, jnp.linspace(0.5, 1.5, losses.size, dtype=losses.dtype))


def _value_and_gradients(
    loss: Loss, x: Array, w: Array, labels: Array, options: dict[str, Any]
) -> tuple[Array, tuple[Array, Array]]:
    @jax.jit
    def gradients(x: Array, w: Array) -> Any:
        def total(x: Array, w: Array) -> tuple[Array, Array]:
            losses = _losses(loss(x, w, labels, **options))
            return _weighted(losses), losses

        return jax.grad(total, (0, 1), has_aux=True)(x, w)

    by, losses = gradients(x, w)
    return losses, by


def _as_float64(leaf: Any) -> Any:
    is_floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.asarray(np.asarray(leaf), jnp.float64) if is_floating else leaf


def _assert_close(
    found: Any,
    expected: Any,
    rtol: float,
    where: str,
    names: Sequence[str] = ("loss", "embeddings", "prototypes"),
) -> None:
    pairs = zip(names, jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for name, one, other in pairs:
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        np.testing.assert_allclose(
            one,
            other,
            rtol=0,
            atol=rtol * max(np.max(np.abs(other), initial=0), np.finfo(np.float32).tiny),
            err_msg=f"{name if name == 'loss' else f'gradient by {name}'} {where}",
        )
