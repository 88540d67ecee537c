"""λ and the learning rate, as the authors' solver and layer have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sphereface_jax import annealed_lambda, cosine_decay, step_decay


def test_annealed_lambda_is_the_authors():
    schedule = annealed_lambda()
    # facts.md 2.2 counts iterations from 1, steps count from 0.
    iterations = np.array([1, 100, 500, 1000, 1659, 2000])
    np.testing.assert_allclose(
        [schedule(step) for step in iterations - 1],
        [892.857, 76.923, 16.393, 8.264, 5.0, 5.0],
        rtol=1e-4,
    )
    assert schedule(1656) > 5


def test_annealed_lambda_takes_the_other_implementations_constants():
    schedule = annealed_lambda(base=1500.0, gamma=0.1, power=1.0)
    np.testing.assert_allclose([schedule(99), schedule(999)], [136.36, 14.85], rtol=1e-3)
    np.testing.assert_allclose(annealed_lambda(power=2.0)(9), 1000 / 2.2**2, rtol=1e-6)
    assert annealed_lambda(minimum=0.0)(10**6) < 0.01


def test_step_decay_drops_at_16k_and_24k_of_28k():
    schedule = step_decay(0.1, 28_000)
    steps = [0, 15_999, 16_000, 23_999, 24_000, 27_999]
    expected = [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    np.testing.assert_allclose([schedule(step) for step in steps], expected, rtol=1e-6)


def test_step_decay_takes_boundaries_and_factor():
    schedule = step_decay(2.0, 100, boundaries=(0.5,), factor=0.5)
    assert [float(schedule(step)) for step in (49, 50, 99)] == [2, 1, 1]
    assert float(step_decay(2.0, 100, boundaries=())(99)) == 2


def test_cosine_decay_falls_to_its_final_value_and_stays():
    schedule = cosine_decay(1.0, 100, final=0.1)
    values = np.array([schedule(step) for step in range(102)])
    np.testing.assert_allclose(values[[0, 50, 100, 101]], [1, 0.55, 0.1, 0.1], rtol=1e-6)
    assert np.all(np.diff(values[:101]) < 0)


@pytest.mark.parametrize("decay", [step_decay, cosine_decay])
def test_warm_up_is_a_line_that_ends_at_the_schedule(decay):
    plain, warmed = decay(0.1, 1000), decay(0.1, 1000, warmup_steps=10)
    expected = [float(plain(step)) * min((step + 1) / 10, 1) for step in (0, 4, 9, 10, 999)]
    np.testing.assert_allclose(
        [warmed(step) for step in (0, 4, 9, 10, 999)], expected, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(
    "schedule", [annealed_lambda(), step_decay(0.1, 100, warmup_steps=3), cosine_decay(0.1, 100)]
)
def test_a_schedule_is_the_same_under_jit(schedule):
    for step in (0, 57, 99):
        np.testing.assert_allclose(jax.jit(schedule)(jnp.int32(step)), schedule(step), rtol=1e-6)
        assert schedule(step).dtype == jnp.float32
