"""Every loss where the textbook formulas fail: zero embeddings, cosines of ±1, any norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import (
    CASES,
    LABELS,
    as_problem,
    assert_all_finite,
    assert_close,
    evaluate,
    oracle_arguments,
    problem,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import sphereface_jax
from sphereface_jax import LOSSES

# An array of hyper-parameters has no edges of its own.
EVERY_CASE = pytest.mark.parametrize(
    "case",
    [
        case
        for case, (name, options) in CASES.items()
        if name == "softmax" or not any(np.ndim(value) for value in options.values())
    ],
)
# What depends on the batch alone: no margins per example or per class.
ANY_SHAPE = [
    case
    for case, (name, options) in CASES.items()
    if name not in ("softmax", "ldam", "dynamic_arcface")
    and not any(np.ndim(value) for value in options.values())
]


def plane_problem(name, angles):
    """Embeddings of length 2 at exact angles from prototype 0, in the plane of axes 0 and 1."""
    prototypes = np.array(problem(name).prototypes64)
    prototypes[0] = 0
    prototypes[0, ..., 0] = 3
    x = np.zeros((8, 5))
    x[:, 0], x[:, 1] = 2 * np.cos(angles), 2 * np.sin(angles)
    x[np.abs(x) < 1e-12] = 0  # cosines of exactly 0 and ±1
    return as_problem(jnp.asarray(x, jnp.float32), jnp.asarray(prototypes, jnp.float32))


def is_jump(name, options, angles):
    """Where the formula itself jumps, so that rounding decides: at π/2 or at π − m."""
    if name == "magface":
        return np.abs(angles - np.pi / 2) < 1e-6
    jumps = name == "curricularface" or options.get("beyond") == "linear"
    return (np.abs(angles - (np.pi - 0.5)) < 1e-6) & jumps


@EVERY_CASE
def test_loss_is_exact_and_its_gradients_finite_at_every_edge(case):
    name, options = CASES[case]
    borders = {k / m for m in range(1, 6) for k in range(m + 1)}
    arcs = {1 - 0.5 / np.pi, 1 - 0.4 / np.pi, 1 / 1.4, 1 / 1.7}
    labels = np.zeros(8, np.int64)
    for angles in np.pi * np.resize(sorted(borders | arcs), (2, 8)):
        data = plane_problem(name, angles)
        losses, by_x, by_prototypes = evaluate(name, options, data.x, data.prototypes, labels)
        expected = reference.losses(*oracle_arguments(name, data, labels), **options)
        continuous = ~is_jump(name, options, angles)
        assert_close(losses[continuous], expected[continuous], 2e-6)
        assert_all_finite(losses, by_x, by_prototypes)


@EVERY_CASE
def test_zero_embeddings_get_and_give_no_gradient(case):
    name, options = CASES[case]
    data = problem(name)
    _, by_x, by_prototypes = evaluate(name, options, jnp.zeros_like(data.x), data.prototypes)
    if name == "softmax":  # nothing is normalised: the logits are linear in x at zero too
        zeros = np.zeros_like(data.x64)
        expected = reference.gradients(name, zeros, data.prototypes64, LABELS, **options)
        assert_close(by_x, expected[0], 1e-5)
        return
    assert np.all(by_x == 0)
    if name == "sphereface_plus":  # whose regularizer does not look at embeddings
        by_prototypes -= jax.grad(
            lambda prototypes: 0.8 * sphereface_jax.mhe_regularizer(prototypes, LABELS)
        )(data.prototypes)
    np.testing.assert_allclose(by_prototypes, 0, atol=1e-6)
    one_zero = data.x.at[2].set(0)
    losses, by_x, by_prototypes = evaluate(name, options, one_zero, data.prototypes)
    assert np.all(by_x[2] == 0)
    assert np.any(by_x[3] != 0)
    assert_all_finite(losses, by_x, by_prototypes)


@pytest.mark.parametrize("margin", [1, 4])
def test_caffe_loss_gives_no_gradient_to_a_zero_embedding(margin):
    data = problem("sphereface")
    options = {"margin": margin, "annealing_lambda": 0.0, "gradient": "caffe"}
    results = evaluate("sphereface", options, data.x.at[2].set(0), data.prototypes)
    assert np.all(results[1][2] == 0)
    assert_all_finite(*results)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    case=st.sampled_from(ANY_SHAPE),
    shape=st.sampled_from([(1, 1, 1), (1, 4, 2), (3, 2, 4), (5, 3, 3)]),
    exponents=st.lists(st.floats(-6, 4), min_size=5, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_loss_is_exact_for_any_shape_labels_and_norms(case, shape, exponents, seed):
    name, options = CASES[case]
    batch, classes, width = shape
    rng = np.random.default_rng(seed)
    size = (classes, 3, width) if LOSSES[name].num_subcenters else (classes, width)
    x = reference.unit(rng.normal(size=(batch, width))) * 10.0 ** np.array(exponents)[:batch, None]
    prototypes = rng.normal(size=size)
    data = as_problem(jnp.asarray(x, jnp.float32), jnp.asarray(prototypes, jnp.float32))
    labels = rng.integers(0, classes, batch)
    results = evaluate(name, options, data.x, data.prototypes, labels)
    arguments = oracle_arguments(name, data, labels)
    expected = reference.losses(*arguments, **options)
    logits = reference.logits(*arguments, **options)
    # A cosine is known to an ulp only; near ±1 an angle is then known to its square root.
    sine = np.sqrt(1 - reference.cosines(data.x64, data.prototypes64) ** 2).min(axis=1)
    slack = 1 + 0.5 / np.maximum(sine, 3e-4)
    tolerance = 2e-6 * slack * (1 + classes * np.abs(logits).max(axis=1))
    assert np.all(np.abs(np.asarray(results[0], np.float64) - expected) <= tolerance)
    assert_all_finite(*results)
