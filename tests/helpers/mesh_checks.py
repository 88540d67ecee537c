"""What `test_class_parallel` and `test_sampling` ask of several devices; see `on_devices`."""

import dataclasses
import functools
import re
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from cases import (
    CASES,
    LABELS,
    REST,
    assert_close,
    assert_equal_trees,
    evaluate,
    gradients_by_the_rest,
    initial_state,
    problem,
)
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from planted_noise import draw_people, flip
from tiny_run import folder_config, quiet, tiny_config

from sphereface_jax import LOSSES, arcface_loss, margin_loss, margins, nearest
from sphereface_jax.evaluation.label_noise import find_noise
from sphereface_jax.training import rows_update
from sphereface_jax.training.config import LossConfig, MeshConfig, OptimizerConfig
from sphereface_jax.training.loop import train
from sphereface_jax.training.optimizer import make_optimizer
from sphereface_jax.training.step import compile_train_step, make_train_step
from sphereface_jax.training.trainer import make_trainer


def make_mesh(data, model, axis_type=AxisType.Auto):
    devices = jax.devices()[: data * model]
    axis_types = (axis_type,) * 2
    return jax.make_mesh((data, model), ("data", "model"), axis_types=axis_types, devices=devices)


def _assert_equals_dense(mesh, name, options, **head_options):
    data = problem(name)
    expected = evaluate(name, options, data.x, data.prototypes)
    results = evaluate(name, options | head_options | {"mesh": mesh}, data.x, data.prototypes)
    for value, other in zip(results, expected, strict=True):
        assert_close(value, np.asarray(other, np.float64), 1e-5, f"{name} {options} {head_options}")


def every_loss_equals_dense(data, model):
    """With six classes, which no mesh of four or eight cuts evenly."""
    mesh = make_mesh(data, model)
    for i, name in enumerate(LOSSES):
        _assert_equals_dense(mesh, name, {}, class_block=[None, 1, 2][i % 3])
    _assert_equals_dense(mesh, *CASES["softmax-bias"])
    for name, options in CASES.values():
        is_of_each = any(np.shape(value) == LABELS.shape for value in options.values())
        if is_of_each and name in ("sphereface", "cosface", "sphereface2", "curricularface"):
            _assert_equals_dense(mesh, name, options, class_block=2)


def a_margin_from_outside_equals_dense(data, model):
    """ElasticFace, margins by class, and a margin that changes the others, by public names only."""
    mesh = make_mesh(data, model)
    problem_of, labels = problem("arcface"), jnp.asarray(LABELS)
    margin = 0.5 + 0.05 * jax.random.normal(jax.random.key(0), LABELS.shape)
    table = jnp.linspace(0.1, 0.6, 6)

    def halved(cosine_y, norms, *, margin):
        return cosine_y / 2 - margin - 0.001 * norms

    def raised(cosine, cosine_y, *, margin):
        return cosine + margin * cosine_y

    for options in [
        {"target": margins.arcface, "hyperparameters": {"margin": margin}},
        {"target": margins.cosface, "hyperparameters": {"margin": table[labels]}},
        {"target": halved, "negatives": raised, "hyperparameters": {"margin": margin}},
    ]:

        def total(x, prototypes, **head):
            losses = margin_loss(x, prototypes, labels, **options, **head)  # noqa: B023
            return jnp.vdot(losses, jnp.arange(1.0, 9.0)), losses

        gradient = jax.jit(
            jax.grad(total, (0, 1), has_aux=True), static_argnames=("mesh", "class_block")
        )
        expected = gradient(problem_of.x, problem_of.prototypes)
        results = gradient(problem_of.x, problem_of.prototypes, mesh=mesh, class_block=2)
        jax.tree.map(
            lambda one, other: assert_close(one, np.asarray(other), 1e-5), results, expected
        )


def every_gradient_mode_equals_dense(data, model):
    mesh = make_mesh(data, model)
    for name in ["sphereface", "sphereface_plus"]:
        _assert_equals_dense(mesh, name, {"gradient": "caffe"})
    for name in ["sphereface", "sphereface2", "curricularface"]:
        _assert_equals_dense(mesh, name, {"gradient": "detached"})


def whatever_has_a_gradient_has_the_same(data, model):
    mesh = make_mesh(data, model)
    for name, arrays in REST:
        results = gradients_by_the_rest(name, arrays, mesh=mesh)
        assert_equal_trees(results, gradients_by_the_rest(name, arrays))


def a_loss_inside_a_shard_map_of_one_s_own():
    """The batch sharded, the prototypes on every device, with and without blocks."""
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    data, labels = problem("arcface"), jnp.asarray(LABELS)
    expected = evaluate("arcface", {}, data.x, data.prototypes)
    for head in [{}, {"class_block": 4}]:

        def total(x, prototypes):
            def losses(x, prototypes, labels):
                return arcface_loss(x, prototypes, labels, **head)  # noqa: B023

            specs = P("batch"), P(), P("batch")
            function = jax.shard_map(losses, mesh=mesh, in_specs=specs, out_specs=P("batch"))
            return function(x, prototypes, labels).sum()

        gradients = jax.jit(jax.grad(total, (0, 1)))(data.x, data.prototypes)
        for value, other in zip(gradients, expected[1:], strict=True):
            assert_close(value, np.asarray(other), 1e-5)


def rows_past_num_classes_never_take_part(data, model):
    """Of 16 rows 6 are classes, so that some devices have none."""
    mesh = make_mesh(data, model)
    for name in ["arcface", "sphereface2", "subcenter_arcface"]:
        problem_of = problem(name)
        padding = [(0, 10)] + [(0, 0)] * (problem_of.prototypes.ndim - 1)
        padded = jnp.pad(problem_of.prototypes, padding, constant_values=100)
        expected = evaluate(name, {}, problem_of.x, problem_of.prototypes)
        options = {"num_classes": 6, "mesh": mesh, "class_block": 3}
        results = evaluate(name, options, problem_of.x, padded)
        assert np.all(results[2][6:] == 0)
        results = *results[:2], results[2][:6]
        for value, other in zip(results, expected, strict=True):
            assert_close(value, np.asarray(other, np.float64), 1e-5, name)


def the_mesh_may_come_from_the_context(axis_type):
    """Whether axes are automatic or explicit, arrays cut beforehand or not, jitted or not."""
    data = problem("arcface")
    expected = evaluate("arcface", {}, data.x, data.prototypes)[1:]
    padded = jnp.pad(data.prototypes, ((0, 2), (0, 0)))
    mesh = make_mesh(2, 4, AxisType[axis_type])

    def total(x, prototypes):
        return arcface_loss(x, prototypes, jnp.asarray(LABELS), num_classes=6).sum()

    with jax.set_mesh(mesh):
        cut = (
            jax.device_put(data.x, NamedSharding(mesh, P("data"))),
            jax.device_put(padded, NamedSharding(mesh, P("model"))),
        )
        gradient = jax.grad(total, (0, 1))
        assert gradient(*cut)[1].sharding.spec[0] == "model"
        for function in [gradient, jax.jit(gradient)]:
            for arguments in [(data.x, padded), cut]:
                by_x, by_prototypes = function(*arguments)
                assert_close(by_x, np.asarray(expected[0]), 1e-5)
                assert_close(np.asarray(by_prototypes)[:6], np.asarray(expected[1]), 1e-5)


def _compile(name, mesh, classes, batch, width, class_block=64):
    """A step of training, everything cut as it stays."""
    row = LOSSES[name]

    def mean(x, prototypes, labels, state):
        result = row.loss(x, prototypes, labels, class_block=class_block, mesh=mesh, **state)
        losses, state = result if row.start else (result, {})
        return losses.mean(), state

    def array(shape, spec, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    arguments = (
        array((batch, width), P("data")),
        array((classes, width), P("model")),
        array((batch,), P("data"), jnp.int32),
        jax.tree.map(lambda leaf: array((), P(), leaf.dtype), initial_state(name)),
    )
    step = jax.value_and_grad(mean, (0, 1), has_aux=True)
    where = None, (arguments[0].sharding, arguments[1].sharding)
    return jax.jit(step, out_shardings=where).lower(*arguments).compile()


_COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-\w+)(?:-start)?\("
)


def print_collectives(name, data, model):
    """One line a tensor that travels: what is done, its shape, how often."""
    batch, width = 8 * data, 32
    compiled = _compile(name, make_mesh(data, model), 128 * model, batch, width)
    found = Counter()
    for shapes, operation in _COLLECTIVE.findall(compiled.as_text()):
        for shape in re.findall(r"\w+\[([\d,]*)\]", shapes):
            found[f"{operation} [{shape}]"] += 1
    for line, count in sorted(found.items()):
        print(f"{line} {count}")


def print_bytes_of_a_device():
    for devices in [1, 2, 4, 8]:
        mesh = make_mesh(1, devices)
        memory = _compile("sphereface", mesh, 64_000, 16, 64, 512).memory_analysis()
        print(
            memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        )


def vmaps_over_seeds():
    mesh = make_mesh(2, 4)
    problems = [problem("cosface", seed=seed) for seed in range(2)]

    def total(x, prototypes):
        losses = LOSSES["cosface"].loss(x, prototypes, jnp.asarray(LABELS), mesh=mesh)
        return losses.sum()

    by_x, by_prototypes = jax.jit(jax.vmap(jax.grad(total, (0, 1))))(
        jnp.stack([data.x for data in problems]), jnp.stack([data.prototypes for data in problems])
    )
    for i, data in enumerate(problems):
        expected = evaluate("cosface", {}, data.x, data.prototypes)
        assert_close(by_x[i], np.asarray(expected[1]), 1e-5)
        assert_close(by_prototypes[i], np.asarray(expected[2]), 1e-5)


def _train(mesh, loss, steps, num_classes=300, in_place=None, **changes):
    """The state after a few steps, that before, and the last metrics."""
    config = tiny_config(Path("unused"), mesh=mesh, loss=loss)
    config = dataclasses.replace(config, steps=100, **changes)
    trainer = make_trainer(config, num_classes)
    start = trainer.init()
    before = np.asarray(start.prototypes)
    state, key = start, jax.random.key(3)
    for step in range(steps):
        images, labels = jax.random.split(jax.random.fold_in(key, step))
        shape = (config.batch_size, *config.data.image_size, 3)
        batch = {
            "image": jax.random.randint(images, shape, 0, 256).astype(jnp.uint8),
            "label": jax.random.randint(labels, shape[:1], 0, num_classes),
        }
        if in_place is not None:
            text = str(trainer.step.trace(state, batch).jaxpr)
            assert ("reduce_scatter[" in text) == in_place
        state, metrics = trainer.step(state, batch)
    return before, state, metrics


def training_is_the_same_on_every_mesh():
    expected = _train(MeshConfig(8, 1), LossConfig("arcface"), 3)
    for mesh, block in [(MeshConfig(2, 4), None), (MeshConfig(1, 8), 19), (MeshConfig(8, 1), 19)]:
        _, state, metrics = _train(mesh, LossConfig("arcface", class_block=block), 3)
        assert state.prototypes.sharding.shard_shape((512, 8)) == (512 // mesh.model, 8)
        assert_close(state.prototypes, np.asarray(expected[1].prototypes), 1e-4)
        for name, value in expected[2].items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-3, err_msg=name)


def prototypes_updated_in_place_learn_the_same(case):
    """A few rows at a time: 24 of 64 on 2 × 4 devices, so that the last reach back; 8 on 8 × 1."""
    rows_update.BYTES = 24 * 2 * 8 * 4
    loss, in_place, changes = {
        "clipped": ("arcface", True, {"optimizer": OptimizerConfig(clip_norm=0.01)}),
        "accumulated": ("arcface", True, {"accumulate": 2, "batch_size": 16}),
        "adamw": ("arcface", True, {"optimizer": OptimizerConfig("adamw")}),
        "a term of the prototypes alone": ("sphereface_plus", True, {}),
        "not by rows": ("arcface", False, {"optimizer": OptimizerConfig("lamb")}),
    }[case]
    expected = _train(MeshConfig(8, 1), LossConfig(loss), 2, in_place=False, **changes)
    config = LossConfig(loss, class_block=19)
    mesh = MeshConfig(8, 1) if case == "adamw" else MeshConfig(2, 4)
    _, state, metrics = _train(mesh, config, 2, in_place=in_place, **changes)
    for found, other in zip(
        jax.tree.leaves((state.prototypes, state.opt_state)),
        jax.tree.leaves((expected[1].prototypes, expected[1].opt_state)),
        strict=True,
    ):
        assert_close(found, np.asarray(other), 1e-4)
    for name, value in expected[2].items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-3, err_msg=name)


def a_step_says_the_same_of_its_examples_on_every_mesh():
    """Their cosines, and the nearest other class."""

    def step_once(mesh, block):
        loss = LossConfig("arcface", class_block=block)
        config = tiny_config(Path("unused"), mesh=mesh, loss=loss)
        trainer = make_trainer(config, 300)
        optimizer = make_optimizer(config.optimizer, config.steps)
        step = make_train_step(trainer.graph, trainer.objective, optimizer, per_example=True)
        sharding = jax.tree.map(lambda leaf: leaf.sharding, trainer.like)
        images, labels = jax.random.split(jax.random.key(3))
        shape = (config.batch_size, *config.data.image_size, 3)
        batch = {
            "image": jax.random.randint(images, shape, 0, 256).astype(jnp.uint8),
            "label": jax.random.randint(labels, shape[:1], 0, 300),
        }
        _, metrics = compile_train_step(step, sharding, trainer.mesh)(trainer.init(), batch)
        return {
            name: np.asarray(metrics[name]) for name in ("cosine", "other_cosine", "other_class")
        }

    expected = step_once(MeshConfig(8, 1), None)
    assert len(set(expected["cosine"].tolist())) == len(expected["cosine"])
    for mesh, block in [(MeshConfig(2, 4), None), (MeshConfig(1, 8), 19), (MeshConfig(8, 1), 19)]:
        for name, values in step_once(mesh, block).items():
            np.testing.assert_allclose(values, expected[name], atol=1e-5, err_msg=name)


def unsampled_rows_do_not_move(data, model):
    loss = LossConfig("arcface", class_block=7, sample_rate=0.25)
    before, state, metrics = _train(MeshConfig(data, model), loss, 1)
    has_moved = np.any(np.asarray(state.prototypes) != before, axis=1)
    per_shard = has_moved.reshape(model, -1).sum(axis=1)
    held = np.clip(300 - np.arange(model) * (512 // model), 0, 512 // model)
    np.testing.assert_array_equal(per_shard, np.minimum(held, -(-75 // model)))
    assert np.isfinite(metrics["loss"])


def goes_on_with_a_run(faces, out):
    """A folder's run, from its newest checkpoint to its end."""
    config = folder_config(Path(faces), Path(out))
    mesh = MeshConfig(data=4, model=2, shard_optimizer=True)
    train(dataclasses.replace(config, mesh=mesh), console=quiet())


def clean_decides_alike():
    """Dense, in blocks, and on a mesh, but for examples within 1e-5 of a bar."""
    embeddings, truth = draw_people(40)
    labels = flip(truth, 0.3)
    decided = []
    for options in ({}, {"class_block": 7}, {"mesh": make_mesh(2, 4)}):
        noise = find_noise(embeddings, labels, nearest=functools.partial(nearest, **options))
        gap = noise.own_cosine - noise.other_cosine
        decided.append({f[:4]: f for f in noise.findings})
        near = (abs(gap - noise.gap) < 1e-5) | (abs(noise.own_cosine - noise.lowest) < 1e-5)
        undecided = {*np.flatnonzero(near).tolist()}
        assert len(undecided) < 5
        for finding in decided[0].keys() ^ decided[-1].keys():
            assert undecided.issuperset(finding[3]), (options, finding)
    assert len(decided[0]) > 150
