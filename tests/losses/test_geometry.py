"""Norms, cosines and the monotone ψ: exact, and finite at every edge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from sphereface_jax import geometry, monotone_psi

MARGINS = (1, 2, 3, 4, 5, 8)


def borders(margin):
    return np.cos(np.arange(margin + 1) * np.pi / margin)


def neighbours(value, count=2000):
    """Consecutive float32 numbers around one, none beyond ±1, ascending."""
    if abs(value) < 1e-9:
        return np.linspace(-1e-6, 1e-6, 2 * count + 1, dtype=np.float32)
    bits = np.float32(value).view(np.int32) + np.arange(-count, count, dtype=np.int32)
    values = np.sort(bits.view(np.float32))
    return values[np.abs(values) <= 1]


@pytest.mark.parametrize("margin", [*MARGINS, 1.4, 2.5])
def test_psi_has_the_oracle_s_values(margin):
    theta = np.arange(0, np.pi, 1e-3)
    edges = np.concatenate([borders(m) for m in MARGINS])
    cosine = np.concatenate([np.cos(theta), edges]).astype(np.float32)
    expected = reference.psi(cosine.astype(np.float64), margin)
    np.testing.assert_allclose(monotone_psi(jnp.asarray(cosine), margin), expected, atol=1e-5)


@pytest.mark.parametrize("margin", MARGINS)
def test_psi_falls_strictly_in_float64(margin):
    with jax.enable_x64(True):
        theta = jnp.arange(0, np.pi, 1e-3, dtype=jnp.float64)
        psi = monotone_psi(jnp.cos(theta), margin)
        assert psi.dtype == jnp.float64
        assert jnp.all(jnp.diff(psi) < 0)
        assert psi[0] == 1
        assert abs(monotone_psi(jnp.float64(-1), margin) - (1 - 2 * margin)) < 1e-13


@pytest.mark.parametrize("margin", MARGINS)
def test_psi_never_rises_by_more_than_4_ulp_in_float32(margin):
    function = jax.jit(lambda cosine: monotone_psi(cosine, margin))
    # Segment borders and, between them, the zeros of cos(mθ), where an ulp is small.
    for value in np.cos(np.arange(2 * margin + 1) * np.pi / (2 * margin)):
        psi = np.asarray(function(jnp.asarray(neighbours(value))))
        drop = np.maximum.accumulate(psi) - psi
        assert np.all(drop <= 4 * np.spacing(np.abs(psi))), value


@pytest.mark.parametrize("margin", MARGINS)
def test_psi_is_continuously_differentiable_in_theta(margin):
    with jax.enable_x64(True):
        slope = jax.vmap(jax.grad(lambda theta: monotone_psi(jnp.cos(theta), margin)))
        step = 1e-7
        border = jnp.arange(1, margin) * jnp.pi / margin
        np.testing.assert_allclose(slope(border - step), slope(border + step), atol=1e-4)
        # Between two points the slope moves by no more than m² times their distance.
        theta = jnp.arange(0, np.pi, 1e-3)
        assert jnp.max(jnp.abs(jnp.diff(slope(theta)))) <= 1.01e-3 * margin**2


@pytest.mark.parametrize("margin", [0, 0.5, -2, float("nan"), float("inf"), "4"])
def test_psi_refuses_margins_that_have_no_segments(margin):
    with pytest.raises(ValueError, match="margin: expected a number of at least 1"):
        monotone_psi(jnp.zeros(3), margin)


@pytest.mark.parametrize("multiple", MARGINS)
def test_chebyshev_equals_cos_of_the_multiple(multiple):
    theta = np.linspace(0, np.pi, 500)
    value = geometry.cos_multiple(jnp.cos(theta), multiple)
    np.testing.assert_allclose(value, np.cos(multiple * theta), atol=1e-6 * multiple**2)


@pytest.mark.parametrize("function", [geometry.safe_arccos, geometry.safe_sin])
def test_inverse_functions_are_finite_up_to_and_beyond_one(function):
    cosine = jnp.array([-1.0000001, -1, -0.99999994, -0.5, 0, 0.5, 0.99999994, 1, 1.0000001])
    numpy_function = {"safe_arccos": np.arccos, "safe_sin": lambda c: np.sin(np.arccos(c))}
    expected = numpy_function[function.__name__](np.clip(np.asarray(cosine, np.float64), -1, 1))
    np.testing.assert_allclose(function(cosine), expected, atol=1e-6)
    slope = jax.vmap(jax.grad(function))(cosine)
    assert np.all(np.isfinite(slope))
    assert np.all(np.asarray(slope)[[0, 1, -2, -1]] == 0)
    exact = -1 / np.sqrt(0.75) if function is geometry.safe_arccos else -0.5 / np.sqrt(0.75)
    np.testing.assert_allclose(slope[5], exact, rtol=1e-6)


def test_cos_sum_is_the_addition_theorem():
    theta, shift = np.linspace(0, np.pi, 50), np.linspace(0, 1, 50)
    value = geometry.cos_sum(jnp.cos(theta), jnp.asarray(shift))
    np.testing.assert_allclose(value, np.cos(theta + shift), atol=1e-3)  # sin of a rounded cosine
    np.testing.assert_allclose(value[5:-5], np.cos(theta + shift)[5:-5], atol=1e-6)


def test_a_zero_vector_has_length_direction_and_gradients_zero():
    vectors = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_array_equal(geometry.safe_norm(vectors), [5, 0])
    np.testing.assert_allclose(geometry.normalize(vectors), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    norm_slope = jax.grad(lambda v: geometry.safe_norm(v).sum())(vectors)
    np.testing.assert_allclose(norm_slope, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    direction_slope = jax.grad(lambda v: geometry.normalize(v)[:, 0].sum())(vectors)
    np.testing.assert_allclose(direction_slope, [[0.128, -0.096], [0, 0]], rtol=1e-5)


def test_cosine_keeps_zero_rows_out_and_parallel_vectors_at_one():
    prototypes = jnp.array([[0.0, 7.0], [0.0, 0.0], [-49.0, 0.0]])
    vectors = jnp.array([[3.0, 0.0], [0.0, 0.0]])
    value, pullback = jax.vjp(geometry.cosine, vectors, prototypes)
    np.testing.assert_array_equal(value, [[0, 0, -1], [0, 0, 0]])
    by_vectors, by_prototypes = pullback(jnp.ones_like(value))
    assert np.all(np.asarray(by_vectors)[1] == 0)
    assert np.all(np.asarray(by_prototypes)[1] == 0)
    assert np.all(np.isfinite(by_vectors))
    assert np.all(np.isfinite(by_prototypes))


def test_cosine_takes_sub_centres():
    rng = np.random.default_rng(0)
    vectors, prototypes = rng.normal(size=(4, 5)), rng.normal(size=(3, 2, 5))
    value = geometry.cosine(jnp.asarray(vectors), jnp.asarray(prototypes))
    expected = np.einsum("bd,ckd->bck", reference.unit(vectors), reference.unit(prototypes))
    np.testing.assert_allclose(value, expected, atol=1e-6)
