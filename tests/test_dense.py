"""The dense head: what it computes for a margin of one's own, and how sparingly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphereface_jax import sphereface_loss
from sphereface_jax.heads.dense import dense_logits, dense_loss
from sphereface_jax.heads.engine import BinaryCrossEntropy, Margin, SoftmaxCrossEntropy

LABELS = jnp.array([2, 0])


def inputs():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.normal(size=(4, 3)))


def half(cosine_y, norms, state):
    return cosine_y / 2 - 0.01 * norms + state


def test_a_margin_of_one_s_own_gets_cosines_norms_and_state():
    x, prototypes = inputs()
    margin = Margin(
        target=half,
        negatives=lambda cosine, cosine_y, state: cosine + cosine_y,
        update=lambda cosine_y, norms, state: state + 1,
        scale=10.0,
        weight=3.0,
        regularizer=lambda norms, target_prototypes, labels: target_prototypes[:, 0] + labels,
    )
    arguments = (margin, x, prototypes, LABELS)
    logits, state = dense_logits(*arguments, num_classes=4, state=0.5)
    assert state == 1.5
    norms = np.linalg.norm(x, axis=1)
    cosine = (x @ prototypes.T) / norms[:, None] / np.linalg.norm(prototypes, axis=1)
    cosine_y = cosine[jnp.arange(2), LABELS]
    expected = 10 * (cosine + cosine_y[:, None])
    expected = expected.at[jnp.arange(2), LABELS].set(10 * half(cosine_y, norms, 1.5))
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    loss, _ = dense_loss(*arguments, num_classes=4, state=0.5)
    cross_entropy = jax.nn.logsumexp(expected, axis=1) - expected[jnp.arange(2), LABELS]
    regularizer = prototypes[LABELS, 0] + LABELS
    np.testing.assert_allclose(loss, 3 * cross_entropy + regularizer, rtol=1e-5)


def test_a_margin_must_keep_its_argument_s_shape():
    x, prototypes = inputs()
    margin = Margin(target=lambda cosine_y, norms, state: cosine_y.sum())
    with pytest.raises(AssertionError, match="different shapes"):
        dense_loss(margin, x, prototypes, LABELS, num_classes=4)
    margin = Margin(
        target=lambda cosine_y, norms, state: cosine_y,
        negatives=lambda cosine, cosine_y, state: cosine_y,
    )
    with pytest.raises(AssertionError, match="different shapes"):
        dense_loss(margin, x, prototypes, LABELS, num_classes=4)


def test_softmax_reduction_is_exact_for_extreme_logits():
    reduction = SoftmaxCrossEntropy()
    others = jnp.array([[-1e4, 1e4], [-jnp.inf, -jnp.inf], [3.0, -jnp.inf], [-30.0, -30.0]])
    target = jnp.array([0.0, 7.0, 3.0, 0.0])

    def loss(others, target):
        return reduction.finish(reduction.accumulate(others), target)

    np.testing.assert_allclose(
        loss(others, target), [1e4, 0, np.log(2), 2 * np.exp(-30)], rtol=1e-6
    )
    slopes = jax.grad(lambda *arguments: loss(*arguments).sum(), (0, 1))(others, target)
    np.testing.assert_allclose(
        slopes[0], [[0, 1], [0, 0], [0.5, 0], [np.exp(-30), np.exp(-30)]], rtol=1e-6
    )
    np.testing.assert_allclose(slopes[1], [-1, 0, -0.5, -2 * np.exp(-30)], rtol=1e-6)


def test_binary_reduction_is_exact_for_extreme_logits():
    reduction = BinaryCrossEntropy(alpha=0.25)
    others = jnp.array([[-1e4, 1e4], [-jnp.inf, -jnp.inf]])
    loss = reduction.finish(reduction.accumulate(others), jnp.array([-1e4, 0.0]))
    np.testing.assert_allclose(loss, [0.25 * 1e4 + 0.75 * 1e4, 0.25 * np.log(2)], rtol=1e-6)
    slopes = jax.grad(lambda others: reduction.accumulate(others).sum())(others)
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
