"""The blockwise head equals the dense one on every mesh, and sends little."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LABELS, assert_close, evaluate, problem
from on_devices import run_on_devices

from sphereface_jax import arcface_loss

pytestmark = pytest.mark.slow

MESHES = pytest.mark.parametrize(("data", "model"), [(2, 4), (4, 2), (1, 8)])


@MESHES
def test_every_loss_equals_dense(data, model):
    run_on_devices("every_loss_equals_dense", data, model)


@pytest.mark.parametrize("name", ["sphereface", "sphereface_plus", "adaface"])
def test_one_device_is_a_mesh_too(name):
    data, mesh = problem(name), jax.make_mesh((1, 1), ("data", "model"))
    expected = evaluate(name, {}, data.x, data.prototypes)
    results = evaluate(name, {"mesh": mesh, "class_block": 5}, data.x, data.prototypes)
    for value, other in zip(results, expected, strict=True):
        assert_close(value, np.asarray(other, np.float64), 1e-5)


@pytest.mark.parametrize(("data", "model"), [(4, 2), (4, 1), (8, 1)])
def test_a_margin_from_outside_equals_dense(data, model):
    run_on_devices("a_margin_from_outside_equals_dense", data, model)


def test_every_gradient_mode_equals_dense():
    run_on_devices("every_gradient_mode_equals_dense", 2, 4)


def test_whatever_has_a_gradient_has_the_same():
    run_on_devices("whatever_has_a_gradient_has_the_same", 2, 4)


def test_rows_past_num_classes_never_take_part():
    run_on_devices("rows_past_num_classes_never_take_part", 1, 8)


@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_the_mesh_may_come_from_the_context(axis_type):
    run_on_devices("the_mesh_may_come_from_the_context", axis_type)


def test_class_parallel_under_vmap_over_seeds():
    run_on_devices("vmaps_over_seeds")


def test_training_is_the_same_on_every_mesh():
    run_on_devices("training_is_the_same_on_every_mesh")


@pytest.mark.parametrize(
    "case",
    [
        *("clipped", "accumulated", "adamw", "a term of the prototypes alone", "not by rows"),
    ],
)
def test_prototypes_updated_in_place_learn_the_same(case):
    run_on_devices("prototypes_updated_in_place_learn_the_same", case)


def test_a_step_says_the_same_of_its_examples_on_every_mesh():
    run_on_devices("a_step_says_the_same_of_its_examples_on_every_mesh")


# 8 examples and 128 classes per device, embeddings of 32
WHAT_TRAVELS = {
    "arcface": {"all-reduce [8]": 3},  # target cosine, maximum, sum
    "sphereface2": {"all-reduce [8]": 2},  # target cosine, sum
    "curricularface": {"all-reduce [8]": 4, "all-reduce []": 1},  # target cosine twice; its mean
    "adaface": {"all-reduce [8]": 3, "all-reduce []": 3},  # mean and deviation of the norms
    "sphereface_plus": {
        "all-reduce [8]": 3,
        "all-reduce [16,32]": 1,
        "all-gather [16]": 1,
    },  # the batch's prototypes and labels
}


@pytest.mark.parametrize("name", WHAT_TRAVELS)
def test_only_what_must_travels(name):
    found = collections.Counter()
    for line in run_on_devices("print_collectives", name, 2, 4).splitlines():
        what, count = line.rsplit(" ", 1)
        found[what.replace("[1,", "[")] += int(count)
    expected = collections.Counter(WHAT_TRAVELS[name])
    # the mean loss, the gradient by embeddings and that by prototypes
    expected.update({"all-reduce []": 1, "all-reduce [8,32]": 1, "all-reduce [128,32]": 1})
    assert found == expected


def test_a_device_s_memory_falls_with_their_number():
    one, *others = map(int, run_on_devices("print_bytes_of_a_device").split())
    for devices, size in zip([2, 4, 8], others, strict=True):
        assert one / devices < size < 1.15 * one / devices


def test_a_batch_that_cannot_be_cut_is_refused():
    data = problem("arcface")
    mesh = jax.sharding.AbstractMesh((3, 1), ("data", "model"))
    message = "embeddings: batch size 8 is not divisible by the 3 devices on mesh axis 'data'"
    with pytest.raises(ValueError, match=message):
        arcface_loss(data.x, data.prototypes, LABELS, mesh=mesh)


def test_a_mesh_of_other_axes_is_refused():
    data, mesh = problem("arcface"), jax.make_mesh((1,), ("batch",))
    with pytest.raises(ValueError, match="mesh: expected an axis 'model' or 'data'"):
        arcface_loss(data.x, data.prototypes, LABELS, mesh=mesh)


def test_another_mesh_in_the_context_changes_nothing():
    data = problem("arcface")
    expected = arcface_loss(data.x, data.prototypes, jnp.asarray(LABELS))
    with jax.set_mesh(jax.make_mesh((1,), ("batch",))):
        losses = arcface_loss(data.x, data.prototypes, jnp.asarray(LABELS))
    np.testing.assert_array_equal(losses, expected)
