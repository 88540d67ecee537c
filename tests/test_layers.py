"""The layers' own derivatives, against those that jax derives."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphereface_jax import compilation
from sphereface_jax.models.layers import prelu


def plain_prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, slope.astype(x.dtype) * x)


def random(shape: tuple[int, ...], seed: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (1, 1, 1, 1), (2, 6)])
def test_prelu_and_its_gradients_are_those_of_its_formula(shape: tuple[int, ...]) -> None:
    x, g, slope = random(shape, 0).at[..., 0].set(0.0), random(shape, 1), random(shape[-1:], 2)
    ours, ours_vjp = jax.vjp(prelu, x, slope)
    plain, plain_vjp = jax.vjp(plain_prelu, x, slope)
    np.testing.assert_array_equal(ours, plain)
    chex.assert_trees_all_close(ours_vjp(g), plain_vjp(g), rtol=1e-5, atol=1e-6)


def test_the_slope_is_summed_in_float32_under_bfloat16() -> None:
    x = -jnp.ones((4096, 1, 1, 1), jnp.bfloat16)
    slope = jnp.full((1,), 0.25)
    gradient = jax.grad(lambda slope: prelu(x, slope).astype(jnp.float32).sum())(slope)
    assert gradient.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, -4096.0)


def test_convolutions_are_xlas_own_on_a_cpu() -> None:
    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    options = compilation.compiler_options()
    compiled = jax.jit(convolve, compiler_options=options).lower(
        jnp.ones((8, 28, 24, 128)), jnp.ones((3, 3, 128, 128))
    )
    assert options
    assert "ynn" not in compiled.compile().as_text()


def test_a_jaxlib_without_the_option_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "OWN_CONVOLUTIONS", {"xla_no_such_option": ""})
    compilation.compiler_options.cache_clear()
    try:
        assert compilation.compiler_options() == {}
    finally:
        compilation.compiler_options.cache_clear()
