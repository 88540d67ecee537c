"""The dense head and its reductions: how exact they are, and how sparing."""

import jax
import jax.numpy as jnp
import numpy as np

from sphereface_jax import sphereface_loss
from sphereface_jax.heads.reductions import BinaryCrossEntropy, SoftmaxCrossEntropy

CLASSES = jnp.arange(2)


def test_softmax_reduction_is_exact_for_extreme_logits():
    reduction = SoftmaxCrossEntropy()
    others = jnp.array([[-1e4, 1e4], [-jnp.inf, -jnp.inf], [3.0, -jnp.inf], [-30.0, -30.0]])
    target = jnp.array([0.0, 7.0, 3.0, 0.0])

    def loss(others, target):
        return reduction.finish(reduction.accumulate(others, CLASSES), target)

    np.testing.assert_allclose(
        loss(others, target), [1e4, 0, np.log(2), 2 * np.exp(-30)], rtol=1e-6
    )
    slopes = jax.grad(lambda *arguments: loss(*arguments).sum(), (0, 1))(others, target)
    np.testing.assert_allclose(
        slopes[0], [[0, 1], [0, 0], [0.5, 0], [np.exp(-30), np.exp(-30)]], rtol=1e-6
    )
    np.testing.assert_allclose(slopes[1], [-1, 0, -0.5, -2 * np.exp(-30)], rtol=1e-6)


def test_binary_reduction_is_exact_for_extreme_logits():
    reduction = BinaryCrossEntropy(positive_weight=0.25, negative_weight=0.75)
    others = jnp.array([[-1e4, 1e4], [-jnp.inf, -jnp.inf]])
    loss = reduction.finish(reduction.accumulate(others, CLASSES), jnp.array([-1e4, 0.0]))
    np.testing.assert_allclose(loss, [0.25 * 1e4 + 0.75 * 1e4, 0.25 * np.log(2)], rtol=1e-6)
    slopes = jax.grad(lambda others: reduction.accumulate(others, CLASSES).sum())(others)
    np.testing.assert_array_equal(slopes, [[0, 1], [0, 0]])


def test_the_gradient_is_sparing():
    batch, classes, width = 32, 4096, 16
    function = jax.jit(jax.grad(lambda *a: sphereface_loss(*a).mean(), (0, 1)))
    shapes = [
        jax.ShapeDtypeStruct((batch, width), jnp.float32),
        jax.ShapeDtypeStruct((classes, width), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    ]
    compiled = function.lower(*shapes).compile()
    assert "scatter" not in compiled.as_text()
    # Three [B, C] at most: cosines, exponentials, their gradient.
    assert compiled.memory_analysis().temp_size_in_bytes < 3.2 * 4 * batch * classes
