"""The optimiser: SGD as Caffe runs it, or any of optax, with the authors' multipliers.

Caffe keeps the learning rate inside the velocity,

    h ← μ h + lr · (g + wd · w),    w ← w − h,

which differs from optax.sgd and torch only in the steps after a drop of the rate: the velocity
gathered before it is not scaled down with it. Biases learn at twice the rate and do not decay;
PReLU slopes and prototypes decay like every weight.

References:
  SphereFace's sphereface_solver.prototxt and sphereface_model.prototxt; Caffe's sgd_solver.cpp.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from sphereface_jax import schedules
from sphereface_jax.training.config import OptimizerConfig


def is_bias(params: Any) -> Any:
    """Returns a tree of bools that is true at the biases."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(getattr(key, "key", None) == "bias" for key in path), params
    )


def is_not_bias(params: Any) -> Any:
    """Returns a tree of bools that is true at everything but the biases."""
    return jax.tree.map(lambda bias: not bias, is_bias(params))


def caffe_sgd(
    learning_rate: optax.ScalarOrSchedule, *, momentum: float = 0.9, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """SGD whose velocity holds the learning rate; biases do not decay.

    Args:
      learning_rate: a number, or a function of the step.
      momentum: in [0, 1).
      weight_decay: added to the gradient, times the weight.

    Returns:
      The transformation.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=is_not_bias),
        optax.scale_by_learning_rate(learning_rate),
        optax.trace(momentum),
    )


Maker = Callable[[optax.Schedule, OptimizerConfig], optax.GradientTransformation]


def _decaying(factory: Callable[..., optax.GradientTransformation]) -> Maker:
    return lambda rate, config: factory(rate, weight_decay=config.weight_decay, mask=is_not_bias)


def _plain(factory: Callable[..., optax.GradientTransformation]) -> Maker:
    return lambda rate, config: optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=is_not_bias), factory(rate)
    )


OPTIMIZERS: dict[str, Maker] = {
    "sgd": lambda rate, config: caffe_sgd(
        rate, momentum=config.momentum, weight_decay=config.weight_decay
    ),
    "adam": _plain(optax.adam),
    "adamw": _decaying(optax.adamw),
    "adabelief": _plain(optax.adabelief),
    "lamb": _decaying(optax.lamb),
    "lars": lambda rate, config: optax.lars(
        rate,
        weight_decay=config.weight_decay,
        weight_decay_mask=is_not_bias,
        trust_ratio_mask=is_not_bias,
        momentum=config.momentum,
    ),
    "lion": _decaying(optax.lion),
    "rmsprop": _plain(optax.rmsprop),
}
"""Every optimiser by the name that `--optimizer.name` takes."""


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step.

    Args:
      config: of the optimiser.
      steps: of the run, where a cosine ends.

    Returns:
      The function, from updates done to the rate.
    """
    rate, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        return schedules.cosine_decay(rate, steps, warmup_steps=warmup)
    milestones = config.milestones if config.schedule == "step" else ()
    return schedules.step_decay(rate, steps, boundaries=milestones, warmup_steps=warmup)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The transformation for the network's weights, or for the prototypes.

    Args:
      config: of the optimiser.
      steps: of the run.

    Returns:
      The transformation; biases learn at twice the rate, as in Caffe.

    Raises:
      ValueError: there is no optimiser of that name.
    """
    if config.name not in OPTIMIZERS:
        raise ValueError(
            f"optimizer.name: expected one of {', '.join(OPTIMIZERS)}, got {config.name!r}"
        )
    rate = make_schedule(config, steps)
    twice_on_biases = optax.masked(optax.scale(2.0), is_bias)
    return optax.chain(OPTIMIZERS[config.name](rate, config), twice_on_biases)
