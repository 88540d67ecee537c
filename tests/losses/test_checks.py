"""A wrong argument is answered with one line that names it, what was expected and what came."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sphereface_jax
from sphereface_jax import LOSSES, sphereface_loss

X, PROTOTYPES, LABELS = jnp.ones((4, 3)), jnp.ones((5, 3)), jnp.array([0, 1, 2, 4])
WRONG = {
    "rank of embeddings": ((X[0], PROTOTYPES, LABELS), {}, r"embeddings: .*\[B, D\].*\[3\]"),
    "dtype of embeddings": ((X.astype(int), PROTOTYPES, LABELS), {}, "embeddings: .*floating.*int"),
    "a list": (([[1.0]], PROTOTYPES, LABELS), {}, "embeddings: expected a floating-point array"),
    "rank of prototypes": ((X, PROTOTYPES[0], LABELS), {}, r"prototypes: .*\[C, D\]"),
    "width": ((X, PROTOTYPES[:, :2], LABELS), {}, r"prototypes: expected width 3.*got width 2"),
    "number of labels": ((X, PROTOTYPES, LABELS[:3]), {}, r"labels: expected shape \[4\].*\[3\]"),
    "dtype of labels": ((X, PROTOTYPES, LABELS * 1.0), {}, "labels: expected an integer.*float"),
    "label too large": ((X, PROTOTYPES, LABELS + 1), {}, "labels: expected .*0 to 4.*from 1 to 5"),
    "label too small": ((X, PROTOTYPES, LABELS - 1), {}, "labels: expected .*0 to 4.*from -1 to 3"),
    "label of padding": ((X, PROTOTYPES, LABELS), {"num_classes": 4}, "labels: .*0 to 3.*0 to 4"),
    "too many classes": ((X, PROTOTYPES, LABELS), {"num_classes": 6}, "num_classes: .*1 to 5.*6"),
    "no classes": ((X, PROTOTYPES, LABELS), {"num_classes": 0}, "num_classes: .*1 to 5.*got 0"),
    "margin zero": ((X, PROTOTYPES, LABELS), {"margin": 0}, "margin: expected .*at least 1.*got 0"),
    "margin 2.5": ((X, PROTOTYPES, LABELS), {"margin": 2.5}, "margin: expected an integer.*2.5"),
    "margin name": ((X, PROTOTYPES, LABELS), {"margin": "4"}, "margin: expected a number.*'4'"),
    "margin array": (
        (X, PROTOTYPES, LABELS),
        {"margin": jnp.ones(2)},
        r"margin: expected a scalar or shape \[4\] \(one per embedding\), got shape \[2\]",
    ),
    "NaN in an array": (
        (X, PROTOTYPES, LABELS),
        {"annealing_lambda": jnp.array([0.0, jnp.nan, 0.0, 0.0])},
        r"annealing_lambda: expected entries of at least 0, got \[nan\]",
    ),
    "negative λ": (
        (X, PROTOTYPES, LABELS),
        {"annealing_lambda": -1.0},
        "annealing_lambda: expected a number of at least 0, got -1.0",
    ),
    "NaN": ((X, PROTOTYPES, LABELS), {"annealing_lambda": float("nan")}, "annealing_lambda: .*nan"),
    "gradient": (
        (X, PROTOTYPES, LABELS),
        {"gradient": "true"},
        "gradient: expected one of 'exact', 'detached', 'caffe', got 'true'",
    ),
    "caffe with a scale": (
        (X, PROTOTYPES, LABELS),
        {"gradient": "caffe", "scale": 30.0},
        "scale: expected None with gradient='caffe', got 30.0",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_named(wrong):
    arguments, keywords, message = WRONG[wrong]
    for function in (sphereface_loss, sphereface_jax.sphereface_logits):
        with pytest.raises(ValueError, match=message) as error:
            function(*arguments, **keywords)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("arcface", {"beyond": "wrap"}, "beyond: expected one of 'keep', 'linear', 'clamp'"),
        ("arcface", {"beyond": 3}, "beyond: expected one of 'keep', 'linear', 'clamp', got 3"),
        ("arcface", {"margin": 28.6}, "margin: .*at most π, got 28.6; 28.6 degrees are 0.4992"),
        ("magface", {"upper_margin": 45.0}, "upper_margin: expected an angle in radians"),
        ("elastic_arcface", {"key": jnp.zeros(2)}, "key: expected a key of jax.random.key"),
        ("ldam", {"class_margins": jnp.zeros(4)}, r"class_margins: expected shape \[5\]"),
        ("sphereface_r", {"version": "v3"}, "version: expected one of 'v0', 'v1', 'v2'"),
        ("sphereface2", {"variant": "B", "state": jnp.zeros(())}, "variant: expected one of 'C'"),
        ("sphereface2", {"state": jnp.zeros(5)}, r"state: expected .*shape=\(\)"),
        ("adaface", {"state": jnp.zeros(())}, "state: expected NormStatistics"),
        ("curricularface", {"state": None}, "state: expected .*got None"),
        ("softmax", {"bias": jnp.zeros(4)}, r"bias: expected shape \[5\].*got shape \[4\]"),
        ("cosface", {"scale": -1.0}, "scale: expected a number of at least 0"),
        ("cosface", {"gradient": "caffe"}, "gradient: expected one of 'exact', 'detached', got"),
        ("subcenter_arcface", {}, r"prototypes: expected shape \[C, K, D\], got shape \[5, 3\]"),
    ],
)
def test_a_loss_names_its_own_wrong_hyper_parameter(name, keywords, message):
    with pytest.raises(ValueError, match=message):
        LOSSES[name].loss(X, PROTOTYPES, LABELS, **keywords)


def test_unknown_and_missing_arguments_are_type_errors_that_name_the_function():
    with pytest.raises(TypeError, match=r"cosface_loss\(\) .*'annealing_lambda'"):
        sphereface_jax.cosface_loss(X, PROTOTYPES, LABELS, annealing_lambda=1.0)
    with pytest.raises(TypeError, match=r"adaface_loss\(\) .*'state'"):
        sphereface_jax.adaface_loss(X, PROTOTYPES, LABELS)


def test_shapes_are_checked_under_jit_and_values_are_not():
    with pytest.raises(ValueError, match="labels: expected shape"):
        jax.jit(sphereface_loss)(X, PROTOTYPES, LABELS[:3])
    # A label that is not a class gives no number rather than a wrong one.
    assert np.isnan(jax.jit(sphereface_loss)(X, PROTOTYPES, LABELS + 1)[3])


def test_numpy_arrays_and_small_integers_are_welcome():
    expected = sphereface_loss(X, PROTOTYPES, LABELS)
    labels = np.asarray(LABELS, np.uint8)
    x, prototypes = np.asarray(X, np.float64), np.asarray(PROTOTYPES, np.float64)
    value = sphereface_loss(x, prototypes, labels, margin=np.int64(4))
    np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PROTOTYPES, jnp.array([5])), "labels: .*0 to 4"),
        ((PROTOTYPES, jnp.array([[1]])), r"labels: .*\[1\]"),
        ((PROTOTYPES[0], LABELS), r"prototypes: .*\[C, D\]"),
    ],
)
def test_mhe_regularizer_checks_its_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        sphereface_jax.mhe_regularizer(*arguments)


def test_sphereface2_bias_needs_two_classes():
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 2, got 1"):
        sphereface_jax.sphereface2_bias_init(1)
