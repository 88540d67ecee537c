"""A batch taken in parts gives the update of the whole; what would not is refused."""

import dataclasses
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import tiny_config

from sphereface_jax import LOSSES
from sphereface_jax.training.config import LossConfig
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.optimizer import make_optimizer
from sphereface_jax.training.partial_fc import choose_classes
from sphereface_jax.training.step import compile_train_step, make_train_step, pop_collapse
from sphereface_jax.training.trainer import make_trainer

CLASSES = 300
LOOK_AT_WHOLE_BATCH = {
    "adaface",
    "curricularface",
    "elastic_arcface_plus",
    "elastic_cosface_plus",
    "sphereface_plus",
}


@pytest.mark.parametrize(
    "loss",
    [
        LossConfig("sphereface", class_block=64),
        LossConfig("magface"),  # a regularizer of each example
        LossConfig("sphereface2"),  # learns a bias
        LossConfig("arcface", sample_rate=0.25),  # samples classes, once for the whole batch
        LossConfig("elastic_arcface"),  # draws a margin for each example, wherever it is
    ],
    ids=lambda loss: loss.name,
)
def test_parts_give_the_update_of_the_whole(tmp_path: Path, loss: LossConfig) -> None:
    config = tiny_config(tmp_path, loss=loss)
    trainer = make_trainer(config, CLASSES)
    sharding = jax.tree.map(lambda leaf: leaf.sharding, trainer.like)
    keys = jax.random.split(jax.random.key(0))
    batch = {
        "image": jax.random.randint(keys[0], (8, 24, 16, 3), 0, 256).astype(jnp.uint8),
        "label": jax.random.randint(keys[1], (8,), 0, CLASSES),
    }

    def updated(accumulate: int):
        step = make_train_step(
            trainer.graph,
            trainer.objective,
            make_optimizer(config.optimizer, config.steps),
            accumulate=accumulate,
            per_example=True,
        )
        chex.clear_trace_counter()
        step = compile_train_step(chex.assert_max_traces(step, n=1), sharding, trainer.mesh)
        return step(step(trainer.init(), batch)[0], batch)

    (expected, metrics), (found, others) = updated(1), updated(4)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)
    for values in (metrics, others):
        pop_collapse(values)  # of a part, not of the batch, where it is taken in parts
    chex.assert_trees_all_close(others, metrics, rtol=1e-4)
    cosine, other = (np.asarray(metrics[name]) for name in ("cosine", "other_cosine"))
    assert metrics["accuracy"] == np.mean(cosine > other)
    np.testing.assert_allclose(
        np.degrees(np.arccos(cosine)).mean(), metrics["target_angle"], rtol=1e-4
    )
    other_class = np.asarray(metrics["other_class"])
    assert np.all((other_class != batch["label"]) & (other_class >= 0) & (other_class < CLASSES))


def test_a_sampled_step_names_the_classes_of_the_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, loss=LossConfig("arcface", sample_rate=0.1))
    trainer = make_trainer(config, CLASSES)
    state = trainer.init()
    labels = jnp.array([5, 299, 5, 17])
    classes = choose_classes(state, labels, trainer.objective)
    numbers = classes.numbers(jnp.arange(classes.num_classes))
    np.testing.assert_array_equal(state.prototypes[numbers], classes.prototypes[: len(numbers)])
    np.testing.assert_array_equal(classes.numbers(classes.labels), labels)
    assert classes.numbers(jnp.array([-1])) == -1


@pytest.mark.parametrize("name", LOSSES)
def test_what_looks_at_the_whole_batch_is_known(name: str) -> None:
    # A small scale keeps the softmax from saturating, where no margin matters.
    small = {"scale": 4.0, "options": {"sigma": "0.2"}} if name.startswith("elastic") else {}
    objective = Objective(LossConfig(name, **small), 4)
    keys = jax.random.split(jax.random.key(1))
    embeddings = 3 * jax.random.normal(keys[0], (8, 5))
    prototypes = jax.random.normal(keys[1], objective.prototypes_shape(5))
    labels = jnp.array([0, 1, 2, 3, 0, 0, 0, 0])
    example_keys = jax.random.split(jax.random.key(2), 8)

    @jax.jit
    def gradient(embeddings: jax.Array, labels: jax.Array, example_keys: jax.Array):
        def mean(prototypes):
            loss, state = objective.loss(
                embeddings,
                prototypes,
                labels,
                objective.init_state(),
                jnp.array(10**6),
                keys=example_keys,
                class_margins=jnp.linspace(0.1, 0.5, 4),
            )
            return loss.mean(), state

        return jax.grad(mean, has_aux=True)(prototypes)

    whole, state = gradient(embeddings, labels, example_keys)
    halves = [
        gradient(embeddings[i : i + 4], labels[i : i + 4], example_keys[i : i + 4])[0]
        for i in (0, 4)
    ]
    gap = np.abs(np.mean(halves, axis=0) - whole).max() / np.abs(whole).max()
    follows = not jax.tree.all(jax.tree.map(jnp.array_equal, state, objective.init_state()))
    assert (gap > 1e-4 or follows) == (name in LOOK_AT_WHOLE_BATCH), gap
    assert objective.row.whole_batch == (name in LOOK_AT_WHOLE_BATCH)


@pytest.mark.parametrize(
    ("loss", "network", "culprit"),
    [
        ("adaface", "spherenet4", "the loss adaface"),
        ("sphereface_plus", "spherenet4", "the loss sphereface_plus"),
        ("sphereface", "sfnet4_bn", "the network sfnet4_bn with its batch normalisation"),
    ],
)
def test_what_looks_at_the_whole_batch_is_refused_by_name(
    tmp_path: Path, loss: str, network: str, culprit: str
) -> None:
    config = tiny_config(tmp_path, loss=LossConfig(loss), accumulate=2)
    model = dataclasses.replace(config.model, name=network)
    config = dataclasses.replace(
        config, model=model, data=dataclasses.replace(config.data, image_size=(112, 112))
    )
    with pytest.raises(ValueError, match=f"got {culprit}, which looks at the batch as a whole"):
        make_trainer(config, 6)
