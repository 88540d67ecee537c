"""The optimiser: SGD as Caffe runs it, or any of optax, with the authors' multipliers.

Caffe keeps the learning rate inside the velocity,

    h ← μ h + lr · (g + wd · w),    w ← w − h,

which differs from optax.sgd and torch only in the steps after a drop of the rate: the velocity
gathered before it is not scaled down with it. Biases learn at twice the rate and do not decay;
PReLU slopes and prototypes decay like every weight. `FineTuning` says what an update leaves alone.

References:
  SphereFace's sphereface_solver.prototxt and sphereface_model.prototxt; Caffe's sgd_solver.cpp.
"""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
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


@dataclass(frozen=True)
class FineTuning:
    """What an update leaves alone.

    Attributes:
      frozen: shell patterns of the network's weights that stay as they are, with the statistics of
        their normalisations; `stages.0.*` or `*`.
      head_rate: the prototypes' learning rate, and that of what else the loss learns, as a multiple
        of the network's.
      head_first: steps at the start in which the network stays as it is and the head alone learns.
    """

    frozen: tuple[str, ...] = ()
    head_rate: float = 1.0
    head_first: int = 0

    def check(self, params: Any) -> None:
        """Refuses a pattern that matches no weight, which would silently freeze nothing.

        Args:
          params: the network's weights, possibly abstract.

        Raises:
          ValueError: naming the pattern and some of the names.
        """
        names = jax.tree.leaves(_names(params))
        for pattern in self.frozen:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"freeze: expected a pattern of the network's weights, such as "
                    f"{', '.join(names[:3])}, got {pattern!r}, which matches none of them"
                )

    def is_frozen(self, tree: Any) -> Any:
        """A tree of bools: the weights, or statistics, that stay as they are."""
        return jax.tree.map(
            lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in self.frozen),
            _names(tree),
        )

    def hold(self, params: Any) -> Any:
        """Cuts the gradient of what is frozen, so that none is computed below it."""
        if not self.frozen:
            return params
        return jax.tree.map(
            lambda leaf, frozen: jax.lax.stop_gradient(leaf) if frozen else leaf,
            params,
            self.is_frozen(params),
        )

    def keep(self, new: Any, old: Any) -> Any:
        """Keeps what is frozen as it was.

        Args:
          new: a tree of the network.
          old: the same before.

        Returns:
          `new`, and `old` where the name is frozen.
        """
        if not self.frozen:
            return new
        return jax.tree.map(
            lambda after, before, frozen: before if frozen else after,
            new,
            old,
            self.is_frozen(new),
        )

    def limit(
        self, part: str, step: jax.Array, updates: Any, opt_state: Any, before: Any
    ) -> tuple[Any, Any]:
        """What is left of an update, and of the optimiser's state after it.

        While the head learns alone, what the optimiser gathers for the network stays as it was;
        its counts go on, for the learning rate follows the run's step.

        Args:
          part: "params" for the network, or what else is trained.
          step: int32 [], updates done.
          updates: of the part.
          opt_state: after this step.
          before: the optimiser's state before it.

        Returns:
          The update, and the optimiser's state.
        """
        if part != "params":
            return jax.tree.map(lambda u: u * self.head_rate, updates), opt_state
        if self.frozen:
            frozen = self.is_frozen(updates)
            updates = jax.tree.map(lambda u, f: jnp.zeros_like(u) if f else u, updates, frozen)
        if self.head_first:
            waits = step < self.head_first
            updates = jax.tree.map(lambda u: jnp.where(waits, 0, u), updates)
            opt_state = jax.tree.map(
                lambda after, was: jnp.where(waits, was, after) if jnp.ndim(after) else after,
                opt_state,
                before,
            )
        return updates, opt_state


def _names(tree: Any) -> Any:
    """The names of a network's weights or statistics, `stages.0.conv.kernel`, as a tree."""

    def name(path: tuple[Any, ...], _: Any) -> str:
        keys = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        return ".".join(key for key in keys if key != "value")

    return jax.tree_util.tree_map_with_path(name, tree)
