"""The optimiser is Caffe's: velocity with the rate inside, biases twice as fast and undecayed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sphereface_jax.training.config import OptimizerConfig
from sphereface_jax.training.optimizer import OPTIMIZERS, make_optimizer, make_schedule


def run(tx: optax.GradientTransformation, params, grads):
    state = tx.init(params)
    for gradient in grads:
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_sgd_is_caffes_across_a_drop_of_the_rate() -> None:
    config = OptimizerConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.01, milestones=(0.5,))
    params = {"conv": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}}
    rng = np.random.default_rng(0)
    grads = [
        {
            "conv": {
                "kernel": jnp.asarray(rng.normal(size=2)),
                "bias": jnp.asarray(rng.normal(size=1)),
            }
        }
        for _ in range(6)
    ]
    got = run(make_optimizer(config, steps=6), params, grads)
    for name, multiplier, decay in (("kernel", 1, 0.01), ("bias", 2, 0.0)):
        weight, velocity = np.asarray(params["conv"][name], np.float64), 0.0
        for step, gradient in enumerate(grads):
            rate = multiplier * (0.1 if step < 3 else 0.01)
            gradient = np.asarray(gradient["conv"][name], np.float64) + decay * weight
            velocity = 0.9 * velocity + rate * gradient
            weight = weight - velocity
        np.testing.assert_allclose(got["conv"][name], weight, rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_quadratic(name: str) -> None:
    config = OptimizerConfig(name=name, learning_rate=0.02, schedule="constant")
    tx = make_optimizer(config, steps=40)
    params = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}

    def loss(params):
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state, start = tx.init(params), loss(params)
    for _ in range(40):
        params, state = step(params, state)
    assert loss(params) < 0.9 * start


def test_schedules() -> None:
    step = make_schedule(OptimizerConfig(), steps=28_000)
    values = [float(step(at)) for at in (0, 15_999, 16_000, 23_999, 24_000)]
    np.testing.assert_allclose(values, [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-6)
    warm = make_schedule(OptimizerConfig(schedule="constant", warmup_steps=4), steps=100)
    np.testing.assert_allclose([float(warm(at)) for at in range(5)], [0.025, 0.05, 0.075, 0.1, 0.1])
    cosine = make_schedule(OptimizerConfig(schedule="cosine"), steps=100)
    assert float(cosine(50)) == pytest.approx(0.05)


def test_unknown_optimizer_is_named() -> None:
    with pytest.raises(ValueError, match=r"optimizer.name: expected one of .*, got 'sdg'"):
        make_optimizer(OptimizerConfig(name="sdg"), steps=1)
