"""The layers' own derivatives, against those that jax derives."""

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphereface_jax import compilation
from sphereface_jax.models.convolution import convolve
from sphereface_jax.models.layers import batch_normalized, prelu


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


def plain_batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + 1e-5) * scale + bias


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (6, 2)])
def test_batch_normalisation_and_its_gradients_are_those_of_its_formula(
    shape: tuple[int, ...],
) -> None:
    x, g = 2 * random(shape, 0) + 1, random(shape, 1)
    scale, bias = random(shape[-1:], 2), random(shape[-1:], 3)
    y, vjp = jax.vjp(lambda *arguments: batch_normalized(*arguments, 1e-5)[0], x, scale, bias)
    expected, expected_vjp = jax.vjp(plain_batch_norm, x, scale, bias)
    chex.assert_trees_all_close((y, *vjp(g)), (expected, *expected_vjp(g)), rtol=1e-4, atol=1e-5)
    _, mean, variance = batch_normalized(x, scale, bias, 1e-5)
    axes = tuple(range(x.ndim - 1))
    chex.assert_trees_all_close((mean, variance), (x.mean(axes), x.var(axes)), rtol=1e-5)


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


GROUPED = {
    "depthwise": ((7, 6), (3, 3), (1, 1), 1, 6, 6, 6),
    "depthwise, stride 2": ((8, 7), (3, 3), (2, 2), 1, 6, 6, 6),
    "depthwise, 7 by 7": ((9, 8), (7, 7), (1, 1), 3, 4, 4, 4),
    "depthwise of the whole image": ((5, 4), (5, 4), (1, 1), 0, 6, 6, 6),
    "two channels a group": ((6, 5), (3, 3), (1, 1), 1, 8, 8, 4),
    "two channels a group, whole image": ((3, 3), (3, 3), (1, 1), 0, 8, 8, 4),
    "more outputs than inputs": ((6, 5), (3, 3), (2, 1), 1, 6, 12, 3),
    "five channels a group, as XLA has it": ((6, 5), (3, 3), (1, 1), 1, 10, 10, 2),
    "padded by more than the kernel": ((5, 4), (2, 2), (1, 1), 2, 6, 6, 6),
    "one pixel": ((6, 5), (1, 1), (1, 1), 0, 6, 8, 1),
    "one pixel, stride 2, as XLA has it": ((6, 5), (1, 1), (2, 2), 0, 6, 8, 1),
}


def grouped(case: str) -> tuple[Callable, Callable, jax.Array, jax.Array]:
    """Our convolution and lax's, an image and a kernel."""
    size, window, strides, padding, inputs, outputs, groups = GROUPED[case]
    ours, plain = (
        functools.partial(
            function,
            window_strides=strides,
            padding=((padding, padding),) * 2,
            feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for function in (convolve, jax.lax.conv_general_dilated)
    )
    x, kernel = random((4, *size, inputs), 0), random((*window, inputs // groups, outputs), 1)
    return ours, plain, x, kernel


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(
    convolve: Callable, x: jax.Array, kernel: jax.Array, g: jax.Array
) -> list[jax.Array]:
    y, vjp = jax.vjp(convolve, x, kernel)
    return [y, *vjp(g)]


@pytest.mark.parametrize("case", GROUPED)
def test_a_convolution_and_its_gradients_are_those_of_lax(case: str) -> None:
    ours, plain, x, kernel = grouped(case)
    g = random(jax.eval_shape(plain, x, kernel).shape, 2)
    for batch in (3, 4):
        chex.assert_trees_all_close(
            value_and_gradients(ours, x[:batch], kernel, g[:batch]),
            value_and_gradients(plain, x[:batch], kernel, g[:batch]),
            rtol=1e-5,
            atol=1e-4,
        )


def test_a_grouped_convolution_sums_in_float32_under_bfloat16() -> None:
    ours, plain, x, kernel = grouped("depthwise, 7 by 7")
    half = [a.astype(jnp.bfloat16) for a in (x, kernel, plain(x, kernel))]
    found = value_and_gradients(ours, *half)
    exact = value_and_gradients(plain, *(a.astype(jnp.float32) for a in half))
    assert {a.dtype for a in found} == {jnp.dtype(jnp.bfloat16)}
    chex.assert_trees_all_close(
        [a.astype(jnp.float32) for a in found], exact, rtol=2**-8, atol=1e-3
    )


@pytest.mark.parametrize("case", ["depthwise", "two channels a group"])
def test_a_grouped_convolution_is_products_where_a_cpu_runs_it(case: str) -> None:
    ours, _, x, kernel = grouped(case)
    lowered = {
        platform: jax.export.export(jax.jit(ours), platforms=[platform])(x, kernel).mlir_module()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert "stablehlo.convolution" not in lowered["cpu"]
    for platform in ("cuda", "tpu"):
        assert lowered[platform].count("stablehlo.convolution") == 1, platform
        assert "stablehlo.multiply" not in lowered[platform], platform


def test_a_grouped_convolution_can_be_mapped_and_differentiated_twice() -> None:
    ours, plain, x, kernel = grouped("depthwise, stride 2")
    kernels = jnp.stack([kernel, 2 * kernel])
    chex.assert_trees_all_close(
        jax.jit(jax.vmap(ours, (None, 0)))(x, kernels),
        jax.jit(jax.vmap(plain, (None, 0)))(x, kernels),
        atol=1e-5,
    )

    def slope(function: Callable) -> jax.Array:
        inner = jax.grad(lambda x: jnp.square(function(x, kernel)).sum())
        return jax.jit(jax.grad(lambda x: jnp.square(inner(x)).sum()))(x)

    chex.assert_trees_all_close(slope(ours), slope(plain), rtol=1e-4)
