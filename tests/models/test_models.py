"""Every backbone: its counts, and batch normalisation that spans the batch and is checkpointed."""

import dataclasses
import io
import math
import re
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import marked
from rich.console import Console
from tiny_run import as_flags, tiny_config

from sphereface_jax import models
from sphereface_jax.models import MODELS, abstract_model
from sphereface_jax.models.layers import BatchNorm, Constant
from sphereface_jax.training.checkpoint import Checkpoints
from sphereface_jax.training.config import OptimizerConfig, TrainConfig
from sphereface_jax.training.loop import train
from sphereface_jax.training.run_folder import load_run
from sphereface_jax.training.trainer import make_trainer

TINY = {"channels": (2, 4, 4, 8), "embedding_dim": 6, "image_size": (20, 16)}


def documented() -> dict[str, tuple[int, float]]:
    """Weights and GMACs of each network, as the module's docstring has them."""
    rows = re.findall(r"^ +(\w+) +([\d,]+) +([\d.]+) G", models.__doc__, re.M)
    return {name: (int(count.replace(",", "")), float(macs)) for name, count, macs in rows}


def multiply_accumulates(jaxpr: jax.extend.core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        out = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features = equation.params["dimension_numbers"].rhs_spec[0]
            total += out * math.prod(kernel) // kernel[features]
        elif equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            total += out * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        for value in equation.params.values():
            # Of the branches for one platform or another, the one that convolves.
            branches = [
                getattr(b, "jaxpr", b) for b in (value if type(value) is tuple else [value])
            ]
            counts = [multiply_accumulates(b) for b in branches if hasattr(b, "eqns")]
            total += max(counts, default=0)
    return total


DEEPEST = ("iresnet100", "ir101", "mobilefacenet_large", "vit_s", "vit_b")


@pytest.mark.parametrize("name", marked(MODELS, slow=DEEPEST, parity_full=["iresnet200"]))
def test_counts_are_those_documented(name: str) -> None:
    size = (112, 96) if name.startswith("sphere") else (112, 112)
    model = abstract_model(name, image_size=size)
    model.eval()
    graph, state = nnx.split(model)
    jaxpr = jax.make_jaxpr(lambda state, images: nnx.merge(graph, state)(images))(
        state, jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    )
    weights = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    macs = round(multiply_accumulates(jaxpr.jaxpr) / 1e9, 2)
    assert (weights, macs) == documented()[name]


def test_an_abstract_model_is_a_new_one_each_time() -> None:
    options = {"image_size": (32, 32), "channels": (4, 4, 8, 8)}
    first = abstract_model("sfnet4_bn", **options)
    first.embedding.kernel.set_value(jnp.zeros(first.embedding.kernel.shape))
    second = nnx.state(abstract_model("sfnet4_bn", **options))
    made = nnx.state(MODELS["sfnet4_bn"](**options, rngs=nnx.Rngs(0)))
    assert {type(leaf) for leaf in jax.tree.leaves(second)} == {jax.ShapeDtypeStruct}
    chex.assert_trees_all_equal_shapes_and_dtypes(second, made)


@pytest.mark.parametrize("name", ["sfnet10_bn", "sfnet10_deprecated", "iresnet18", "mobilefacenet"])
def test_bfloat16_keeps_embeddings_and_statistics_float32(name: str) -> None:
    def build() -> nnx.Module:
        return MODELS[name](**TINY, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))

    def apply(model: nnx.Module, images: jax.Array) -> tuple[jax.Array, nnx.State]:
        model.train()
        return model(images), nnx.state(model)

    images = jax.ShapeDtypeStruct((3, *TINY["image_size"], 3), jnp.float32)
    model = nnx.eval_shape(build)
    embeddings, state = nnx.eval_shape(apply, model, images)
    chex.assert_shape(embeddings, (3, 6))
    assert {leaf.dtype for leaf in jax.tree.leaves((embeddings, state))} == {jnp.dtype("float32")}


def test_batch_norm_trains_on_the_batch_and_evaluates_on_what_it_gathered() -> None:
    norm = BatchNorm(2, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (64, 2)) * 3 + 5
    norm.train()
    y = np.asarray(norm(x))
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(norm.mean[...], 0.1 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * x.var(axis=0), rtol=1e-5)
    norm.eval()
    gathered = (x - norm.mean[...]) / np.sqrt(norm.var[...] + 1e-5)
    np.testing.assert_allclose(norm(x), gathered, rtol=1e-5)


def test_a_constant_scale_is_no_parameter() -> None:
    norm = BatchNorm(2, train_scale=False, dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert [path for path, _ in nnx.to_flat_state(nnx.state(norm, nnx.Param))] == [("bias",)]
    assert [path for path, _ in nnx.to_flat_state(nnx.state(norm, Constant))] == [("scale",)]


def normalized_config(out: Path, **changes) -> TrainConfig:
    config = tiny_config(out, optimizer=OptimizerConfig(learning_rate=0.01), **changes)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, name="sfnet4_bn"))


def test_statistics_are_gathered_checkpointed_and_resumed(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    config = normalized_config(tmp_path / "run", steps=6)
    train(config, console=console)
    saved = load_run(config.out)
    trainer = make_trainer(config, saved.num_classes)
    start = trainer.init().model_state
    moved = jax.tree.map(lambda new, old: not np.array_equal(new, old), saved.model_state, start)
    assert len(jax.tree.leaves(moved)) == 10
    assert all(jax.tree.leaves(moved))
    with Checkpoints(config.out / "checkpoints") as checkpoints:
        resumed = checkpoints.restore(trainer.like)
    chex.assert_trees_all_equal(resumed.model_state, saved.model_state)


PROGRAM = """
import io, json, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
sys.argv = ["sphereface", *sys.argv[2:]]
from sphereface_jax.cli import main
main()
"""


@pytest.mark.slow
def test_statistics_span_the_batch_over_two_devices(tmp_path: Path) -> None:
    runs = []
    for devices in (1, 2):
        config = normalized_config(tmp_path / str(devices), steps=2)
        command = [sys.executable, "-c", PROGRAM, str(devices), "train", *as_flags(config)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        runs.append(load_run(config.out))
    alone, sharded = runs
    assert len(jax.tree.leaves(alone.model_state)) == 10
    chex.assert_trees_all_close(alone.model_state, sharded.model_state, rtol=1e-4, atol=1e-5)
