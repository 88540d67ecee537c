"""The blockwise head equals the dense one, and holds no array of the classes' size."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import (
    CASES,
    LABELS,
    REST,
    STATES,
    assert_close,
    assert_equal_trees,
    evaluate,
    evaluate_over_seeds,
    gradients_by_the_rest,
    initial_state,
    oracle_arguments,
    problem,
)

import sphereface_jax
from sphereface_jax import LOSSES


def assert_equal_results(results, expected, relative=1e-5):
    for value, other, what in zip(
        results, expected, ["losses", "by embeddings", "by prototypes"], strict=True
    ):
        assert value.dtype == other.dtype
        assert_close(value, np.asarray(other, np.float64), relative, what)


@pytest.mark.parametrize("case", CASES)
def test_blockwise_equals_dense(case):
    name, options = CASES[case]
    data = problem(name)
    expected = evaluate(name, options, data.x, data.prototypes)
    results = evaluate(name, options | {"class_block": 4}, data.x, data.prototypes)
    assert_equal_results(results, expected)


@pytest.mark.parametrize(
    ("name", "class_block"), list(zip(LOSSES, itertools.cycle([1, 5]), strict=False))
)
def test_any_block_will_do(name, class_block):
    data = problem(name, seed=1)
    expected = evaluate(name, {}, data.x, data.prototypes)
    results = evaluate(name, {"class_block": class_block}, data.x, data.prototypes)
    assert_equal_results(results, expected)


def test_a_block_may_exceed_the_classes():
    data = problem("arcface")
    results = evaluate("arcface", {"class_block": 1000}, data.x, data.prototypes)
    assert_equal_results(results, evaluate("arcface", {}, data.x, data.prototypes))


@pytest.mark.parametrize("class_block", [0, -1, 2.5, "many"])
def test_a_block_is_a_number_of_classes(class_block):
    data = problem("arcface")
    with pytest.raises(ValueError, match="class_block: expected None or an integer of at least 1"):
        sphereface_jax.arcface_loss(data.x, data.prototypes, LABELS, class_block=class_block)


@pytest.mark.parametrize(
    ("name", "gradient"),
    [
        ("sphereface", "caffe"),
        ("sphereface_plus", "caffe"),
        ("sphereface", "detached"),
        ("sphereface_r", "detached"),
        ("sphereface2", "detached"),
        ("curricularface", "detached"),
        ("adaface", "detached"),
    ],
)
def test_every_gradient_mode_equals_dense(name, gradient):
    data = problem(name)
    options = {"gradient": gradient}
    expected = evaluate(name, options, data.x, data.prototypes)
    results = evaluate(name, options | {"class_block": 4}, data.x, data.prototypes)
    assert_equal_results(results, expected)


@pytest.mark.parametrize("name", ["softmax", "sphereface", "sphereface2", "subcenter_arcface"])
def test_bfloat16_is_accumulated_in_float32(name):
    data = problem(name, jnp.bfloat16)
    results = evaluate(name, {"class_block": 4}, data.x, data.prototypes)
    assert [result.dtype for result in results] == [jnp.float32, jnp.bfloat16, jnp.bfloat16]
    arguments = oracle_arguments(name, data)
    assert_close(results[0], reference.losses(*arguments), 1e-6, "losses")
    gradients = reference.gradients(*arguments)
    assert_close(results[1], gradients[0], 2**-8, "by embeddings")
    # A row is rounded twice: with what its class has as one of the others, and as a target.
    assert_close(results[2], gradients[1], 2**-7, "by prototypes")


@pytest.mark.parametrize(
    ("name", "gradient"), [("sphereface", "exact"), ("sphereface", "caffe"), ("adaface", "exact")]
)
def test_zero_embeddings_and_prototypes_stay_without_a_direction(name, gradient):
    data = problem(name)
    x, prototypes = data.x.at[2].set(0), data.prototypes.at[4].set(0)
    options = {"gradient": gradient}
    expected = evaluate(name, options, x, prototypes)
    results = evaluate(name, options | {"class_block": 4}, x, prototypes)
    assert all(np.all(np.isfinite(value)) for value in results)
    assert np.all(results[1][2] == 0)
    assert_equal_results(results, expected)


@pytest.mark.parametrize("case", ["softmax-bias", "sphereface2", "subcenter_arcface"])
def test_rows_past_num_classes_never_take_part(case):
    name, options = CASES[case]
    data = problem(name)
    padded = jnp.pad(data.prototypes, [(0, 3)] + [(0, 0)] * (data.prototypes.ndim - 1))
    padded = padded.at[6].set(100)
    if "bias" in options:
        options = {"bias": np.append(options["bias"], [7, 7, 7])}
    options = options | {"num_classes": 6}
    expected = evaluate(name, options, data.x, padded)
    results = evaluate(name, options | {"class_block": 4}, data.x, padded)
    assert_equal_results(results, expected)
    assert np.all(results[2][6:] == 0)


@pytest.mark.parametrize(("name", "arrays"), REST)
def test_whatever_has_a_gradient_has_the_same(name, arrays):
    expected = gradients_by_the_rest(name, arrays)
    results = gradients_by_the_rest(name, arrays, class_block=4)
    assert_equal_trees(results, expected)


@pytest.mark.parametrize("name", ["sphereface", "curricularface"])
def test_blocks_under_vmap_over_seeds_and_remat(name):
    for results, expected in evaluate_over_seeds(name, jax.checkpoint, class_block=4):
        assert_equal_results(results, expected)


@pytest.mark.parametrize("name", ["sphereface", "curricularface", "adaface"])
def test_blocks_have_forward_derivatives(name):
    data = problem(name)
    options = initial_state(name)

    def loss(x, prototypes, class_block):
        result = LOSSES[name].loss(x, prototypes, LABELS, class_block=class_block, **options)
        return result[0] if LOSSES[name].start else result

    tangents = jnp.ones_like(data.x), jnp.ones_like(data.prototypes)
    _, dense = jax.jvp(lambda *a: loss(*a, None), (data.x, data.prototypes), tangents)
    _, blocks = jax.jvp(lambda *a: loss(*a, 4), (data.x, data.prototypes), tangents)
    assert_close(blocks, np.asarray(dense), 1e-5)


def test_another_batch_compiles_nothing():
    data, traced = problem("arcface"), []

    def target(cosine_y, norms, *, margin):
        traced.append(cosine_y.shape)
        return cosine_y - margin

    for x, labels in [(data.x, LABELS), (2 * data.x, LABELS[::-1].copy())]:
        sphereface_jax.margin_loss(
            x,
            data.prototypes,
            labels,
            target=target,
            hyperparameters={"margin": x[:, 0] ** 2},
            class_block=5,
        )
    assert len(traced) == 1


@pytest.mark.parametrize("name", ["sphereface", "sphereface2", "curricularface"])
def test_temporaries_are_a_small_part_of_the_prototypes(name):
    classes, batch, width = 500_000, 128, 512
    state = {} if name not in STATES else {"state": LOSSES[name].init_state(classes)}

    def mean(x, prototypes, labels):
        result = LOSSES[name].loss(x, prototypes, labels, class_block=4096, **state)
        return (result[0] if LOSSES[name].start else result).mean()

    shapes = [(batch, width), (classes, width)]
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    compiled = jax.jit(jax.grad(mean, (0, 1))).lower(*arguments, labels).compile()
    prototypes_and_gradient = 2 * classes * width * 4
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    assert 0 < temporaries < 0.15 * prototypes_and_gradient
