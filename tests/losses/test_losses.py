"""Every loss against the oracle, in value and gradient, and what must hold for all of them."""

import doctest
import functools
import gc
import inspect
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from absl import flags
from cases import (
    CASES,
    LABELS,
    STATES,
    assert_all_finite,
    assert_close,
    evaluate,
    evaluate_over_seeds,
    initial_state,
    oracle_arguments,
    problem,
)

import sphereface_jax
from sphereface_jax import LOSSES

flags.FLAGS.mark_as_parsed()  # chex reads absl's flags
EVERY_CASE = pytest.mark.parametrize("case", CASES)
EVERY_LOSS = pytest.mark.parametrize("name", LOSSES)


def assert_equal_results(results, expected, relative=1e-5):
    """Losses to 1e-6, gradients to a looser fraction of their largest entry."""
    assert_close(results[0], expected[0], 1e-6, "losses")
    assert_close(results[1], expected[1], relative, "gradient by embeddings")
    assert_close(results[2], expected[2], relative, "gradient by prototypes")


@EVERY_CASE
def test_loss_and_gradients_equal_the_oracle_s(case):
    name, options = CASES[case]
    data = problem(name)
    arguments = oracle_arguments(name, data)
    expected = (
        reference.losses(*arguments, **options),
        *reference.gradients(*arguments, **options),
    )
    assert_equal_results(evaluate(name, options, data.x, data.prototypes), expected)


@EVERY_LOSS
def test_loss_of_bfloat16_is_computed_in_float32(name):
    data = problem(name, jnp.bfloat16)
    results = evaluate(name, {}, data.x, data.prototypes)
    assert [result.dtype for result in results] == [jnp.float32, jnp.bfloat16, jnp.bfloat16]
    arguments = oracle_arguments(name, data)
    expected = reference.losses(*arguments), *reference.gradients(*arguments)
    # The gradients are rounded once, on their way out.
    assert_equal_results(results, expected, relative=2**-8)


class VariantsTest(chex.TestCase):
    @chex.all_variants(with_pmap=False)  # pmap is jit of shard_map by now, and on its way out
    def test_every_loss_and_its_logits_under_all_variants(self):
        for name, row in LOSSES.items():
            data = problem(name)
            for public, oracle in [(row.loss, reference.losses), (row.logits, reference.logits)]:
                if public is None:
                    continue
                function = self.variant(functools.partial(public, **initial_state(name)))
                result = function(data.x, data.prototypes, jnp.asarray(LABELS))
                value = result[0] if row.start else result
                expected = oracle(*oracle_arguments(name, data))
                chex.assert_shape(value, expected.shape)
                assert_close(value, expected, 1e-6, name)


# Gradient modes


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "softmax"])
def test_detached_loss_has_the_gradient_of_the_plain_cosine(name):
    data = problem(name)
    arguments = oracle_arguments(name, data)
    expected = reference.losses(*arguments), *reference.detached_gradients(*arguments)
    results = evaluate(name, {"gradient": "detached"}, data.x, data.prototypes)
    assert_equal_results(results, expected)


@pytest.mark.parametrize(("margin", "lam"), [(1, 0.0), (2, 0.0), (3, 0.7), (4, 0.0), (4, 5.0)])
def test_caffe_loss_has_the_authors_layer_s_gradient(margin, lam):
    data = problem("sphereface")
    options = {"margin": margin, "annealing_lambda": lam}
    losses = reference.losses(*oracle_arguments("sphereface", data), **options)
    gradients = reference.caffe_gradients(data.x64, data.prototypes64, LABELS, margin, lam)
    options["gradient"] = "caffe"
    results = evaluate("sphereface", options, data.x, data.prototypes)
    assert_equal_results(results, (losses, *gradients))


def test_caffe_loss_at_margin_one_is_a_linear_layer():
    data = problem("sphereface")
    unit = jnp.asarray(reference.unit(data.prototypes64), jnp.float32)

    def linear(x, prototypes):
        logits = x @ prototypes.T
        losses = jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(8), LABELS]
        return losses.sum(), losses

    gradients, losses = jax.grad(linear, (0, 1), has_aux=True)(data.x, unit)
    results = evaluate("sphereface", {"margin": 1, "gradient": "caffe"}, data.x, unit)
    assert_equal_results(results, (losses, *gradients))


# Identities


@pytest.mark.parametrize("options", [{"margin": 1}, {"annealing_lambda": jnp.float32(jnp.inf)}])
def test_sphereface_without_a_margin_is_the_cross_entropy_of_linear_logits(options):
    data = problem("sphereface")

    def plain(x, prototypes):
        logits = x @ sphereface_jax.normalize(prototypes).T
        losses = jax.nn.logsumexp(logits, axis=1) - logits[jnp.arange(8), LABELS]
        return losses.sum(), losses

    gradients, losses = jax.grad(plain, (0, 1), has_aux=True)(data.x, data.prototypes)
    results = evaluate("sphereface", options, data.x, data.prototypes)
    assert_equal_results(results, (losses, *gradients))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cosface", {"margin": 0.0}),
        ("arcface", {"margin": 0.0}),
        ("arcface", {"margin": 0.0, "beyond": "linear"}),
        ("arcface", {"margin": 0.0, "beyond": "clamp"}),
        ("combined_margin", {"m1": 1.0, "m2": 0.0, "m3": 0.0}),
    ],
)
def test_losses_without_a_margin_are_the_normalized_softmax_loss(name, options):
    data = problem(name)
    results = evaluate(name, options | {"scale": 30.0}, data.x, data.prototypes)
    expected = evaluate("normalized_softmax", {"scale": 30.0}, data.x, data.prototypes)
    assert_equal_results(results, expected)


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_sphereface_r_v0_at_an_integer_margin_is_psi(margin):
    data = problem("sphereface")
    logits = sphereface_jax.sphereface_r_logits(
        data.x, data.prototypes, LABELS, version="v0", margin=float(margin), scale=1.0
    )
    cosine = sphereface_jax.cosine(data.x, data.prototypes)[jnp.arange(8), LABELS]
    expected = sphereface_jax.monotone_psi(cosine, margin)
    np.testing.assert_array_equal(logits[jnp.arange(8), LABELS], expected)


# State and regularizers


def test_curricularface_follows_the_mean_cosine_before_it_uses_it():
    data = problem("curricularface")
    cosine = reference.cosines(data.x64, data.prototypes64)[np.arange(8), LABELS]
    _, t = sphereface_jax.curricularface_loss(
        data.x, data.prototypes, LABELS, state=jnp.float32(0.5)
    )
    np.testing.assert_allclose(t, 0.99 * 0.5 + 0.01 * cosine.mean(), rtol=1e-6)


def test_adaface_follows_the_norms():
    data = problem("adaface")
    norms = np.clip(np.linalg.norm(data.x64, axis=1), 1e-3, 100)
    state = LOSSES["adaface"].init_state(6)
    _, state = sphereface_jax.adaface_loss(data.x, data.prototypes, LABELS, state=state, rate=0.2)
    np.testing.assert_allclose(state.mean, 0.8 * 20 + 0.2 * norms.mean(), rtol=1e-6)
    np.testing.assert_allclose(state.std, 0.8 * 100 + 0.2 * norms.std(ddof=1), rtol=1e-6)


def test_sphereface2_learns_its_bias():
    data = problem("sphereface2")

    def total(bias):
        losses, state = sphereface_jax.sphereface2_loss(data.x, data.prototypes, LABELS, state=bias)
        return losses.sum(), state

    slope, state = jax.grad(total, has_aux=True)(jnp.float32(3.0))
    assert state == 3.0
    step, arguments = 1e-4, ("sphereface2", data.x64, data.prototypes64, LABELS)
    rise = reference.losses(*arguments, 3 + step) - reference.losses(*arguments, 3 - step)
    np.testing.assert_allclose(slope, rise.sum() / (2 * step), rtol=1e-4)


@pytest.mark.parametrize("variant", "CAM")
@pytest.mark.parametrize("num_classes", [2, 10, 10_572])
def test_sphereface2_bias_is_the_best_at_right_angles(variant, num_classes):
    expected = reference.sphereface2_bias(num_classes, variant)
    bias = sphereface_jax.sphereface2_bias_init(num_classes, variant=variant)
    np.testing.assert_allclose(bias, expected, rtol=1e-6)
    assert LOSSES["sphereface2"].init_state(num_classes, variant=variant, loss_weight=5) == bias


def test_mhe_regularizer_counts_every_class_of_the_batch_once():
    prototypes = problem("sphereface").prototypes
    labels = jnp.array([4, 1, 4, 2, 1, 4])
    value = sphereface_jax.mhe_regularizer(prototypes, labels)
    expected = reference.energy(np.asarray(prototypes, np.float64), np.asarray(labels))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert sphereface_jax.mhe_regularizer(prototypes, jnp.array([3, 3])) == 0


def test_mhe_regularizer_is_finite_where_prototypes_coincide():
    value_and_slope = jax.value_and_grad(sphereface_jax.mhe_regularizer)
    value, slope = value_and_slope(jnp.ones((2, 4)), jnp.array([0, 1]))
    np.testing.assert_allclose(value, 5e4, rtol=1e-2)
    assert np.all(slope == 0)


# What holds for every loss


@pytest.mark.parametrize("name", [n for n in LOSSES if n not in ("ldam", "dynamic_arcface")])
def test_permuting_the_classes_permutes_nothing_else(name):
    data = problem(name)
    order = np.random.default_rng(1).permutation(6)
    losses, by_x, by_prototypes = evaluate(name, {}, data.x, data.prototypes)
    labels = np.argsort(order)[LABELS]
    results = evaluate(name, {}, data.x, data.prototypes[order], labels)
    assert_equal_results(results, (losses, by_x, by_prototypes[order]))


@pytest.mark.parametrize(
    "case", ["softmax", "sphereface", "sphereface_r", "sphereface2", "subcenter_arcface"]
)
def test_rows_past_num_classes_never_take_part(case):
    name, options = CASES[case]
    data = problem(name)
    padded = jnp.pad(data.prototypes, [(0, 3)] + [(0, 0)] * (data.prototypes.ndim - 1))
    padded = padded.at[6].set(100)
    options = options | {"num_classes": 6}
    losses, by_x, by_prototypes = evaluate(name, options, data.x, padded)
    expected = evaluate(name, {}, data.x, data.prototypes)
    assert_equal_results((losses, by_x, by_prototypes[:6]), expected)
    assert np.all(by_prototypes[6:] == 0)
    result = LOSSES[name].logits(data.x, padded, LABELS, num_classes=6, **initial_state(name))
    logits = result[0] if LOSSES[name].start else result
    assert np.all(logits[:, 6:] == -np.inf)
    assert_all_finite(logits[:, :6])


def test_sphereface_loss_keeps_its_relative_precision_when_it_is_tiny():
    x, prototypes = jnp.array([[20.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    loss, slope = jax.value_and_grad(
        lambda scale: sphereface_jax.cosface_loss(
            x, prototypes, jnp.array([0]), margin=0.0, scale=scale
        )[0]
    )(40.0)
    np.testing.assert_allclose(loss, np.exp(-40), rtol=1e-5)
    np.testing.assert_allclose(slope, -np.exp(-40), rtol=1e-5)


def test_a_loss_is_traced_once_for_all_steps_of_a_run():
    data = problem("sphereface")
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def loss(x, labels, step):
        annealing_lambda = sphereface_jax.annealed_lambda()(step)
        return sphereface_jax.sphereface_loss(
            x, data.prototypes, labels, annealing_lambda=annealing_lambda
        )

    losses = [loss(data.x, jnp.asarray(LABELS), step).sum() for step in range(3)]
    assert losses[0] < losses[1] < losses[2]  # λ falls, the margin bites


@pytest.mark.parametrize("name", ["sphereface", "sphereface2", "subcenter_arcface", "adaface"])
def test_a_loss_can_be_vmapped_over_seeds(name):
    for results, expected in evaluate_over_seeds(name):
        assert_equal_results(results, expected)


def test_a_loss_has_a_forward_derivative_too():
    data = problem("sphereface")
    direction = jnp.ones_like(data.x)
    _, tangent = jax.jvp(
        lambda x: sphereface_jax.sphereface_loss(x, data.prototypes, LABELS).sum(),
        (data.x,),
        (direction,),
    )
    by_x = evaluate("sphereface", {}, data.x, data.prototypes)[1]
    np.testing.assert_allclose(tangent, jnp.vdot(by_x, direction), rtol=1e-4)


# The public face


@EVERY_LOSS
def test_a_loss_is_exported_and_documented(name):
    row = LOSSES[name]
    for kind, function in [("loss", row.loss), ("logits", row.logits)]:
        if function is None:
            continue
        assert getattr(sphereface_jax, f"{name}_{kind}") is function
        assert function.__name__ in sphereface_jax.__all__
        parameters = inspect.signature(function).parameters
        assert list(parameters)[:3] == ["embeddings", "prototypes", "labels"]
        assert pickle.loads(pickle.dumps(function)) is function
    for parameter in inspect.signature(row.loss).parameters:
        assert f"  {parameter}: " in row.loss.__doc__
    assert ("state" in inspect.signature(row.loss).parameters) == (name in STATES)


@EVERY_LOSS
def test_an_empty_batch_has_no_losses(name):
    data, options = problem(name), initial_state(name)
    result = LOSSES[name].loss(data.x[:0], data.prototypes, jnp.asarray(LABELS[:0]), **options)
    assert (result[0] if LOSSES[name].start else result).shape == (0,)


@EVERY_LOSS
def test_nan_in_gives_nan_out(name):
    data = problem(name)
    losses, *_ = evaluate(name, {}, data.x.at[3].set(jnp.nan), data.prototypes)
    assert np.isnan(losses[3])


@pytest.mark.parametrize("head", [{}, {"class_block": 4}])
def test_a_label_that_is_no_class_has_loss_nan_under_jit(head):
    data = problem("arcface")
    loss = jax.jit(functools.partial(sphereface_jax.arcface_loss, num_classes=5, **head))
    losses = loss(data.x, data.prototypes, jnp.array([0, 1, 2, 5, 6, -1, 3, 4]))
    np.testing.assert_array_equal(np.isnan(losses), [False] * 3 + [True] * 3 + [False] * 2)


@pytest.mark.parametrize("length", [1e-30, 1e-19, 1e19, 1e30])
def test_the_length_of_an_embedding_does_not_matter_to_its_cosine(length):
    data = problem("arcface")
    directions = sphereface_jax.normalize(data.x)
    expected = evaluate("arcface", {}, directions, data.prototypes)
    results = evaluate("arcface", {}, directions * length, data.prototypes)
    assert_close(results[0], np.asarray(expected[0]), 1e-5)
    assert_close(results[1] * length, np.asarray(expected[1]), 1e-4)


@pytest.mark.parametrize("name", ["sphereface", "sphereface_plus", "curricularface", "softmax"])
def test_a_loss_works_in_strict_code(name):
    data, options = problem(name), initial_state(name)
    if name == "softmax":
        options = {"bias": jnp.zeros(6)}
    gc.freeze()  # each trace looks for leaks among all objects, which are many by now
    with (
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        jax.debug_nans(True),
        jax.checking_leaks(),
    ):
        for head in ({}, {"class_block": 4}):
            loss = functools.partial(LOSSES[name].loss, **options, **head)
            result = jax.jit(loss)(data.x, data.prototypes, jnp.asarray(LABELS))
            jax.block_until_ready(result)
    gc.unfreeze()


@pytest.mark.parametrize("name", ["arcface", "curricularface", "adaface", "sphereface2"])
def test_a_loss_of_float32_stays_float32_under_x64(name):
    data, options = problem(name), initial_state(name)
    with jax.enable_x64(True):
        for head in ({}, {"class_block": 4}):
            loss = functools.partial(LOSSES[name].loss, **options, **head)
            result = loss(data.x, data.prototypes, jnp.asarray(LABELS))
            assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("float32")}


FLOAT64 = [
    "sphereface",
    "cosface-filter_threshold=0.2",
    "arcface-beyond=linear",
    "elastic_arcface_plus",
    "elastic_cosface-sigma=0.1",
    "ldam",
    "dynamic_arcface",
    "uniface",
]


@pytest.mark.parametrize("case", FLOAT64)
def test_a_loss_in_float64_equals_the_oracle_to_1e_12(case):
    name, options = CASES[case]
    data, given = problem(name), initial_state(name)
    arguments = oracle_arguments(name, data)
    with jax.enable_x64(True):
        loss = LOSSES[name].loss
        if name.startswith("elastic_"):  # with the oracle's draws, which are float64
            margins = jnp.asarray(reference.elastic_margins(name, arguments[4], **options))
            loss = sphereface_jax.arcface_loss if "arc" in name else sphereface_jax.cosface_loss
            options, given = {"margin": margins}, {}
        given = jax.tree.map(lambda value: jnp.asarray(value, jnp.float64), given)

        def total(x, prototypes):
            result = loss(x, prototypes, jnp.asarray(LABELS), **given, **options)
            losses = result[0] if LOSSES[name].start else result
            return losses.sum(), losses

        x, prototypes = jnp.asarray(data.x64), jnp.asarray(data.prototypes64)
        gradients, losses = jax.grad(total, (0, 1), has_aux=True)(x, prototypes)
    expected = CASES[case][1]
    assert_close(losses, reference.losses(*arguments, **expected), 1e-12)
    for found, by_difference in zip(
        gradients, reference.gradients(*arguments, **expected), strict=True
    ):
        assert_close(found, by_difference, 1e-7)  # what finite differences are good for


def test_elastic_margins_are_those_of_the_key_alone():
    data, key = problem("arcface"), jax.random.key(3)
    loss = sphereface_jax.elastic_arcface_loss
    first = loss(data.x, data.prototypes, LABELS, key=key)
    np.testing.assert_array_equal(first, loss(data.x, data.prototypes, LABELS, key=key))
    keys = jax.random.split(key, 8)
    np.testing.assert_array_equal(first, loss(data.x, data.prototypes, LABELS, key=keys))
    half = loss(data.x[4:], data.prototypes, LABELS[4:], key=keys[4:])
    np.testing.assert_allclose(first[4:], half, rtol=1e-6)


def test_the_filter_leaves_classes_out_and_never_the_target():
    data = problem("cosface")
    cosine = np.asarray(sphereface_jax.cosine(data.x, data.prototypes))
    threshold = 0.1
    logits = sphereface_jax.cosface_logits(
        data.x, data.prototypes, LABELS, filter_threshold=threshold
    )
    expected = (cosine > threshold) & (np.arange(6) != LABELS[:, None])
    assert expected.any()
    np.testing.assert_array_equal(np.isneginf(logits), expected)


def test_margins_by_class_size_fall_with_the_fourth_root():
    margins = sphereface_jax.class_size_margins(
        np.array([0, 1, 16, 10_000]), factor=0.8, lower=0.1, upper=0.6
    )
    np.testing.assert_allclose(margins, [0.6, 0.6, 0.4, 0.1], rtol=1e-6)


def test_nearest_names_the_nearest_other_class():
    data = problem("arcface")
    cosine = np.asarray(sphereface_jax.cosine(data.x, data.prototypes))
    others = np.where(np.arange(6) == LABELS[:, None], -np.inf, cosine)
    for head in ({}, {"class_block": 4}):
        found = sphereface_jax.nearest(data.x, data.prototypes, LABELS, **head)
        np.testing.assert_array_equal(found.other_class, others.argmax(axis=1))
        np.testing.assert_allclose(found.other_cosine, others.max(axis=1), rtol=1e-5)
        np.testing.assert_allclose(found.cosine, cosine[np.arange(8), LABELS], rtol=1e-5)
    alone = sphereface_jax.nearest(data.x[:1], data.prototypes[:1], LABELS[:1])
    assert (alone.other_class[0], alone.other_cosine[0]) == (-1, -np.inf)


@pytest.mark.parametrize(
    "public", [n for n in sphereface_jax.__all__ if callable(getattr(sphereface_jax, n))]
)
def test_docstring_examples_run(public):
    function = getattr(sphereface_jax, public)
    for test in doctest.DocTestFinder(recurse=False).find(function, public, globs={}):
        assert doctest.DocTestRunner().run(test).failed == 0
