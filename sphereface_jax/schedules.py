"""What changes with the step: λ and the learning rate, as pure functions of the step.

A schedule is a callable `step -> value`, which is what optax calls a schedule too. It owns no
counter, so a run that resumes at a step resumes with that step's value.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


def annealed_lambda(
    base: float = 1000.0, gamma: float = 0.12, power: float = 1.0, minimum: float = 5.0
) -> Schedule:
    """The λ of A-Softmax, which mixes the plain logit into the target's until it has fallen.

    λ(step) = max(minimum, base · (1 + gamma · (step + 1))^−power). The authors' layer counts
    before it computes, so step 0 has iteration 1: 892.857 with the defaults.

    Args:
      base: λ before the first step.
      gamma: how quickly it falls.
      power: exponent of the fall.
      minimum: its floor.

    Returns:
      A schedule step -> λ.

    Example:
      >>> from sphereface_jax import annealed_lambda
      >>> schedule = annealed_lambda()
      >>> [round(float(schedule(step)), 3) for step in (0, 99, 1_658)]
      [892.857, 76.923, 5.0]

    References:
      wy1iu/sphereface, train/code/sphereface_model.prototxt (MarginInnerProduct layer).
    """

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        iteration = jnp.asarray(step, jnp.float32) + 1
        return jnp.maximum(base * (1 + gamma * iteration) ** -power, minimum)

    return schedule


def _with_warmup(schedule: Schedule, warmup_steps: int) -> Schedule:
    """Multiplies a schedule by a ramp that reaches 1 at the last of its warm-up steps."""
    if warmup_steps == 0:
        return schedule

    def warmed(step: jax.typing.ArrayLike) -> jax.Array:
        ramp = (jnp.asarray(step, jnp.float32) + 1) / warmup_steps
        return schedule(step) * jnp.minimum(ramp, 1)

    return warmed


def step_decay(
    value: float,
    total_steps: int,
    boundaries: Sequence[float] = (4 / 7, 6 / 7),
    factor: float = 0.1,
    warmup_steps: int = 0,
) -> Schedule:
    """Multiplies a value by a factor at each boundary; the authors' at 16k and 24k of 28k steps.

    Args:
      value: the value at the start.
      total_steps: length of the run in steps.
      boundaries: from where on the value is multiplied once more: fractions of the run below 1, or
        steps from 1.
      factor: what it is multiplied by.
      warmup_steps: steps over which the value rises linearly at the start.

    Returns:
      A schedule step -> value.

    Example:
      >>> from sphereface_jax import step_decay
      >>> schedule = step_decay(0.1, 28_000)
      >>> [round(float(schedule(step)), 4) for step in (0, 15_999, 16_000, 24_000)]
      [0.1, 0.1, 0.01, 0.001]
      >>> in_steps = step_decay(0.1, 28_000, boundaries=(16_000, 24_000))
      >>> bool(in_steps(20_000) == schedule(20_000))
      True
    """
    steps = jnp.asarray([round(at * total_steps) if at < 1 else at for at in boundaries])

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        passed = jnp.sum(jnp.asarray(step) >= steps)
        return jnp.asarray(value, jnp.float32) * jnp.float32(factor) ** passed

    return _with_warmup(schedule, warmup_steps)


def cosine_decay(
    value: float, total_steps: int, final: float = 0.0, warmup_steps: int = 0
) -> Schedule:
    """Half a cosine from a value down to its final value over the run.

    Args:
      value: the value at the start.
      total_steps: length of the run in steps.
      final: the value at the end.
      warmup_steps: steps over which the value rises linearly at the start.

    Returns:
      A schedule step -> value.

    References:
      Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017.
    """

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        share = jnp.clip(jnp.asarray(step, jnp.float32) / total_steps, 0, 1)
        return final + (value - final) * (1 + jnp.cos(math.pi * share)) / 2

    return _with_warmup(schedule, warmup_steps)
