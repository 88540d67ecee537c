"""SphereNet is the authors' network: plan, counts, initialisers, order of activation and sum."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sphereface_jax.models.residual import UNITS
from sphereface_jax.models.spherenet import SphereNet

SMALL = {"image_size": (24, 16), "channels": (4, 6, 8, 10), "embedding_dim": 12}


def build(depth: int = 10, **options) -> SphereNet:
    return nnx.jit(lambda: SphereNet(depth, **(SMALL | options), rngs=nnx.Rngs(0)))()


embed = nnx.jit(lambda model, images: model(images))


def num_params(model: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_spherenet20_has_the_count_of_the_released_model_without_its_frozen_biases() -> None:
    model = nnx.eval_shape(lambda: SphereNet(20, rngs=nnx.Rngs(0)))
    assert num_params(model) == 22_666_944
    wide = nnx.eval_shape(lambda: SphereNet(20, image_size=(112, 112), rngs=nnx.Rngs(0)))
    assert wide.embedding.kernel.shape == (25088, 512)


@pytest.mark.parametrize("depth", UNITS)
def test_depth_counts_convolutions(depth: int) -> None:
    model = nnx.eval_shape(lambda: build(depth))
    convolutions = [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.Conv)]
    assert len(convolutions) == depth


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """3×3 convolution padded by one pixel, NHWC, in float64."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    out = np.zeros((len(x), height, width, kernel.shape[-1]))
    for row in range(3):
        for column in range(3):
            window = padded[:, row:, column:][:, ::stride, ::stride][:, :height, :width]
            out += window @ kernel[row, column]
    return out


def prelu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + slope * np.minimum(x, 0)


def test_forward_agrees_with_numpy() -> None:
    model = build()
    rng = np.random.default_rng(0)
    for _, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Param):
            node.set_value(jnp.asarray(rng.normal(0, 0.3, node.shape), jnp.float32))
    images = rng.normal(size=(2, 24, 16, 3))
    x = images
    for stage in model.stages:
        kernel, bias = np.asarray(stage.conv.kernel[...]), np.asarray(stage.conv.bias[...])
        x = prelu(convolve(x, kernel, 2) + bias, np.asarray(stage.prelu.slope[...]))
        for unit in stage.units:
            inner = prelu(
                convolve(x, np.asarray(unit.conv1.kernel[...]), 1),
                np.asarray(unit.prelu1.slope[...]),
            )
            x = x + prelu(
                convolve(inner, np.asarray(unit.conv2.kernel[...]), 1),
                np.asarray(unit.prelu2.slope[...]),
            )
    weights = np.asarray(model.embedding.kernel[...]), np.asarray(model.embedding.bias[...])
    expected = x.reshape(2, -1) @ weights[0] + weights[1]
    np.testing.assert_allclose(embed(model, images.astype(np.float32)), expected, rtol=2e-4)


def test_initialisers_are_caffes() -> None:
    model = build(channels=(64, 64, 64, 64), embedding_dim=512)
    stride2, unit = model.stages[1].conv, model.stages[1].units[0]
    bound = np.sqrt(3 / (9 * 64))
    kernel = np.asarray(stride2.kernel[...])
    assert np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert np.asarray(unit.conv1.kernel[...]).std() == pytest.approx(0.01, rel=0.02)
    assert unit.conv1.bias is None
    np.testing.assert_array_equal(stride2.bias[...], 0)
    np.testing.assert_array_equal(unit.prelu2.slope[...], 0.25)
    linear = np.asarray(model.embedding.kernel[...])
    assert np.abs(linear).max() <= np.sqrt(3 / linear.shape[0])


def test_bfloat16_computes_near_float32_and_keeps_float32_outside() -> None:
    images = jax.random.normal(jax.random.key(1), (4, 24, 16, 3))
    exact, rough = embed(build(), images), embed(build(dtype=jnp.bfloat16), images)
    chex.assert_type(rough, jnp.float32)
    chex.assert_shape(rough, (4, 12))
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(exact, rough, atol=0.03 * float(jnp.abs(exact).max()))


def test_unknown_depth_is_named() -> None:
    with pytest.raises(ValueError, match=r"depth: expected one of .*, got 5"):
        build(5)
