"""`--model.remat`: less memory, the same gradients and the same statistics."""

import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from tiny_run import tiny_config

from sphereface_jax.models import MODELS
from sphereface_jax.plan.compiled import abstract_batch
from sphereface_jax.training.trainer import make_trainer

SIZES = {"channels": (8, 8, 8, 8), "embedding_dim": 6, "image_size": (32, 32)}
UNITS = {"spherenet10": 3, "sfnet10_bn": 3, "iresnet18": 8, "mobilefacenet": 15, "vit_s": 12}


def gradient_of(name: str, *, remat: bool) -> tuple[Any, tuple[Any, ...]]:
    """The function of weights, statistics and images, and what to call it with."""
    model = nnx.jit(lambda: MODELS[name](**SIZES, remat=remat, rngs=nnx.Rngs(0)))()
    graph, params, others = nnx.split(model, nnx.Param, ...)

    def loss(params: nnx.State, others: nnx.State, images: jax.Array) -> tuple[jax.Array, Any]:
        network = nnx.merge(graph, params, others, copy=True)
        network.train()
        embeddings = network(images)
        return jnp.mean(embeddings**3), nnx.state(network, nnx.Not(nnx.Param))

    images = jax.random.normal(jax.random.key(0), (4, *SIZES["image_size"], 3))
    return jax.grad(loss, has_aux=True), (params, others, images)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "spherenet10" else pytest.mark.slow) for name in UNITS],
)
def test_gradients_and_statistics_are_the_same(name: str) -> None:
    found = []
    for remat in (False, True):
        gradient, arguments = gradient_of(name, remat=remat)
        traced = jax.jit(gradient).trace(*arguments)
        assert str(traced.jaxpr).count("remat") >= remat * UNITS[name]
        found.append(traced.lower().compile()(*arguments))
    (kept, kept_state), (anew, anew_state) = found
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(kept))
    chex.assert_trees_all_close(anew, kept, rtol=1e-4, atol=1e-5 * largest)
    chex.assert_trees_all_close(anew_state, kept_state, rtol=1e-5)


def test_the_option_reaches_the_step(tmp_path: Path) -> None:
    counts = []
    for remat in (False, True):
        config = tiny_config(tmp_path)
        model = dataclasses.replace(config.model, name="spherenet10", remat=remat)
        trainer = make_trainer(dataclasses.replace(config, model=model), num_classes=6)
        jaxpr = trainer.step.trace(trainer.like, abstract_batch(trainer)).jaxpr
        counts.append(str(jaxpr).count("remat"))
    assert counts[0] == 0
    assert counts[1] >= UNITS["spherenet10"]
