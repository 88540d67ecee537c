"""The loss of a run: a named loss of the library, its hyper-parameters and its annealed λ."""

from dataclasses import dataclass
from typing import Any

import jax

from sphereface_jax import losses, schedules
from sphereface_jax.training.config import LossConfig


@dataclass(frozen=True)
class Objective:
    """Calls the loss that a config names, with the λ of the step.

    Attributes:
        config: the loss's name and hyper-parameters.
        num_classes: how many rows of the prototypes are classes.
    """

    config: LossConfig
    num_classes: int

    @property
    def is_softmax(self) -> bool:
        """Whether guessing costs ln C."""
        return True

    def annealing_lambda(self, step: jax.typing.ArrayLike) -> jax.Array:
        """Returns λ at a step."""
        config = self.config
        return schedules.annealed_lambda(
            config.lambda_base, config.lambda_gamma, config.lambda_power, config.lambda_minimum
        )(step)

    def init_state(self) -> Any:
        """Returns the state that the loss carries from step to step."""
        return ()

    def loss(
        self,
        embeddings: jax.Array,
        prototypes: jax.Array,
        labels: jax.Array,
        state: Any,
        step: jax.Array,
    ) -> tuple[jax.Array, Any]:
        """Returns the loss of each example, [B], and the loss's next state."""
        value = losses.sphereface_loss(
            embeddings,
            prototypes,
            labels,
            margin=int(self.config.margin or 4),
            annealing_lambda=self.annealing_lambda(step),
            num_classes=self.num_classes,
        )
        return value, state
